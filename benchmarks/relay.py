"""``python -m benchmarks.relay [--only alone|whole] [--messages N] [--connections N] [--bytes N]``: what it costs to carry
messages to Debian's smtp-sink: by the sending engine and its Twisted end *alone*, without a queue; and by the *whole* server,
in by submission, through the queue, and out again, beside Debian's Postfix.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.relaying import OursRelaying, PostfixRelaying, relay
from benchmarks.scenarios import message
from tests.services.postfix import Postfix, Sink

__all__ = ["main"]


async def _sender(sending: Any, route: Any, body: bytes, count: int) -> None:
    """One after the other, *count* messages. Any: types whose modules must not be imported before a reactor is chosen."""
    from twisted_mail.relay.values import Addressee, Parcel, Protection, Result, Source, TLSMode

    async def octets() -> AsyncIterator[bytes]:
        yield body

    protection, source = Protection(TLSMode.OFF), Source()
    for number in range(count):
        parcel = Parcel("sender@here.example", (Addressee(f"user{number % 100}@there.example"),), octets, len(body))
        verdicts = await sending.send(route, parcel, source, lambda host: protection, lambda: True)
        if verdicts[0].result is not Result.DELIVERED:
            raise RuntimeError(verdicts[0].reply)


def measure(port: int, messages: int, connections: int, size: int, profile: str = "") -> dict[str, float]:
    """Seconds of this process's CPU and of the clock for each message, over connections that are kept."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred, gatherResults

    from twisted_mail.relay.sending import Sender, SendingSettings
    from twisted_mail.relay.tls_contexts import ClientTLS
    from twisted_mail.relay.values import Host, Route

    reactor: Any = installed
    sending = Sender(
        reactor, reactor, ClientTLS(), SendingSettings(hostname="here.example", messages=10**9, idle_connections=connections)
    )
    route = Route("there.example", "there.example", (Host("mx.there.example", ("127.0.0.1",), port),))
    body = message(1, size)
    found: dict[str, float] = {}
    failed: list[Any] = []
    profiler = cProfile.Profile()

    async def run(each: int) -> None:
        many = [Deferred.fromCoroutine(_sender(sending, route, body, each)) for _ in range(connections)]
        await gatherResults(many, consumeErrors=True)

    async def all_of_it() -> None:
        await run(5)  # connections are opened, caches are filled
        gc.collect()
        each = max(messages // connections, 1)
        if profile:
            profiler.enable()
        cpu, begin = time.process_time(), time.perf_counter()
        await run(each)
        found["cpu_us"] = (time.process_time() - cpu) / (each * connections) * 1e6
        found["per_second"] = each * connections / (time.perf_counter() - begin)
        if profile:
            profiler.disable()
            profiler.dump_stats(profile)
        sending.close()

    def start() -> None:
        done = Deferred.fromCoroutine(all_of_it())
        done.addErrback(failed.append)
        done.addBoth(lambda result: reactor.callLater(0.1, reactor.stop))

    reactor.callWhenRunning(start)
    reactor.run()
    if failed:
        failed[0].raiseException()
    return found


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=10, help="messages on their way at a time")
    parser.add_argument("--bytes", type=int, default=4096, help="size of a message")
    parser.add_argument("--only", choices=("alone", "whole"), default="")
    parser.add_argument("--reactor", default="asyncio", help="asyncio, as the server uses it, or epoll (alone)")
    parser.add_argument("--profile", default="", help="a file for pstats (alone)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Sink.installed():
        parser.exit(1, "smtp-sink is not installed: apt-get install postfix\n")
    found: dict[str, dict[str, float]] = {}
    if arguments.only != "alone":
        for kind in (OursRelaying, PostfixRelaying):
            if kind is OursRelaying or Postfix.installed():
                with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
                    cost = relay(kind, Path(folder), arguments.messages, arguments.bytes, arguments.connections)
                found[f"whole, {kind.name}"] = {
                    "cpu_us": cost.cpu_us,
                    "per_second": cost.messages / cost.seconds,
                    "taken_per_second": cost.messages / cost.taken_seconds,
                }
    if arguments.only != "whole":
        found["alone"] = _alone(arguments.reactor, arguments.messages, arguments.connections, arguments.bytes, arguments.profile)
    if arguments.json:
        print(json.dumps({name: {key: round(value, 1) for key, value in each.items()} for name, each in found.items()}))
        return
    print(f"{arguments.messages} messages of {arguments.bytes} octets over {arguments.connections} connections")
    for name, each in found.items():
        print(
            f"{name:16}{each['cpu_us']:8.0f} us of CPU each ({1e6 / each['cpu_us']:.0f} per CPU second), "
            f"{each['per_second']:.0f} a second"
        )


def _alone(reactor: str, messages: int, connections: int, size: int, profile: str) -> dict[str, float]:
    if reactor == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    else:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sink = Sink(Path(folder))
        sink.start()
        try:
            return measure(sink.port, messages, connections, size, profile)
        finally:
            sink.stop()


if __name__ == "__main__":
    main()
