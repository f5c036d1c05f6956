"""References to blobs in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from twisted_mail.storage.holders import check_holder
from twisted_mail.values import BlobRef

__all__ = ["MemoryReferences"]


class MemoryReferences:
    """Implements `References`."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._holders: dict[tuple[str, int], dict[str, None]] = {}
        self._condemned: dict[str, int] = {}
        self._lost: list[tuple[float, BlobRef]] = []

    async def add(self, ref: BlobRef, holder: str) -> None:
        check_holder(holder)
        self._holders.setdefault((ref.hash, ref.generation), {})[holder] = None

    async def remove(self, refs: Sequence[BlobRef], holder: str) -> None:
        now = self._wall()
        for ref in refs:
            self._lost.append((now, ref))
            key = (ref.hash, ref.generation)
            holders = self._holders.get(key, {})
            holders.pop(holder, None)
            if not holders:
                self._holders.pop(key, None)

    async def holders(self, ref: BlobRef, limit: int = 1) -> Sequence[str]:
        return list(self._holders.get((ref.hash, ref.generation), {}))[:limit]

    async def condemned(self, hash: str) -> int:
        return self._condemned.get(hash, 0)

    async def condemn(self, ref: BlobRef) -> None:
        self._condemned[ref.hash] = max(self._condemned.get(ref.hash, 0), ref.generation + 1)

    async def lost(self, until: float) -> AsyncIterator[BlobRef]:
        for _, ref in [item for item in self._lost if item[0] <= until]:
            yield ref

    async def settled(self, ref: BlobRef, until: float) -> None:
        self._lost = [
            (listed, other)
            for listed, other in self._lost
            if listed > until or (other.hash, other.generation) != (ref.hash, ref.generation)
        ]

    async def iterate(self) -> AsyncIterator[tuple[BlobRef, str]]:
        for (hash, generation), holders in sorted(self._holders.items()):
            for holder in list(holders):
                yield BlobRef(hash, 0, generation), holder
