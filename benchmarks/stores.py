"""The servers of a distributed store, and mail nodes over them, for benchmarks; all on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.servers import DOMAIN, PASSWORD, USERS, Server, family, user
from tests.services import running
from tests.services.cassandra import Cassandra
from tests.services.mail import MailCluster, Storage
from tests.services.nats import Nats
from tests.services.versity import VersityGateway

__all__ = ["ALL", "Distributed", "Stores", "cpu_seconds", "exact_cpu_seconds"]

ALL: Final = ("smtp", "submission", "lmtp", "imap", "pop3", "delivery")
_EXTRA: Final = "[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
_TICK: Final = os.sysconf("SC_CLK_TCK")
HEAP: Final = "1024m"
AS_IN_PRODUCTION: Final = {
    # what Cassandra takes by itself for this heap, where the tests' servers are small
    "memtable_heap_space": "256MiB",
    "memtable_offheap_space": "256MiB",
    "commitlog_segment_size": "32MiB",
    "commitlog_total_space": "1024MiB",
    # what docs/how-to/run-a-cluster.md recommends
    "memtable": "{configurations: {default: {class_name: TrieMemtable}}}",
    "paxos_variant": "v2",
}


def cpu_seconds(pid: int) -> float:
    """User and system time so far of *pid* and all below it."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICK


def exact_cpu_seconds(pid: int) -> float:
    """The same to the nanosecond, of threads that live; for what takes less than a tick."""
    total = 0
    for each in family(pid):
        for thread in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(thread.read_text().split()[0])
    return total / 1e9


@dataclass(slots=True)
class Stores:
    """The stores of one benchmark."""

    cassandra: Cassandra
    nats: Nats
    versity: VersityGateway

    @classmethod
    def started(cls, nodes: int) -> Stores:
        """Cassandra with *nodes* nodes, of 1 GB of heap each and with both compilers, NATS the same, VersityGW."""
        made = cls(
            Cassandra(running.new_folder("cassandra"), nodes=nodes, heap=HEAP, settings=AS_IN_PRODUCTION),
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

    @property
    def pids(self) -> list[int]:
        servers = [self.versity.process, *(n.process for n in self.nats.nodes), *(n.process for n in self.cassandra.nodes)]
        return [process.pid for process in servers]

    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def stop(self) -> None:
        for server in (self.cassandra, self.nats, self.versity):
            server.stop()


class Distributed(Server):
    """Mail nodes over `Stores`; without *nodes* it is one that does everything."""

    name = "distributed"

    def __init__(
        self,
        folder: Path,
        stores: Stores,
        nodes: Mapping[str, Sequence[str]] | None = None,
        keyspace: str = "bench",
    ) -> None:
        super().__init__(folder)
        self.stores = stores
        self.storage = stores.storage(keyspace)
        self.cluster = MailCluster(folder, self.storage, nodes or {"all1": ALL}, extra=_EXTRA)

    def start(self) -> None:
        first = next(iter(self.cluster.nodes.values()))
        first.start()
        self.cluster.mailctl("domain", "add", DOMAIN)
        self.cluster.mailctl("user", "add", user(), "--password-stdin", given=PASSWORD + "\n")
        self.inside("people", first=1, count=USERS - 1)
        for node in self.cluster.nodes.values():
            if node is not first:
                node.start()
        self.ports = {name: port for name, port in first.ports.items() if name in ("smtp", "lmtp", "imap", "pop3")}

    def inside(self, work: str, **parameters: Any) -> dict[str, Any]:
        """Have *work* of `benchmarks.inside` done in a process of its own, on the same stores; what it found."""
        given = {"storage": asdict(self.storage), "stores": self.stores.pids, **parameters}
        folder = self.folder / "inside"
        folder.mkdir(exist_ok=True)
        with (folder / f"{work}.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.inside", work, json.dumps(given)],
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=1800,
            )
        if done.returncode:
            raise RuntimeError(f"{work}: {(folder / f'{work}.log').read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def stop(self) -> None:
        self.cluster.stop()

    def _pids(self) -> list[int]:
        return [node.process.pid for node in self.cluster.nodes.values() if node.process.running]

    def cpu_seconds(self) -> float:
        return sum(map(exact_cpu_seconds, self._pids()))

    def memory_bytes(self) -> int:
        total = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total
