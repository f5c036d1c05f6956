"""``python -m benchmarks.distributed``: the same suite over Cassandra, S3 and NATS, beside its embedded form.

Everything runs on this machine (`tests.services`), so rates are bounded by what Cassandra leaves of it; the CPU of our
processes and that of the stores are read apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenarios import SCENARIOS, Measured, Scenario, fill
from benchmarks.servers import DOMAIN, PASSWORD, USERS, Ours, Server, family, user
from tests.services import running
from tests.services.cassandra import Cassandra
from tests.services.mail import MailCluster, Storage
from tests.services.nats import Nats
from tests.services.versity import VersityGateway

__all__ = ["Distributed", "Stores", "cpu_seconds"]

_EXTRA = "[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
ALL = ("smtp", "submission", "lmtp", "imap", "pop3", "delivery")
COUNTS = {"SELECT": 200, "login": 100, "memory per idle connection": 100}


def cpu_seconds(pid: int) -> float:
    """User and system time so far of *pid* and all below it."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / 100


@dataclass(slots=True)
class Stores:
    """The stores of one benchmark."""

    cassandra: Cassandra
    nats: Nats
    versity: VersityGateway

    @classmethod
    def started(cls, nodes: int) -> Stores:
        """Cassandra with *nodes* nodes and 1 GB of heap each, NATS the same, VersityGW."""
        made = cls(
            Cassandra(running.new_folder("cassandra"), nodes=nodes, heap="1024m"),
            Nats(running.new_folder("nats"), nodes=nodes),
            VersityGateway(running.new_folder("s3")),
        )
        try:
            for server in (made.versity, made.nats, made.cassandra):
                server.start()
        except BaseException:
            made.stop()
            raise
        return made

    def storage(self, name: str) -> Storage:
        return Storage(self.cassandra.url(name), self.versity.url(name), self.nats.url(prefix=name))

    def cpu_seconds(self) -> float:
        pids = [self.versity.process.pid, *(n.process.pid for n in self.nats.nodes)]
        return sum(map(cpu_seconds, [*pids, *(n.process.pid for n in self.cassandra.nodes)]))

    def stop(self) -> None:
        for server in (self.cassandra, self.nats, self.versity):
            server.stop()


class Distributed(Server):
    """Mail nodes over `Stores`; without *nodes* it is one that does everything."""

    name = "distributed"

    def __init__(self, folder: Path, stores: Stores, nodes: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(folder)
        self.stores = stores
        self.cluster = MailCluster(folder, stores.storage("bench"), nodes or {"all1": ALL}, extra=_EXTRA)

    def start(self) -> None:
        first = next(iter(self.cluster.nodes.values()))
        first.start()
        self.cluster.mailctl("domain", "add", DOMAIN)
        for number in range(USERS):
            self.cluster.mailctl("user", "add", user(number), "--password-stdin", given=PASSWORD + "\n")
        for node in self.cluster.nodes.values():
            if node is not first:
                node.start()
        for node in self.cluster.nodes.values():
            self.ports = dict(node.ports) | self.ports
        self.ports.pop("metrics", None)
        self.ports = {name: port for name, port in self.ports.items() if name in ("smtp", "lmtp", "imap", "pop3")}

    def stop(self) -> None:
        self.cluster.stop()

    def _pids(self) -> list[int]:
        return [node.process.pid for node in self.cluster.nodes.values() if node.process.running]

    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._pids()))

    def memory_bytes(self) -> int:
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


def _middle(scenario: Scenario, server: Server, messages: int, repeat: int) -> Measured:
    count = COUNTS.get(scenario.name, messages if scenario.filled else min(messages, 500))
    runs = [scenario.run(server, count) for _ in range(repeat)]
    middle = statistics.median_low(run.seconds for run in runs)
    return next(run for run in runs if run.seconds == middle)


def main() -> None:
    """Parse the arguments and run the shared scenarios over both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="nodes of Cassandra and of NATS")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    scenarios = [each for each in SCENARIOS if wanted.only.lower() in each.name.lower()]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stores = Stores.started(wanted.nodes)
        servers: list[Server] = [Ours(Path(folder) / "embedded"), Distributed(Path(folder) / "cluster", stores)]
        rows = []
        try:
            for server in servers:
                server.start()
                fill(server, wanted.messages)
            if not wanted.json:
                print(f"{'':30}{'embedded/s':>12}{'here/s':>10}{'CPU µs':>10}{'here µs':>10}{'CPU ratio':>11}{'stores µs':>11}")
            for scenario in scenarios:
                before = stores.cpu_seconds()
                here = _middle(scenario, servers[1], wanted.messages, wanted.repeat)
                theirs = (stores.cpu_seconds() - before) / wanted.repeat
                there = _middle(scenario, servers[0], wanted.messages, wanted.repeat)
                rows.append(_row(scenario, there, here, theirs))
                if not wanted.json:
                    print(_line(rows[-1]), flush=True)
            if wanted.json:
                print(json.dumps(rows, indent=1))
        finally:
            for server in servers:
                with contextlib.suppress(Exception):
                    server.stop()
            stores.stop()
            time.sleep(0.1)


def _row(scenario: Scenario, embedded: Measured, here: Measured, stores: float) -> dict[str, object]:
    if here.bytes_each:
        return {"scenario": scenario.name, "embedded_kib": embedded.bytes_each / 1024, "kib": here.bytes_each / 1024}
    each, ours = (m.cpu_seconds / m.operations * 1e6 for m in (embedded, here))
    return {
        "scenario": scenario.name,
        "embedded_per_second": round(embedded.operations / embedded.seconds, 1),
        "per_second": round(here.operations / here.seconds, 1),
        "embedded_cpu_us": round(each, 1),
        "cpu_us": round(ours, 1),
        "cpu_ratio": round(ours / each, 2) if each else None,
        "stores_cpu_us": round(stores / here.operations * 1e6, 1),
    }


def _line(row: Mapping[str, object]) -> str:
    if "kib" in row:
        return f"{row['scenario']!s:30}{row['embedded_kib']:>12.1f}{row['kib']:>10.1f}  KiB each"
    keys = ("embedded_per_second", "per_second", "embedded_cpu_us", "cpu_us", "cpu_ratio", "stores_cpu_us")
    return f"{row['scenario']!s:30}" + "".join(f"{row[k]!s:>{w}}" for k, w in zip(keys, (12, 10, 10, 10, 11, 11), strict=True))


if __name__ == "__main__":
    main()
