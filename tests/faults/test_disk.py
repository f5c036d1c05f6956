"""The disk of one Cassandra node of three is full. Where the commit log lies on it the node dies of that at once (its segments
are mapped into memory); where only the data does, it stops at its next flush (``disk_failure_policy: stop``, as Cassandra's own
configuration has it). Clients go on with the two others, and what they were answered holds: also after there is room again
and the node has been started anew."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy

from tests.faults.cluster import House
from tests.faults.house import ACCOUNTS, PASSWORD, work_under
from tests.faults.load import Load
from tests.services import running, small_disk
from tests.services.cassandra import Node
from tests.services.small_disk import SmallDisk

ROOM = 64 * small_disk.MIB
NOTICED_SECONDS = 60.0
FULL_SECONDS = 20.0
"""How long clients work after the node has stopped."""


def _takes_clients(node: Node) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((node.address, node.port), 5):
        return True
    return False


def _flush(other: Node, keyspace: str) -> None:
    """A change of the schema, asked of *other*: every node writes its tables of the schema to its disk."""
    profile = ExecutionProfile(RoundRobinPolicy(), request_timeout=10)
    cluster = Cluster([other.address], port=other.port, protocol_version=4, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    cluster.max_schema_agreement_wait = 1
    try:
        with contextlib.suppress(Exception):  # whether the full node agrees is not asked
            replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
            cluster.connect().execute(f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")
    finally:
        cluster.shutdown()


async def _filled(house: House, node: Node, other: Node, disk: SmallDisk) -> None:
    """*node* gets a disk of its own, which is full until the node has stopped, and for a while after that."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(2)
    node.kill()
    await asyncio.to_thread(disk.put_in)
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(house.settled, "cassandra")
    await asyncio.sleep(5)
    house.recorder.note("the disk is full")
    disk.fill()
    end, tries = loop.time() + NOTICED_SECONDS, 0
    while await asyncio.to_thread(_takes_clients, node):
        assert loop.time() < end, f"a full disk was not noticed:\n{node.process.end_of_log()}"
        tries += 1
        await asyncio.to_thread(_flush, other, f"flushed{tries}")
        await asyncio.sleep(1)
    how = "has stopped" if node.process.running else "has died"
    house.recorder.note(f"the node {how}")
    await asyncio.sleep(FULL_SECONDS)
    disk.empty()
    node.kill()
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(house.settled, "cassandra")
    house.recorder.note("there was room again, and the node is back")
    await asyncio.sleep(10)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", ["everything", "data"])
def test_what_clients_were_answered_holds_when_the_disk_of_a_cassandra_node_is_full(tmp_path: Path, what: str) -> None:
    if why := small_disk.why_not(tmp_path):
        running.unavailable(why)
    house = House(tmp_path)
    house.of("cassandra")
    other, node, _ = house.victims["cassandra"]
    assert isinstance(node, Node) and isinstance(other, Node)
    disk = SmallDisk(node.folder if what == "everything" else node.folder / "data", ROOM)
    load = Load(house.recorder, house.cluster.with_role("smtp"), house.cluster.with_role("imap"), ACCOUNTS, PASSWORD, seed=15)
    try:
        house.live(lambda: work_under(load, _filled(house, node, other, disk)))
    finally:
        node.kill()
        disk.take_out()
        node.start()
        house.settled("cassandra")
    counts = house.recorder.counts()
    assert counts["arrived answered"] > 50 and counts["stored answered"] > 50, counts
    print(what, counts, house.recorder.notes)
