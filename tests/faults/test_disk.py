"""The disk of one Cassandra node of three is full. The node stops (``disk_failure_policy``, ``commit_failure_policy``: stop, as
Cassandra's own configuration has them), clients go on with the two others, and what they were answered holds: also after
there is room again and the node has been started anew."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.cluster import House
from tests.faults.house import ACCOUNTS, PASSWORD, work_under
from tests.faults.load import Load
from tests.services import running, small_disk
from tests.services.cassandra import Node
from tests.services.small_disk import SmallDisk

ROOM = 64 * small_disk.MIB
FULL_SECONDS = 45.0


async def _filled(house: House, node: Node, disk: SmallDisk) -> None:
    """Full for a while, twice: the second time when the node is no longer new to it."""
    recorder = house.recorder
    await asyncio.sleep(5)
    recorder.note("the disk is full")
    disk.fill()
    begun = time.monotonic()
    await asyncio.sleep(FULL_SECONDS)
    assert any("No space left" in line for line in node.process.end_of_log(100_000).splitlines()), "nobody noticed"
    recorder.note(f"it was, for {time.monotonic() - begun:.0f} s; there is room again, and the node is started anew")
    disk.empty()
    node.kill()
    await asyncio.to_thread(node.start)
    house.settled("cassandra")
    await asyncio.sleep(15)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_what_clients_were_answered_holds_when_the_disk_of_a_cassandra_node_is_full(tmp_path: Path) -> None:
    if why := small_disk.why_not(tmp_path):
        running.unavailable(why)
    house = House(tmp_path)
    house.of("cassandra")
    node = house.victims["cassandra"][1]
    assert isinstance(node, Node)
    disk = SmallDisk(node.folder, ROOM)
    node.kill()
    disk.put_in()
    try:
        node.start()
        house.settled("cassandra")
        load = Load(house.recorder, house.cluster.with_role("smtp"), house.cluster.with_role("imap"), ACCOUNTS, PASSWORD, seed=15)
        house.live(lambda: work_under(load, _filled(house, node, disk)))
    finally:
        node.kill()
        disk.take_out()
        node.start()
    counts = house.recorder.counts()
    assert counts["arrived answered"] > 50 and counts["stored answered"] > 50, counts
    print(counts)
