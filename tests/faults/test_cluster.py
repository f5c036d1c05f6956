"""Servers of a real cluster are hurt while clients work: three Cassandra nodes, three of NATS, VersityGW, and two mail nodes
of each kind, all processes of their own. Afterwards everything that clients were answered holds.

Killed and paused is each of them; one mail node of each kind is cut off from all its stores, and from Cassandra alone; writes
to Cassandra end in time-outs; the object store spoils its answers. All the while the sweeper takes what nobody needs, on
every node. The short form does each of these once, 80 seconds of trouble and peace and what it takes to start what was killed;
the long one (``make test-faults``) goes on at random for ``FAULTS_SECONDS`` (600), with ``FAULTS_SEED`` (1). Records and logs
stay in pytest's folder, and how long each part took is printed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.cluster import AWAY, House
from tests.faults.house import ACCOUNTS
from tests.faults.plan import at_random, in_turn
from tests.services import isolation


def _away() -> Sequence[str]:
    """The nodes with a network of their own: none where the kernel does not give one (tests/services says so)."""
    return AWAY if isolation.why_not() is None else ()


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_what_clients_were_answered_holds_when_servers_die(tmp_path: Path) -> None:
    house = House(tmp_path, isolated=_away(), injected=True, sweeping=True)
    wanted = list(in_turn(house.victims, 2))
    counts = house.run(iter(wanted), 600, 1, between=1.0)
    assert sum(what.endswith(" is back") for _, what in house.recorder.notes) == len(wanted), "there was time for every fault"
    assert counts["arrived answered"] > 50 and counts["stored answered"] > 50 and counts["moved answered"] > 10, counts
    assert counts["shown"] > 50, counts


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_what_clients_were_answered_holds_for_long(tmp_path: Path) -> None:
    house = House(tmp_path, isolated=_away(), injected=True, spoiled=True, sweeping=True)
    seed = int(os.environ.get("FAULTS_SEED", "1"))
    counts = house.run(at_random(house.victims, seed), float(os.environ.get("FAULTS_SECONDS", "600")), seed)
    assert house.answers is not None
    print(counts, house.answers.met())


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["cassandra", "nats", "versity", "smtp", "delivery", "imap"])
def test_what_clients_were_answered_holds_when_one_kind_dies_again_and_again(tmp_path: Path, kind: str) -> None:
    house = House(tmp_path)
    only = {kind: house.of(kind)}
    house.run(islice(at_random(only, 7), 12), 120, 7)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_what_clients_were_answered_holds_while_the_object_store_spoils_its_answers(tmp_path: Path) -> None:
    house = House(tmp_path, spoiled=True)
    house.run(at_random({"answers of S3": house.of("answers of S3")}, 3), 120, 3)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_what_clients_were_answered_holds_while_clocks_are_minutes_apart(tmp_path: Path) -> None:
    house = House(tmp_path, clocks={"imap1": 300, "imap2": -300, "worker1": -300, "mx1": 300})
    only = {kind: house.of(kind) for kind in ("imap", "delivery", "smtp")}
    house.run(at_random(only, 4), 90, 4)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_what_clients_were_answered_holds_when_all_nodes_change_one_account_as_fast_as_they_can(tmp_path: Path) -> None:
    house = House(tmp_path)
    counts = house.run(None, 30, 5, pause=0.0, accounts=ACCOUNTS[:1], editors=6)
    assert counts["stored answered"] > 100, counts
