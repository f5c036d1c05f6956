"""Early talkers: who speaks before the greeting does not speak SMTP (RFC 5321 section 4.3.1: a client waits for it).

The greeting waits until all filters have been asked about the connection, so this one holds it back; the session notes in
`Client.early` whether the peer waited too. What comes of it is said at HELO: the peer hears a reply to something it has said.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.task import deferLater

from twisted_mail.filters.peers import is_ours
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Client, Verdict

__all__ = ["EarlyTalkers", "points_from"]

_ANSWER: Final = Answer(554, "5.5.1", "You spoke before the greeting (RFC 5321 section 4.3.1)")


def points_from(value: Any) -> float | None:
    """Points as the configuration has them; None for "reject". Raises: ValueError."""
    if value == "reject":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1000:
        raise ValueError(f'{value!r} is neither a number of points from 0 to 1000 nor "reject"')
    return float(value)


class EarlyTalkers:
    """A `Stage`, asked at connect and HELO."""

    name = "early_talkers"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(self, clock: Any, *, points: float | None = 3.0, greeting_seconds: float = 1.0) -> None:
        """*clock*: IReactorTime. *points* of spam for an early talker; None: it is refused. The greeting is held back for
        *greeting_seconds*; with 0 only who is quicker than a round trip is found out."""
        self._clock = clock
        self._points = points
        self._seconds = greeting_seconds

    async def connect(self, client: Client) -> Verdict:
        """Hold the greeting back; not where it is a user who is waiting."""
        if self._seconds > 0 and not is_ours(client):
            await deferLater(self._clock, self._seconds)
        return ACCEPTED

    async def helo(self, client: Client) -> Verdict:
        if not client.early or is_ours(client):
            return ACCEPTED
        reason = "The peer spoke before it was greeted"
        if self._points is None:
            return Verdict(action=Action.REJECT, reason=reason, answer=_ANSWER)
        return Verdict(reason=reason, score=self._points)
