"""Compares what clients were answered with what is there: exactly once, nothing lost, nothing that was refused.

Pure: records and pictures in, findings out. What it relies on of the load:

- A flag of a message is changed by one client only, one change after the other; the same holds for where it lies.
- After a change of place whose outcome is unknown, nobody moves or expunges that message again.
- Nothing copies a message, and no mailbox is deleted.

An unknown change may take effect at any time, also after later ones that were answered (a node that was paused proposes
again): so it never stops being possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.records import Arrived, Kept, Outcome, Picture, Recorder

__all__ = ["Violation", "check", "missing", "report"]

GONE: Final = None
"""Where a message lies that was expunged, or never came."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was broken."""

    code: str
    """``lost``, ``double``, ``refused-appeared``, ``unasked``, ``misplaced``, ``flag``, ``octets``, ``uid-reused``,
    ``uid-order``, ``validity``, ``live-vanished``, ``defect``."""
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def check(recorder: Recorder, pictures: Iterable[Picture]) -> list[Violation]:
    """Every broken promise; none: an empty list."""
    by_account = {picture.account: picture for picture in pictures}
    found = [Violation("defect", text) for text in recorder.defects]
    found += _messages(recorder, by_account)
    found += _uids(recorder, by_account)
    found += _sessions(recorder)
    found += _order(recorder)
    found += _live(recorder, by_account)
    return found


def missing(recorder: Recorder, pictures: Iterable[Picture]) -> set[tuple[str, str]]:
    """(account, token) that were answered, may not be gone, and are not there (yet: the queue may hold them)."""
    there = {(picture.account, kept.token) for picture in pictures for kept in picture.messages}
    places = _places(recorder)
    return {where for where, possible in places.items() if GONE not in possible and where not in there}


def report(violations: Sequence[Violation], most: int = 40) -> str:
    """For an assertion's message."""
    lines = [str(each) for each in violations[:most]]
    if len(violations) > most:
        lines.append(f"… and {len(violations) - most} more")
    return "\n".join(lines)


Place = tuple[str, str]
"""An account and a token."""


def _places(recorder: Recorder) -> dict[Place, set[str | None]]:
    """In which mailboxes each message may be."""
    possible: dict[Place, set[str | None]] = {}
    for arrived in recorder.arrived:
        match arrived.outcome:
            case Outcome.ANSWERED:
                at: set[str | None] = {arrived.mailbox}
            case Outcome.REFUSED:
                at = {GONE}
            case _:
                at = {arrived.mailbox, GONE}
        possible[arrived.account, arrived.token] = at
    for moved in recorder.moved:
        at = possible.setdefault((moved.account, moved.token), {GONE})
        if moved.outcome is Outcome.ANSWERED and moved.reported:
            at.clear()
            at.add(moved.to)
        elif moved.outcome is not Outcome.REFUSED:
            at.add(moved.to)  # also OK for nothing: something else is wrong then, and is found at its place
    return possible


def _flags(recorder: Recorder) -> dict[tuple[str, str, str], set[bool]]:
    """What each flag of each message may be, for the flags that somebody changed."""
    mobile = {(moved.account, moved.token) for moved in recorder.moved}
    last: dict[tuple[str, str, str], bool] = {}
    late: dict[tuple[str, str, str], set[bool]] = defaultdict(set)
    for stored in recorder.stored:
        key = (stored.account, stored.token, stored.flag)
        last.setdefault(key, False)
        if stored.outcome is Outcome.UNKNOWN:
            late[key].add(stored.on)
        elif stored.outcome is Outcome.ANSWERED:
            if stored.reported or key[:2] not in mobile:
                last[key] = stored.on
            else:
                late[key].add(stored.on)  # it was on its way elsewhere
    return {key: {value} | late[key] for key, value in last.items()}


def _messages(recorder: Recorder, pictures: dict[str, Picture]) -> list[Violation]:
    """Each message: how often, where, with which octets and flags."""
    found: list[Violation] = []
    there: dict[Place, list[Kept]] = defaultdict(list)
    for account, picture in pictures.items():
        for kept in picture.messages:
            there[account, kept.token].append(kept)
    arrived = {(each.account, each.token): each for each in recorder.arrived}
    for place, possible in _places(recorder).items():
        if place[0] in pictures:
            found += _copies(place, possible, there.get(place, []), arrived.get(place))
    for place in there.keys() - arrived.keys():
        found.append(Violation("unasked", f"{place[1]!r} is in {place[0]}, and nobody sent it there"))
    for (account, token, flag), values in _flags(recorder).items():
        for kept in there.get((account, token), []):
            if (flag in kept.flags) not in values:
                found.append(
                    Violation("flag", f"{token} in {account}: {flag} is {flag in kept.flags}, which nobody was answered last")
                )
    return found


def _copies(place: Place, possible: set[str | None], copies: list[Kept], arrived: Arrived | None) -> list[Violation]:
    account, token = place
    found = []
    where = [f"{kept.mailbox} UID {kept.uid}" for kept in copies]
    if len(copies) > 1:
        found.append(Violation("double", f"{token} is in {account} as {', '.join(where)}"))
    if not copies and GONE not in possible:
        said = f"answered {arrived.reply!r} by {arrived.node} at {arrived.ended:.2f}" if arrived else "answered"
        found.append(Violation("lost", f"{token} for {account}, {said}, is not there"))
    for kept in copies:
        if arrived is not None and arrived.outcome is Outcome.REFUSED:
            found.append(
                Violation("refused-appeared", f"{token} for {account} was refused ({arrived.reply!r}), and is in {kept.mailbox}")
            )
        elif kept.mailbox not in possible:
            expected = " or ".join(str(each) for each in possible)
            found.append(Violation("misplaced", f"{token} is in {account} {kept.mailbox}, and should be in {expected}"))
        if arrived is not None and kept.digest and kept.digest != arrived.digest:
            found.append(Violation("octets", f"{token} in {account} has other octets than were sent"))
    return found


def _named(recorder: Recorder, pictures: dict[str, Picture]) -> Iterable[tuple[tuple[str, str, int, int], str, str]]:
    """Every (mailbox with its validity, UID) that was ever said to be a message, that message, and who said it."""
    for shown in recorder.shown:
        yield (shown.account, shown.mailbox, shown.validity, shown.uid), shown.token, f"session {shown.session}"
    for arrived in recorder.arrived:
        if arrived.uid:
            yield (arrived.account, arrived.mailbox, arrived.validity, arrived.uid), arrived.token, "APPENDUID"
    for moved in recorder.moved:
        if moved.uid and moved.to is not None:
            yield (moved.account, moved.to, moved.validity, moved.uid), moved.token, "COPYUID"
    for account, picture in pictures.items():
        for kept in picture.messages:
            yield (account, kept.mailbox, kept.validity, kept.uid), kept.token, "the end"


def _uids(recorder: Recorder, pictures: dict[str, Picture]) -> list[Violation]:
    """A UID is one message for ever, whoever says so; a mailbox keeps its UIDVALIDITY."""
    found = []
    tokens: dict[tuple[str, str, int, int], tuple[str, str]] = {}
    validities: dict[tuple[str, str], int] = {}
    for slot, token, who in _named(recorder, pictures):
        account, mailbox, validity, uid = slot
        if validities.setdefault((account, mailbox), validity) != validity:
            found.append(Violation("validity", f"{account} {mailbox} had {validities[account, mailbox]}, then {validity} ({who})"))
        first, before = tokens.setdefault(slot, (token, who))
        if first != token:
            found.append(
                Violation("uid-reused", f"{account} {mailbox} UID {uid} was {first} for {before}, and is {token} for {who}")
            )
    return found


def _sessions(recorder: Recorder) -> list[Violation]:
    """What one session is shown has ascending UIDs, and what vanished does not come again."""
    found = []
    highest: dict[tuple[str, str, int], int] = {}
    gone: dict[tuple[str, str, int], dict[int, float]] = defaultdict(dict)
    for vanished in recorder.vanished:
        gone[vanished.session, vanished.mailbox, vanished.validity].setdefault(vanished.uid, vanished.at)
    for shown in recorder.shown:
        key = (shown.session, shown.mailbox, shown.validity)
        if shown.uid <= highest.get(key, 0):
            found.append(
                Violation("uid-order", f"session {shown.session} was shown UID {shown.uid} in {shown.mailbox} after {highest[key]}")
            )
        highest[key] = max(highest.get(key, 0), shown.uid)
        if shown.at > gone[key].get(shown.uid, shown.at):
            found.append(Violation("uid-order", f"session {shown.session}: UID {shown.uid} of {shown.mailbox} came again"))
    return found


def _order(recorder: Recorder) -> list[Violation]:
    """A UID that was answered before another operation began is below that one's (both in the same mailbox)."""
    spans: dict[tuple[str, str, int], list[tuple[float, float, int]]] = defaultdict(list)
    for arrived in recorder.arrived:
        if arrived.uid:
            spans[arrived.account, arrived.mailbox, arrived.validity].append((arrived.began, arrived.ended, arrived.uid))
    for moved in recorder.moved:
        if moved.uid and moved.to is not None:
            spans[moved.account, moved.to, moved.validity].append((moved.began, moved.ended, moved.uid))
    found = []
    for (account, mailbox, _), those in spans.items():
        by_end = sorted(those, key=lambda span: span[1])
        ended, highest = 0, 0
        for began, _, uid in sorted(those):
            while ended < len(by_end) and by_end[ended][1] < began:
                highest = max(highest, by_end[ended][2])
                ended += 1
            if uid < highest:
                found.append(Violation("uid-order", f"{account} {mailbox}: UID {uid} was given after {highest} was answered"))
    return found


def _live(recorder: Recorder, pictures: dict[str, Picture]) -> list[Violation]:
    """Nobody is told that a message vanished which is still there under that UID."""
    alive = {
        (account, kept.mailbox, kept.validity, kept.uid): kept.token
        for account, picture in pictures.items()
        for kept in picture.messages
    }
    return [
        Violation("live-vanished", f"session {each.session} was told that UID {each.uid} of {each.mailbox} vanished: {token} is there")
        for each in recorder.vanished
        if (token := alive.get((each.account, each.mailbox, each.validity, each.uid)))
    ]


