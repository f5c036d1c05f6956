"""ScyllaDB and Cassandra: the distributed engine for everything that is metadata.

Its URL is ``cql://user:password@host1,host2:9042/keyspace?option=value``; `options` has them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted_mail.storage.cql.directory import CQLDirectory
from twisted_mail.storage.cql.leases import CQLAllowances, CQLLeases
from twisted_mail.storage.cql.lists import CQLLists
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.cql.messages import CQLMessages
from twisted_mail.storage.cql.options import Options, parse_url
from twisted_mail.storage.cql.records import CQLRecords
from twisted_mail.storage.cql.references import CQLReferences
from twisted_mail.storage.cql.schema import check, migrate
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.cql.statements import STATEMENTS
from twisted_mail.storage.interfaces import Engine, EngineContext

__all__ = ["CQLEngine", "check", "engine", "migrate"]


class CQLEngine:
    """Has the stores of metadata, and no others. Implements `Engine`."""

    blobs = None
    queue = None
    bus = None
    cache = None
    members = None
    search = None

    def __init__(self, options: Options, reactor: Any) -> None:
        # the reactor provides IReactorThreads and IReactorTime
        self.options = options
        self.session = ClusterSession(options, reactor)
        self.account_log = CQLAccountLog(
            self.session,
            max_append_bytes=options.append_bytes,
            max_entry_bytes=options.entry_bytes,
            stale_reads=options.stale_reads,
        )
        self.messages = CQLMessages(self.session, stale_reads=options.stale_reads)
        self.lists = CQLLists(self.session)
        self.references = CQLReferences(self.session)
        self.directory = CQLDirectory(self.session, reactor, stale_reads=options.stale_reads)
        self.leases = CQLLeases(self.session, reactor)
        self.allowances = CQLAllowances(self.session, reactor)
        self.records = CQLRecords(self.session)

    async def start(self) -> None:
        """Connect, make the keyspace and its tables where they are missing. Raises: StorageError."""
        await self.session.start()
        try:
            await migrate(self.session)
            self.session.prepare(STATEMENTS)
        except BaseException:
            await self.session.stop()
            raise

    async def stop(self) -> None:
        await self.session.stop()

    async def check(self) -> Sequence[str]:
        """See `interfaces.Checked`."""
        return [f"{found.subject}: {found.text}" for found in await check(self.session) if not found.ok]

    def health(self) -> str | None:
        return self.session.health()


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of a ``cql:`` URL. Raises: ValueError that names what is wrong in it."""
    return CQLEngine(parse_url(url, context.options), context.reactor)
