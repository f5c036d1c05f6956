"""Servers of a real cluster are killed and paused while clients work: three Cassandra nodes, three of NATS, VersityGW, and
two mail nodes of each kind, all processes of their own. Afterwards everything that clients were answered holds.

The short form hurts each kind of server twice in 2 minutes; the long one (``make test-faults``) goes on at random for
``FAULTS_SECONDS`` (600), with ``FAULTS_SEED`` (1). Records and logs stay in pytest's folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.house import ACCOUNTS, EXTRA, PASSWORD, judge, pictures, populate, run_in_loop, work_under
from tests.faults.load import Load
from tests.faults.plan import Fault, Victim, at_random, carry_out, in_turn
from tests.faults.records import Recorder
from tests.services import running
from tests.services.cassandra import Cassandra
from tests.services.mail import MailCluster, Storage
from tests.services.versity import VersityGateway

NODES = {
    "mx1": ["smtp"],
    "mx2": ["smtp"],
    "worker1": ["delivery"],
    "worker2": ["delivery"],
    "imap1": ["imap"],
    "imap2": ["imap"],
}
GOSSIP_SECONDS = 4.0
"""Until the others take a Cassandra node that is back for alive."""
LEASE = '[delivery]\nlease = "20s"\n'
"""What a dead worker had leased comes again soon."""


class House:
    """The servers, with a store of their own in them."""

    def __init__(self, folder: Path) -> None:
        for variable in ("CQL", "S3", "NATS"):
            running.ours(variable)
        cassandra, versity, nats = running.cassandra(3), running.versity(), running.nats_cluster(3)
        assert isinstance(cassandra, Cassandra) and isinstance(versity, VersityGateway)
        name = f"faults{uuid4().hex[:10]}"
        storage = Storage(cassandra.url(name), versity.url(name), nats.url(prefix=name))
        self.recorder = Recorder(folder / "records.jsonl")
        self.cluster = MailCluster(folder, storage, NODES, extra=EXTRA + LEASE)
        self.victims: Mapping[str, Sequence[Victim]] = {
            "cassandra": cassandra.nodes,
            "nats": nats.nodes,
            "versity": [versity],
            "smtp": self.cluster.with_role("smtp"),
            "delivery": self.cluster.with_role("delivery"),
            "imap": self.cluster.with_role("imap"),
        }

    def settled(self, kind: str) -> None:
        if kind == "cassandra":
            time.sleep(GOSSIP_SECONDS)

    def run(self, faults: Iterator[Fault], seconds: float, seed: int, pause: float = 0.05) -> dict[str, int]:
        """Clients work while servers are hurt; whatever they were answered holds. Returns what they did, and how often."""
        self.cluster.start()
        try:
            populate(self.cluster)
            imap = self.cluster.with_role("imap")
            load = Load(self.recorder, self.cluster.with_role("smtp"), imap, ACCOUNTS, PASSWORD, seed=seed, pause=pause)
            hurting = carry_out(faults, self.victims, self.recorder, seconds=seconds, settled=self.settled)
            run_in_loop(work_under(load, hurting))
            judge(self.recorder, run_in_loop(pictures(self.recorder, imap, ACCOUNTS, 90)), self.cluster)
            return self.recorder.counts()
        finally:
            self.recorder.flush()
            self.cluster.stop()


@pytest.mark.timeout(420)
def test_what_clients_were_answered_holds_when_servers_die(tmp_path: Path) -> None:
    house = House(tmp_path)
    counts = house.run(in_turn(house.victims, 1), 120, 1)
    assert counts["arrived answered"] > 50 and counts["stored answered"] > 50 and counts["moved answered"] > 10, counts
    assert counts["shown"] > 50, counts


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_what_clients_were_answered_holds_for_long(tmp_path: Path) -> None:
    house = House(tmp_path)
    seed = int(os.environ.get("FAULTS_SEED", "1"))
    counts = house.run(at_random(house.victims, seed), float(os.environ.get("FAULTS_SECONDS", "600")), seed)
    print(counts)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["cassandra", "nats", "versity", "smtp", "delivery", "imap"])
def test_what_clients_were_answered_holds_when_one_kind_dies_again_and_again(tmp_path: Path, kind: str) -> None:
    house = House(tmp_path)
    only = {kind: house.victims[kind]}
    house.run(islice(at_random(only, 7), 12), 120, 7)
