"""The queue's part of an audit: who holds an object for an item that does not exist, and bodies of such items.

A holder is written before its item, and goes after it; so for a moment there is one without the other. An id says nothing
of its age. So a holder without an item is first written down, by an audit that repairs, and is garbage for one that finds
it again an hour later, while it looks for the item twice more. Bodies in the queue's own store begin with the id of their
item (see `bodies`), and are judged alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, cast

from twisted_mail.account.audit import AuditReport, Drop, PackedIds
from twisted_mail.storage.interfaces import Blobs, NotFound, Queue, QueueFilter, Records
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["PROVEN_SECONDS", "QueueAudit"]

PROVEN_SECONDS: Final = 3600.0
"""How long ago it must have been seen without its item. No body waits for its item longer than some minutes."""
REMEMBERED_SECONDS: Final = 30 * 86_400.0
MOST: Final = 100_000
"""Pieces of garbage that one audit takes away, which bounds its memory; the next one takes more."""
PAGE: Final = 2000
_ID: Final = 16
_KIND: Final = "q/"

Ids = Callable[[], AsyncIterator[Sequence[DeliveryId]]]


class QueueAudit:
    """Implements `account.audit.OtherHolders`."""

    def __init__(
        self,
        queue: Queue,
        bodies: Blobs | None,
        records: Records,
        *,
        wall: Callable[[], float],
        repair: bool = False,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        """*still* raises where nothing may be repaired any more."""
        self._queue = queue
        self._bodies = bodies
        self._records = records
        self._wall = wall
        self._repair = repair
        self._still = still
        self._ids = PackedIds()
        self._report = AuditReport()
        self._holders: list[tuple[BlobRef, str, DeliveryId]] = []
        self._bodies_found: list[tuple[BlobRef, DeliveryId]] = []

    async def begin(self, report: AuditReport) -> None:
        self._report = report
        self._ids = await self._present()
        report.items = len(self._ids)

    async def _present(self) -> PackedIds:
        found = PackedIds()
        async for ids in self._every():
            found.add(id.octets for id in ids)
        return found

    async def _every(self) -> AsyncIterator[Sequence[DeliveryId]]:
        """All items' ids, in batches; a queue that can name items which it cannot read has ``ids``."""
        ids = cast("Ids | None", getattr(self._queue, "ids", None))
        if ids is not None:
            async for batch in ids():
                yield batch
            return
        after: DeliveryId | None = None
        while page := await self._queue.list(QueueFilter(), after, PAGE):
            yield [status.item.id for status in page]
            after = page[-1].item.id

    async def look(self, ref: BlobRef, holder: str) -> None:
        if not holder.startswith(_KIND):
            return
        try:
            id = DeliveryId.parse(holder.removeprefix(_KIND))
        except ValueError:
            return
        if id.octets not in self._ids and await self._proven(f"{holder} {ref.hash}.{ref.generation}", id):
            self._holders.append((ref, holder, id))

    async def _proven(self, what: str, id: DeliveryId) -> bool:
        """Whether *what* was seen without its item long enough ago."""
        space = f"audit/{str(id)[-2:]}"
        noted = await self._records.get(space, what)
        if noted is not None and int(noted) <= self._wall() - PROVEN_SECONDS:
            return len(self._holders) + len(self._bodies_found) < MOST
        self._report.unproven += 1
        self._report.note(f"{what}: there is no such item (yet); noted by a repair, garbage for the next one")
        if noted is None and self._repair:
            self._still()
            await self._records.put(space, what, b"%d" % self._wall(), REMEMBERED_SECONDS)
        return False

    async def finish(self, drop: Drop) -> None:
        await self._look_at_bodies()
        if not self._holders and not self._bodies_found:
            return
        again = await self._present()
        for ref, holder, id in self._holders:
            if id.octets not in again:
                self._report.stray_holders += 1
                self._report.note(f"{holder} holds {ref.hash}, and there is no such item")
                await drop(ref, holder)
        for ref, id in self._bodies_found:
            if id.octets not in again:
                self._report.stray_bodies += 1
                self._report.note(f"the body {ref.hash} in the queue's own store: there is no item {id}")
                if self._repair and self._bodies is not None:
                    self._still()
                    await self._bodies.delete(ref)

    async def _look_at_bodies(self) -> None:
        if self._bodies is None:
            return
        async for ref in self._bodies.iterate():
            head = b""
            try:
                async for chunk in self._bodies.open(ref, 0, min(_ID, ref.size)):
                    head += chunk
            except NotFound:
                continue  # its item is done
            if len(head) < _ID:
                continue  # nobody here wrote it
            id = DeliveryId(head)
            if id.octets not in self._ids and await self._proven(f"body {ref.hash}.{ref.generation}", id):
                self._bodies_found.append((ref, id))
