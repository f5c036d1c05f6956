"""Coroutines that never wait for anything real."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["run"]

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result: it must not be waiting for anything."""
    outcome: list[T | Failure] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    assert outcome, "it waits"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]
