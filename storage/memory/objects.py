"""Named octets in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from twisted_mail.storage.interfaces import Conflict, NotFound
from twisted_mail.storage.objects import StoredObject

__all__ = ["MemoryObjects"]


class MemoryObjects:
    """Implements `Objects`."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._kept: dict[str, tuple[StoredObject, float]] = {}
        self._written = 0

    async def get(self, name: str, unless: str | None = None) -> StoredObject | None:
        try:
            found = self._kept[name][0]
        except KeyError:
            raise NotFound(f"no object {name}") from None
        return None if found.version == unless else found

    async def put(self, name: str, data: bytes) -> None:
        self._write(name, data)

    async def swap(self, name: str, data: bytes, version: str | None) -> str:
        present = self._kept.get(name)
        if (present and present[0].version) != version:
            raise Conflict(f"the object {name} is another than was meant")
        return self._write(name, data)

    def _write(self, name: str, data: bytes) -> str:
        if not data:
            raise ValueError("an object is never empty")
        self._written += 1
        stored = StoredObject(bytes(data), str(self._written))
        self._kept[name] = (stored, self._wall())
        return stored.version

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._kept.pop(name, None)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        for name in sorted(self._kept):
            if name.startswith(prefix):
                yield name, self._kept[name][1]
