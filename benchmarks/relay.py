"""``python -m benchmarks.relay [--messages N] [--connections N] [--bytes N] [--reactor NAME] [--profile FILE]``: what it
costs to carry messages to one server, Debian's smtp-sink: the sending engine and its Twisted end alone, without a queue.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.scenarios import message
from tests.services.processes import free_port

__all__ = ["Sink", "main"]

SINK = "/usr/sbin/smtp-sink"


class Sink:
    """smtp-sink (Debian's package postfix): takes everything and throws it away."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def installed() -> bool:
        return shutil.which(SINK) is not None

    def start(self) -> None:
        user = ("-u", "nobody") if os.getuid() == 0 else ()
        command = [SINK, *user, *self._options, f"127.0.0.1:{self.port}", "256"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5):
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError("smtp-sink does not answer") from None
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


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
    parser.add_argument("--reactor", default="asyncio", help="asyncio, as the server uses it, or epoll")
    parser.add_argument("--profile", default="", help="a file for pstats")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Sink.installed():
        parser.exit(1, "smtp-sink is not installed: apt-get install postfix\n")
    if arguments.reactor == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    else:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    sink = Sink()
    sink.start()
    try:
        found = measure(sink.port, arguments.messages, arguments.connections, arguments.bytes, arguments.profile)
    finally:
        sink.stop()
    if arguments.json:
        print(json.dumps({key: round(value, 1) for key, value in found.items()}))
    else:
        print(
            f"{arguments.messages} messages of {arguments.bytes} octets over {arguments.connections} connections: "
            f"{found['cpu_us']:.0f} us of CPU each ({1e6 / found['cpu_us']:.0f} per CPU second), "
            f"{found['per_second']:.0f} a second"
        )


if __name__ == "__main__":
    main()
