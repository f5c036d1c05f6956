"""Early talkers: who speaks before the greeting does not speak SMTP (RFC 5321 section 4.3.1: a client waits for it).

The session holds the greeting back for `EarlyTalkers.greeting_seconds` and notes in `Client.early` whether the peer waited.
What comes of it is said at HELO, so that the peer hears a reply to something it has asked.
"""

from __future__ import annotations

from typing import Final

from twisted_mail.filters.peers import is_ours
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Client, Verdict

__all__ = ["EarlyTalkers"]

_ANSWER: Final = Answer(554, "5.5.1", "You spoke before the greeting (RFC 5321 section 4.3.1)")


class EarlyTalkers:
    """A `Stage`, asked at HELO."""

    name = "early_talkers"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(self, *, points: float | None = 3.0, greeting_seconds: float = 0.0) -> None:
        """*points* of spam for an early talker; None: it is refused."""
        self._points = points
        self.greeting_seconds = greeting_seconds
        """How long the greeting is held back; 0: only who is quicker than a round trip is found out."""

    async def helo(self, client: Client) -> Verdict:
        if not client.early or is_ours(client):
            return ACCEPTED
        reason = "The peer spoke before it was greeted"
        if self._points is None:
            return Verdict(action=Action.REJECT, reason=reason, answer=_ANSWER)
        return Verdict(reason=reason, score=self._points)
