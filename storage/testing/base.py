"""What the suites have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults


class Suite:
    """A mixin: what it calls comes from the TestCase that the engine's own class adds."""

    if TYPE_CHECKING:

        def assertEqual(self, first: Any, second: Any, msg: Any = None) -> Any: ...
        def assertTrue(self, condition: Any, msg: Any = None) -> Any: ...
        def assertFalse(self, condition: Any, msg: Any = None) -> Any: ...
        def assertIsNone(self, obj: Any, msg: Any = None) -> Any: ...
        def assertGreater(self, a: Any, b: Any, msg: Any = None) -> Any: ...


__all__ = ["Suite", "collect", "fails", "together"]

T = TypeVar("T")


async def fails(error: type[BaseException], operation: Awaitable[Any]) -> BaseException:
    """Await *operation*, which must raise *error*; returns what was raised."""
    try:
        result = await operation
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised; the result is {result!r}")


async def together(*operations: Awaitable[T]) -> list[T | BaseException]:
    """Await coroutines side by side; each one's result, or what it raised."""

    async def outcome(operation: Awaitable[T]) -> T | BaseException:
        try:
            return await operation
        except Exception as error:
            return error

    running = [Deferred.fromCoroutine(outcome(operation)) for operation in operations]
    done: list[T | BaseException] = await gatherResults(running)
    return done


async def collect(items: AsyncIterator[T]) -> list[T]:
    """Everything that *items* yields."""
    return [item async for item in items]
