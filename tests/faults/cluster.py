"""A real cluster for the fault tests: three Cassandra nodes, three of NATS, VersityGW, two mail nodes of each kind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from tests.faults.house import (
    ACCOUNTS,
    EXTRA,
    PASSWORD,
    judge,
    judge_blobs,
    pictures,
    populate,
    run_in_loop,
    work_under,
)
from tests.faults.injected import SpoiledAnswers
from tests.faults.load import Load
from tests.faults.patches import careless_sweeping, shift_clock
from tests.faults.plan import Fault, Victim, carry_out
from tests.faults.records import Recorder
from tests.faults.spoiled import SpoiledStore
from tests.faults.warehouse import Warehouse
from tests.services import isolation, running
from tests.services.cassandra import Cassandra
from tests.services.isolation import Isolation, Way
from tests.services.mail import MailCluster, MailNode, Place, Storage
from tests.services.processes import NotReady
from tests.services.versity import VersityGateway

__all__ = ["AWAY", "House"]

NODES: Final = {
    "mx1": ["smtp"],
    "mx2": ["smtp"],
    "worker1": ["delivery", "lmtp"],
    "worker2": ["delivery", "lmtp"],
    "imap1": ["imap"],
    "imap2": ["imap"],
}
AWAY: Final = ("mx2", "worker2", "imap2")
"""One of each kind, to be cut off from their stores."""
LEASE: Final = '[delivery]\nlease = "20s"\n'
"""What a dead worker had leased comes again soon."""
SHORT_PAST: Final = '[account]\nretention = "5s"\n'
"""Rows of expunged messages may go while the test runs."""


class _Cut:
    """Several ways of one node at once."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways

    def pause(self) -> None:
        for way in self._ways:
            way.cut()

    def resume(self) -> None:
        for way in self._ways:
            way.mend()

    kill, start = pause, resume


def _start(node: MailNode) -> None:
    """A node that cannot start because of its stores is started again, as whoever supervises it would. Raises NotReady."""
    for attempt in range(6):
        try:
            node.start()
            return
        except NotReady:
            if attempt == 5 or node.process.running:
                raise


class House:
    """The servers, with a store of their own in them.

    Servers of an operator (``CQL``, ``S3``, ``NATS``) are used and left alone; then only the mail nodes are hurt.
    *clocks*: seconds by which nodes live in the future or the past. *spoiled*, *injected*: the object store, or Cassandra, is
    reached through a proxy that can go wrong. *isolated*: nodes with a network of their own. *sweeping*: there is a
    sweep a second, by one node or another, what is condemned goes after a few seconds, and what becomes of the blobs is judged
    too. *cassandra*: other nodes than those that all tests share.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clocks: Mapping[str, int] | None = None,
        spoiled: bool = False,
        injected: bool = False,
        isolated: Sequence[str] = (),
        sweeping: bool = False,
        cassandra: Cassandra | None = None,
    ) -> None:
        self.recorder = Recorder(folder / "records.jsonl")
        self.recorder.note("the stores are started, unless they are there")
        database = cassandra or running.cassandra(3)
        versity, nats = running.versity(), running.nats(3)
        name = f"faults{uuid4().hex[:10]}"
        victims: dict[str, Sequence[Victim]] = {}
        self.spoiled: list[SpoiledStore | SpoiledAnswers] = []
        metadata, blobs = database.url(name), versity.url(name)
        self.database = database if isinstance(database, Cassandra) else None
        if self.database is not None:
            victims["cassandra"] = self.database.nodes
        if not os.environ.get("NATS"):
            victims["nats"] = running.nats_cluster(3).nodes
        if isinstance(versity, VersityGateway):
            victims["versity"] = [versity]
        if spoiled:
            running.ours("S3")
            assert isinstance(versity, VersityGateway)
            store = SpoiledStore(versity, folder, 1)
            blobs = store.url(name)
            self.spoiled.append(store)
            victims["answers of S3"] = [store]
        self.answers: SpoiledAnswers | None = None
        if injected:
            running.ours("CQL")
            assert isinstance(database, Cassandra)
            self.answers = SpoiledAnswers(database, folder, 1)
            metadata = self.answers.url(name)
            self.spoiled.append(self.answers)
            victims["answers of Cassandra"] = [self.answers]
        self.isolations: dict[str, Isolation] = {}
        if isolated:
            for variable in ("CQL", "S3", "NATS"):
                running.ours(variable)
            assert isinstance(database, Cassandra)
            self._isolate(isolated, database)
            ways = [each.ways for each in self.isolations.values()]
            victims["network"] = [_Cut([each["Cassandra"], each["others"]]) for each in ways]
            victims["network to Cassandra"] = [_Cut([each["Cassandra"]]) for each in ways]
        self.cluster = MailCluster(
            folder,
            Storage(metadata, blobs, nats.url(name)),
            NODES,
            extra=EXTRA + LEASE + (SHORT_PAST if sweeping else ""),
            places={each: Place(found.address, found.around) for each, found in self.isolations.items()},
        )
        for node, seconds in (clocks or {}).items():
            shift_clock(self.cluster.nodes[node], seconds)
        self.warehouse: Warehouse | None = None
        if sweeping:
            for each in self.cluster.nodes.values():
                careless_sweeping(each)
            running.ours("S3")
            assert isinstance(versity, VersityGateway)
            self.warehouse = Warehouse(versity.folder / "objects" / name, self.recorder.clock)
        self.victims = victims | {kind: self.cluster.with_role(kind) for kind in ("smtp", "delivery", "imap")}

    def _isolate(self, nodes: Sequence[str], database: Cassandra) -> None:
        if why := isolation.why_not():
            running.unavailable(why)
        network = database.nodes[0].address.rpartition(".")[0] + ".0/24"
        for name in nodes:
            self.isolations[name] = Isolation({"Cassandra": (network,), "others": ("127.0.0.1/32",)})
            self.isolations[name].open()

    def of(self, kind: str) -> Sequence[Victim]:
        """The servers of a kind; the test is skipped where they are an operator's."""
        running.ours({"cassandra": "CQL", "nats": "NATS", "versity": "S3", "answers of S3": "S3"}.get(kind, ""))
        return self.victims[kind]

    def settled(self, kind: str) -> None:
        """A server of *kind* was brought back: wait until the others of its kind know."""
        if kind == "cassandra" and self.database is not None:
            self.database.wait_until_whole()

    def run(
        self,
        faults: Iterator[Fault] | None,
        seconds: float,
        seed: int,
        *,
        pause: float = 0.05,
        accounts: Sequence[str] = ACCOUNTS,
        editors: int = 2,
        between: float = 2.0,
    ) -> dict[str, int]:
        """Clients work while servers are hurt (None: are not); whatever they were answered holds. *between*: see `carry_out`.

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
                await carry_out(
                    faults, self.victims, self.recorder, seconds=seconds, between=between, settled=self.settled
                )

        self.live(lambda: work_under(load, hurting()))
        return self.recorder.counts()

    def _up(self) -> None:
        """The first mail node alone, which makes the tables, then the others. Raises NotReady."""
        first, *others = self.cluster.nodes.values()
        _start(first)
        for node in others:
            node.start(wait=False)
        for node in others:
            try:
                node.ready()
            except NotReady:
                _start(node)

    def live(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The servers are up and have their accounts while *work* runs; then everything recorded must hold.

        How long each part took is printed, for whoever looks (``-s``, or a failure).
        """
        note = self.recorder.note
        try:
            note("mail nodes are started")
            for proxy in self.spoiled:
                proxy.start()
            self._up()
            if self.warehouse is not None:
                self.warehouse.start()
            note("accounts are made")
            populate(self.cluster)
            note("clients begin")
            run_in_loop(work())
            note("clients have ended; what waits is delivered")
            imap = self.cluster.with_role("imap")
            found = run_in_loop(pictures(self.recorder, imap, ACCOUNTS, 90))
            note("what is there is judged")
            judge(self.recorder, found, self.cluster)
            if self.warehouse is not None:
                note("blobs are judged")
                judge_blobs(self.recorder, self.warehouse, self.cluster)
        finally:
            note("mail nodes are stopped")
            self.cluster.stop()
            note("the end")
            print(self.recorder.timeline())
            for each in self.isolations.values():
                each.close()
            for proxy in self.spoiled:
                proxy.kill()
