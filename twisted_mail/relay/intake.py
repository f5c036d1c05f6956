"""The way into the outbound queue: one body that is durable, then an item for each recipient.

Submissions, forwards, and mail of the server's own (bounces, vacation, reports) all come in here. Who sends hears 250 when
everything is durable, for all recipients or for none.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec.structs import replace
from twisted.logger import Logger

from twisted_mail.queueing.limits import TooSlow, some_at_a_time, within
from twisted_mail.queueing.putting import PUT_SECONDS, Puts, put_item
from twisted_mail.relay.items import Outbound, Place, outbound_item
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.relay.streams import MessageFacts, Streams
from twisted_mail.services import Envelope, MailRefused, Recipient, Refusal
from twisted_mail.signatures.canonical import BodyHash, Canon
from twisted_mail.storage.interfaces import Queue, QueueItem, Refused, StorageError, Use
from twisted_mail.values import BlobRef, DeliveryId, canonical_domain

__all__ = ["Body", "Bodies", "Outgoing", "OutgoingMail", "Spool", "Spools"]

HEADER_BYTES: Final = 1 << 20
"""So much of a message is looked at for its header; one that is longer is sent unsigned, into the stream `normal`."""
RESULTS: Final = 2000
"""Characters of results of authentication that are kept: an item has 8 KiB."""
SHOWN_ID: Final = 250
"""Characters of a Message-ID that are kept."""

_message_id = re.compile(rb"^message-id[ \t]*:\s*<?([^<>\s]+)>?", re.IGNORECASE | re.MULTILINE)
_tls_required = re.compile(rb"^tls-required[ \t]*:[ \t]*no[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Body(Protocol):
    """Where the octets of an item are."""

    @property
    def place(self) -> Place: ...
    @property
    def ref(self) -> BlobRef: ...


class Bodies(Protocol):
    """Keeps bodies for items (`delivery.bodies`)."""

    async def keep(
        self,
        octets: Callable[[], AsyncIterator[bytes]],
        ids: Sequence[DeliveryId],
        size: int | None = None,
        *,
        together: bool = False,
    ) -> Mapping[DeliveryId, Any]:  # of Body: a mapping's values are no place for a protocol's properties
        ...

    def open(self, body: Any) -> AsyncIterator[bytes]: ...

    def puts(self, queue: Queue, body: Any) -> Puts: ...

    async def acknowledge(self, queue: Queue, token: str, body: Any, id: DeliveryId) -> bool: ...

    async def forget(self, body: Any, id: DeliveryId) -> None: ...


class Spool(Protocol):
    """Octets that are written once and read several times (`queueing.spool`)."""

    @property
    def size(self) -> int: ...
    async def write(self, chunk: bytes) -> None: ...
    def chunks(self) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...


class Spools(Protocol):
    def begin(self) -> Spool: ...


class Outgoing:
    """Takes mail for other domains. Implements `delivery.OutboundQueue`."""

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        bodies: Bodies,
        spools: Spools,
        streams: Streams,
        journal: Journal,
        clock: Any,
        *,
        wall: Callable[[], float] = time.time,
        woken: Callable[[Collection[Use]], None] = lambda uses: None,
        rewrite: Callable[[str, str, str], Awaitable[str]] | None = None,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        """*clock* provides IReactorTime. *woken* is called with the uses of what was put in.
        *rewrite*: the reverse-path that a message leaves with, for (its sender, its recipient, its stream; the stream is empty
        for a forward): SRS, VERP.
        *trouble* says, without waiting, what is the matter with the queue."""
        self.queue = queue
        self.bodies = bodies
        self.spools = spools
        self.streams = streams
        self.journal = journal
        self.wall = wall
        self.rewrite = rewrite
        self._clock = clock
        self._woken = woken
        self._trouble = trouble

    def wake(self, woken: Callable[[Collection[Use]], None]) -> None:
        """Call *woken* from now on, with the uses of what was put in."""
        self._woken = woken

    def begin(self, envelope: Envelope) -> OutgoingMail:
        return OutgoingMail(self, envelope)

    async def submit(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "", sender: str = ""
    ) -> None:
        """Queue a message of the server's own, caused by *cause*: however often that happens, it is one.

        *stream*: that of what caused it. Raises: StorageError, MailRefused.
        """
        id = cause.caused(action)
        mail = OutgoingMail(self, None, sender=sender, cause=action, stream=stream)
        try:
            await mail.write(octets)
            await mail.finish([(id, recipient, Recipient(recipient, ()))])
        except BaseException:
            await mail.abort()
            raise

    # --- what `OutgoingMail` uses

    async def keep(self, spool: Spool, ids: Sequence[DeliveryId]) -> Mapping[DeliveryId, Body]:
        """Raises: MailRefused."""
        trouble = self._trouble()
        if trouble is not None:
            self._log.warn("the queue takes nothing: {why}", why=trouble)
            raise MailRefused(Refusal.UNAVAILABLE)
        try:
            return await self.bodies.keep(spool.chunks, ids, spool.size, together=True)
        except (StorageError, OSError) as error:
            self._log.warn("no body for {n} queued messages: {why}", n=len(ids), why=error)
            raise _refusal(error) from error

    async def put(self, items: Sequence[tuple[QueueItem, Body, float]]) -> None:
        """Put each (item, body, delay); all or none, as far as what is known goes. Raises: MailRefused."""
        failures: list[Exception] = []
        unsure: set[DeliveryId] = set()

        async def one(item: QueueItem, body: Body, delay: float) -> None:
            if failures:
                return
            failed = await put_item(self.bodies.puts(self.queue, body), self._clock, item, delay)
            if failed is not None:
                failures.append(failed.error)
                if not failed.certain:
                    unsure.add(item.id)

        await some_at_a_time([one(item, body, delay) for item, body, delay in items])
        if not failures:
            self._woken({item.use for item, _, _ in items})
            return
        self._log.warn("a message cannot be queued: {why!r}", why=failures[0])
        for item, body, _ in items:
            await self._take_back(item, body, sure=item.id not in unsure)
        raise _refusal(failures[0]) from failures[0]

    async def _take_back(self, item: QueueItem, body: Body, *, sure: bool) -> None:
        """Who sent it is told that it was not taken, and will send all of it again."""
        try:
            await within(self._clock, PUT_SECONDS, self._delete(item.id))
        except (StorageError, TooSlow) as error:
            self._log.error("item {id} may be sent although it was refused: {why!r}", id=item.id, why=error)
            if not sure:
                return  # it may be there, and needs its body
        await self.bodies.forget(body, item.id)

    async def _delete(self, id: DeliveryId) -> None:
        await self.queue.delete(id)


class OutgoingMail:
    """One message on its way into the queue. Implements `delivery.OutboundMessage`."""

    def __init__(
        self, outgoing: Outgoing, envelope: Envelope | None, *, sender: str = "", cause: str = "", stream: str = ""
    ) -> None:
        self._outgoing = outgoing
        self._envelope = envelope
        self._sender = envelope.sender if envelope is not None else sender
        self._cause = cause
        self._stream = stream
        self._spool: Spool | None = outgoing.spools.begin()
        self._start: bytearray | None = bytearray()
        """The message so far, until its header has ended."""
        self._header = b""
        self._whole = True
        """The header was seen to its end."""
        self._hash = BodyHash(Canon.RELAXED)
        self._eight_bit = False

    async def write(self, chunk: bytes) -> None:
        if self._spool is None:
            raise MailRefused(Refusal.UNAVAILABLE)
        try:
            await self._spool.write(chunk)
        except OSError as error:
            raise MailRefused(Refusal.UNAVAILABLE) from error
        self._eight_bit = self._eight_bit or not chunk.isascii()
        if self._start is None:
            self._hash.update(chunk)
        else:
            self._look(chunk)

    def _look(self, chunk: bytes) -> None:
        start = self._start
        assert start is not None
        before = max(len(start) - 3, 0)
        start += chunk
        end = 0 if start.startswith(b"\r\n") else start.find(b"\r\n\r\n", before)
        if end >= 0:
            cut = 0 if start.startswith(b"\r\n") else end + 2
            self._header = bytes(start[:cut])
            self._start = None
            self._hash.update(bytes(start[cut + 2 :]))
        elif len(start) > HEADER_BYTES:
            self._whole, self._start = False, None

    async def abort(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    async def finish(self, targets: Sequence[tuple[DeliveryId, str, Recipient]]) -> None:
        """See `delivery.OutboundMessage`. The first target of a delivery id has that id, further ones of an alias their own."""
        try:
            await self._finish(targets)
        finally:
            await self.abort()

    async def _finish(self, targets: Sequence[tuple[DeliveryId, str, Recipient]]) -> None:
        spool = self._spool
        if spool is None:
            raise MailRefused(Refusal.UNAVAILABLE)
        if self._start is not None:
            self._header, self._start = bytes(self._start), None  # a header without a body
        used: set[DeliveryId] = set()
        named: list[tuple[DeliveryId, str, Recipient]] = []
        for id, address, recipient in targets:
            named.append((id.caused(address) if id in used else id, address, recipient))
            used.add(id)
        rows = [
            (id, recipient, await self._outbound(address, recipient, len(named))) for id, address, recipient in named
        ]
        bodies = await self._outgoing.keep(spool, [id for id, _, _ in rows])
        now = self._outgoing.wall()
        items = []
        for id, _, outbound in rows:
            body = bodies[id]
            if body.place != "blobs":
                outbound = replace(outbound, place=body.place)
            try:
                stream = self._outgoing.streams.named(outbound.stream)
                bulk = stream is not None and stream.bulk
                domain = _domain_of(outbound.address)
                item = outbound_item(id, outbound, body.ref, domain=domain, created=now, bulk=bulk)
            except ValueError as error:
                for each, _, _ in rows:
                    await self._outgoing.bodies.forget(bodies[each], each)
                raise MailRefused(Refusal.BAD_ADDRESS, "the envelope is too long") from error
            items.append((item, body, max(outbound.due - now, 0.0)))
        await self._outgoing.put(items)
        for id, _, outbound in rows:
            step = Step(
                at=now,
                what="queued",
                id=str(id),
                address=outbound.address,
                sender=outbound.sender,
                stream=outbound.stream,
                login=outbound.login,
                client=self._envelope.peer.address if self._envelope is not None else "",
            )
            self._outgoing.journal.soon(outbound.message_id, step)

    async def _outbound(self, address: str, recipient: Recipient, recipients: int) -> Outbound:
        """What is written down for one recipient."""
        envelope, header, outgoing = self._envelope, self._header if self._whole else b"", self._outgoing
        now = outgoing.wall()
        due = 0.0
        if envelope is not None and envelope.hold_until is not None:
            due = envelope.hold_until
        forwarded = envelope is not None and envelope.identity is None and not self._cause
        message_id = _message_id.search(header)
        facts = MessageFacts(
            listener=envelope.peer.service if envelope is not None else "internal",
            login=envelope.identity.login if envelope is not None and envelope.identity is not None else "",
            sender=self._sender,
            header=header,
            recipients=recipients,
            cause=self._stream,
        )
        try:
            stream = outgoing.streams.of(facts).name
        except KeyError:
            stream = self._stream  # it waits until there is such a stream again
        sender = self._sender
        if sender and outgoing.rewrite is not None:
            sender = await outgoing.rewrite(sender, address, "" if forwarded else stream)
        return Outbound(
            address=address,
            sender=sender,
            author=self._sender if sender != self._sender else "",
            stream=stream,
            login=facts.login,
            message_id=message_id[1].decode("utf-8", "replace")[:SHOWN_ID] if message_id else "",
            verified=forwarded and envelope is not None and envelope.verified,
            results=envelope.results[:RESULTS] if forwarded and envelope is not None else "",
            cause="forward" if forwarded else self._cause,
            header=len(self._header),
            body_hash=self._hash.digest() if self._whole else b"",
            eight_bit=self._eight_bit,
            smtputf8=(envelope is not None and envelope.smtputf8) or not address.isascii() or not header.isascii(),
            requiretls=envelope is not None and envelope.requiretls,
            tls_optional=_tls_required.search(header) is not None,
            envelope_id=envelope.envelope_id if envelope is not None else "",
            dsn_return=envelope.dsn_return if envelope is not None else "",
            notify=tuple(sorted(recipient.notify)) if recipient.notify else (() if not self._cause else ("NEVER",)),
            original=recipient.original,
            priority=envelope.priority if envelope is not None else None,
            deliver_by=None if envelope is None or envelope.deliver_by is None else now + envelope.deliver_by[0],
            deliver_by_mode="" if envelope is None or envelope.deliver_by is None else envelope.deliver_by[1],
            due=due,
        )


def _domain_of(address: str) -> str:
    domain = address.rpartition("@")[2]
    try:
        return canonical_domain(domain)
    except ValueError:
        return domain.lower()


def _refusal(error: Exception) -> MailRefused:
    return MailRefused(Refusal.NO_ROOM if isinstance(error, Refused) else Refusal.UNAVAILABLE)
