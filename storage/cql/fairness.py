"""Whose turn it is: requests wait by account, and accounts take turns, so that a busy one slows only itself down."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue", "Full"]

T = TypeVar("T")


class Full(Exception):
    """As many wait as may."""


class FairQueue(Generic[T]):
    """At most *total* under way and *each* of one key; the rest wait, and the keys take turns. None is not limited by *each*."""

    def __init__(self, total: int, each: int, waiting: int) -> None:
        self._total = total
        self._each = each
        self._limit = waiting
        self._queues: dict[Hashable, deque[T]] = {}
        self._flying: dict[Hashable, int] = {}
        self._turns: deque[Hashable] = deque()
        """The keys that have somebody waiting who may go; each once."""
        self.flying = 0
        self.waiting = 0

    def push(self, key: Hashable, item: T) -> None:
        """Get in line. Raises: Full."""
        if self.waiting >= self._limit:
            raise Full
        self.waiting += 1
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((item,))
            if self._may_go(key):
                self._turns.append(key)
        else:
            queue.append(item)

    def _may_go(self, key: Hashable) -> bool:
        return key is None or self._flying.get(key, 0) < self._each

    def pop(self) -> tuple[Hashable, T] | None:
        """The next who may go, now under way (`landed` must follow); None while nobody may."""
        if not self._turns or self.flying >= self._total:
            return None
        key = self._turns.popleft()
        queue = self._queues[key]
        item = queue.popleft()
        self.waiting -= 1
        self.flying += 1
        self._flying[key] = self._flying.get(key, 0) + 1
        if not queue:
            del self._queues[key]
        elif self._may_go(key):
            self._turns.append(key)
        return key, item

    def landed(self, key: Hashable) -> None:
        """One of *key* is no longer under way."""
        self.flying -= 1
        held = key is not None and not self._may_go(key)
        left = self._flying[key] - 1
        if left:
            self._flying[key] = left
        else:
            del self._flying[key]
        if held and key in self._queues:
            self._turns.append(key)

    def clear(self) -> list[T]:
        """Everybody who waits, who waits no more."""
        left = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._turns.clear()
        self.waiting = 0
        return left
