"""Accounts over the memory engine, driven without a reactor."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.storage.memory.references import MemoryReferences
from twisted_mail.values import AccountId

R = TypeVar("R")
START = 1_700_000_000.0
"""Seconds since 1970 at which the fake wall clock stands when the fake clock stands at 0."""


def now(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that does not have to wait. Raises what it raises."""
    results: list[Any] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "the coroutine is still waiting"
    result: R = results[0]
    return result


class House:
    """A memory engine, a fake clock, and as many services (nodes) over it as are asked for."""

    def __init__(self, settings: AccountSettings | None = None, **replaced: Any) -> None:
        # replaced: stores that stand in for the engine's own; their types differ, hence Any
        self.clock = Clock()
        self.engine = MemoryEngine(EngineContext(self.clock, Path("/nonexistent")))
        self.engine.references = MemoryReferences(self.wall)
        self.settings = settings or AccountSettings()
        self.replaced = replaced
        self.service = self.node()

    def wall(self) -> float:
        return START + self.clock.seconds()

    def node(self, **replaced: Any) -> AccountService:
        """Another service over the same stores, as another process would have."""
        stores = {
            "log": self.engine.account_log,
            "messages": self.engine.messages,
            "blobs": self.engine.blobs,
            "leases": self.engine.leases,
            "bus": self.engine.bus,
            "references": self.engine.references,
            **self.replaced,
            **replaced,
        }
        return AccountService(
            clock=self.clock, settings=self.settings, wall=self.wall, **stores
        )

    def open(self, id: AccountId | None = None, service: AccountService | None = None) -> Account:
        """An account, fresh unless *id* says which."""
        return now((service or self.service).open(id or AccountId.new()))


def put(house: House, account: Account, octets: bytes, chunk: int = 8192) -> Any:
    """A message row of *octets* in *account*: a StoredMessage."""

    async def store() -> Any:
        writer = house.service.writer(account.id)
        for at in range(0, len(octets), chunk):
            await writer.write(octets[at : at + chunk])
        return await account.store(await writer.finish())

    return now(store())
