"""``python -m benchmarks.queue_million [--only costs|domains|nats] [--sizes N,N,…] [--json]``: what a long queue costs.

*costs*: putting, leasing with acknowledging, and retrying in the SQLite queue while it has 1,000, 100,000 and 1,000,000 items
for 100,000 domains. *nats*: the same on JetStream with three nodes. *domains*: a relay worker over the SQLite queue that has
all those items, most of them due later; some hundred a second become due, for live domains and for dead ones whose servers
never answer, and are "sent" after times as they are usual: nothing goes over a socket. How long live mail takes, with and
without the dead among it, one after the other in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted_mail.relay.items import Outbound, outbound_item, outbound_of
from twisted_mail.relay.schedule import Schedule, next_delay
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
from twisted_mail.storage.interfaces import EngineContext, QueueItem
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["main"]

DOMAINS: Final = 100_000
CONNECT_SECONDS: Final = 30.0
BODY: Final = BlobRef("ab" * 32, 4096, 1)
TOGETHER: Final = 64
"""Operations in flight at a time, as from so many conversations."""
SAMPLE: Final = 4000
"""Operations that a figure is of."""


def item_of(number: int, domain: int, *, dead: bool = False) -> QueueItem:
    """Of about the size that real ones have."""
    name = f"{'dead' if dead else 'd'}{domain}.example"
    outbound = Outbound(
        address=f"user{number}@{name}",
        sender=f"sender{number % 1000}@here.example",
        login=f"sender{number % 1000}@here.example",
        message_id=f"{number}.{domain}@here.example",
        header=600,
        body_hash=bytes(32),
    )
    return outbound_item(DeliveryId.new(), outbound, BODY, domain=name, created=time.time())


def rss() -> float:
    """MiB that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of *calls*, some at a time. Any: what they give."""
    from twisted_mail.queueing.limits import some_at_a_time

    found: list[Any] = [None] * len(calls)

    async def one(number: int) -> None:
        found[number] = await calls[number]()

    for start in range(0, len(calls), TOGETHER):
        await some_at_a_time([one(number) for number in range(start, min(start + TOGETHER, len(calls)))])
    return found


async def fill(queue: Any, count: int, have: int) -> None:
    """Up to *count* items, due in one to five hours. Any: a `Queue`."""
    chosen = random.Random(1)
    while have < count:
        some = [item_of(number, number % DOMAINS) for number in range(have, min(have + 4096, count))]
        await together([lambda item=item: queue.put(item, delay=3600 + chosen.random() * 14_400) for item in some])  # type: ignore[misc]
        have += len(some)


def fill_file(database: Path, count: int, have: int) -> None:
    """The same, past the engine, which is closed: a million puts, each durable, take longer than what is measured."""
    chosen, now = random.Random(1), time.time()

    def later() -> float:
        return now + 3600 + chosen.random() * 14_400

    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA cache_size = -200000")
        db.execute("PRAGMA synchronous = OFF")
        for start in range(have, count, 50_000):
            items = (item_of(number, number % DOMAINS) for number in range(start, min(start + 50_000, count)))
            db.executemany(
                "INSERT INTO queue (id, use, envelope, body_hash, body_size, domain, sender, attempts, last_reply, created, "
                "body_generation, due) VALUES (?,?,?,?,?,?,?,0,'',?,1,?)",
                (
                    (i.id.octets, i.use, i.envelope, BODY.hash, BODY.size, i.domain, i.sender, i.created, later())
                    for i in items
                ),
            )
            db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def measure(queue: Any, sample: int) -> dict[str, float]:
    """Microseconds of this process's CPU, and of the clock, for an item. The queue is afterwards as long as it was.

    Half of them are put back for as long as a relay would, and deleted unmeasured; the others are acknowledged.
    """
    found: dict[str, float] = {}
    chosen = random.Random(2)

    async def timed(name: str, work: Any, count: int) -> Any:
        cpu, began = time.process_time(), time.perf_counter()
        result = await work
        found[f"{name}_cpu_us"] = (time.process_time() - cpu) / count * 1e6
        found[f"{name}_us"] = (time.perf_counter() - began) / count * 1e6
        return result

    async def lease() -> list[Any]:
        leased: list[Any] = []
        while len(leased) < sample:
            leased += await queue.lease("outbound", TOGETHER, 600)
        return leased

    def later() -> float:
        return next_delay(Schedule(), chosen.randint(1, 6), "450 4.2.1 mailbox busy", 1e9, chosen.random)

    items = [item_of(number, chosen.randrange(DOMAINS)) for number in range(sample)]
    await timed("put", together([lambda item=item: queue.put(item) for item in items]), sample)  # type: ignore[misc]
    leased = await timed("lease", lease(), sample)
    back, done = leased[: sample // 2], leased[sample // 2 :]
    retries = [lambda each=each: queue.retry(each.token, later(), "450 4.2.1 mailbox busy") for each in back]
    await timed("retry", together(retries), len(back))
    await timed("ack", together([lambda each=each: queue.ack(each.token) for each in done]), len(done))  # type: ignore[misc]
    await together([lambda each=each: queue.delete(each.item.id) for each in back])  # type: ignore[misc]
    return found


async def in_turns(queues: Mapping[str, Any], turns: int, sample: int) -> dict[str, dict[str, float]]:
    """The least of *turns*, in each of which every queue is measured: what the machine does besides falls on all of them."""
    for queue in queues.values():
        await measure(queue, sample)  # the queue has existed for a while, and its pages have been read
    found: dict[str, dict[str, float]] = {name: {} for name in queues}
    for _ in range(turns):
        for name, queue in queues.items():
            for figure, value in (await measure(queue, sample)).items():
                found[name][figure] = min(value, found[name].get(figure, value))
    return found


# --- dead domains


class Receivers:
    """The world: live domains answer after a tenth of a second up to one, dead ones never. Implements `Routing`, `Sending` and
    `Policies`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._random = random.Random(3)
        self.taken: dict[str, float] = {}
        self.timed_out = 0
        self.now = self.most = 0

    async def route(self, domain: str) -> Route:
        return Route(domain, domain, (Host(f"mx.{domain}", ("192.0.2.1",)),))

    async def protections(
        self, route: Route, *, requiretls: bool = False, relaxed: bool = False
    ) -> Callable[[Host], Protection | RouteFailure]:
        return lambda host: Protection(TLSMode.OPPORTUNISTIC)

    async def send(
        self,
        route: Route,
        parcel: Parcel,
        source: Source,
        protections: Callable[[Host], Protection | RouteFailure],
        before_end: Callable[[], bool],
    ) -> Sequence[Verdict]:
        from twisted.internet.task import deferLater

        self.now += 1
        self.most = max(self.most, self.now)
        dead = route.domain.startswith("dead")
        seconds = CONNECT_SECONDS if dead else min(self._random.lognormvariate(-1.2, 0.5), 1.0) + 0.1
        try:
            await deferLater(self._reactor, seconds, lambda: None)
        finally:
            self.now -= 1
        if dead:
            self.timed_out += 1
            gone = Verdict(
                Result.TEMPORARY, "421 4.4.1 no connection", Stage.CONNECT, about_connection=True, remote=False
            )
            return [gone] * len(parcel.addressees)
        now = time.time()
        for each in parcel.addressees:
            self.taken[each.address] = now
        return [Verdict(Result.DELIVERED, "250 2.0.0 ok", Stage.END)] * len(parcel.addressees)


class Nothing:
    """What else a worker asks for, at no cost, since it is not what is measured."""

    def open(self, body: Any) -> Any:
        async def chunks() -> Any:
            yield b"Subject: x\r\n\r\n" + bytes(4096)

        return chunks()

    async def forget(self, body: Any, id: DeliveryId) -> None: ...
    async def refused(self, outbound: Outbound, now: float) -> str | None: ...
    async def fields(self, outbound: Outbound, header: bytes, now: float) -> bytes:
        return b""

    def reverse_path(self, outbound: Outbound) -> str:
        return outbound.sender

    def apart(self, outbound: Outbound) -> bool:
        return False

    async def heard(self, *rest: Any) -> None: ...
    async def failed(self, *rest: Any) -> None: ...
    async def delayed(self, *rest: Any) -> None: ...
    async def delivered(self, *rest: Any) -> None: ...
    async def note(self, *rest: Any) -> None: ...


async def domains(reactor: Any, backend: Any, dead: int, rate: int, seconds: int, concurrent: int) -> dict[str, float]:
    """*rate* items a second become due, for *seconds*, for domains that live; and one more for each hundred, for one of *dead*."""
    from twisted.internet.task import deferLater

    from twisted_mail.queueing.leasing import LeaseSettings
    from twisted_mail.relay.blocks import Blocks
    from twisted_mail.relay.plans import Plans
    from twisted_mail.relay.pools import Pool, PoolAddress, Pools
    from twisted_mail.relay.streams import NORMAL, Stream, Streams
    from twisted_mail.relay.worker import RelayWorker, WorkerSettings

    world, nothing, chosen = Receivers(reactor), Nothing(), random.Random(5)
    pools = Pools(
        [Pool("main", (PoolAddress("192.0.2.10", "mx.here.example"),))],
        Streams([Stream(NORMAL, ("main",))]),
        Plans(backend.records, backend.allowances),
        Blocks(backend.allowances),
    )
    any_nothing: Any = nothing
    lease = LeaseSettings(concurrent=concurrent, slow=2 * concurrent, lease_seconds=120, margin_seconds=20)
    worker = RelayWorker(
        backend.queue,
        any_nothing,
        world,
        world,
        pools,
        world,
        any_nothing,
        any_nothing,
        any_nothing,
        reactor,
        settings=WorkerSettings(lease=lease),
    )
    slots = seconds * rate
    addresses: dict[DeliveryId, str] = {}
    every: list[tuple[QueueItem, float]] = []
    for number in range(slots):
        # the dead ones are more: the same live mail comes with and without them
        due = number / rate
        live = item_of(number, chosen.randrange(DOMAINS))
        addresses[live.id] = outbound_of(live).address
        every.append((live, due))
        if dead and number % 100 == 0:
            every.append((item_of(number, chosen.randrange(dead), dead=True), due))
    first = time.time() + 10 + len(every) / 400
    await together([lambda item=item, due=due: backend.queue.put(item, delay=first + due - time.time()) for item, due in every])  # type: ignore[misc]
    if time.time() > first:
        raise RuntimeError("the machine is too slow for that many")
    put = {addresses[item.id]: first + due for item, due in every if not item.domain.startswith("dead")}
    cpu, before = time.process_time(), rss()
    worker.start()
    await deferLater(reactor, first - time.time() + seconds + 20, lambda: None)
    await worker.stop(1.0)
    late = sorted(world.taken[address] - due for address, due in put.items() if address in world.taken)
    if len(late) < len(put) * 0.999:
        raise RuntimeError(f"{len(put) - len(late)} of {len(put)} live messages were not sent in time")
    return {
        "messages": len(late),
        "p50_ms": late[len(late) // 2] * 1e3,
        "p99_ms": late[int(len(late) * 0.99)] * 1e3,
        "most_ms": late[-1] * 1e3,
        "timed_out": world.timed_out,
        "most_conversations": world.most,
        "cpu_us": (time.process_time() - cpu) / len(late) * 1e6,
        "rss_before_mib": before,
        "rss_mib": rss(),
    }


# --- the whole


async def _sqlite(folder: Path, sizes: Sequence[int], arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    from twisted.internet import reactor as installed

    from twisted_mail.storage import open_backend

    reactor: Any = installed
    backends: dict[int, Any] = {}
    for size in sizes:  # each queue has a file of its own, so that they can be measured in turns
        place = folder / str(size)
        place.mkdir()
        made = open_backend({}, EngineContext(reactor, place))
        await made.start()
        await made.stop()
        fill_file(place / "mail.sqlite", size, 0)
        backends[size] = open_backend({}, EngineContext(reactor, place))
        await backends[size].start()
    if arguments.only != "domains":
        costs = await in_turns({f"sqlite, {size}": each.queue for size, each in backends.items()}, arguments.turns, SAMPLE)
        found.update(costs)
        for name in costs:
            _show(name, found, arguments)
    if arguments.only != "costs":
        most = max(sizes)
        for turn in range(arguments.turns):
            for dead in (0, arguments.dead):
                name = f"{most} queued, {dead} dead, turn {turn + 1}"
                found[name] = await domains(
                    reactor, backends[most], dead, arguments.rate, arguments.seconds, arguments.concurrent
                )
                _show(name, found, arguments)
    for each in backends.values():
        await each.stop()


async def _nats(folder: Path, sizes: Sequence[int], arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    from twisted.internet import reactor as installed

    from tests.services import running
    from twisted_mail.storage.nats import engine

    reactor: Any = installed
    queue = engine(running.nats_cluster(3).url(), EngineContext(reactor, folder))
    have = 0
    try:
        await queue.start()
        for size in sizes:
            await fill(queue.queue, size, have)
            have = size
            await measure(queue.queue, SAMPLE // 4)
            found[f"nats, {size}"] = await measure(queue.queue, SAMPLE)
            _show(f"nats, {size}", found, arguments)
    finally:
        await queue.stop()
        running.stop_all()


def _show(name: str, found: dict[str, Any], arguments: argparse.Namespace) -> None:
    found[name]["load"] = os.getloadavg()[0]
    if not arguments.json:
        print(f"{name}: " + ", ".join(f"{key} {value:.0f}" for key, value in found[name].items()), flush=True)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_million", description=__doc__)
    parser.add_argument("--only", choices=("costs", "domains", "nats"), default="")
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--dead", type=int, default=1000, help="domains whose servers never answer")
    parser.add_argument("--rate", type=int, default=100, help="live messages that become due in a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--concurrent", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred

    reactor: Any = installed
    found: dict[str, Any] = {}
    failed: list[Any] = []
    sizes = [int(size) for size in arguments.sizes.split(",")]

    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            if arguments.only != "nats":
                await _sqlite(Path(folder), sizes, arguments, found)
            if arguments.only in ("", "nats"):
                await _nats(Path(folder) / "nats", sizes, arguments, found)

    def start() -> None:
        done = Deferred.fromCoroutine(run())
        done.addErrback(failed.append)
        done.addBoth(lambda result: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    if arguments.json:
        print(json.dumps(found))
    if failed:
        failed[0].raiseException()


if __name__ == "__main__":
    main()
