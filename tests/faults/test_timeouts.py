"""Conditional writes that end in time-outs, on real nodes: those that were carried out, those that were not, and those that
are carried out later; made by a proxy before the nodes, and made by the nodes themselves.

Whatever the outcome was, clients are answered the truth or nothing: what was refused does not appear, what was answered is
there once (rule 7 of the design).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.faults.cluster import House
from tests.faults.house import ACCOUNTS
from tests.faults.plan import Fault
from tests.services import cql_proxy, fetch, running
from tests.services.cassandra import Cassandra
from tests.services.processes import NotReady

IMPATIENT = {
    "cas_contention_timeout": "30ms",
    "write_request_timeout": "500ms",
    "read_request_timeout": "1000ms",
}
"""With these, two nodes that write to one account, or a replica that hangs, are enough for a time-out."""


def _spoil() -> Iterator[Fault]:
    return cycle([Fault("answers of Cassandra", 0, "spoil", 8.0)])


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_conditional_writes_of_unknown_outcome_are_settled(tmp_path: Path) -> None:
    house = House(tmp_path, injected=True)
    counts = house.run(_spoil(), 100, 6)
    assert counts["arrived answered"] > 50 and counts["stored answered"] > 50, counts
    assert house.answers is not None
    met = house.answers.met("account_log")
    for fault in cql_proxy.Fault:
        if fault is not cql_proxy.Fault.NONE:
            assert met[fault.name, True] + met[fault.name, False] > 0, (fault, met)
    # what is late seldom finds the account as it was: who settled meanwhile has moved the fence
    assert met["APPLIED_TIMEOUT", True] and met["APPLIED_SILENT", True] and met["TWICE", True], met
    print(counts, met)


@pytest.fixture
def impatient() -> Iterator[Cassandra]:
    """Three nodes with time limits that hardly anything keeps to."""
    running.ours("CQL")
    if why := fetch.missing():
        running.unavailable(why)
    running.stop("cassandra3")  # makes room
    cassandra = Cassandra(running.new_folder("impatient"), nodes=3, settings=IMPATIENT)
    try:
        cassandra.start()
        yield cassandra
    except NotReady as error:
        running.unavailable(str(error))
    finally:
        cassandra.stop()


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_time_outs_of_the_nodes_themselves_are_settled(tmp_path: Path, impatient: Cassandra) -> None:
    house = House(tmp_path, injected=True, cassandra=impatient)
    pauses = cycle([Fault("cassandra", number, "pause", 2.0) for number in range(3)])
    counts = house.run(pauses, 60, 8, pause=0.01, accounts=ACCOUNTS[:1], editors=4)
    assert counts["stored answered"] > 20, counts
    assert house.answers is not None
    met = house.answers.met("CAS")  # the write type that the nodes gave
    assert met["server", False] > 5, met
    print(counts, met)
