"""Conditional writes of real nodes that end in time-outs on demand: a proxy in a process of its own, before the CQL cluster.

``python -m tests.faults.injected PORT NODE_PORT ADDRESS,… SEED FILE``. SIGUSR1: from now on one of five conditional statements
and of five serial reads goes wrong; SIGUSR2: all is well again. What went wrong, and time-outs that came from the nodes
themselves, are lines of FILE: a fault's name, whether a node said "applied", and the statement.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.services.cassandra import Cassandra
from tests.services.cql_proxy import CQLProxy, Fault, Kind
from tests.services.processes import Process, free_port

__all__ = ["Injected", "SpoiledAnswers"]

WRONG = 0.2
"""How many of the requests go wrong; each costs somebody some rounds, and half of them a time-out of seconds."""
OF_READS = (Fault.APPLIED_TIMEOUT, Fault.LOST_TIMEOUT, Fault.LOST_SILENT, Fault.APPLIED_CUT)

Injected = Counter[tuple[str, bool]]
"""How often a fault was met, by its name and whether a node said "applied"."""


class SpoiledAnswers:
    """A victim: `pause` lets time-outs come, `resume` ends it."""

    def __init__(self, cassandra: Cassandra, folder: Path, seed: int) -> None:
        addresses = [node.address for node in cassandra.nodes]
        self.address, self.port, self._cassandra = addresses[0], free_port(addresses[0]), cassandra
        self.file = folder / "injected.txt"
        words = [
            sys.executable, "-m", "tests.faults.injected",
            str(self.port), str(cassandra.port), ",".join(addresses), str(seed), str(self.file),
        ]  # fmt: skip
        self.process = Process("injected", words, folder, {"PYTHONPATH": str(Path(__file__).parents[2])})

    def url(self, keyspace: str) -> str:
        """As the cluster's own, through the proxy."""
        return self._cassandra.url(keyspace).replace(f":{self._cassandra.port}/", f":{self.port}/")

    def start(self) -> None:
        """Raises NotReady."""
        self.process.start()
        self.process.wait(self.address, self.port, 30)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGUSR1)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGUSR2)

    def met(self, about: str = "") -> Injected:
        """What has gone wrong so far with statements that have *about* in their text."""
        found: Injected = Counter()
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                name, applied, text = line.split(" ", 2)
                if about in text:
                    found[name, applied == "applied"] += 1
        return found


def _main(port: int, node_port: int, addresses: Sequence[str], seed: int, file: Path) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    turning: Any = reactor
    chance = random.Random(seed)
    proxy = CQLProxy(turning, addresses, node_port)
    proxy.port = port
    proxy.late_seconds = lambda: chance.uniform(0.2, 6.0)
    writes = [fault for fault in Fault if fault is not Fault.NONE]
    bad = False

    def choose(kind: Kind, texts: Sequence[str]) -> Fault:
        if not bad or chance.random() > WRONG:
            return Fault.NONE
        return chance.choice(writes if kind is Kind.WRITE else OF_READS)

    def turn(number: int, frame: object) -> None:
        nonlocal bad
        bad = number == signal.SIGUSR1

    with file.open("a", buffering=1) as out:

        def tell(what: str, about: str, applied: bool) -> None:
            out.write(f"{what} {'applied' if applied else 'not'} {' '.join(about.split())}\n")

        proxy.choose, proxy.tell = choose, tell
        signal.signal(signal.SIGUSR1, turn)
        signal.signal(signal.SIGUSR2, turn)
        turning.callWhenRunning(lambda: Deferred.fromCoroutine(proxy.start()))
        turning.run()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), int(sys.argv[4]), Path(sys.argv[5]))
