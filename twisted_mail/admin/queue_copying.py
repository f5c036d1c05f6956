"""What waits in a queue goes to another store's: item by item, each with its body; to be done while nobody works on either.

An item is put under its own id, so it is there once however often this runs. It may have been delivered in the source
before (into the account's log, which was copied): so inbound items are marked to be looked up there first. What was copied
is written down in the target too, so that an item which was sent from there meanwhile is not put again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import msgspec
from twisted.internet.task import deferLater

from twisted_mail.account.audit import PackedIds
from twisted_mail.account.references import claim
from twisted_mail.admin.copying import copy_blob
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.delivery.bodies import holder_of
from twisted_mail.delivery.items import NewerVersion, inbound_of
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import (
    Blobs,
    Corrupt,
    ItemState,
    NotFound,
    QueueFilter,
    QueueItem,
    QueueStatus,
    Refused,
    StorageError,
    Unavailable,
)
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["QueueCopy", "QueueCopyReport", "check_nobody_works", "how_many_wait"]

PAGE: Final = 2000
"""Items that are listed at a time."""
HELD_SECONDS: Final = 10 * 365 * 86_400.0
"""When an item that is to be held would be due if the copy ended before it was held."""
REMEMBERED_SECONDS: Final = 90 * 86_400.0
"""How long it is known what was copied."""
PUT_PAUSES: Final = (0.0, 1.0, 3.0)
"""Seconds before each attempt at an item whose outcome is not known."""
EXAMPLES: Final = 20
_PREFIX: Final = 16
"""Octets of the item's id, in front of a body in the queue's own store."""


@dataclass(slots=True)
class QueueCopyReport:
    """What one run did."""

    inbound: int = 0
    outbound: int = 0
    """Items that were put into the target's queue."""
    present: int = 0
    """Items that were there already, or had been copied and were done there since."""
    held: int = 0
    """Of all these, those that are held."""
    octets: int = 0
    """Of bodies that were copied."""
    source: int = 0
    target: int = 0
    """Items of the source, and those of them that are (or were) in the target: compared at the end."""
    failed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Numbers and words, hence Any."""
        return asdict(self)


async def check_nobody_works(*stores: tuple[str, Backend]) -> None:
    """A queue is copied while nobody puts into it or takes from it. *stores* with their names. Raises Problem."""
    for name, backend in stores:
        alive = [member.node for member in await backend.members.alive()]
        if alive:
            text = f"servers of the {name} are running ({', '.join(alive)}): its queue is copied when they are stopped"
            raise Problem(Status.CONFLICT, "servers-running", text, nodes=alive)
    leased = await stores[0][1].queue.list(QueueFilter(state=ItemState.LEASED), None, 1)
    if leased:
        text = "a worker has items of the source's queue, or died a moment ago: run this again in some minutes"
        raise Problem(Status.TEMPORARY, "leased", text)


async def how_many_wait(backend: Backend, most: int = 1000) -> int:
    """Items in the queue, at most *most*."""
    return len(await backend.queue.list(QueueFilter(), None, most))


async def _items(backend: Backend) -> AsyncIterator[QueueStatus]:
    after: DeliveryId | None = None
    while page := await backend.queue.list(QueueFilter(), after, PAGE):
        for status in page:
            yield status
        after = page[-1].item.id


def _space(id: DeliveryId) -> str:
    """Where it is written down that an item was copied: cut into many, as each is kept as one."""
    return f"queue-copied/{str(id)[-3:]}"


class QueueCopy:
    """Copies the queue of *source*. *still* raises where the copy may not go on (`Alone.check`)."""

    def __init__(
        self,
        source: Backend,
        target: Backend,
        reactor: Any,
        wall: Callable[[], float],
        still: Callable[[], None] = lambda: None,
    ) -> None:
        # the reactor provides IReactorTime; Any, as everywhere in this room
        self._source = source
        self._target = target
        self._reactor = reactor
        self._wall = wall
        self._still = still
        self.report = QueueCopyReport()

    async def run(self) -> QueueCopyReport:
        """Copy all items, and compare. Raises StorageError (run it again), Problem (of *still*)."""
        async for status in _items(self._source):
            self._still()
            try:
                await self._item(status)
            except (Unplaced, NotFound, Corrupt) as error:
                self._fail(f"item {status.item.id}: {error}")
        await self._compare()
        return self.report

    def _fail(self, text: str) -> None:
        if len(self.report.failed) < EXAMPLES:
            self.report.failed.append(text)

    async def _item(self, status: QueueStatus) -> None:
        id, held = status.item.id, status.state is ItemState.HELD
        if await self._target.records.get(_space(id), str(id)) is not None:
            self.report.present += 1
            self.report.held += held
            return
        item = await self._with_body(status.item)
        waits = max(0.0, status.due - self._wall()) if status.state is ItemState.WAITING else 0.0
        if await self._put(item, HELD_SECONDS if held else waits):
            if item.use == "inbound":
                self.report.inbound += 1
            else:
                self.report.outbound += 1
        else:
            self.report.present += 1
        if held:
            await self._target.queue.hold(id)
            self.report.held += 1
        await self._target.records.put(_space(id), str(id), b"", REMEMBERED_SECONDS)

    async def _put(self, item: QueueItem, delay: float) -> bool:
        """Until it is known to be there: an id is put once, however often it is tried."""
        for pause in PUT_PAUSES:
            if pause:
                await deferLater(self._reactor, pause, lambda: None)
            self._still()
            try:
                return await self._target.queue.put(item, delay=delay)
            except Refused:
                raise
            except Unavailable as error:
                failure = error
        raise failure

    # --- bodies

    async def _with_body(self, item: QueueItem) -> QueueItem:
        """*item* as the target has it, once its body is there. Raises NotFound, Corrupt, Unplaced, StorageError."""
        ref, holder = item.body, holder_of(item.id)
        if ref is None:
            return item
        if await _there(self._source.blobs, ref):
            self.report.octets += ref.size
            kept = await copy_blob(self._source, self._target, ref, holder)
            return replace(item, body=kept, envelope=_envelope(item))
        if not await _there(self._source.queue_bodies, ref):
            raise NotFound(f"its body {ref.hash} is gone")
        assert self._source.queue_bodies is not None
        self.report.octets += ref.size
        if item.use == "inbound":  # from there it goes where bodies belong, without the id in front
            shared = await self._into_blobs(self._source.queue_bodies, ref, holder)
            return replace(item, body=shared, envelope=_envelope(item, place="blobs"))
        if self._target.queue_bodies is None:
            raise Unplaced("its body lies in the queue's own store, and the target's queue has none")
        return replace(item, body=await self._apart(self._source.queue_bodies, self._target.queue_bodies, ref))

    async def _into_blobs(self, bodies: Blobs, ref: BlobRef, holder: str) -> BlobRef:
        writer = self._target.blobs.writer()
        try:
            async for chunk in bodies.open(ref, _PREFIX):
                await writer.write(chunk)
            return await writer.finish(lambda stored: claim(self._target.references, stored, holder))
        except BaseException:
            await writer.abort()
            raise

    async def _apart(self, bodies: Blobs, target: Blobs, ref: BlobRef) -> BlobRef:
        writer = target.writer()
        try:
            async for chunk in bodies.open(ref):
                await writer.write(chunk)
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    # --- afterwards

    async def _compare(self) -> None:
        """Every item of the source is in the target, and held there if it is held here; or it was copied before."""
        there, held = PackedIds(), PackedIds()
        async for status in _items(self._target):
            (held if status.state is ItemState.HELD else there).add([status.item.id.octets])
        async for status in _items(self._source):
            self.report.source += 1
            id = status.item.id
            right, wrong = (held, there) if status.state is ItemState.HELD else (there, held)
            if id.octets in right or (
                id.octets not in wrong and await self._target.records.get(_space(id), str(id)) is not None
            ):
                self.report.target += 1
            elif id.octets in wrong:
                self._fail(f"item {id} is held in one of the stores and not in the other")
            else:
                self._fail(f"item {id} is not in the target")


class Unplaced(StorageError):
    """There is no place for an item's body in the target."""


async def _there(blobs: Blobs | None, ref: BlobRef) -> bool:
    if blobs is None:
        return False
    try:
        async for _ in blobs.open(ref, max(0, ref.size - 1)):
            pass
    except NotFound:
        return False
    return True


def _envelope(item: QueueItem, place: str | None = None) -> bytes:
    """Of an inbound item that can be read: with the mark that it may have been delivered before. Raises Corrupt."""
    if item.use != "inbound":
        return item.envelope
    try:
        inbound = inbound_of(item)
    except NewerVersion as error:
        raise Corrupt(f"it was written by a newer version: {error}") from error
    except Corrupt:
        if place is not None:
            raise
        return item.envelope  # a dead letter: it goes as it is
    changed = msgspec.structs.replace(inbound, repeated=True)
    if place is not None:
        changed = msgspec.structs.replace(changed, place="blobs")
    return msgspec.msgpack.encode(changed)
