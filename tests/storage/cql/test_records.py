"""Records: the contract on a real node, and on a keyspace in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from tests.storage.cql.cluster import ClusterCase
from tests.storage.cql.fakes import FakeSession
from twisted_mail.storage import testing
from twisted_mail.storage.cql.records import DELETE, PUT, PUT_FOR, CQLRecords
from twisted_mail.storage.cql.statements import Row, Session, Statement, statement
from twisted_mail.storage.interfaces import Records

_TTL = statement("SELECT TTL(value) FROM record WHERE space = ? AND key = ?", idempotent=True)


class Ending:
    """A session that carries out time by hand: what a TTL would end is ended when `advance` comes to it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = 0.0
        self._ends: dict[tuple[str, str], float] = {}

    async def advance(self, seconds: float) -> None:
        self._now += seconds
        for key in [key for key, end in self._ends.items() if end <= self._now]:
            del self._ends[key]
            await self._session.execute(DELETE, key)

    async def execute(self, statement: Statement, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        if statement in (PUT, PUT_FOR):
            self._ends.pop((parameters[0], parameters[1]), None)
        if statement is PUT_FOR:
            self._ends[parameters[0], parameters[1]] = self._now + parameters[3]
        return await self._session.execute(statement, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class CQLRecordsTests(ClusterCase, testing.RecordsContract):
    async def build(self) -> Records:
        session = await self.session()
        await self.empty(session, "record")
        self.ending = Ending(session)
        return CQLRecords(self.ending)

    async def advance(self, seconds: float) -> None:
        await self.ending.advance(seconds)

    async def test_the_database_ends_them(self) -> None:
        records = await self.build()
        await records.put("s", "brief", b"", ttl=0.2)
        await records.put("s", "long", b"", ttl=4 * 365 * 86_400)
        await records.put("s", "endless", b"", ttl=1e12)
        await records.put("s", "kept", b"")
        session = await self.session()
        found = [
            next(iter(row.values()))
            for key in ("long", "endless", "kept")
            for row in await session.execute(_TTL, ("s", key))
        ]
        self.assertTrue(found[0] > 86_400 * 365 and found[1:] == [None, None], found)
        [row] = await session.execute(_TTL, ("s", "brief")) or [{"ttl": 1}]
        self.assertEqual(next(iter(row.values())), 1)


class FakeRecordsTests(testing.RecordsContract, TestCase):
    async def build(self) -> Records:
        self.ending = Ending(FakeSession())
        return CQLRecords(self.ending)

    async def advance(self, seconds: float) -> None:
        await self.ending.advance(seconds)
