"""Rows of one partition that come one by one and go out together: what one caller begins, the next ones join.

Each write costs the cluster about the same whether it brings one row or a dozen, at every replica. So while as many writes
of a partition are under way as may be, rows that come gather, and go in one batch when one of those has ended. Who is
alone does not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Gathering"]

SIDE_BY_SIDE: Final = 1
"""Writes of one partition under way at once. What has been written together is then committed together, while the next is
being written: two stages, each of which one request keeps busy."""


class _Row:
    """The values of a row, and who waits until it is written."""

    __slots__ = ("done", "octets", "values")

    def __init__(self, values: Sequence[Any], octets: int) -> None:
        self.values = values
        self.octets = octets
        self.done: Deferred[None] = Deferred()


class _Partition:
    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Row] = deque()
        self.under_way = 0


class Gathering:
    """Writes rows by *write*, which takes the values of some rows of one partition, of at most *limit* octets together
    (or of one row), *width* writes of one partition side by side."""

    def __init__(
        self, write: Callable[[Sequence[Sequence[Any]]], Awaitable[None]], limit: int, width: int = SIDE_BY_SIDE
    ) -> None:
        self._write = write
        self._limit = limit
        self._width = width
        self._partitions: dict[Hashable, _Partition] = {}

    async def add(self, partition: Hashable, values: Sequence[Any], octets: int) -> None:
        """Write one row; returns when it is durable. Raises what *write* raises, for all rows that went together."""
        place = self._partitions.get(partition)
        if place is None:
            place = self._partitions[partition] = _Partition()
        row = _Row(values, octets)
        place.waiting.append(row)
        self._go(partition, place)
        await row.done

    def _go(self, partition: Hashable, place: _Partition) -> None:
        while place.under_way < self._width and (group := self._next(place)):
            place.under_way += 1
            writing = Deferred.fromCoroutine(self._written([row.values for row in group]))
            writing.addBoth(self._ended, partition, place, group)
        if not place.under_way and not place.waiting:
            self._partitions.pop(partition, None)

    def _next(self, place: _Partition) -> list[_Row]:
        """The oldest that wait, without those whose callers have gone."""
        group: list[_Row] = []
        octets = 0
        while place.waiting and (not group or octets + place.waiting[0].octets <= self._limit):
            row = place.waiting.popleft()
            if not row.done.called:
                group.append(row)
                octets += row.octets
        return group

    async def _written(self, rows: Sequence[Sequence[Any]]) -> None:
        await self._write(rows)

    def _ended(self, result: object, partition: Hashable, place: _Partition, group: Sequence[_Row]) -> None:
        place.under_way -= 1
        for row in group:
            if not row.done.called:
                if isinstance(result, Failure):
                    row.done.errback(result)
                else:
                    row.done.callback(None)
        self._go(partition, place)
