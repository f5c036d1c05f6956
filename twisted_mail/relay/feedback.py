"""What comes back: bounces to VERP addresses, and reports of complaints. Counted by day, and the address is suppressed.

Anybody can write a bounce or a complaint, so only what carries proof has consequences for an address: a reverse-path of
ours (`rewriting.VERP`), or the token of our List-Unsubscribe field in the header that came back. Everything else is
counted and no more.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.logger import Logger

from twisted_mail.mime import first_value
from twisted_mail.relay.rewriting import VERP, BadPath, Bounced
from twisted_mail.reports.feedback import read_feedback_report
from twisted_mail.reports.reading import Opened, guess_status, open_report, read_delivery_report
from twisted_mail.reports.values import Action, FeedbackReport, NotAReport, RecipientStatus
from twisted_mail.storage.interfaces import Allowances

__all__ = ["Complained", "DailyCounts", "Feedback", "Heard", "Known", "Suppress", "What"]

_ANY_NUMBER: Final = 1 << 31
_LINK: Final = re.compile(rb"<https?://[^<>\s?]*?(?:[/?=])([A-Za-z0-9_-]{16,1000})>")
_SENDERS: Final = re.compile(r"(?:mailer-daemon|postmaster|mail-daemon|mdaemon)\b", re.IGNORECASE)


class What(enum.Enum):
    """What a message to one of these addresses was."""

    BOUNCE = "bounce"
    """It failed for good."""
    DELAY = "delay"
    """It failed for now, or is still tried."""
    SUCCESS = "success"
    COMPLAINT = "complaint"
    ANSWER = "answer"
    """Of a person or a vacation program."""
    UNREADABLE = "unreadable"
    FORGED = "forged"
    """It has no proof, or a wrong or old one."""


@dataclass(frozen=True, slots=True)
class Known:
    """Whose message it is about, proved."""

    domain: str
    """The sender's."""
    recipient: str
    stream: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of a message."""

    what: What
    known: Known | None = None
    said: str = ""
    """What the other server said, code first."""
    suppressed: float | None = None
    """For so many seconds; None: not."""


class Suppress(Protocol):
    """`suppression.Suppressions.add`."""

    def __call__(
        self, sender_domain: str, address: str, reason: str, source: str, ttl: float | None, stream: str = ""
    ) -> Awaitable[object]: ...


Complained = Callable[[str, str], None]
"""Hears of a complaint about mail from a source address (which may be unknown, and then is empty) to a recipient."""


class DailyCounts:
    """Counts by name and day over all nodes, in `Allowances`."""

    def __init__(self, allowances: Allowances, wall: Callable[[], float] = time.time) -> None:
        self._allowances = allowances
        self._wall = wall

    async def add(self, what: What, tag: str) -> None:
        """One more today. Raises: StorageError."""
        await self._allowances.take(f"heard/{what.value}/{tag}", self._today(), 1, _ANY_NUMBER)

    async def of(self, what: What, tag: str, day: int | None = None) -> int:
        """How many there were on *day* (days since 1970; None: today). Raises: StorageError."""
        return await self._allowances.taken(f"heard/{what.value}/{tag}", self._today() if day is None else day)

    def _today(self) -> int:
        return int(self._wall() // 86_400)


class Feedback:
    """Takes mail to VERP addresses and to the addresses for complaints."""

    _log = Logger()

    def __init__(
        self,
        verp: VERP,
        suppress: Suppress,
        counts: DailyCounts,
        *,
        kept_for: Callable[[str], float],
        complaints: Collection[str] = (),
        token: Callable[[str], Known | None] = lambda token: None,
        complained: Complained = lambda source, recipient: None,
    ) -> None:
        """*kept_for*: for how long a reply suppresses its recipient, seconds (0: not; `suppression.kept_for`). *complaints*:
        addresses where reports come, in lower case. *token* reads an unsubscribe token of ours. *complained* is told of each
        complaint (warm-up listens)."""
        self._verp = verp
        self._suppress = suppress
        self._counts = counts
        self._kept_for = kept_for
        self._complaints = frozenset(complaints)
        self._token = token
        self._complained = complained

    def wants(self, address: str) -> bool:
        """Whether mail to *address* is for us: it is not any user's, whatever it says."""
        return address.lower() in self._complaints or self._verp.ours(address)

    async def take(self, address: str, sender: str, octets: bytes) -> Heard:
        """A message from reverse-path *sender* to *address*, its first megabyte. Raises: StorageError."""
        if address.lower() in self._complaints:
            heard = await self._complaint(open_report(octets))
        else:
            try:
                about = await self._verp.decode(address)
            except BadPath as error:
                self._log.debug("mail to {address} is dropped: {why}", address=address, why=error)
                heard = Heard(What.FORGED)
            else:
                heard = await self._bounce(about, sender, open_report(octets))
        await self._counts.add(heard.what, heard.known.tag if heard.known is not None else "")
        return heard

    # --- bounces

    async def _bounce(self, about: Bounced, sender: str, opened: Opened) -> Heard:
        known = Known(about.domain, about.recipient, tag=about.tag)
        try:
            report = read_delivery_report(opened)
        except NotAReport:
            return await self._in_words(known, sender, opened)
        # Of several the one that the address speaks of; behind a forward it has another name.
        worst = next(
            (each for each in report.recipients if known.recipient in (each.recipient.lower(), each.original.lower())),
            report.recipients[0],
        )
        if worst.action is Action.DELAYED:
            return Heard(What.DELAY, known, _said(worst))
        if worst.action is not Action.FAILED:
            return Heard(What.SUCCESS, known)
        if worst.status.startswith("4"):
            return Heard(What.DELAY, known, _said(worst))
        return await self._failed(known, _said(worst))

    async def _in_words(self, known: Known, sender: str, opened: Opened) -> Heard:
        """No report: a server that writes letters, or a person."""
        author = (first_value(opened.header, b"from") or b"").decode("utf-8", "replace")
        if sender and not _SENDERS.search(author):
            return Heard(What.ANSWER, known)
        text = opened.text()[:4000]
        status = guess_status(text)
        if not status:
            return Heard(What.UNREADABLE, known)
        said = f"{status[0]}50 {status} {' '.join(text.split())[:300]}"
        if status.startswith("4"):
            return Heard(What.DELAY, known, said)
        return await self._failed(known, said)

    async def _failed(self, known: Known, said: str) -> Heard:
        seconds = self._kept_for(said)
        if seconds <= 0:
            return Heard(What.BOUNCE, known, said)
        await self._suppress(known.domain, known.recipient, said, "bounce", seconds, known.stream)
        return Heard(What.BOUNCE, known, said, seconds)

    # --- complaints

    async def _complaint(self, opened: Opened) -> Heard:
        try:
            report = read_feedback_report(opened)
        except NotAReport:
            return Heard(What.UNREADABLE)
        if report.type == "not-spam":
            return Heard(What.SUCCESS)
        known = await self._proved(report)
        if known is None:
            return Heard(What.FORGED, said=report.type)
        self._complained(report.source, known.recipient)
        await self._suppress(
            known.domain, known.recipient, f"{report.type} reported by {report.reporter}", "complaint", None, known.stream
        )
        return Heard(What.COMPLAINT, known, report.type, float("inf"))

    async def _proved(self, report: FeedbackReport) -> Known | None:
        """Whose mail it was, by what only we can have put into it."""
        links = (first_value(report.header, b"list-unsubscribe") or b"")[:4096]
        for match in _LINK.finditer(links):
            if known := self._token(match[1].decode("ascii")):
                return known
        returned = (first_value(report.header, b"return-path") or b"").strip(b"<> ").decode("utf-8", "replace")
        for address in (report.sender, returned):
            try:
                about = await self._verp.decode(address)
            except BadPath:
                continue
            return Known(about.domain, about.recipient, tag=about.tag)
        return None


def _said(status: RecipientStatus) -> str:
    """A reply with its codes, as `kept_for` reads it."""
    if re.match(r"[245]\d\d[ -]", status.diagnostic):
        code, rest = status.diagnostic[:3], status.diagnostic[4:]
        if re.match(r"#?[245]\.\d", rest):
            return f"{code} {rest.removeprefix('#')}"
        return f"{code} {status.status} {rest}"
    return f"{status.status[0]}50 {status.status} {status.diagnostic}".strip()
