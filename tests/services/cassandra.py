"""Cassandra: one node, three of one data centre, or one in each of two data centres.

Small on purpose (256 MB of heap a node). A node starts in 10 to 15 s; several start one after the other, since two that
join at once are refused.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.services import fetch
from tests.services.processes import Killable, NotReady, Process, free_port, loopback_address

__all__ = ["Cassandra", "Node"]

START_SECONDS: Final = 600.0
"""Ten or fifteen on a machine that has nothing else to do; with a load of thirty it was three minutes."""
SMALL: Final = "256m"
"""Heap of a node of the tests."""
_EXPORTS: Final = (
    "java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch "
    "java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql"
).split()
_OPENS: Final = [
    *(
        f"java.base/{name}"
        for name in (
            "java.lang.module java.net jdk.internal.loader jdk.internal.ref jdk.internal.reflect jdk.internal.math "
            "jdk.internal.module jdk.internal.util.jar sun.nio.ch java.io java.nio java.lang java.util "
            "java.util.concurrent java.util.concurrent.atomic"
        ).split()
    ),
    "jdk.management/com.sun.management.internal",
]
_LOGBACK: Final = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %d{HH:mm:ss.SSS} %logger{1} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""
_YAML: Final = """\
cluster_name: {cluster}
num_tokens: 4
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: ["{data}/data"]
commitlog_directory: {data}/commitlog
hints_directory: {data}/hints
saved_caches_directory: {data}/caches
cdc_raw_directory: {data}/cdc
commitlog_sync: {sync}
endpoint_snitch: {snitch}
listen_address: {address}
rpc_address: {address}
native_transport_port: {port}
storage_port: {storage_port}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{seed}:{storage_port}"}}]
auto_snapshot: false
concurrent_reads: 8
concurrent_writes: 8
memtable_heap_space: 32MiB
memtable_offheap_space: 32MiB
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
key_cache_size: 8MiB
networking_cache_size: 16MiB
file_cache_size: 32MiB
write_request_timeout: 2000ms
cas_contention_timeout: 1000ms
read_request_timeout: 3000ms
hinted_handoff_enabled: true
disk_failure_policy: stop
commit_failure_policy: stop
auto_bootstrap: false
phi_convict_threshold: 8
"""


class Node(Killable):
    """One Cassandra process."""

    def __init__(
        self, folder: Path, cluster: str, address: str, seed: str, port: int, storage_port: int, datacenter: str, heap: str, sync: str,
        settings: Mapping[str, str], lasting: bool,
    ) -> None:  # fmt: skip
        self.address, self.port, self.datacenter, self.folder = address, port, datacenter, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logback.xml").write_text(_LOGBACK)
        (folder / "cassandra-rackdc.properties").write_text(f"dc={datacenter or 'datacenter1'}\nrack=rack1\n")
        text = _YAML.format(
            cluster=cluster,
            data=folder,
            address=address,
            seed=seed,
            port=port,
            storage_port=storage_port,
            snitch="GossipingPropertyFileSnitch" if datacenter else "SimpleSnitch",
            sync=sync,
        )
        kept = [line for line in text.splitlines() if line.partition(":")[0] not in settings]
        own = [f"{name}: {value}" for name, value in settings.items()]
        (folder / "cassandra.yaml").write_text("\n".join([*kept, *own]) + "\n")
        words = [
            fetch.java(),
            f"-Xms{heap}",
            f"-Xmx{heap}",
            "-Xss512k",
            "-XX:+UseSerialGC",
            *(["-XX:TieredStopAtLevel=1"] if heap == SMALL else []),  # starts faster, and is slower later
            "-XX:MaxDirectMemorySize=128m",
            "-Djdk.attach.allowAttachSelf=true",
            f"-Dcassandra.config=file://{folder / 'cassandra.yaml'}",
            f"-Dcassandra.storagedir={folder}",
            f"-Dcassandra-rackdc.properties=file://{folder / 'cassandra-rackdc.properties'}",
            "-Dcassandra-foreground=yes",
            "-Dcassandra.ring_delay_ms=2000",
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.consistent.rangemovement=false",
            "-Dcassandra.superuser_setup_delay_ms=0",
            # what a table is would be written out, some ten files, at every change of the schema
            *([] if lasting else ["-Dcassandra.test.flush_local_schema_changes=false"]),
            *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS),
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS),
            "-cp",
            f"{folder}:{fetch.cassandra_jars()}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        ]
        self.process = Process("cassandra", words, folder)

    def start(self) -> None:
        """Start and wait until it takes clients. Raises NotReady."""
        self.process.start()
        self.process.wait(self.address, self.port, START_SECONDS)


class Cassandra:
    """A cluster. *datacenters*: one name for each node; () is one data centre without a name of its own. *settings* are
    lines of ``cassandra.yaml`` in place of those above. *lasting*: its nodes may be killed and started again; one that is not
    knows no tables after that (which tables there are is read before the commit log), and makes them five times faster."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        datacenters: Sequence[str] = (),
        heap: str = SMALL,
        settings: Mapping[str, str] | None = None,
        lasting: bool = True,
    ) -> None:
        if datacenters and len(datacenters) != nodes:
            raise ValueError("a data centre for each node")
        self.folder = folder
        first = loopback_address().rpartition(".")[0]
        addresses = [f"{first}.{number}" for number in range(1, nodes + 1)]
        port, storage_port = free_port(addresses[0]), free_port(addresses[0])
        self.nodes = [
            Node(
                folder / f"node{number}",
                folder.name,
                address,
                addresses[0],
                port,
                storage_port,
                datacenters[number - 1] if datacenters else "",
                heap,
                "batch" if nodes > 1 else "periodic\ncommitlog_sync_period: 1000ms",
                settings or {},
                lasting,
            )
            for number, address in enumerate(addresses, 1)
        ]
        self.port = port
        self.datacenter = datacenters[0] if datacenters else "datacenter1"

    def start(self) -> None:
        """Start the nodes one after the other. Raises NotReady."""
        for number, node in enumerate(self.nodes, 1):
            node.start()
            if len(self.nodes) > 1:
                self._wait_for_members(number)

    def _wait_for_members(self, wanted: int) -> None:
        """Until every node that runs sees *wanted* that are up."""
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import WhiteListRoundRobinPolicy

        deadline = time.monotonic() + START_SECONDS
        for node in self.nodes[:wanted]:
            while True:
                seen = 0
                with contextlib.suppress(Exception):
                    cluster = Cluster(
                        [node.address],
                        port=node.port,
                        protocol_version=4,
                        execution_profiles={
                            EXEC_PROFILE_DEFAULT: ExecutionProfile(WhiteListRoundRobinPolicy([node.address]))
                        },
                        connect_timeout=5,
                    )
                    try:
                        session = cluster.connect()
                        seen = 1 + sum(row.host_id is not None for row in session.execute("SELECT host_id FROM system.peers"))
                    finally:
                        cluster.shutdown()
                if seen >= wanted:
                    break
                if time.monotonic() > deadline:
                    raise NotReady(f"{node.address} sees {seen} of {wanted} nodes:\n{node.process.end_of_log()}")
                time.sleep(0.5)

    def wait_until_whole(self, seconds: float = START_SECONDS) -> None:
        """Until every node takes every other for alive: one that was brought back is not believed in at once.

        For at least three nodes. Raises NotReady.
        """
        from cassandra import ConsistencyLevel
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import WhiteListRoundRobinPolicy

        deadline = time.monotonic() + seconds
        for node in self.nodes:
            only = WhiteListRoundRobinPolicy([node.address])
            profile = ExecutionProfile(only, consistency_level=ConsistencyLevel.ALL, request_timeout=10)
            while True:
                why: object = "no answer"
                cluster = Cluster(
                    [node.address], port=node.port, protocol_version=4, connect_timeout=10,
                    execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                )  # fmt: skip
                try:
                    # a keyspace of the server's own, with three copies
                    cluster.connect().execute("SELECT * FROM system_distributed.view_build_status LIMIT 1")
                    break
                except Exception as error:
                    why = error
                finally:
                    cluster.shutdown()
                if time.monotonic() > deadline:
                    raise NotReady(f"{node.address} does not see all others: {why}")
                time.sleep(0.5)

    def url(self, keyspace: str, **options: str) -> str:
        """For ``storage.metadata``."""
        hosts = ",".join(node.address for node in self.nodes)
        wanted = {"datacenter": self.datacenter, "replication": str(len(self.nodes)), **options}
        return f"cql://{hosts}:{self.port}/{keyspace}?" + "&".join(f"{key}={value}" for key, value in wanted.items())

    def stop(self) -> None:
        """End every node and forget its data. A node has nothing to say at its end: it is killed."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
