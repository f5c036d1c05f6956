"""Allowances of a day, counted over all nodes, taken ahead in small blocks.

A block is a sixteenth of what is left of the day, at most 200: so a busy day costs some hundred writes to the store, and
towards its end blocks are single messages, that no node sits on what another could send. What a node holds when it dies,
or when the day ends, is forfeited: never more is sent than was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import DeferredLock

from twisted_mail.storage.interfaces import Allowances

__all__ = ["MOST", "SHARE", "Blocks"]

SHARE: Final = 16
MOST: Final = 200


@dataclass(slots=True)
class _Block:
    day: int
    left: int = 0
    limit: int = 0
    """That it was taken under."""
    exhausted: int | None = None
    """The limit under which the store had nothing more to give on this day."""
    lock: DeferredLock = field(default_factory=DeferredLock)


class Blocks:
    """What this node holds of the allowances of all nodes."""

    def __init__(self, allowances: Allowances, *, share: int = SHARE, most: int = MOST) -> None:
        self._allowances = allowances
        self._share = share
        self._most = most
        self._blocks: dict[str, _Block] = {}

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        """Up to *n* of what *limit* leaves for *name* on *day* (days since 1970); returns how many (0..n).

        Raises: StorageError (nothing was taken that could be used).
        """
        if n <= 0 or limit <= 0:
            return 0
        block = self._blocks.get(name)
        if block is None or block.day != day:
            block = self._blocks[name] = _Block(day)
        if limit >= block.limit and block.left >= n:
            block.left -= n
            return n
        await block.lock.acquire()
        try:
            if limit < block.limit:
                # the plan was stepped back: what was taken ahead counts only if the lower limit allows it
                if block.left and await self._allowances.taken(name, day) > limit:
                    block.left = 0
                block.limit = limit
            if block.left < n and (block.exhausted is None or limit > block.exhausted):
                await self._refill(block, name, day, n, limit)
            got = min(n, block.left)
            block.left -= got
            return got
        finally:
            block.lock.release()

    async def _refill(self, block: _Block, name: str, day: int, n: int, limit: int) -> None:
        before = await self._allowances.taken(name, day)
        wanted = max(n - block.left, min(self._most, (limit - before) // self._share), 1)
        got = await self._allowances.take(name, day, wanted, limit)
        block.left += got
        block.limit = limit
        if got < wanted:
            block.exhausted = limit

    def give_back(self, name: str, day: int, n: int) -> None:
        """What was taken of *day* was not used. After the day it is forfeited."""
        block = self._blocks.get(name)
        if block is not None and block.day == day:
            block.left += n

    def held(self, name: str, day: int) -> int:
        """What this node has ahead."""
        block = self._blocks.get(name)
        return block.left if block is not None and block.day == day else 0

    def forget(self, before: int) -> None:
        """Drop what belongs to days before *before*."""
        for name in [name for name, block in self._blocks.items() if block.day < before]:
            del self._blocks[name]
