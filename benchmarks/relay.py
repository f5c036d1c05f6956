"""``python -m benchmarks.relay [--only alone|whole] [--messages N] [--connections N] [--bytes N] [--rounds N]``: what it costs to
carry messages to Debian's smtp-sink: by the sending engine and its Twisted end *alone*, without a queue; and by the *whole* server,
in by submission from smtp-source, through the queue, and out again, in turns with Debian's Postfix.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.relaying import Load, OursRelaying, PostfixRelaying, Relayed, relay
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
    parser.add_argument("--rounds", type=int, default=3, help="how often each server has its turn (whole)")
    parser.add_argument("--each-connects", action="store_true", help="a connection for each message (whole)")
    parser.add_argument("--only", choices=("alone", "whole", "ours"), default="", help="ours: whole, without Postfix")
    parser.add_argument("--reactor", default="asyncio", help="asyncio, as the server uses it, or epoll (alone)")
    parser.add_argument("--profile", default="", help="a file for pstats; whole: of our server's process in the last round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Sink.installed():
        parser.exit(1, "smtp-sink is not installed: apt-get install postfix\n")
    found: dict[str, dict[str, float]] = {}
    if arguments.only != "alone":
        load = Load(arguments.messages, arguments.bytes, arguments.connections, arguments.each_connects)
        found |= _whole(load, arguments.rounds, arguments.profile, beside=arguments.only != "ours" and Postfix.installed())
    if arguments.only in ("", "alone"):
        found["alone"] = _alone(arguments.reactor, arguments.messages, arguments.connections, arguments.bytes, arguments.profile)
    if arguments.json:
        print(json.dumps({name: {key: round(value, 1) for key, value in each.items()} for name, each in found.items()}))
        return
    print(f"{arguments.messages} messages of {arguments.bytes} octets over {arguments.connections} connections")
    for name, each in found.items():
        print(
            f"{name:16}{each['cpu_us']:8.0f} us of CPU each ({1e6 / each['cpu_us']:.0f} per CPU second), "
            f"{each['per_second']:.0f} a second"
            + (f", {each['logging_us']:.0f} us of it by postlogd" if each.get("logging_us") else "")
        )
    if "whole, postfix" in found:
        print(f"ours carries {found['whole, postfix']['cpu_us'] / found['whole, ours']['cpu_us']:.2f} times as many a CPU second")


def _whole(load: Load, rounds: int, profile: str, *, beside: bool) -> dict[str, dict[str, float]]:
    """Medians of runs that take turns, so that both see the same machine; each run is told on the standard error."""
    runs: dict[str, list[Relayed]] = {}
    for round in range(rounds):
        for kind in (OursRelaying, PostfixRelaying) if beside else (OursRelaying,):
            profiled = str(Path(profile).absolute()) if profile and kind is OursRelaying and round == rounds - 1 else ""
            with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
                run = relay(kind, Path(folder), load, profiled)
            if not profiled or rounds == 1:
                runs.setdefault(f"whole, {kind.name}", []).append(run)
            by = ", ".join(f"{name} {spent / run.messages * 1e6:.0f}" for name, spent in run.cpu.most_common())
            print(f"{kind.name}: {run.cpu_us:.0f} us ({by}), {run.messages / run.seconds:.0f} a second, "
                  f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)  # fmt: skip
    return {
        name: {
            "cpu_us": median(run.cpu_us for run in each),
            "logging_us": median(run.logging_us for run in each),
            "per_second": median(run.messages / run.seconds for run in each),
            "taken_per_second": median(run.messages / run.taken_seconds for run in each),
        }
        for name, each in runs.items()
    }


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
