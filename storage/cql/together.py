"""Requests side by side."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

__all__ = ["all_of"]

T = TypeVar("T")


async def all_of(operations: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of *operations*, in their order. All have ended when this raises the first error; cancelled, it cancels
    them all."""
    running = [Deferred.fromCoroutine(each) for each in operations]
    together: Deferred[Any] = DeferredList(running, consumeErrors=True)  # cancelled, it cancels each of them
    outcomes = await together
    for succeeded, result in outcomes:
        if not succeeded:
            result.raiseException()
    return [result for _, result in outcomes]
