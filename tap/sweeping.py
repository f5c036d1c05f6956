"""The sweeper of blobs, run now and then by every node; a lease sees to it that one at a time does the work."""

from __future__ import annotations

import random
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.account.sweeping import Sweeper, Swept
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import StorageError

__all__ = ["Sweeping", "sweeper_of"]


def sweeper_of(backend: Backend, reactor: Any) -> Sweeper:
    """The sweeper over *backend*."""
    return Sweeper(backend.references, backend.blobs, backend.leases, clock=reactor, wall=time.time)


class Sweeping:
    """One pass every *seconds* (0: never), the first one after a random part of that: nodes start together."""

    _log = Logger()

    def __init__(self, sweeper: Sweeper, reactor: Any, seconds: float) -> None:
        self._sweeper = sweeper
        self._reactor = reactor
        self._seconds = seconds
        self._loop = LoopingCall(self._pass)
        self._loop.clock = reactor
        self._first: Deferred[None] | None = None
        self._running: Deferred[None] | None = None
        self.swept = Swept()
        """What the passes of this process have done so far."""

    def start(self) -> None:
        if self._seconds > 0:
            self._first = deferLater(self._reactor, self._seconds * random.random(), self._begin)
            self._first.addErrback(lambda failure: failure.trap(Exception) and None)

    def _begin(self) -> None:
        self._first = None
        self._loop.start(self._seconds).addErrback(self._failed)

    async def stop(self) -> None:
        """A pass that is at work ends where it is: all it knows is in the store."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            self._running.cancel()

    def _pass(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self._pass_once())
        self._running = done
        return done.addErrback(self._failed).addBoth(self._ended)

    def _ended(self, result: None) -> None:
        self._running = None

    async def _pass_once(self) -> None:
        try:
            swept = await self._sweeper.run_once()
        except StorageError as error:
            self._log.warn("sweeping is put off: {why}", why=error)
            return
        if swept is not None and swept.listed:
            self._log.info("swept: {swept}", swept=swept)
            self.swept.deleted += swept.deleted
            self.swept.deleted_bytes += swept.deleted_bytes

    def _failed(self, failure: Failure) -> None:
        self._log.failure("sweeping failed", failure)
