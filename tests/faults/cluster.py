"""A real cluster for the fault tests: three Cassandra nodes, three of NATS, VersityGW, two mail nodes of each kind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from tests.faults.clocks import shift
from tests.faults.house import ACCOUNTS, EXTRA, PASSWORD, judge, pictures, populate, run_in_loop, work_under
from tests.faults.load import Load
from tests.faults.plan import Fault, Victim, carry_out
from tests.faults.records import Recorder
from tests.faults.spoiled import SpoiledStore
from tests.services import running
from tests.services.cassandra import Cassandra
from tests.services.mail import MailCluster, Storage
from tests.services.versity import VersityGateway

__all__ = ["House"]

NODES: Final = {
    "mx1": ["smtp"],
    "mx2": ["smtp"],
    "worker1": ["delivery", "lmtp"],
    "worker2": ["delivery", "lmtp"],
    "imap1": ["imap"],
    "imap2": ["imap"],
}
GOSSIP_SECONDS: Final = 4.0
"""Until the others take a Cassandra node that is back for alive."""
LEASE: Final = '[delivery]\nlease = "20s"\n'
"""What a dead worker had leased comes again soon."""


class House:
    """The servers, with a store of their own in them.

    Servers of an operator (``CQL``, ``S3``, ``NATS``) are used and left alone; then only the mail nodes are hurt.
    *clocks*: seconds by which nodes live in the future or the past. *spoiled*: the object store is reached through a proxy
    that can go wrong, and is hurt in its place.
    """

    def __init__(self, folder: Path, *, clocks: Mapping[str, int] | None = None, spoiled: bool = False) -> None:
        cassandra, versity, nats = running.cassandra(3), running.versity(), running.nats(3)
        name = f"faults{uuid4().hex[:10]}"
        self.spoiled = None
        blobs = versity.url(name)
        if spoiled:
            running.ours("S3")
            assert isinstance(versity, VersityGateway)
            self.spoiled = SpoiledStore(versity, folder, 1)
            blobs = self.spoiled.url(name)
        storage = Storage(cassandra.url(name), blobs, nats.url(name))
        self.recorder = Recorder(folder / "records.jsonl")
        self.cluster = MailCluster(folder, storage, NODES, extra=EXTRA + LEASE)
        for node, seconds in (clocks or {}).items():
            shift(self.cluster.nodes[node], seconds)
        victims: dict[str, Sequence[Victim]] = {}
        if isinstance(cassandra, Cassandra):
            victims["cassandra"] = cassandra.nodes
        if not os.environ.get("NATS"):
            victims["nats"] = running.nats_cluster(3).nodes
        if isinstance(versity, VersityGateway):
            victims["versity"] = [self.spoiled or versity]
        self.victims = victims | {kind: self.cluster.with_role(kind) for kind in ("smtp", "delivery", "imap")}

    def of(self, kind: str) -> Sequence[Victim]:
        """The servers of a kind; the test is skipped where they are an operator's."""
        running.ours({"cassandra": "CQL", "nats": "NATS", "versity": "S3"}.get(kind, ""))
        return self.victims[kind]

    def settled(self, kind: str) -> None:
        if kind == "cassandra":
            time.sleep(GOSSIP_SECONDS)

    def run(
        self,
        faults: Iterator[Fault] | None,
        seconds: float,
        seed: int,
        *,
        pause: float = 0.05,
        accounts: Sequence[str] = ACCOUNTS,
        editors: int = 2,
    ) -> dict[str, int]:
        """Clients work while servers are hurt (None: are not); whatever they were answered holds.

        Returns what they did, and how often.
        """
        load = Load(
            self.recorder, self.cluster.with_role("smtp"), self.cluster.with_role("imap"), accounts, PASSWORD,
            seed=seed, pause=pause, editors=editors,
        )  # fmt: skip

        async def hurting() -> None:
            if faults is None:
                await asyncio.sleep(seconds)
            else:
                await carry_out(faults, self.victims, self.recorder, seconds=seconds, settled=self.settled)

        self.live(lambda: work_under(load, hurting()))
        return self.recorder.counts()

    def live(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The servers are up and have their accounts while *work* runs; then everything recorded must hold."""
        try:
            if self.spoiled is not None:
                self.spoiled.start()
            self.cluster.start()
            populate(self.cluster)
            run_in_loop(work())
            imap = self.cluster.with_role("imap")
            judge(self.recorder, run_in_loop(pictures(self.recorder, imap, ACCOUNTS, 90)), self.cluster)
        finally:
            self.recorder.flush()
            self.cluster.stop()
            if self.spoiled is not None:
                self.spoiled.kill()


