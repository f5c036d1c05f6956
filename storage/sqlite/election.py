"""Which process writes: the one that holds the lock on ``writer.lock``; the others hand it their writes.

The kernel frees the lock when its holder ends, however it ends, so whoever has it knows that nobody else writes.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable
from twisted_mail.storage.memory.small import MemoryBus, MemoryCache
from twisted_mail.storage.sqlite.operations import REPEATABLE
from twisted_mail.storage.sqlite.remote import Hub, Link, LinkLost
from twisted_mail.storage.sqlite.wire import reachable
from twisted_mail.storage.sqlite.writer import LocalWriter
from twisted_mail.values import AccountId, ModSeq

__all__ = ["FILE", "Place", "Writers"]

FILE: Final = "mail.sqlite"
"""The usual name of the database."""
FIRST_WAIT: Final = 0.01
LONGEST_WAIT: Final = 0.5
"""Seconds between attempts to find or become the writer."""
GREETING_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files lie."""

    database: Path

    @property
    def lock(self) -> Path:
        return self.database.parent / f"{self._prefix}writer.lock"

    @property
    def socket(self) -> Path:
        return self.database.parent / f"{self._prefix}writer.sock"

    @property
    def members(self) -> Path:
        """The folder of those who are alive."""
        return self.database.parent / f"{self._prefix}members"

    @property
    def _prefix(self) -> str:
        """Nothing for the usual file, so that another one in the same folder has a writer of its own."""
        return "" if self.database.name == FILE else f"{self.database.name}-"


class _NobodyWrites(Exception):
    """This attempt found no writer, and could not become it."""


class Writers:
    """The way for writes, whichever process carries them out."""

    _log = Logger()

    def __init__(
        self,
        place: Place,
        reactor: Any,
        bus: MemoryBus,
        cache: MemoryCache,
        *,
        wall: Callable[[], float] = time.time,
        patience: float = 5.0,
        max_bytes: int | None = None,
    ) -> None:
        self._place = place
        self._reactor = reactor
        self._bus = bus
        self._cache = cache
        self.now = wall
        """Seconds since 1970."""
        self._patience = patience
        """Seconds that a write waits for a process that writes, before it is refused."""
        self._max_bytes = max_bytes
        self._name = os.urandom(16)
        self._lock: int | None = None
        self._local: LocalWriter | None = None
        self._hub: Hub | None = None
        self._port: Any = None
        self._address = ExitStack()
        self._link: Link | None = None
        self._search_ended: Deferred[None] | None = None
        """While a search runs: fires at its end."""
        self._pause: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._stopped = True

    @property
    def local(self) -> LocalWriter | None:
        """The writer, when it is this process."""
        return self._local

    # --- life

    async def start(self) -> None:
        """Become the writer, or find it. Raises: StorageError."""
        self._stopped = False
        deadline = self._reactor.seconds() + self._patience
        wait = FIRST_WAIT
        while True:
            try:
                await self._attempt()
                return
            except _NobodyWrites as error:
                if self._reactor.seconds() >= deadline:
                    self._stopped = True
                    raise Unavailable(
                        f"{self._place.lock} is locked, but the process that holds it does not answer: {error}"
                    ) from error
            except BaseException:
                self._stopped = True
                raise
            await self._sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def stop(self) -> None:
        """Commit what is queued, answer, and leave the place to another process."""
        self._stopped = True
        self._wake(Refused("the database is closed"))
        if self._pause is not None:
            self._pause.cancel()
        if self._search_ended is not None:
            await self._search_ended
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._port is not None:
            port, self._port = self._port, None
            await _maybe(port.stopListening())
            self._address.close()
        local, hub = self._local, self._hub
        if local is not None:
            await local.stop()
        if hub is not None:
            hub.close()
        self._local = self._hub = None
        self._unlock()

    # --- writing

    async def write(self, operation: str, *arguments: Any) -> Any:
        """Carry out *operation*; durable once this returns.

        Raises: Refused (nothing was written), Unavailable (not known), and what the operation raises.
        """
        deadline = self._reactor.seconds() + self._patience
        while True:
            if self._local is not None:
                done: Deferred[Any] = Deferred(lambda deferred: None)
                self._local.submit(operation, arguments, _fire(done))
                return await done
            if self._link is None:
                await self._writer_found(deadline)
                continue
            try:
                return await self._link.request(operation, arguments)
            except LinkLost as error:
                if operation not in REPEATABLE:
                    raise Unavailable("the process that writes has gone; the outcome is not known") from error

    async def count(self, key: str, ttl: float, by: int) -> int:
        """Add to a counter of the writer's cache; of this process's while there is none."""
        link = self._link
        if link is not None:
            with suppress(LinkLost, StorageError):
                return int(await link.count(key, ttl, by))
        return self._cache.count(key, ttl, by)

    def tell_others(self, account: AccountId, modseq: ModSeq) -> None:
        """Pass a notice on to the other processes."""
        if self._hub is not None:
            if self._hub.clients:
                self._hub.tell(account.octets, int(modseq))
        elif self._link is not None:
            self._link.tell(account.octets, int(modseq))

    def _moved(self, account: bytes, modseq: int) -> None:
        self._bus.publish(AccountId(account), ModSeq(modseq))

    # --- becoming the writer, or finding it

    async def _writer_found(self, deadline: float) -> None:
        """Wait until there is a writer. Raises: Refused."""
        if self._stopped:
            raise Refused("the database is closed")
        found: Deferred[None] = Deferred(lambda deferred: self._waiting.remove(deferred))
        self._waiting.append(found)
        found.addTimeout(max(0.0, deadline - self._reactor.seconds()), self._reactor)
        self._search()
        try:
            await found
        except (CancelledError, TimedOut) as error:
            raise Refused("no process that writes the database can be found") from error

    def _search(self) -> None:
        if self._search_ended is None and not self._stopped:
            self._search_ended = Deferred()
            Deferred.fromCoroutine(self._find()).addErrback(
                lambda failure: self._log.failure("the search for the database's writer failed", failure)
            )

    async def _find(self) -> None:
        wait = FIRST_WAIT
        try:
            while not self._stopped and self._local is None and self._link is None:
                try:
                    await self._attempt()
                except (_NobodyWrites, StorageError) as error:
                    self._log.info("nobody writes the database: {why}", why=error)
                    if self._stopped:
                        break
                    self._pause = self._sleep(wait * (0.5 + random.random()))
                    with suppress(CancelledError):
                        await self._pause
                    self._pause = None
                    wait = min(wait * 2, LONGEST_WAIT)
        finally:
            ended, self._search_ended = self._search_ended, None
            if ended is not None:
                ended.callback(None)
        if not self._stopped:
            self._wake(None)

    def _wake(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for found in waiting:
            if not found.called:
                if error is None:
                    found.callback(None)
                else:
                    found.errback(error)

    async def _attempt(self) -> None:
        """Once: take the lock and write, or connect to who has it. Raises: _NobodyWrites, StorageError."""
        if self._take_lock():
            try:
                await self._become()
            except BaseException:
                self._local = self._hub = None
                self._unlock()
                raise
        else:
            await self._connect()

    def _take_lock(self) -> bool:
        try:
            lock = os.open(self._place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        except OSError as error:
            raise StorageError(f"{self._place.lock} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                return False
            raise StorageError(f"{self._place.lock} cannot be locked: {error.strerror}") from error
        self._lock = lock
        return True

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _become(self) -> None:
        local = LocalWriter(self._place.database, self._reactor, self.now, self._max_bytes)
        await local.start()
        hub = Hub(local.submit, self._cache.count, self._moved)
        try:
            # the socket of a writer that has died; nobody else can be listening, since we have the lock
            self._place.socket.unlink(missing_ok=True)
            # the name stays good while it is listened on: Twisted removes the socket by it
            address = self._address.enter_context(reachable(self._place.socket))
            self._port = self._reactor.listenUNIX(address, hub, mode=0o660)
        except Exception as error:
            self._address.close()
            await local.stop()
            raise StorageError(f"{self._place.socket} cannot be listened on: {error}") from error
        self._local, self._hub = local, hub

    async def _connect(self) -> None:
        try:
            with reachable(self._place.socket) as address:
                endpoint = UNIXClientEndpoint(self._reactor, address)
                link = Link(self._name, self._moved, self._link_lost)
                await connectProtocol(endpoint, link)
                await link.ready.addTimeout(GREETING_SECONDS, self._reactor)
        except (ConnectError, LinkLost, TimedOut, OSError) as error:
            raise _NobodyWrites(str(error) or type(error).__name__) from error
        if self._stopped:
            link.close()
            raise _NobodyWrites("the database is closed")
        self._link = link

    def _link_lost(self, link: Link) -> None:
        if self._link is link:
            self._link = None
            self._search()

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds, lambda: None)


def _fire(done: Deferred[Any]) -> Callable[[bool, Any], None]:
    def answer(good: bool, value: Any) -> None:
        if done.called:
            return
        if good:
            done.callback(value)
        else:
            done.errback(value)

    return answer


async def _maybe(result: Any) -> None:
    """Wait for what may be a Deferred."""
    if isinstance(result, Deferred):
        await result
