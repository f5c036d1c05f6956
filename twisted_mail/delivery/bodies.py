"""Bodies of queued messages: blobs that the items hold on to; where the blob store fails, in the queue's own small store.

In the blob store one body serves all items of a message. Each of them is written down as a holder (``q/`` and its id)
before the blob gets its name, and removed after the item is gone, so a sweeper sees either the holder or no blob. The
queue's own store knows no holders: there each item has a body of its own, with the item's id in front, which makes it
different from every other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.delivery.items import Place
from twisted_mail.queueing.limits import TooSlow, some_at_a_time, within
from twisted_mail.queueing.putting import Puts
from twisted_mail.storage.interfaces import (
    Blobs,
    CarriesItems,
    Queue,
    QueueItem,
    References,
    StorageError,
    Unavailable,
)
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["Bodies", "Body", "Octets", "holder_of"]

STORE_SECONDS: Final = 60.0
"""How long the blob store has for one body before the queue's own is asked."""

Octets = Callable[[], AsyncIterator[bytes]]
"""A message that can be read from its beginning, as often as need be."""


def holder_of(delivery: DeliveryId) -> str:
    """How an item is called among the holders of a blob."""
    return f"q/{delivery}"


RECENT_EACH: Final = 65_536
"""What is larger is not kept in memory."""


class _Recent:
    """Small bodies by what they are; the oldest go when there are more than *most* octets of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._octets = 0
        self._bodies: dict[BlobRef, bytes] = {}

    def add(self, ref: BlobRef, octets: bytes) -> None:
        if len(octets) > self._most or ref in self._bodies:
            return
        self._bodies[ref] = octets
        self._octets += len(octets)
        while self._octets > self._most:
            oldest = next(iter(self._bodies))
            self._octets -= len(self._bodies.pop(oldest))

    def get(self, ref: BlobRef) -> bytes | None:
        return self._bodies.get(ref)


@dataclass(frozen=True, slots=True)
class Body:
    """Where the octets of an item are."""

    place: Place
    ref: BlobRef
    waiting: bytes | None = field(default=None, repr=False, compare=False)
    """What is not durable yet, and goes in with its item (`Bodies.puts`)."""


@dataclass(frozen=True, slots=True)
class _Together:
    """Puts an item with its body."""

    store: CarriesItems
    ref: BlobRef
    octets: bytes

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        return await self.store.put_with(item, self.ref, self.octets, delay=delay)


class Bodies:
    """Keeps bodies for items, gives them out, and lets go of them."""

    _log = Logger()

    def __init__(
        self,
        blobs: Blobs,
        references: References,
        clock: IReactorTime,
        *,
        overflow: Blobs | None = None,
        trouble: Callable[[], str | None] = lambda: None,
        recent_bytes: int = 0,
    ) -> None:
        """*overflow*: the queue's own store, bounded; it raises `Refused` when it is full; small bodies go there at once if it
        says so (`PrefersSmall`). *trouble* says, without waiting,
        what is the matter with *blobs* or *references*; None: nothing that is known. *recent_bytes*: so much of what was
        kept last stays in memory too, as a message is mostly read in the moment after it was put."""
        self._blobs = blobs
        self._references = references
        self._clock = clock
        self._overflow = overflow
        self._small = int(getattr(overflow, "small_bytes", 0))
        self._carrying = overflow if isinstance(overflow, CarriesItems) else None
        self._trouble = trouble
        self._recent = _Recent(recent_bytes)

    async def keep(
        self, octets: Octets, ids: Sequence[DeliveryId], size: int | None = None, *, together: bool = False
    ) -> Mapping[DeliveryId, Body]:
        """Make a message durable for the items *ids*. *size*: its octets, if they are known. *together*: the items will go in by
        way of `puts`, and the body may wait for that.

        Raises: StorageError; Refused among them says that there is no room; OSError if *octets* cannot be read.
        """
        # of several recipients a body that they share goes out in one transaction
        if self._overflow is not None and size is not None and len(ids) == 1 and size <= self._small:
            if together and self._carrying is not None:
                content = b"".join([ids[0].octets, *[chunk async for chunk in octets()]])
                ref = BlobRef(sha256(content).hexdigest(), len(content))
                self._recent.add(ref, content[16:])
                return {ids[0]: Body("queue", ref, content)}
            return await self._keep_apart(self._overflow, octets, ids)
        trouble = self._trouble()
        if self._overflow is not None and trouble is not None:  # no need for every message to find it out
            return await self._keep_apart(self._overflow, octets, ids)
        try:
            ref = await within(self._clock, STORE_SECONDS, self._share(octets, ids))
            return dict.fromkeys(ids, Body("blobs", ref))
        except (StorageError, TooSlow) as error:
            if self._overflow is None:
                raise error if isinstance(error, StorageError) else Unavailable("the blob store is slow") from error
            self._log.warn("a body goes into the queue's own store: {why}", why=error)
        return await self._keep_apart(self._overflow, octets, ids)

    async def _share(self, octets: Octets, ids: Sequence[DeliveryId]) -> BlobRef:
        held: list[BlobRef] = []

        async def generation(ref: BlobRef) -> int:
            """Hold first, then look whether that generation is on its way out: the sweeper does it the other way round."""
            number = ref.generation
            while True:
                named = replace(ref, generation=number)
                held.append(named)
                await some_at_a_time([self._references.add(named, holder_of(id)) for id in ids])
                lowest = await self._references.condemned(ref.hash)
                if lowest <= number:
                    return number
                number = lowest

        writer = self._blobs.writer()
        gathered: list[bytes] = []
        size = 0
        try:
            async for chunk in octets():
                await writer.write(chunk)
                size += len(chunk)
                if size <= RECENT_EACH:
                    gathered.append(chunk)
            ref = await writer.finish(generation)
        except BaseException:
            await self._abort(writer.abort)
            await self._let_go(held, ids)
            raise
        await self._let_go(held[:-1], ids)
        if size <= RECENT_EACH:
            self._recent.add(ref, b"".join(gathered))
        return ref

    async def _keep_apart(self, store: Blobs, octets: Octets, ids: Sequence[DeliveryId]) -> Mapping[DeliveryId, Body]:
        kept: dict[DeliveryId, Body] = {}
        try:
            for id in ids:
                writer = store.writer()
                gathered: list[bytes] = []
                size = 0
                try:
                    await writer.write(id.octets)
                    async for chunk in octets():
                        await writer.write(chunk)
                        size += len(chunk)
                        if size <= RECENT_EACH:
                            gathered.append(chunk)
                    kept[id] = Body("queue", await writer.finish())
                    if size <= RECENT_EACH:
                        self._recent.add(kept[id].ref, b"".join(gathered))
                except BaseException:
                    await self._abort(writer.abort)
                    raise
        except BaseException:
            for id, body in kept.items():
                await self.forget(body, id)
            raise
        return kept

    async def open(self, body: Body) -> AsyncIterator[bytes]:
        """The message's octets. Raises: StorageError (NotFound, Corrupt, Unavailable)."""
        recent = self._recent.get(body.ref)
        if recent is not None:
            yield recent
            return
        if body.place == "blobs":
            async for chunk in self._blobs.open(body.ref):
                yield chunk
            return
        if self._overflow is None:
            raise Unavailable("the body lies in the queue's own store, which this node does not have")
        async for chunk in self._overflow.open(body.ref, 16):
            yield chunk

    def puts(self, queue: Queue, body: Body) -> Puts:
        """How the item of *body* goes into *queue*."""
        if body.waiting is None or self._carrying is None:
            return queue
        return _Together(self._carrying, body.ref, body.waiting)

    async def acknowledge(self, queue: Queue, token: str, body: Body, id: DeliveryId) -> bool:
        """`Queue.ack`, and `forget` if it was ours. Raises: StorageError."""
        if body.place == "queue" and self._carrying is not None:
            return await self._carrying.ack_with(token, body.ref)
        if not await queue.ack(token):
            return False
        await self.forget(body, id)
        return True

    async def forget(self, body: Body, id: DeliveryId) -> None:
        """The item *id* is gone. What cannot be done now leaves a holder without an item, which an audit finds."""
        try:
            if body.place == "blobs":
                await self._references.remove([body.ref], holder_of(id))
            elif self._overflow is not None:
                await self._overflow.delete(body.ref)
        except StorageError as error:
            self._log.warn("the body of {id} stays behind: {why}", id=id, why=error)

    async def _let_go(self, refs: Sequence[BlobRef], ids: Sequence[DeliveryId]) -> None:
        """Those that do not hold it after all. A store that fails here has failed already: once is enough to know."""
        try:
            for ref in refs:
                for id in ids:
                    await self._references.remove([ref], holder_of(id))
        except StorageError as error:
            self._log.warn("a body stays behind: {why}", why=error)

    async def _abort(self, abort: Callable[[], Awaitable[None]]) -> None:
        try:
            await abort()
        except StorageError as error:
            self._log.warn("what was written of a body stays behind: {why}", why=error)
