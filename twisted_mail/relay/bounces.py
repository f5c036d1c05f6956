"""What a sender is told of a message: that it failed, that it takes longer, that it was handed on (RFC 3461, RFC 3464).

Whom we tell, and whom never (a report that goes to somebody who sent nothing is spam that we made of spam):

- nothing answers the null reverse-path, nor anything that we or a program made ourselves (a report, a vacation answer);
- who logged in and sent it is told: its reverse-path was checked against the login;
- what strangers sent and is forwarded is reported only if it is known that its reverse-path is not forged (`verified`: SPF
  or DMARC passed when it came). Otherwise nobody is told; the message is an operator's to find, in its trace;
- NOTIFY is obeyed (RFC 3461 section 4.1); without it, failures and delays are told. A delay is not told to programs
  (Auto-Submitted, lists, bulk mail): nobody reads it.

What comes back of the message is its header, within bounds; all of it only after a failure, if RET=FULL asked for it, it is
not large, and it was not sent with REQUIRETLS (RFC 8689 section 5).
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.logger import Logger

from twisted_mail.mime import decode_header, first_value
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.values import Result, Verdict
from twisted_mail.reports.delivery import decode_xtext, subject_of, write_delivery_report
from twisted_mail.reports.parts import Letter, Returned, bounded_header
from twisted_mail.reports.values import Action, DeliveryReport, RecipientStatus
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.values import DeliveryId

__all__ = ["BounceSettings", "Bounces", "Submit", "Told", "host_of", "status_of"]

ACTIONS: Final = {Action.FAILED: "bounce", Action.DELAYED: "delayed", Action.RELAYED: "success"}
"""What a report is called where its delivery id is made: each is queued once, however often it is tried."""
_OURS: Final = frozenset(ACTIONS.values()) | {"vacation", "report"}
_HEADER: Final = 256 * 1024
_REPLY: Final = re.compile(r"([245])\d\d(?:[ -](?:#?([245]\.\d{1,3}\.\d{1,3})\b)?|\Z)")


class Submit(Protocol):
    """The door for mail of the server's own; its reverse-path is null (`intake.Outgoing.submit`)."""

    async def __call__(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = ""
    ) -> None:
        """Raises: StorageError, MailRefused."""


class Told(enum.Enum):
    """Whether the sender was told, or why not."""

    YES = "told"
    NULL_SENDER = "there is no sender to tell"
    OURS = "it is itself a message of a server"
    NOT_ASKED = "the sender does not want to know"
    FORGED = "who sent it cannot be known for sure"
    PROGRAM = "a program sent it"


@dataclass(frozen=True, slots=True, kw_only=True)
class BounceSettings:
    """What an operator may set."""

    hostname: str
    author: str = ""
    """The value of From; empty: ``Mail delivery <mailer-daemon@HOSTNAME>``."""
    full_bytes: int = 256 * 1024
    """Larger messages do not come back whole, whatever was asked for."""
    header_bytes: int = 16 * 1024
    """So much of a header comes back."""


class Bounces:
    """Tells senders. Implements `worker.Reports`."""

    _log = Logger()

    def __init__(
        self,
        submit: Submit,
        body: Callable[[QueueItem, Outbound], AsyncIterator[bytes]],
        settings: BounceSettings,
        *,
        wall: Callable[[], float] = time.time,
        verified: Callable[[Outbound], bool] = lambda outbound: False,
    ) -> None:
        """*body* opens what an item carries. *verified*: whether the reverse-path of a forward is known to be its sender's."""
        self._submit = submit
        self._body = body
        self._settings = settings
        self._wall = wall
        self._verified = verified

    async def failed(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> Told:
        """It is given up: refused for good, or tried for too long. Raises: as `Submit`."""
        return await self._tell(item, outbound, verdict, Action.FAILED, "FAILURE")

    async def delayed(self, item: QueueItem, outbound: Outbound, verdict: Verdict, until: float) -> Told:
        """It takes longer than usual, and is tried until *until*, seconds since 1970. Raises: as `Submit`."""
        return await self._tell(item, outbound, verdict, Action.DELAYED, "DELAY", until)

    async def delivered(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> Told:
        """The next server has it, and does not tell what comes of it. Raises: as `Submit`."""
        return await self._tell(item, outbound, verdict, Action.RELAYED, "SUCCESS")

    async def _tell(
        self, item: QueueItem, outbound: Outbound, verdict: Verdict, action: Action, wish: str, until: float | None = None
    ) -> Told:
        told = self._whether(outbound, wish)
        header = b""
        if told is Told.YES:
            header = await self._read(item, outbound, min(outbound.header, _HEADER))
            if action is Action.DELAYED and _by_program(header):
                told = Told.PROGRAM
        if told is not Told.YES:
            level = self._log.warn if told is Told.FORGED and action is Action.FAILED else self._log.debug
            level("no report ({action}) for {id}: {why}", action=action.value, id=item.id, why=told.value)
            return told
        recipient = outbound.author or outbound.sender
        octets = self._write(item, outbound, verdict, action, until, header, await self._returned(item, outbound, action, header))
        await self._submit(item.id, ACTIONS[action], recipient, octets, stream=outbound.stream)
        return told

    def _whether(self, outbound: Outbound, wish: str) -> Told:
        if not (outbound.author or outbound.sender):
            return Told.NULL_SENDER
        if outbound.cause.partition("/")[0] in _OURS:
            return Told.OURS
        wishes = outbound.notify or ("FAILURE", "DELAY")
        if wish not in wishes:
            return Told.NOT_ASKED
        if not outbound.login and not self._verified(outbound):
            return Told.FORGED
        return Told.YES

    async def _read(self, item: QueueItem, outbound: Outbound, most: int) -> bytes:
        """The first *most* octets of the message."""
        found = bytearray()
        if most:
            chunks = self._body(item, outbound)
            async for chunk in chunks:
                found += chunk
                if len(found) >= most:
                    break
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
        return bytes(found[:most])

    async def _returned(self, item: QueueItem, outbound: Outbound, action: Action, header: bytes) -> Returned | None:
        size = item.body.size if item.body is not None else 0
        full = action is Action.FAILED and outbound.dsn_return == "FULL" and not outbound.requiretls
        if full and 0 < size <= self._settings.full_bytes:
            return Returned(await self._read(item, outbound, size), full=True, international=outbound.smtputf8)
        kept = bounded_header(header, self._settings.header_bytes)
        return Returned(kept, full=False, international=outbound.smtputf8) if kept else None

    def _write(
        self,
        item: QueueItem,
        outbound: Outbound,
        verdict: Verdict,
        action: Action,
        until: float | None,
        header: bytes,
        returned: Returned | None,
    ) -> bytes:
        settings, now = self._settings, self._wall()
        original = outbound.original.partition(";")[2] if outbound.original.lower().startswith(("rfc822;", "utf-8;")) else ""
        report = DeliveryReport(
            (
                RecipientStatus(
                    outbound.address,
                    action,
                    status_of(verdict, action),
                    original=decode_xtext(original),
                    remote=host_of(verdict.host) if verdict.remote else "",
                    diagnostic=verdict.reply if action is not Action.RELAYED or verdict.remote else "",
                    last_attempt=now,
                    retry_until=until,
                ),
            ),
            reporter=settings.hostname,
            envelope_id=decode_xtext(outbound.envelope_id),
            arrival=item.created,
        )
        subject = decode_header(first_value(header, b"subject") or b"")
        letter = Letter(
            settings.author or f"Mail delivery <mailer-daemon@{settings.hostname}>",
            outbound.author or outbound.sender,
            subject_of(report, subject),
            # of what caused it, so that a second try is the same message
            f"{item.id}.{ACTIONS[action]}@{settings.hostname}",
            now,
            about=outbound.message_id,
        )
        return write_delivery_report(report, letter, returned, subject=subject, international=outbound.smtputf8)


def status_of(verdict: Verdict, action: Action = Action.FAILED) -> str:
    """The enhanced code of *verdict*; of what was given up after temporary failures ``4.4.7`` (RFC 3463 section 3.5)."""
    if action is Action.FAILED and verdict.result is Result.TEMPORARY:
        return "4.4.7"
    found = _REPLY.match(verdict.reply)
    if found is not None and found[2] is not None and found[2][0] == found[1]:
        return found[2]
    return f"{found[1] if found is not None else {Result.DELIVERED: 2, Result.TEMPORARY: 4}.get(verdict.result, 5)}.0.0"


def host_of(text: str) -> str:
    """The name of ``mx1.example.org[192.0.2.1]``; the literal if it has none."""
    name, bracket, _ = text.partition("[")
    return name if name or not bracket else text


def _by_program(header: bytes) -> bool:
    """Nobody reads what is answered to it (RFC 3834 section 2, RFC 2076)."""
    submitted = (first_value(header, b"auto-submitted") or b"no").partition(b";")[0].strip().lower()
    precedence = (first_value(header, b"precedence") or b"").strip().lower()
    return submitted != b"no" or precedence in (b"bulk", b"junk", b"list") or first_value(header, b"list-id") is not None
