"""The one thread that writes: what has queued up for any account is committed together."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Refused, StorageError
from twisted_mail.storage.sqlite.operations import OPERATIONS, Transaction
from twisted_mail.storage.sqlite.schema import open_writer, translate
from twisted_mail.storage.sqlite.threads import Answer, Answers

__all__ = ["MAX_GROUP", "LocalWriter"]

MAX_GROUP: Final = 1024
"""Operations in one transaction."""
MAX_WAITING: Final = 50_000
"""Operations that may queue; more are refused."""

Job = tuple[Callable[..., Any], Sequence[Any], Answer]


class LocalWriter:
    """Owns the connection that writes. Only the process that holds the lock file may have one."""

    _log = Logger()

    def __init__(
        self, path: Path, reactor: Any, wall: Callable[[], float] = time.time, max_bytes: int | None = None
    ) -> None:
        self._path = path
        self._wall = wall
        self._max_bytes = max_bytes
        self._answers = Answers(reactor)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fence = False
        self._closing = False
        self.commits = 0
        """Transactions that were committed."""
        self.operations = 0
        """Operations in them."""

    async def start(self) -> None:
        """Open the database. Raises: StorageError."""
        opened: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._work, args=(_resolve(opened),), name="sqlite-writer", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            self._closing = True
            raise

    async def stop(self) -> None:
        """Commit what is queued, then close."""
        if self._thread is None or self._closing:
            return
        self._closing = True
        closed: Deferred[None] = Deferred()
        self._ended = _resolve(closed)
        self._jobs.put(None)
        await closed
        self._thread.join()

    def submit(self, name: str, arguments: Sequence[Any], answer: Answer) -> None:
        """Have operation *name* carried out; *answer* is called once it is durable, or with what went wrong."""
        if self._closing or self._jobs.qsize() > MAX_WAITING:
            answer(False, Refused("the database is closing" if self._closing else "too many writes are waiting"))
            return
        self._jobs.put((OPERATIONS[name], arguments, answer))

    # --- in the thread

    def _work(self, opened: Answer) -> None:
        try:
            db = open_writer(self._path, self._max_bytes)
        except Exception as error:
            self._answers.post([(opened, False, error)])
            return
        self._answers.post([(opened, True, None)])
        transaction = Transaction(db, self._wall)
        ending = False
        while not ending:
            group: list[Job] = []
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == MAX_GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
            ending = job is None
            if group:
                self._answers.post(self._commit(transaction, group))
            del job, group
        try:
            db.execute("PRAGMA optimize")
            db.close()
        except sqlite3.Error as error:
            self._log.warn("the database could not be closed in order: {why}", why=error)
        self._answers.post([(self._ended, True, None)])

    def _commit(self, transaction: Transaction, group: Sequence[Job]) -> list[tuple[Answer, bool, Any]]:
        """Carry out *group* in one transaction, each operation in a savepoint of its own."""
        db = transaction.db
        answers: list[tuple[Answer, bool, Any]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            if self._fence:
                db.execute("UPDATE fence SET number = number + 1")
            for function, arguments, answer in group:
                db.execute("SAVEPOINT operation")
                try:
                    result = function(transaction, *arguments)
                except Exception as error:
                    if not db.in_transaction:
                        raise  # SQLite has rolled back everything: a full disk, mostly
                    db.execute("ROLLBACK TO operation")
                    answers.append((answer, False, self._failure(error)))
                else:
                    answers.append((answer, True, result))
                db.execute("RELEASE operation")
        except Exception as error:
            return self._nobody(db, group, self._failure(error))
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            failure = translate(error, committing=True)
            # Until the write-ahead log has gone on, a crash might bring back what seems to have failed: `settle` must
            # not answer before. With a failure that is certain this costs one more row in the next transaction.
            self._fence = True
            return self._nobody(db, group, failure)
        self._fence = False
        self.commits += 1
        self.operations += len(group)
        return answers

    def _nobody(
        self, db: sqlite3.Connection, group: Sequence[Job], failure: StorageError
    ) -> list[tuple[Answer, bool, Any]]:
        self._log.error("{count} writes failed: {why}", count=len(group), why=failure)
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._log.error("the transaction could not be rolled back: {why}", why=error)
        return [(answer, False, failure) for _, _, answer in group]

    def _failure(self, error: Exception) -> StorageError:
        if isinstance(error, StorageError):
            return error
        if isinstance(error, sqlite3.Error):
            return translate(error)
        self._log.failure("an operation of the database failed")
        return StorageError(f"{type(error).__name__}: {error}")


def _resolve(done: Deferred[Any]) -> Answer:
    def answer(good: bool, value: Any) -> None:
        if done.called:
            return
        if good:
            done.callback(value)
        else:
            done.errback(value)

    return answer
