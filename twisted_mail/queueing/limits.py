"""Work with a time limit, and work of which only some is done at a time."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime

__all__ = ["CONCURRENT", "TooSlow", "begun", "rest_of", "side_by_side", "some_at_a_time", "within"]

T = TypeVar("T")

CONCURRENT: Final = 32
"""Accounts into which one message is put at the same time."""

TooSlow = TimeoutError
"""The time limit has passed, and the work was cancelled."""


async def within(clock: IReactorTime, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*, which is cancelled after *seconds* on *clock*. Raises: TooSlow, and what it raises itself.

    What never waits costs no Deferred and no timer.
    """
    try:
        awaited = work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
    running: Deferred[T] = Deferred.fromCoroutine(rest_of(work, awaited))
    running.addTimeout(seconds, clock)
    return await running


def begun(work: Coroutine[Any, Any, T]) -> Deferred[T] | None:
    """*work* under way; None: it never had to wait, and is done."""
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    except Exception:
        return fail()
    return Deferred.fromCoroutine(rest_of(work, awaited))


@types.coroutine
def rest_of(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """*work* from where it waits for *awaited*, which its `send` has given."""
    step: Callable[[Any], Any]
    while True:
        try:
            value = yield awaited
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step, value = work.throw, error
        try:
            awaited = step(value)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration is not generic


async def side_by_side(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, which run at the same time; cancelled together."""
    results: list[Any] = [None] * len(work)
    waiting: list[tuple[int, Deferred[T]]] = []
    try:
        for at, each in enumerate(work):
            try:
                awaited = each.send(None)
            except StopIteration as end:
                results[at] = end.value
            else:
                waiting.append((at, Deferred.fromCoroutine(rest_of(each, awaited))))
        for at, running in waiting:
            results[at] = await running
    except BaseException:
        for _, running in waiting:
            running.addErrback(lambda failure: None)
            running.cancel()
        for each in work:
            each.close()
        raise
    return results


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
