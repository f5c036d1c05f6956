"""A session on a real cluster for tests: one per process, on a keyspace of its own that goes at the end."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.services import running
from twisted_mail.storage.cql.driver import build_cluster
from twisted_mail.storage.cql.options import parse_url
from twisted_mail.storage.cql.schema import migrate
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.testing.base import Suite

__all__ = ["ClusterCase", "drop_keyspace"]


class ClusterCase(Suite, TestCase):
    """Tests on a real cluster. Tables are shared by all tests of the process: use new ids, or `empty` them."""

    timeout = 120
    shared: ClassVar[ClusterSession | None] = None

    async def session(self) -> ClusterSession:
        """A started session, the same for all tests of the process: it has nothing that one test could leave to another."""
        from twisted.internet import reactor  # not before trial has installed it

        if ClusterCase.shared is None:
            url = running.cassandra().url(f"test_{uuid4().hex[:12]}")
            session = ClusterSession(parse_url(url), reactor)
            await session.start()
            await migrate(session)
            ClusterCase.shared = session
        return ClusterCase.shared

    async def another_session(self) -> ClusterSession:
        """A second one, as of another node; it ends with the test."""
        session = ClusterSession((await self.session()).options, self.reactor)
        await session.start()
        session.use(session.options.keyspace)
        self.addCleanup(lambda: Deferred.fromCoroutine(session.stop()))
        return session

    async def empty(self, session: ClusterSession, *tables: str) -> None:
        for table in tables:
            await session.run(f"TRUNCATE {table}")

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor


def drop_keyspace() -> None:
    """Once, when all tests have ended and no reactor runs any more."""
    session, ClusterCase.shared = ClusterCase.shared, None
    if session is None:
        return
    cluster = build_cluster(session.options)
    try:
        cluster.connect().execute(f"DROP KEYSPACE {session.options.keyspace}", timeout=60)
    finally:
        cluster.shutdown()
        session._cluster.shutdown()
