"""A session on a real cluster for tests: one per process, on a keyspace of its own that goes at the end."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from cassandra.cluster import Cluster
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from twisted_mail.storage.cql.options import parse_url
from twisted_mail.storage.cql.schema import tables
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.testing.base import Suite

__all__ = ["ClusterCase", "drop_keyspace"]

URL = os.environ.get("MAIL_TEST_CQL", "cql://127.0.0.1:19042")


class ClusterCase(Suite, TestCase):
    """Tests on a real cluster. Tables are shared by all tests of the process: use new ids, or `empty` them."""

    timeout = 120
    keyspace = ""

    async def session(self) -> ClusterSession:
        """A started session, stopped after the test."""
        from twisted.internet import reactor  # not before trial has installed it

        options = parse_url(URL)
        session = ClusterSession(options, reactor)
        await session.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(session.stop()))
        if not ClusterCase.keyspace:
            await self._make_keyspace(session)
        await session.use(ClusterCase.keyspace)
        return session

    async def _make_keyspace(self, session: ClusterSession) -> None:
        name = f"test_{uuid4().hex[:12]}"
        await session.run(
            f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        )
        await session.use(name)
        for text in tables().values():
            await session.run(text)
        ClusterCase.keyspace = name

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
    options = parse_url(URL)
    cluster = Cluster(list(options.hosts), port=options.port, protocol_version=4)
    try:
        cluster.connect().execute(f"DROP KEYSPACE {ClusterCase.keyspace}", timeout=60)
    finally:
        cluster.shutdown()
