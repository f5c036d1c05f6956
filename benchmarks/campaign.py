"""``python -m benchmarks.campaign [--messages N] [--normal N] [--one-queue] [--json]``: does a campaign delay other mail?

A campaign of 50,000 messages, each for one recipient, is put into the SQLite queue by the way of submissions, and goes out by a
relay worker over real connections to Debian's smtp-sink. Meanwhile some normal messages a second are submitted beside it, half of
them to the domains that the campaign goes to. How long they take, from the moment at which a client is told 250 until the sink has
them, is compared with the same before the campaign has begun.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.queue_million import Nothing
from benchmarks.scenarios import message
from tests.services.postfix import Sink
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.values import Host, Parcel, Protection, Result, Route, RouteFailure, Source, TLSMode, Verdict
from twisted_mail.services import Envelope, Identity, Peer, Recipient
from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.values import AccountId, DeliveryId

__all__ = ["main"]

NEWS, ANN = "news@here.example", "ann@here.example"
TOGETHER = 100
"""Recipients of the campaign that share a body in the store; none shares a transaction."""


class Way:
    """All domains are at the sink; what arrives there is noted. Implements `Routing`, `Policies`, `Sending`."""

    def __init__(self, sender: Any, port: int) -> None:
        # sender: `relay.sending.Sender`, which may not be imported before a reactor is chosen
        self._sender = sender
        self._port = port
        self.arrived: dict[str, float] = {}
        self.failed: list[Verdict] = []

    async def route(self, domain: str) -> Route:
        return Route(domain, domain, (Host(f"mx.{domain}", ("127.0.0.1",), self._port),))

    async def protections(
        self, route: Route, *, requiretls: bool = False, relaxed: bool = False
    ) -> Callable[[Host], Protection | RouteFailure]:
        return lambda host: Protection(TLSMode.OFF)

    async def send(
        self,
        route: Route,
        parcel: Parcel,
        source: Source,
        protections: Callable[[Host], Protection | RouteFailure],
        before_end: Callable[[], bool],
    ) -> Sequence[Verdict]:
        verdicts: Sequence[Verdict] = await self._sender.send(route, parcel, source, protections, before_end)
        for each, verdict in zip(parcel.addressees, verdicts, strict=True):
            if verdict.result is Result.DELIVERED:
                self.arrived[each.address] = time.monotonic()
            else:
                self.failed.append(verdict)
        return verdicts


class Apart(Nothing):
    def apart(self, outbound: Outbound) -> bool:
        return outbound.stream == "marketing"


async def run(reactor: Any, folder: Path, port: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    from twisted.internet.task import deferLater

    from twisted_mail.delivery import Bodies
    from twisted_mail.queueing.leasing import LeaseSettings
    from twisted_mail.queueing.spool import SpoolFolder
    from twisted_mail.relay.blocks import Blocks
    from twisted_mail.relay.intake import Outgoing
    from twisted_mail.relay.journal import Journal
    from twisted_mail.relay.plans import Plans
    from twisted_mail.relay.pools import Pool, PoolAddress, Pools
    from twisted_mail.relay.sending import Sender, SendingSettings
    from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams
    from twisted_mail.relay.tls_contexts import ClientTLS
    from twisted_mail.relay.worker import RelayWorker, WorkerSettings
    from twisted_mail.storage import open_backend
    from twisted_mail.tap.threads import Threads

    backend = open_backend({}, EngineContext(reactor, folder))
    await backend.start()
    threads = Threads(reactor, 2, "spool")
    bodies = Bodies(backend.blobs, backend.references, reactor)
    journal = Journal(backend.records, "node")
    marketing = Stream("marketing", ("bulk",), Match(sender=(NEWS,)), bulk=not arguments.one_queue)
    streams = Streams([marketing, Stream(NORMAL, ("main",))])
    outgoing = Outgoing(
        backend.queue, bodies, SpoolFolder(folder / "spool", threads.defer), streams, journal, reactor
    )
    pools = Pools(
        [
            Pool("main", (PoolAddress("127.0.0.1", "mx.here.example"),)),
            Pool("bulk", (PoolAddress("127.0.0.2", "news.here.example"),)),
        ],
        streams,
        Plans(backend.records, backend.allowances),
        Blocks(backend.allowances),
    )
    sender = Sender(reactor, reactor, ClientTLS(), SendingSettings(hostname="mx.here.example"))
    way, nothing = Way(sender, port), Apart()
    any_nothing: Any = nothing
    lease = LeaseSettings(concurrent=500, slow=1000, lease_seconds=120, margin_seconds=20)
    settings = WorkerSettings(lease=lease)

    def built() -> RelayWorker:
        return RelayWorker(
            backend.queue, bodies, way, way, pools, way, any_nothing, any_nothing, journal, reactor, settings=settings
        )

    worker = built()
    outgoing.wake(worker.wake)
    body = message(1, 4096)

    async def submit(sender: str, addresses: list[str]) -> None:
        recipients = tuple(Recipient(address, ()) for address in addresses)
        identity = Identity(AccountId(bytes(16)), sender)
        mail = outgoing.begin(Envelope(sender, recipients, Peer("127.0.0.1", service="submission"), identity=identity))
        await mail.write(body)
        await mail.finish([(DeliveryId.new(), each.address, each) for each in recipients])

    async def normal(name: str) -> dict[str, float]:
        """One after the other, a fifth of a second apart."""
        sent: dict[str, float] = {}
        cpu, began, before = time.process_time(), time.monotonic(), len(way.arrived)
        for number in range(arguments.normal):
            address = f"{name}{number}@{'d' if number % 2 else 'friend'}{number}.example"
            await submit(ANN, [address])
            sent[address] = time.monotonic()
            await deferLater(reactor, 0.2, lambda: None)
        while any(address not in way.arrived for address in sent):
            await deferLater(reactor, 0.1, lambda: None)
            if time.monotonic() - began > 600:
                raise TimeoutError("normal mail does not arrive")
        took = sorted(max(way.arrived[address] - at, 0.0) * 1e3 for address, at in sent.items())
        return {
            "messages": len(took),
            "p50_ms": took[len(took) // 2],
            "p99_ms": took[int(len(took) * 0.99)],
            "most_ms": took[-1],
            "others_a_second": (len(way.arrived) - before - len(took)) / (time.monotonic() - began),
            "cpu": (time.process_time() - cpu) / (time.monotonic() - began),
            "load": os.getloadavg()[0],
        }

    worker.start()
    found = {}
    await normal("warm")
    found["alone"] = await normal("alone")
    await worker.stop(5.0)
    for start in range(0, arguments.messages, TOGETHER):
        await submit(NEWS, [f"reader{n}@d{n % 1000}.example" for n in range(start, min(start + TOGETHER, arguments.messages))])
    worker = built()
    outgoing.wake(worker.wake)
    worker.start()
    await deferLater(reactor, 3.0, lambda: None)
    found["beside the campaign"] = await normal("beside")
    found["beside the campaign"]["left"] = arguments.messages - sum(address.startswith("reader") for address in way.arrived)
    await worker.stop(5.0)
    sender.close()
    await backend.stop()
    threads.stop()
    if way.failed:
        raise RuntimeError(way.failed[0].reply)
    return found


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="of the campaign")
    parser.add_argument("--normal", type=int, default=100)
    parser.add_argument("--one-queue", action="store_true", help="the campaign's stream is not `bulk`")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Sink.installed():
        parser.exit(1, "smtp-sink is not installed: apt-get install postfix\n")
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred

    reactor: Any = installed
    results: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        sink = Sink(folder)
        sink.start()

        def start() -> None:
            done = Deferred.fromCoroutine(run(reactor, folder / "data", sink.port, arguments))
            done.addBoth(results.append)
            done.addBoth(lambda result: reactor.stop())

        try:
            reactor.callWhenRunning(start)
            reactor.run()
        finally:
            sink.stop()
    if not isinstance(results[0], dict):
        results[0].raiseException()
    if arguments.json:
        print(json.dumps(results[0]))
        return
    for name, each in results[0].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in each.items()))


if __name__ == "__main__":
    main()
