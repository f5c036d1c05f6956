"""Running a coroutine under the reactor, inside one command.

The loop is left by `crash`, not by `stop`, which would keep this process from ever running it again: tests run many
commands in one process. SIGINT and SIGTERM cancel the coroutine, which then closes what it has open.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["run", "the_reactor"]

T = TypeVar("T")


def the_reactor() -> Any:
    """The process's reactor. Any: it provides more interfaces than a type can say."""
    from twisted.internet import reactor

    return reactor


def run(main: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """The result of ``main(reactor)``. Raises what it raises; CancelledError after a signal."""
    reactor = the_reactor()
    results: list[T] = []
    failures: list[Failure] = []
    running: list[Deferred[Any]] = []

    def start() -> None:
        done = Deferred.fromCoroutine(main(reactor))
        running.append(done)
        done.addCallbacks(results.append, failures.append)
        done.addBoth(lambda _: reactor.crash())

    def interrupted(number: int, frame: FrameType | None) -> None:
        for each in running:
            reactor.callFromThread(each.cancel)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, interrupted)
    try:
        # by a delayed call: a coroutine that never waits would crash a reactor that does not run yet
        reactor.callLater(0, start)
        reactor.run(installSignalHandlers=False)
    finally:
        for restored, old in before.items():
            signal.signal(restored, old)
    if failures:
        failures[0].raiseException()
    return results[0]
