"""A delivery room with a queue over stores in memory that can be switched off, and nodes that can die."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.delivery.support import NOW, PEER, run
from twisted_mail.account.service import AccountService
from twisted_mail.delivery import Bodies, DeliveryCounts, DeliverySettings, InboundQueue, MailIntake, SpoolFolder, Ways
from twisted_mail.delivery.failing import RetrySettings
from twisted_mail.delivery.worker import DeliveryWorker, WorkerSettings
from twisted_mail.services import Envelope, Outcome
from twisted_mail.storage.interfaces import (
    AccountRecord,
    Domain,
    EngineContext,
    QueueFilter,
    QueueStatus,
    Refused,
    Unavailable,
)
from twisted_mail.storage.memory import MemoryBlobs, MemoryEngine
from twisted_mail.values import AccountId

ANN, BOB = "ann@example.org", "bob@example.org"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


class Death:
    """Counts a node's operations on stores; with the one numbered `at` it dies, before or after carrying it out."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.operations: list[str] = []
        self.dead = False


_FOR_EVER: list[Deferred[None]] = []


def for_ever() -> Deferred[None]:
    """What never comes. It is kept: were it collected, those who wait for it would be told that they are cancelled."""
    waiting: Deferred[None] = Deferred()
    _FOR_EVER.append(waiting)
    return waiting


class Switched:
    """A store whose operations work, fail, or hang, as `mode` says: up, down, full, hang, lost (done, but not said),
    lost once.

    It stands for any store, hence Any all over.
    """

    def __init__(self, inner: Any, death: Death | None = None) -> None:
        self._inner = inner
        self._death = death or Death()
        self.mode = "up"
        self.only: Collection[str] | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name == "writer":
            return lambda: _within(self, value())
        if inspect.isasyncgenfunction(value):
            return lambda *args, **named: self._generate(name, value, *args, **named)
        if inspect.iscoroutinefunction(value):
            return lambda *args, **named: self._call(name, lambda: value(*args, **named))
        return value

    async def _generate(self, name: str, value: Any, *args: Any, **named: Any) -> AsyncIterator[Any]:
        async def nothing() -> None:
            return None

        await self._call(name, nothing)
        async for each in value(*args, **named):
            yield each

    async def _call(self, name: str, act: Callable[[], Any]) -> Any:
        death = self._death
        if death.dead:
            await for_ever()
        death.operations.append(name)
        fatal = death.at is not None and len(death.operations) == death.at
        if fatal and not death.after:
            death.dead = True
            await for_ever()
        if self.only is None or name in self.only:
            match self.mode:
                case "down":
                    raise Unavailable(f"{name}: no answer")
                case "full":
                    raise Refused(f"{name}: no room")
                case "hang":
                    await for_ever()
                case "lost" | "lost once":
                    self.mode = "lost" if self.mode == "lost" else "up"
                    await act()
                    raise Unavailable(f"{name}: no answer")
        result = await act()
        if fatal:
            death.dead = True
            await for_ever()
        return result


def _within(switched: Switched, writer: Any) -> Any:
    proxy = Switched(writer, switched._death)
    call = proxy._call

    async def as_the_store_says(name: str, act: Callable[[], Any]) -> Any:
        proxy.mode = switched.mode if name != "abort" else "up"
        proxy.only = switched.only
        return await call(name, act)

    proxy._call = as_the_store_says  # type: ignore[method-assign]
    return proxy


class Node:
    """One process: its own accounts, intake and worker over the stores of a house."""

    def __init__(self, house: QueueHouse, *, straight: bool = True, death: Death | None = None) -> None:
        engine, clock = house.engine, house.clock
        self.log = Switched(engine.account_log, death)
        self.messages = Switched(engine.messages, death)
        self.blobs = Switched(engine.blobs, death)
        self.references = Switched(engine.references, death)
        self.directory = Switched(engine.directory, death)
        self.queue = Switched(engine.queue, death)
        self.overflow = Switched(house.overflow, death)
        self.counts = DeliveryCounts()
        self.trouble: str | None = None
        self.blob_trouble: str | None = None
        self.accounts = AccountService(
            log=self.log,
            messages=self.messages,
            blobs=self.blobs,
            leases=engine.leases,
            bus=engine.bus,
            clock=clock,
            wall=house.wall,
        )
        self.bodies = Bodies(
            self.blobs,
            self.references,
            clock,
            overflow=self.overflow if house.has_overflow else None,
            trouble=lambda: self.blob_trouble,
        )
        self.inbound = InboundQueue(
            self.queue,
            self.bodies,
            SpoolFolder(house.folder, in_thread),
            clock,
            counts=self.counts,
            wall=house.wall,
            trouble=lambda: self.trouble,
        )
        self.ways = Ways(
            accounts=self.accounts, clock=clock, queue=self.inbound, straight=straight, counts=self.counts
        )
        self.intake = MailIntake(
            self.directory,
            self.ways,
            DeliverySettings(hostname="mx.example.org", remember_seconds=1.0),
            wall=house.wall,
        )
        self.worker = DeliveryWorker(
            self.queue,
            self.bodies,
            self.accounts,
            self.directory,
            clock,
            settings=house.settings,
            counts=self.counts,
            wall=house.wall,
            random=lambda: 0.5,
        )
        self.inbound.wake(self.worker.wake)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """No thread: it takes no time here."""
    return call(*arguments)


class QueueHouse:
    """The stores, the clock, two users."""

    def __init__(self, folder: Path, *, overflow: bool = False, **retry: Any) -> None:
        self.folder = folder
        self.clock = Clock()
        self.clock.advance(NOW)
        self.engine = MemoryEngine(EngineContext(self.clock, folder))
        self.overflow = MemoryBlobs()
        self.has_overflow = overflow
        self.settings = WorkerSettings(retry=RetrySettings(**retry))
        self.people: dict[str, AccountId] = {}
        run(self.engine.directory.add_domain(Domain("example.org")))
        for name in (ANN, BOB):
            self.user(name)

    def user(self, address: str, **more: Any) -> None:
        record = AccountRecord(AccountId.new(), address, **more)
        run(self.engine.directory.add_account(record))
        self.people[address] = record.id

    def wall(self) -> float:
        return self.clock.seconds()

    def go_on(self, seconds: float, step: float = 0.25) -> None:
        """Let time go by in small steps."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)

    def give(
        self, node: Node, *recipients: str, message: bytes = MESSAGE, wait: float = 0.0, sender: str = "a@b.example"
    ) -> list[Outcome]:
        """Deliver through *node*; the outcomes, or none if it still waits after *wait* seconds."""

        async def deliver() -> Any:
            envelope = Envelope(
                sender,
                tuple([await node.intake.recipient(each, identity=None) for each in recipients]),
                PEER,
                "client.example",
                "ESMTP",
            )
            incoming = await node.intake.begin(envelope)
            for at in range(0, len(message), 65_536):
                await incoming.write(message[at : at + 65_536])
            return await incoming.finish()

        results: list[Any] = []
        Deferred.fromCoroutine(deliver()).addBoth(results.append)
        if not results and wait:
            self.go_on(wait)
        if not results:
            return []
        if not isinstance(results[0], list):
            results[0].raiseException()
        outcomes: list[Outcome] = results[0]
        return outcomes

    def mailbox(self, address: str) -> list[bytes]:
        """The messages in INBOX, as a node that has just started sees them."""

        async def look() -> list[bytes]:
            accounts = AccountService(
                log=self.engine.account_log,
                messages=self.engine.messages,
                blobs=self.engine.blobs,
                leases=self.engine.leases,
                bus=self.engine.bus,
                clock=self.clock,
                wall=self.wall,
            )
            account = await accounts.open(self.people[address])
            columns = await account.columns(account.state.inbox)
            return [
                b"".join([chunk async for chunk in account.octets(columns.key(slot))]) for slot in columns.live
            ]

        return run(look())

    def items(self) -> list[QueueStatus]:
        return list(run(self.engine.queue.list(QueueFilter())))

    def holders(self) -> list[str]:
        """Queue items that hold a blob."""

        async def look() -> list[str]:
            return [holder async for _, holder in self.engine.references.iterate() if holder.startswith("q/")]

        return run(look())

    def overflowing(self) -> int:
        """Bodies in the queue's own store."""

        async def look() -> int:
            return len([ref async for ref in self.overflow.iterate()])

        return run(look())
