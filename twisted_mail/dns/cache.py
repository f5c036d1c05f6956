"""Answers kept as long as their TTL says, at most so many."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

__all__ = ["Cache"]

V = TypeVar("V")


@dataclass(slots=True)
class _Kept(Generic[V]):
    value: V
    until: float


class Cache(Generic[V]):
    """By name and type; who was not asked for the longest makes room (RFC 1035 section 7.3 leaves that free)."""

    def __init__(self, clock: IReactorTime, entries: int) -> None:
        self._clock = clock
        self._entries = entries
        self._kept: OrderedDict[tuple[str, str], _Kept[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str, type: str) -> tuple[V, float] | None:
        """What is kept, and the seconds for which it may still be used."""
        kept = self._kept.get((name, type))
        if kept is None:
            return None
        left = kept.until - self._clock.seconds()
        if left <= 0:
            del self._kept[name, type]
            return None
        self._kept.move_to_end((name, type))
        return kept.value, left

    def put(self, name: str, type: str, value: V, ttl: float) -> None:
        """Nothing is kept that may not be used a second time (a TTL of 0, RFC 1035 section 3.2.1)."""
        self._kept.pop((name, type), None)
        if ttl <= 0 or self._entries <= 0:
            return
        while len(self._kept) >= self._entries:
            self._kept.popitem(last=False)
        self._kept[name, type] = _Kept(value, self._clock.seconds() + ttl)

    def flush(self, domain: str | None = None) -> None:
        """Forget *domain* and what is below it, or all."""
        if domain is None:
            self._kept.clear()
            return
        below = "." + domain
        for key in [key for key in self._kept if key[0] == domain or key[0].endswith(below)]:
            del self._kept[key]
