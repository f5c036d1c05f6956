"""A relay over stores in memory and a world of scripted receivers; nodes of it can die between any two operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater

from tests.delivery.queue_house import Death, Switched, for_ever
from tests.relay.kept import now as run
from twisted_mail.delivery.bodies import Bodies
from twisted_mail.queueing.leasing import LeaseSettings
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.counts import RelayCounts
from twisted_mail.relay.destinations import DestinationSettings
from twisted_mail.relay.intake import Outgoing
from twisted_mail.relay.items import Outbound, outbound_of
from twisted_mail.relay.journal import Journal
from twisted_mail.relay.plans import Plans
from twisted_mail.relay.pools import Grant, Pool, PoolAddress, Pools
from twisted_mail.relay.schedule import Schedule
from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams
from twisted_mail.relay.values import (
    Host,
    Parcel,
    Protection,
    Result,
    Route,
    RouteFailure,
    Source,
    Stage,
    TLSMode,
    Verdict,
)
from twisted_mail.relay.worker import RelayWorker, WorkerSettings
from twisted_mail.services import Envelope, Identity, Peer, Recipient
from twisted_mail.storage.interfaces import EngineContext, QueueFilter, QueueItem, QueueStatus
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import AccountId, DeliveryId

__all__ = ["MESSAGE", "Attempt", "Node", "RelayHouse", "World", "run", "verdict"]

MESSAGE = b"Message-ID: <one@example.org>\r\nFrom: ann@example.org\r\nSubject: x\r\n\r\ntext\r\n"
OK = "250 2.0.0 taken"


def verdict(reply: str, stage: Stage = Stage.END, **more: Any) -> Verdict:
    """What a server says, by its first digit."""
    result = {"2": Result.DELIVERED, "4": Result.TEMPORARY}.get(reply[0], Result.PERMANENT)
    return Verdict(result, reply, stage, host="mx.test[192.0.2.1]", **more)


def take(address: str) -> Verdict:
    """What receivers say that a test says nothing of."""
    return verdict(OK)


DEAD = verdict("421 4.4.1 no connection", Stage.CONNECT, about_connection=True, remote=False)


@dataclass(frozen=True)
class Attempt:
    """A transaction that a receiver saw."""

    at: float
    domain: str
    sender: str
    addresses: tuple[str, ...]
    octets: bytes
    source: Source
    parcel: Parcel


@dataclass
class World:
    """All receivers. Implements `Sending` for each node, and `Routing` for all."""

    clock: Clock
    answers: dict[str, Callable[[str], Verdict]] = field(default_factory=dict)
    """By domain: what it says to an address. Others take everything."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long a transaction takes, by domain."""
    routes: dict[str, RouteFailure | Route] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    """How often each address was given a message."""
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    """The most transactions at a time, by domain."""

    async def route(self, domain: str) -> Route:
        found = self.routes.get(domain)
        if isinstance(found, RouteFailure):
            raise found
        return found or Route(domain, domain, (Host(f"mx.{domain}", ("192.0.2.1",)),))


class Sender:
    """Implements `Sending` for one node, which may die before or after a receiver has taken something."""

    def __init__(self, world: World, death: Death | None) -> None:
        self._world = world
        self._death = death

    def _die(self, what: str) -> bool:
        death = self._death
        if death is None:
            return False
        death.operations.append(what)
        if death.at is not None and len(death.operations) == death.at:
            death.dead = True
        return death.dead

    async def send(
        self,
        route: Route,
        parcel: Parcel,
        source: Source,
        protections: Callable[[Host], Protection | RouteFailure],
        before_end: Callable[[], bool],
    ) -> Sequence[Verdict]:
        world, domain = self._world, route.domain
        world.running[route.destination] += 1
        world.most[route.destination] = max(world.most[route.destination], world.running[route.destination])
        try:
            if self._die("before the message"):
                await for_ever()
            octets = b"".join([chunk async for chunk in parcel.octets()])
            await deferLater(world.clock, world.seconds.get(domain, 0.0))
            if self._death is not None and self._death.dead:
                await for_ever()
            if not before_end():
                gone = Verdict(Result.TEMPORARY, "451 4.3.0 the lease is lost", Stage.BODY, remote=False)
                return [gone] * len(parcel.addressees)
            addresses = tuple(each.address for each in parcel.addressees)
            world.attempts.append(
                Attempt(world.clock.seconds(), domain, parcel.sender, addresses, octets, source, parcel)
            )
            answer = world.answers.get(domain, take)
            said = [answer(address) for address in addresses]
            for address, each in zip(addresses, said, strict=True):
                world.taken[address] += each.result is Result.DELIVERED
            if self._die("after the answer"):
                await for_ever()
            return said
        finally:
            world.running[route.destination] -= 1


class _Policies:
    async def protections(
        self, route: Route, *, requiretls: bool = False, relaxed: bool = False
    ) -> Callable[[Host], Protection | RouteFailure]:
        return lambda host: Protection(TLSMode.OPPORTUNISTIC)


class Departures:
    """What is done on the way out: nothing, but for what a test sets."""

    def __init__(self) -> None:
        self.suppressed: set[str] = set()
        self.front = b""
        self.heard_of: list[tuple[str, str]] = []

    async def refused(self, outbound: Outbound, now: float) -> str | None:
        return "it was unsubscribed" if outbound.address in self.suppressed else None

    async def fields(self, outbound: Outbound, header: bytes, now: float) -> bytes:
        return self.front

    def reverse_path(self, outbound: Outbound) -> str:
        return outbound.sender

    def apart(self, outbound: Outbound) -> bool:
        return outbound.stream == "marketing"

    async def heard(self, grant: Grant | None, outbound: Outbound, verdict: Verdict, now: float) -> None:
        self.heard_of.append((grant.source.pool if grant is not None else "", verdict.reply))


class Reports:
    """Keeps what senders are told, by the item's id: as a queue does."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, DeliveryId], tuple[str, str, Outbound]] = {}
        self.broken = False

    async def _tell(self, action: str, item: QueueItem, outbound: Outbound, verdict: Verdict) -> None:
        if self.broken:
            raise RuntimeError("no report can be written")
        if outbound.sender:
            self.told[action, item.id] = (outbound.address, verdict.reply, outbound)

    async def failed(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> None:
        await self._tell("failed", item, outbound, verdict)

    async def delayed(self, item: QueueItem, outbound: Outbound, verdict: Verdict, until: float) -> None:
        await self._tell("delayed", item, outbound, verdict)

    async def delivered(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> None:
        await self._tell("delivered", item, outbound, verdict)

    def of(self, action: str) -> list[tuple[str, str]]:
        return sorted((address, reply) for (kind, _), (address, reply, _) in self.told.items() if kind == action)


class RelayHouse:
    """The stores and the world, shared by all nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)
        self.engine = MemoryEngine(EngineContext(self.clock, folder))
        self.world = World(self.clock)
        self.jump = 0.0
        """How far the wall clocks of nodes are from the truth."""
        self.reports = Reports()

    def wall(self) -> float:
        """Seconds since 1970, as nodes believe."""
        return float(self.clock.seconds()) + self.jump

    def go_on(self, seconds: float, step: float = 0.25) -> None:
        """Let *seconds* go by."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)

    def items(self) -> list[QueueStatus]:
        return list(run(self.engine.queue.list(QueueFilter(), limit=100_000)))

    def outbounds(self) -> list[Outbound]:
        return [outbound_of(status.item) for status in self.items()]

    def holders(self) -> list[tuple[Any, str]]:
        async def every() -> list[tuple[Any, str]]:
            return [each async for each in self.engine.references.iterate()]

        return run(every())


class Node:
    """One process."""

    def __init__(
        self,
        house: RelayHouse,
        *,
        death: Death | None = None,
        schedule: Schedule | None = None,
        destinations: DestinationSettings | None = None,
        concurrent: int = 100,
        slow: int = 0,
    ) -> None:
        clock, engine = house.clock, house.engine
        self.house = house
        self.queue = Switched(engine.queue, death)
        self.blobs = Switched(engine.blobs, death)
        self.references = Switched(engine.references, death)
        self.records = Switched(engine.records, death)
        self.reports = Switched(house.reports, death)
        self.departures = Departures()
        self.counts = RelayCounts()
        streams = Streams(
            [Stream("marketing", ("bulk",), Match(sender=("news@example.org",))), Stream(NORMAL, ("main",))]
        )
        pools = [
            Pool("main", (PoolAddress("192.0.2.10", "mx1.example.org"),)),
            Pool("bulk", (PoolAddress("192.0.2.20", "news1.example.org"),)),
        ]
        bodies = Bodies(self.blobs, self.references, clock)
        journal = Journal(self.records, "node")
        spools = SpoolFolder(house.folder / "spool", lambda call, *args: succeed(call(*args)))
        self.outgoing = Outgoing(
            self.queue,
            bodies,
            spools,
            streams,
            journal,
            clock,
            wall=house.wall,
        )
        self.worker = RelayWorker(
            self.queue,
            bodies,
            house.world,
            _Policies(),
            Pools(pools, streams, Plans(engine.records, engine.allowances), Blocks(engine.allowances)),
            Sender(house.world, death),
            self.departures,
            self.reports,
            journal,
            clock,
            settings=WorkerSettings(
                lease=LeaseSettings(concurrent=concurrent, slow=slow, lease_seconds=60, margin_seconds=10),
                schedule=schedule or Schedule(retry=(300.0, 900.0), warn=3600.0, expire=86_400.0),
                destinations=destinations or DestinationSettings(),
            ),
            counts=self.counts,
            wall=house.wall,
            random=lambda: 0.5,
        )
        self.outgoing.wake(self.worker.wake)
        self.journal = journal

    def give(
        self,
        *addresses: str,
        sender: str = "ann@example.org",
        message: bytes = MESSAGE,
        notify: frozenset[str] = frozenset(),
        forward: bool = False,
        **envelope: Any,
    ) -> list[DeliveryId]:
        """Submit a message to *addresses*; with *forward* it comes from a stranger, to an alias that leads to them."""
        recipients = tuple(Recipient(address, (), notify=notify) for address in addresses)
        identity = None if forward else Identity(AccountId(bytes(16)), sender or "ann@example.org")
        peer = Peer("192.0.2.99", service="smtp" if forward else "submission")
        given = Envelope(sender, recipients, peer, identity=identity, **envelope)
        ids = [DeliveryId.new() for _ in recipients]

        async def submit() -> None:
            mail = self.outgoing.begin(given)
            for at in range(0, len(message), 1000):
                await mail.write(message[at : at + 1000])
            await mail.finish([(id, each.address, each) for id, each in zip(ids, recipients, strict=True)])

        done: list[Any] = []
        Deferred.fromCoroutine(submit()).addBoth(done.append)
        assert done == [None], done
        return ids
