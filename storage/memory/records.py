"""Records in memory."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from twisted_mail.storage.interfaces import Record

__all__ = ["MemoryRecords"]


class MemoryRecords:
    """Implements `Records`."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._spaces: dict[str, dict[str, tuple[bytes, float]]] = {}

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        record = Record(key, value)
        expires = float("inf") if ttl is None else self._clock.seconds() + ttl
        self._spaces.setdefault(space, {})[record.key] = (record.value, expires)

    async def get(self, space: str, key: str) -> bytes | None:
        value, expires = self._spaces.get(space, {}).get(key, (b"", 0.0))
        return value if expires > self._clock.seconds() else None

    async def delete(self, space: str, key: str) -> None:
        self._spaces.get(space, {}).pop(key, None)

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        now = self._clock.seconds()
        found = self._spaces.get(space, {})
        for key in [key for key, (_, expires) in found.items() if expires <= now]:
            del found[key]
        return [Record(key, found[key][0]) for key in sorted(found) if key > after][:limit]
