"""Threads for a driver that blocks: started as they are needed, bounded, and gone when the engine stops."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.storage.interfaces import Unavailable

__all__ = ["Task", "Threads"]

T = TypeVar("T")

STOP_POLL_SECONDS: Final = 0.01


class _Job:
    """Work for a thread. Once `abandoned` nobody waits for it: it is not begun any more, and its result is dropped."""

    __slots__ = ("abandoned", "done", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.abandoned = False
        self.done: Deferred[Any] = Deferred(self._abandon)

    def _abandon(self, done: Deferred[Any]) -> None:
        self.abandoned = True


class Threads:
    """At most *size* threads. Results are handed to the reactor together: however many wait, one call drains them."""

    _log = Logger()

    def __init__(self, reactor: Any, size: int, name: str) -> None:
        self._reactor = reactor
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        """Jobs that were given out and have not been answered; only the reactor's thread counts."""
        self._results: deque[tuple[_Job, bool, Any]] = deque()
        self._called = False
        self.closed = True

    def start(self) -> None:
        self.closed = False

    async def stop(self, seconds: float) -> bool:
        """End the threads when their work is done; waits at most *seconds*. False: some are still held by the driver."""
        self.closed = True
        for _ in self._threads:
            self._jobs.put(None)
        until = self._reactor.seconds() + seconds
        while any(thread.is_alive() for thread in self._threads):
            if self._reactor.seconds() >= until:
                return False
            await deferLater(self._reactor, STOP_POLL_SECONDS)
        self._threads.clear()
        return True

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Call *work* in a thread. Cancelled, the Deferred fails at once; a thread that has begun ends in its own time."""
        job = _Job(work)
        if self.closed:
            job.done.errback(Unavailable("the object store's engine is stopped"))
            return job.done
        self._busy += 1
        if self._busy > len(self._threads) < self._size:
            name = f"{self._name}-{len(self._threads)}"
            # a daemon: a store that never answers must not keep the process from ending
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)
        return job.done

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            good, value = False, None
            if not job.abandoned:
                try:
                    good, value = True, job.work()
                except BaseException as error:  # it is the caller's, whatever it is
                    value = error
            self._results.append((job, good, value))
            # an idle thread must not keep the last result alive
            del job
            value = None
            if not self._called:
                self._called = True
                self._reactor.callFromThread(self._drain)

    def _drain(self) -> None:
        # first: what is appended from here on calls again, and at worst finds nothing left
        self._called = False
        while self._results:
            job, good, value = self._results.popleft()
            self._busy -= 1
            if job.abandoned:
                continue
            try:
                if good:
                    job.done.callback(value)
                else:
                    job.done.errback(Failure(value))
            except Exception:
                self._log.failure("an answer of the object store could not be given")


class Task(Generic[T]):
    """A coroutine that runs on its own: who waits for it may be cancelled, and it is not."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._waiting: list[Deferred[None]] = []
        self._outcome: tuple[bool, Any] | None = None
        Deferred.fromCoroutine(coroutine).addCallbacks(self._end, self._end)

    @property
    def done(self) -> bool:
        return self._outcome is not None

    def _end(self, result: Any) -> None:
        self._outcome = (False, result.value) if isinstance(result, Failure) else (True, result)
        for waiting in self._waiting:
            if not waiting.called:
                waiting.callback(None)

    async def settled(self) -> None:
        """Wait for its end, whatever that is."""
        if self._outcome is None:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)

    async def result(self) -> T:
        """What it returned. Raises: what it raised."""
        await self.settled()
        assert self._outcome is not None
        good, value = self._outcome
        if not good:
            raise value
        result: T = value
        return result
