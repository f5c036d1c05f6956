"""Work with a time limit, and work of which only some is done at a time."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

__all__ = ["CONCURRENT", "TooSlow", "some_at_a_time", "within"]

T = TypeVar("T")

CONCURRENT: Final = 32
"""Accounts into which one message is put at the same time."""

TooSlow = TimeoutError
"""The time limit has passed, and the work was cancelled."""


async def within(clock: IReactorTime, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*, which is cancelled after *seconds* on *clock*. Raises: TooSlow, and what it raises itself."""
    running = Deferred.fromCoroutine(work)
    if not running.called:
        running.addTimeout(seconds, clock)
    return await running


async def some_at_a_time(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all of *work*, at most CONCURRENT at once; if it is interrupted, what runs is cancelled."""
    if len(work) == 1:
        return await work[0]
    waiting = list(reversed(work))

    async def one_after_the_other() -> None:
        while waiting:
            await waiting.pop()

    running = [Deferred.fromCoroutine(one_after_the_other()) for _ in range(min(CONCURRENT, len(work)))]
    try:
        for each in running:
            await each
    except BaseException:
        for coroutine in waiting:
            coroutine.close()
        waiting.clear()
        for each in running:
            each.addErrback(lambda failure: None)
            each.cancel()
        raise
    return None
