"""A session on a real cluster for tests: one per process, on a keyspace of its own that goes at the end."""

from __future__ import annotations

from typing import Any
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
    keyspace = ""

    async def session(self) -> ClusterSession:
        """A started session, stopped after the test."""
        from twisted.internet import reactor  # not before trial has installed it

        first = not ClusterCase.keyspace
        if first:
            ClusterCase.keyspace = f"test_{uuid4().hex[:12]}"
        session = ClusterSession(parse_url(running.cassandra().url(ClusterCase.keyspace)), reactor)
        await session.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(session.stop()))
        if first:
            await migrate(session)
        session.use(ClusterCase.keyspace)
        return session

    async def empty(self, session: ClusterSession, *tables: str) -> None:
        for table in tables:
            await session.run(f"TRUNCATE {table}")

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor


def drop_keyspace() -> None:
    """Once, when all tests have ended."""
    if not ClusterCase.keyspace:
        return
    options = parse_url(running.cassandra().url(ClusterCase.keyspace))
    cluster = build_cluster(options)
    try:
        cluster.connect().execute(f"DROP KEYSPACE {ClusterCase.keyspace}", timeout=60)
    finally:
        cluster.shutdown()
        ClusterCase.keyspace = ""
