"""Results from threads to the reactor, and the pool of threads that read the database."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.storage.interfaces import StorageError, Unavailable
from twisted_mail.storage.sqlite.schema import open_reader, translate

__all__ = ["Answer", "Answers", "ReaderPool"]

T = TypeVar("T")
Answer = Callable[[bool, Any], None]
"""Takes (True, result) or (False, exception), in the reactor's thread."""


class Answers:
    """Hands results to the reactor: however many wait, one call from the thread drains them."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: deque[tuple[Answer, bool, Any]] = deque()
        self._called = False

    def post(self, answers: Iterable[tuple[Answer, bool, Any]]) -> None:
        """From any thread."""
        self._waiting.extend(answers)
        if not self._called:
            self._called = True
            self._reactor.callFromThread(self._drain)

    def _drain(self) -> None:
        # first: what is posted from here on calls again, and at worst finds nothing left
        self._called = False
        while self._waiting:
            answer, good, value = self._waiting.popleft()
            try:
                answer(good, value)
            except Exception:
                self._log.failure("an answer of the database could not be given")


class ReaderPool:
    """Threads that read, each with its own connection, opened when it is first needed."""

    def __init__(self, path: Path, reactor: Any, size: int) -> None:
        self._path = path
        self._answers = Answers(reactor)
        self._size = size
        self._jobs: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Answer] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def start(self) -> None:
        self._stopped = False
        for number in range(self._size):
            thread = threading.Thread(target=self._work, name=f"sqlite-reader-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Finish what was asked for, then close. Does not wait longer than a read takes."""
        self._stopped = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def run(self, read: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``read(connection, *arguments)`` in a thread. Fails with StorageError."""
        done: Deferred[T] = Deferred(lambda deferred: None)
        if self._stopped or not self._threads:
            done.errback(Unavailable("the database is closed"))
            return done

        def answer(good: bool, value: Any) -> None:
            if done.called:
                return
            if good:
                done.callback(value)
            else:
                done.errback(value)

        self._jobs.put((read, arguments, answer))
        return done

    def _work(self) -> None:
        db: sqlite3.Connection | None = None
        while (job := self._jobs.get()) is not None:
            read, arguments, answer = job
            try:
                if db is None:
                    db = open_reader(self._path)
                result = read(db, *arguments)
            except sqlite3.Error as error:
                translated = translate(error)
                if db is not None and db.in_transaction:
                    db.rollback()
                self._answers.post([(answer, False, translated)])
            except Exception as error:
                if db is not None and db.in_transaction:
                    db.rollback()
                failure = error if isinstance(error, (StorageError, ValueError)) else StorageError(repr(error))
                self._answers.post([(answer, False, failure)])
            else:
                self._answers.post([(answer, True, result)])
            # an idle thread must not keep the last result alive
            del job, read, arguments, answer
            result = None
        if db is not None:
            db.close()
