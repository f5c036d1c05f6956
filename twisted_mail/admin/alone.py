"""Being the only command that does something to a store: by a lease, which is renewed as long as that lasts.

`COPYING` is held on the target of ``storage copy`` and by ``storage gc --audit --repair``: what is copied (rows and holders of
things that are old) comes before what names it, and would be taken for garbage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from twisted_mail.admin.problems import Problem, Status
from twisted_mail.storage.interfaces import Leases, StorageError

__all__ = ["COPYING", "Alone", "alone"]

COPYING: Final = "storage-copy"
LEASE_SECONDS: Final = 120.0
RENEW_SECONDS: Final = 20.0
MARGIN_SECONDS: Final = 15.0
"""So much before the lease runs out nothing is written any more."""


class Alone:
    """A lease that is held, by this process's monotonic clock."""

    def __init__(self, leases: Leases, name: str, number: int, reactor: Any, until: float) -> None:
        # the reactor provides IReactorTime; Any, as everywhere in this room
        self._leases = leases
        self._name = name
        self._number = number
        self._reactor = reactor
        self._until = until
        self._lost = False

    def check(self) -> None:
        """Before each write. Raises Problem: it is not held any more."""
        if self._lost or self._reactor.seconds() >= self._until - MARGIN_SECONDS:
            raise Problem(Status.TEMPORARY, "not-alone", f"the lease {self._name} was lost: run this again")

    async def renew(self) -> None:
        """Hold on. A store that does not answer is asked again the next time."""
        asked = self._reactor.seconds()
        try:
            if await self._leases.renew(self._name, self._number, LEASE_SECONDS):
                self._until = asked + LEASE_SECONDS
            else:
                self._lost = True
        except StorageError:
            return


@asynccontextmanager
async def alone(leases: Leases, name: str, reactor: Any, otherwise: str) -> AsyncIterator[Alone]:
    """Hold the lease *name*. Raises Problem with the text *otherwise* where another has it; StorageError."""
    asked = reactor.seconds()
    number = await leases.acquire(name, LEASE_SECONDS)
    if number is None:
        raise Problem(Status.CONFLICT, "not-alone", otherwise)
    held = Alone(leases, name, number, reactor, asked + LEASE_SECONDS)
    renewing = LoopingCall(lambda: Deferred.fromCoroutine(held.renew()))
    renewing.clock = reactor
    renewing.start(RENEW_SECONDS, now=False)
    try:
        yield held
    finally:
        renewing.stop()
        try:
            await leases.release(name, number)
        except StorageError:
            pass  # it runs out
