"""A pool of threads for one kind of blocking work, so that nothing else waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["Threads"]


class Threads:
    """Starts with its first work."""

    def __init__(self, reactor: Any, size: int, name: str) -> None:
        # reactor provides IReactorFromThreads; Any, since callers pass Twisted's untyped module object
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)

    def defer(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call in a thread of the pool; it takes every function, hence Any."""
        if not self._pool.started:
            self._pool.start()
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)

    def stop(self) -> None:
        """Wait for what runs, and end the threads."""
        if self._pool.started:
            self._pool.stop()
