"""Each way in which a conditional write can end is made to happen on a real node: what the driver is told, and what is there."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import cassandra
import pytest
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy
from cassandra.query import BatchStatement, BatchType
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.services import running
from tests.services.cassandra import Cassandra
from tests.services.cql_frames import (
    CONDITION,
    WRITE_TIMEOUT,
    Frame,
    Op,
    applied,
    error,
    failure_of,
    statements_of,
    take_frames,
)
from tests.services.cql_proxy import CQLProxy, Fault, Kind

turning: Any = reactor
SILENCE = 1.5
"""Seconds until the driver takes no answer for an answer."""


def test_frames_are_cut_wherever_the_octets_end() -> None:
    frames = [Frame(0x84, 0, 5, Op.RESULT, b"abc"), Frame(0x04, 0, 1, Op.QUERY, b"")]
    octets = b"".join(frame.octets for frame in frames)
    for cut in range(len(octets) + 1):
        buffer = bytearray(octets[:cut])
        found = take_frames(buffer)
        buffer += octets[cut:]
        assert found + take_frames(buffer) == frames and not buffer


def test_what_is_compressed_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="flags"):
        take_frames(bytearray(Frame(0x84, 1, 5, Op.RESULT, b"abc").octets))


def test_a_batch_is_read_with_the_texts_of_its_prepared_statements() -> None:
    value = struct.pack(">i", 2) + b"xx"
    null = struct.pack(">i", -1)
    text = b"INSERT INTO u (a) VALUES (?)"
    body = b"\0" + struct.pack(">H", 2)
    body += b"\1" + struct.pack(">H", 2) + b"id" + struct.pack(">H", 2) + value + null
    body += b"\0" + struct.pack(">i", len(text)) + text + struct.pack(">H", 1) + value
    body += struct.pack(">H", 6)
    texts, consistency = statements_of(Frame(4, 0, 1, Op.BATCH, body), {b"id": "UPDATE t SET a = ? WHERE k = ? IF a = 1"})
    assert texts == ["UPDATE t SET a = ? WHERE k = ? IF a = 1", text.decode()] and consistency == 6


@pytest.mark.parametrize(
    ("text", "conditional"),
    [
        ("UPDATE t SET a = ? WHERE k = ? IF a = ?", True),
        ("INSERT INTO t (k)\n VALUES (?) IF NOT EXISTS USING TTL ?", True),
        ("DELETE FROM t WHERE k = ? IF EXISTS", True),
        ("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY)", False),
        ("SELECT k FROM t", False),
        ("INSERT INTO notif (k) VALUES (?)", False),
    ],
)
def test_conditional_statements_are_known_by_their_text(text: str, conditional: bool) -> None:
    assert bool(CONDITION.match(text)) is conditional


class FaultsOfOneNode(TestCase):
    """The answers as `execute` sees them, and the row behind them."""

    async def _start(self) -> None:
        server = running.cassandra()
        running.ours("CQL")
        assert isinstance(server, Cassandra)
        self.node = server.nodes[0]
        self.proxy = CQLProxy(turning, [self.node.address], self.node.port)
        self.told: list[tuple[str, bool]] = []
        self.proxy.tell = lambda what, about, was_applied: self.told.append((what, was_applied))
        await self.proxy.start()
        self.clusters: list[Any] = []
        keyspace = f"proxy{uuid4().hex[:10]}"
        plain = await self._session(self.node.port)
        await deferToThread(self._tables, plain, keyspace)
        self.plain = plain
        self.session = await self._session(self.proxy.port)
        self.insert = await deferToThread(self.session.prepare, f"INSERT INTO {keyspace}.t (k, v) VALUES (?, ?) IF NOT EXISTS")
        self.select = await deferToThread(self.session.prepare, f"SELECT v FROM {keyspace}.t WHERE k = ?")
        self.select.consistency_level = cassandra.ConsistencyLevel.SERIAL
        self.table = f"{keyspace}.t"

    async def _stop(self) -> None:
        for cluster in self.clusters:
            await deferToThread(cluster.shutdown)
        await self.proxy.stop()

    async def _session(self, port: int) -> Any:
        profile = ExecutionProfile(RoundRobinPolicy(), FallthroughRetryPolicy(), request_timeout=SILENCE * 10)
        cluster = Cluster(
            [self.node.address], port=port, protocol_version=4, execution_profiles={EXEC_PROFILE_DEFAULT: profile}
        )
        self.clusters.append(cluster)
        return await deferToThread(cluster.connect)

    @staticmethod
    def _tables(session: Any, keyspace: str) -> None:
        replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        session.execute(f"CREATE KEYSPACE {keyspace} WITH replication = {replication}")
        session.execute(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v int)")

    def _once(self, fault: Fault) -> None:
        """The next conditional write, or serial read, meets *fault*."""
        faults = iter([fault])
        self.proxy.choose = lambda kind, texts: next(faults, Fault.NONE)

    async def _result(self, statement: Any, values: Sequence[Any] | None, seconds: float = SILENCE * 10) -> str:
        try:
            rows = await deferToThread(self.session.execute, statement, values, seconds)
        except Exception as failure:
            return type(failure).__name__
        return f"applied={rows.one()[0]}"

    async def _there(self, key: int) -> bool:
        rows = await deferToThread(self.plain.execute, f"SELECT v FROM {self.table} WHERE k = {key}")
        return bool(list(rows))

    def setUp(self) -> Deferred[None]:  # type: ignore[override]  # trial waits for what a test's methods return
        return Deferred.fromCoroutine(self._start())

    def tearDown(self) -> Deferred[None]:  # type: ignore[override]  # as above
        return Deferred.fromCoroutine(self._stop())

    async def test_every_fault_does_what_it_says(self) -> None:
        expected = [
            (Fault.NONE, "applied=True", True),
            (Fault.APPLIED_TIMEOUT, "WriteTimeout", True),
            (Fault.APPLIED_SILENT, "OperationTimedOut", True),
            (Fault.LOST_TIMEOUT, "WriteTimeout", False),
            (Fault.LOST_SILENT, "OperationTimedOut", False),
            (Fault.TWICE, "applied=False", True),
            (Fault.APPLIED_CUT, "ConnectionShutdown", True),
        ]
        for key, (fault, outcome, there) in enumerate(expected):
            self._once(fault)
            self.told.clear()
            seconds = SILENCE if "SILENT" in fault.name else SILENCE * 10
            assert await self._result(self.insert, (key, 1), seconds) == outcome, fault
            assert await self._there(key) is there, fault
            assert self.told == [] if fault is Fault.NONE else [(fault.name, there)]

    async def test_what_is_late_is_told_to_have_timed_out_and_is_done_afterwards(self) -> None:
        self.proxy.late_seconds = lambda: SILENCE
        self._once(Fault.LATE)
        batch = BatchStatement(BatchType.UNLOGGED)
        batch.add(self.insert, (1, 1))
        assert await self._result(batch, None) == "WriteTimeout"
        assert not await self._there(1)
        for cluster in self.clusters[1:]:  # whoever wanted it may be gone by then
            await deferToThread(cluster.shutdown)
        while not self.told:
            await deferLater(turning, 0.05)
        assert await self._there(1)
        assert self.told == [("LATE", True)]

    async def test_serial_reads_can_fail_and_others_are_left_alone(self) -> None:
        await self._result(self.insert, (1, 7))
        asked: list[Kind] = []

        def choose(kind: Kind, texts: Sequence[str]) -> Fault:
            asked.append(kind)
            return Fault.LOST_TIMEOUT

        self.proxy.choose = choose
        assert await self._result(self.select, (1,)) == "ReadTimeout"
        self.select.consistency_level = cassandra.ConsistencyLevel.ONE
        assert await self._result(self.select, (1,)) == "applied=7"
        assert asked == [Kind.READ]


def test_an_injected_time_out_reads_as_one() -> None:
    frame = error(WRITE_TIMEOUT, 9)
    assert failure_of(frame) == (WRITE_TIMEOUT, "CAS: injected") and not applied(frame) and frame.stream == 9
