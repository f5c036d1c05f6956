"""Who needs which blob, which blobs are condemned, and what has lost a reference, in CQL.

Blobs are shared by all data centres, so everything here that something is decided on is written and read at QUORUM, which
counts the replicas of all of them: the writes of a reference and of a condemnation and the reads that look for the other
meet in at least one replica, wherever they are made, so one of the two always sees the other. (LOCAL_QUORUM would not do
with two data centres: a reference added in one is not yet seen by the sweeper in the other.) With more than one data
centre a blob therefore cannot be added while most replicas of them together are out of reach: such mail waits in the queue.

No clock decides anything: each reference and each line of the list is a row with a ticket of its own, written once with
timestamp 1 and deleted once with timestamp 2, so a reference that is added again is never lost to an older delete whose
node's clock ran ahead.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heapify, heappop, heapreplace
from typing import Final
from uuid import uuid4

from twisted_mail.storage.cql.statements import Row, Session, Statement, statement
from twisted_mail.storage.holders import check_holder
from twisted_mail.values import BlobRef

__all__ = ["SHARDS", "SLICE_SECONDS", "CQLReferences"]

SHARDS: Final = 16
"""Partitions of the references of one content, and of one slice of the list."""
SLICE_SECONDS: Final = 600
SLICE_ENDED_SECONDS: Final = 3600
"""An empty slice is forgotten this long after its end: nobody's clock is so far behind that it would write there."""


def _sure(text: str) -> Statement:
    """A read or a write that meets all others, wherever they are made."""
    return statement(text, idempotent=True, consistency="QUORUM")


ADD = _sure(
    "INSERT INTO blob_reference (hash, shard, generation, holder, ticket) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP 1"
)
TICKETS = _sure("SELECT ticket FROM blob_reference WHERE hash = ? AND shard = ? AND generation = ? AND holder = ?")
REMOVE = _sure(
    "DELETE FROM blob_reference USING TIMESTAMP 2"
    " WHERE hash = ? AND shard = ? AND generation = ? AND holder = ? AND ticket = ?"
)
SOME_HOLDERS = _sure("SELECT holder FROM blob_reference WHERE hash = ? AND shard = ? AND generation = ? LIMIT ?")
HOLDERS = _sure("SELECT holder FROM blob_reference WHERE hash = ? AND shard = ? AND generation = ?")
ALL = statement("SELECT hash, generation, holder FROM blob_reference", idempotent=True)

CONDEMN = _sure("INSERT INTO blob_condemned (hash, generation) VALUES (?, ?)")
CONDEMNED = _sure("SELECT generation FROM blob_condemned WHERE hash = ? LIMIT 1")

LOSE = _sure(
    "INSERT INTO blob_lost (slice, shard, at, hash, generation, ticket, size) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " USING TIMESTAMP 1"
)
LOSE_AT = _sure("INSERT INTO blob_lost_at (hash, generation, at, ticket) VALUES (?, ?, ?, ?) USING TIMESTAMP 1")
NEW_SLICE = _sure("INSERT INTO blob_lost_slice (part, slice) VALUES (0, ?) USING TIMESTAMP 1")
SLICES = _sure("SELECT slice FROM blob_lost_slice WHERE part = 0 AND slice <= ?")
END_SLICE = _sure("DELETE FROM blob_lost_slice USING TIMESTAMP 2 WHERE part = 0 AND slice = ?")
LOST = _sure("SELECT at, hash, generation, size FROM blob_lost WHERE slice = ? AND shard = ? AND at <= ?")
LOST_AT = _sure("SELECT at, ticket FROM blob_lost_at WHERE hash = ? AND generation = ? AND at <= ?")
FOUND = _sure(
    "DELETE FROM blob_lost USING TIMESTAMP 2"
    " WHERE slice = ? AND shard = ? AND at = ? AND hash = ? AND generation = ? AND ticket = ?"
)
FOUND_AT = _sure(
    "DELETE FROM blob_lost_at USING TIMESTAMP 2 WHERE hash = ? AND generation = ? AND at = ? AND ticket = ?"
)


def _holder_shard(holder: str) -> int:
    return blake2b(holder.encode(), digest_size=1).digest()[0] % SHARDS


def _slice(at: int) -> int:
    """The slice of a time in milliseconds."""
    return at // (SLICE_SECONDS * 1000)


@dataclass(order=True, slots=True)
class _Shard:
    """What is still to come of one shard of a slice; ordered by its next line."""

    line: tuple[int, bytes, int, int]
    page: Iterator[tuple[int, bytes, int, int]] = field(compare=False)
    pages: AsyncIterator[Sequence[Row]] = field(compare=False)

    async def advance(self) -> bool:
        """To the next line; False at the end."""
        while (line := next(self.page, None)) is None:
            try:
                rows = await anext(self.pages)  # its default does not work with what Twisted sends into a coroutine
            except StopAsyncIteration:
                return False
            self.page = iter([(row["at"], row["hash"], row["generation"], row["size"]) for row in rows])
        self.line = line
        return True


class CQLReferences:
    """Implements `References`."""

    def __init__(self, session: Session, wall: Callable[[], float] = time.time) -> None:
        self._session = session
        self._wall = wall
        self._known_slice = -1
        """The newest slice that is known to be in the list of slices."""

    # --- references

    async def add(self, ref: BlobRef, holder: str) -> None:
        check_holder(holder)
        place = (bytes.fromhex(ref.hash), _holder_shard(holder), ref.generation, holder)
        await self._session.execute(ADD, (*place, uuid4()))

    async def remove(self, refs: Sequence[BlobRef], holder: str) -> None:
        """Listed first, in the order in which nothing is left that could not be settled; only then removed."""
        check_holder(holder)
        if not refs:
            return
        at = int(self._wall() * 1000)
        if _slice(at) > self._known_slice:
            await self._session.execute(NEW_SLICE, (_slice(at),))
            self._known_slice = _slice(at)
        lost = [(bytes.fromhex(ref.hash), ref.generation, at, uuid4()) for ref in refs]
        await self._session.execute_many(LOSE_AT, lost)
        lines = [
            (_slice(at), hash[0] % SHARDS, at, hash, generation, ticket, ref.size)
            for ref, (hash, generation, at, ticket) in zip(refs, lost, strict=True)
        ]
        await self._session.execute_many(LOSE, lines)
        shard = _holder_shard(holder)
        places = [(hash, shard, generation, holder) for hash, generation, _, _ in lost]
        answers = await self._session.execute_many(TICKETS, places)
        await self._session.execute_many(
            REMOVE,
            [(*place, row["ticket"]) for place, rows in zip(places, answers, strict=True) for row in rows],
        )

    async def holders(self, ref: BlobRef, limit: int = 1) -> Sequence[str]:
        hash = bytes.fromhex(ref.hash)
        answers = await self._session.execute_many(
            SOME_HOLDERS, [(hash, shard, ref.generation, limit) for shard in range(SHARDS)]
        )
        found = {row["holder"]: None for rows in answers for row in rows}
        for shard, rows in enumerate(answers):
            # who was added more than once has several rows: others may have been left out for them
            if len(found) < limit <= len(rows):
                async for more in self._session.pages(HOLDERS, (hash, shard, ref.generation)):
                    found |= {row["holder"]: None for row in more}
                    if len(found) >= limit:
                        break
        return list(found)[:limit]

    async def iterate(self) -> AsyncIterator[tuple[BlobRef, str]]:
        last = None
        async for rows in self._session.pages(ALL):
            for row in rows:
                this = (BlobRef(row["hash"].hex(), 0, row["generation"]), row["holder"])
                if this != last:
                    yield this
                last = this

    # --- condemnation

    async def condemned(self, hash: str) -> int:
        rows = await self._session.execute(CONDEMNED, (bytes.fromhex(hash),))
        return int(rows[0]["generation"]) + 1 if rows else 0

    async def condemn(self, ref: BlobRef) -> None:
        await self._session.execute(CONDEMN, (bytes.fromhex(ref.hash), ref.generation))

    # --- what has lost a reference

    async def lost(self, until: float) -> AsyncIterator[BlobRef]:
        limit = int(until * 1000)
        for row in await self._session.execute(SLICES, (_slice(limit),)):
            slice, empty = row["slice"], True
            async for ref in self._of_slice(slice, limit):
                empty = False
                yield ref
            if empty and self._wall() > (slice + 1) * SLICE_SECONDS + SLICE_ENDED_SECONDS:
                await self._session.execute(END_SLICE, (slice,))

    async def _of_slice(self, slice: int, limit: int) -> AsyncIterator[BlobRef]:
        heap: list[_Shard] = []
        for number in range(SHARDS):
            pages = self._session.pages(LOST, (slice, number, limit))
            shard = _Shard((0, b"", 0, 0), iter(()), pages)
            if await shard.advance():
                heap.append(shard)
        heapify(heap)
        last = None
        while heap:
            shard = heap[0]
            _, hash, generation, size = shard.line
            ref = BlobRef(hash.hex(), size, generation)
            if ref != last:
                yield ref
            last = ref
            if await shard.advance():
                heapreplace(heap, shard)
            else:
                heappop(heap)

    async def settled(self, ref: BlobRef, until: float) -> None:
        hash, generation = bytes.fromhex(ref.hash), ref.generation
        rows = await self._session.execute(LOST_AT, (hash, generation, int(until * 1000)))
        lines = [(row["at"], row["ticket"]) for row in rows]
        await self._session.execute_many(
            FOUND, [(_slice(at), hash[0] % SHARDS, at, hash, generation, ticket) for at, ticket in lines]
        )
        await self._session.execute_many(FOUND_AT, [(hash, generation, at, ticket) for at, ticket in lines])
