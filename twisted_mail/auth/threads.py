"""Threads of its own for hashing: neither the reactor nor its general pool waits for argon2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["HashThreads"]


class HashThreads:
    """A pool that starts with its first work. Two threads: hashing is bound by memory, more make logins slower."""

    def __init__(self, reactor: Any, size: int = 2) -> None:
        # reactor provides IReactorFromThreads; Any, since callers pass Twisted's untyped module object
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name="passwords")

    def defer(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call in a thread of the pool; what the verifier takes as ``defer_to_thread``. Any: it takes every function."""
        if not self._pool.started:
            self._pool.start()
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)

    def stop(self) -> None:
        """Wait for what runs, and end the threads."""
        if self._pool.started:
            self._pool.stop()
