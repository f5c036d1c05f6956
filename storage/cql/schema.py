"""The schema: the keyspace, the tables of all stores, and migrations by number.

Two nodes that start at once are safe: a migration is made by whoever holds the lock (a row with a time to live, taken by
compare-and-set), and every schema change goes to one and the same node of the cluster, whose ``IF NOT EXISTS`` holds.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final
from uuid import uuid4

from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.storage.cql.options import Options
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.interfaces import StorageError, Unavailable

__all__ = ["MIGRATIONS", "VERSION", "Finding", "Migration", "check", "migrate", "tables"]

_log = Logger()

LOCK_SECONDS: Final = 120
"""After so long a lock of somebody who died is free again."""
POLL_SECONDS: Final = 0.25
LOCK: Final = 0
"""The number of the lock's row; migrations are numbered from 1."""


def tables() -> dict[str, str]:
    """Every table of the engine: name to text, gathered from the modules ``tables`` and ``tables_…`` beside this one."""
    found: dict[str, str] = {}
    package = __name__.rpartition(".")[0]
    for module in sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__)):
        if module == "tables" or module.startswith("tables_"):
            declared: Mapping[str, str] = import_module(f"{package}.{module}").TABLES
            for name, text in declared.items():
                if name in found:
                    raise ValueError(f"two modules declare the table {name}")
                found[name] = " ".join(text.split())
    return found


VERSIONS_TABLE: Final = " ".join(
    """
    CREATE TABLE IF NOT EXISTS schema_version (
        part text, number int, description text, holder uuid,
        PRIMARY KEY ((part), number)
    ) WITH compaction = {'class': 'SizeTieredCompactionStrategy'}
        AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 4}
        AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
        AND gc_grace_seconds = 864000""".split()
)
# One partition of a few rows, written once a migration: which strategy it has does not matter.


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one version of the schema to the next; each text may be carried out again."""

    number: int
    description: str
    texts: tuple[str, ...]


MIGRATIONS: Final = (Migration(1, "all tables", tuple(tables().values())),)
VERSION: Final = MIGRATIONS[-1].number


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` found out."""

    subject: str
    ok: bool
    text: str


# --- which server it is


@dataclass(frozen=True, slots=True)
class _Server:
    """What differs between the two servers, as far as the schema goes."""

    scylla: bool
    tablets: bool

    def dialect(self, text: str) -> str:
        """*text* as this server takes it: older ScyllaDB calls the class of a compression otherwise."""
        if self.scylla:
            return text.replace("compression = {'class':", "compression = {'sstable_compression':")
        return text


async def _server(session: ClusterSession) -> _Server:
    """Ask the system tables. Raises: Unavailable."""
    rows = await session.run(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name IN ('system', 'system_schema')"
    )
    names = {row["table_name"] for row in rows}
    return _Server("scylla_tables" in names, "tablets" in names)


def keyspace_text(options: Options, local: str, *, scylla: bool, tablets: bool) -> str:
    """CREATE KEYSPACE for *options*, where *local* is the name of the data centre of the node that was asked."""
    copies = {name or local: number for name, number in (options.replication or {"": 3}).items()}
    listed = ", ".join(f"'{name}': {number}" for name, number in sorted(copies.items()))
    text = (
        f"CREATE KEYSPACE IF NOT EXISTS {options.keyspace} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', {listed}}} AND durable_writes = {str(options.durable_writes).lower()}"
    )
    if scylla and tablets:
        # the tablets of many versions know no lightweight transactions
        text += f" AND tablets = {{'enabled': {str(bool(options.tablets)).lower()}}}"
    return text


# --- making it


async def migrate(session: ClusterSession) -> int:
    """Make the keyspace, use it, and bring its schema up to `VERSION`; returns how many migrations were made.

    Raises: StorageError with a text for operators.
    """
    options = session.options
    server = await _server(session)
    if not await _exists(session, options.keyspace):
        text = keyspace_text(options, session.local_datacenter, scylla=server.scylla, tablets=server.tablets)
        await session.run_schema(text)
    session.use(options.keyspace)
    made = 0
    waited = 0.0
    while (done := await _reached(session)) < VERSION:
        holder = uuid4()
        if not await _lock(session, holder):
            waited += POLL_SECONDS
            if waited > 2 * LOCK_SECONDS:
                raise Unavailable("another node has been changing the schema for too long")
            await deferLater(session.clock, POLL_SECONDS, lambda: None)
            continue
        try:
            # another node may have made it between our look and our lock
            for migration in MIGRATIONS[await _reached(session) :]:
                _log.info("schema of {keyspace}: {text}", keyspace=options.keyspace, text=migration.description)
                for text in migration.texts:
                    await session.run_schema(server.dialect(text))
                await session.run(
                    "INSERT INTO schema_version (part, number, description) VALUES ('schema', %s, %s) IF NOT EXISTS",
                    (migration.number, migration.description),
                )
                made += 1
        finally:
            await session.run(
                f"DELETE FROM schema_version WHERE part = 'schema' AND number = {LOCK} IF holder = %s", (holder,)
            )
    if done > VERSION:
        raise StorageError(
            f"the schema of {options.keyspace} is at {done}, and this version of the programme knows {VERSION}: upgrade it"
        )
    return made


async def _exists(session: ClusterSession, keyspace: str) -> bool:
    return bool(
        await session.run("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace,))
    )


async def _reached(session: ClusterSession) -> int:
    """The number of the newest migration that was made; makes the table that says so."""
    names = {row["table_name"] for row in await _table_rows(session)}
    if "schema_version" not in names:
        await session.run_schema(VERSIONS_TABLE)
    query = f"SELECT number FROM schema_version WHERE part = 'schema' AND number > {LOCK}"
    patience = 40
    while True:
        try:
            rows = await session.run(query, serial=True)
        except Unavailable:
            # the system tables name a table a moment before it can be read, while another node makes it
            patience -= 1
            if not patience:
                raise
            await deferLater(session.clock, POLL_SECONDS, lambda: None)
        else:
            return max((row["number"] for row in rows), default=0)


async def _lock(session: ClusterSession, holder: Any) -> bool:
    try:
        rows = await session.run(
            f"INSERT INTO schema_version (part, number, holder) VALUES ('schema', {LOCK}, %s) IF NOT EXISTS "
            f"USING TTL {LOCK_SECONDS}",
            (holder,),
        )
    except Unavailable:
        return False  # if it is ours all the same, it runs out
    return bool(rows[0]["[applied]"])


# --- looking at it


async def _table_rows(session: ClusterSession) -> Sequence[Mapping[str, Any]]:
    return await session.run("SELECT * FROM system_schema.tables WHERE keyspace_name = %s", (session.options.keyspace,))


_EXPECTED: Final = re.compile(r"'class': '(\w+Strategy)'.*?'class': '(\w+)'.*?gc_grace_seconds = (\d+)")


def _differences(text: str, row: Mapping[str, Any]) -> list[str]:
    """In what the table that is there differs from the one that is wanted."""
    wanted = _EXPECTED.search(text)
    if wanted is None:
        return []
    strategy, compressor, grace = wanted.groups()
    compaction, compression = dict(row["compaction"] or {}), dict(row["compression"] or {})
    found = (
        ("compaction", strategy, compaction.get("class", "")),
        ("compression", compressor, compression.get("class") or compression.get("sstable_compression") or ""),
        ("gc_grace_seconds", grace, str(row["gc_grace_seconds"])),
    )
    return [
        f"{what} is {there.rpartition('.')[2]}, not {want}" for what, want, there in found if not there.endswith(want)
    ]


async def check(session: ClusterSession) -> Sequence[Finding]:
    """Compare what is there with what is wanted. Changes nothing. Raises: Unavailable."""
    options = session.options
    keyspaces = await session.run(
        "SELECT replication, durable_writes FROM system_schema.keyspaces WHERE keyspace_name = %s", (options.keyspace,)
    )
    if not keyspaces:
        return [Finding("keyspace", False, f"the keyspace {options.keyspace} does not exist: mailctl storage migrate")]
    findings = [_replication(session, dict(keyspaces[0]["replication"]))]
    durable = bool(keyspaces[0]["durable_writes"])
    if not durable:
        findings.append(Finding("durable_writes", False, "durable_writes is off: a node that dies loses mail"))
    rows = {row["table_name"]: row for row in await _table_rows(session)}
    for name, text in {**tables(), "schema_version": VERSIONS_TABLE}.items():
        if name not in rows:
            findings.append(Finding(name, False, "the table does not exist: mailctl storage migrate"))
            continue
        differences = _differences(text, rows[name])
        findings.append(Finding(name, not differences, "; ".join(differences) or "as it should be"))
    if "schema_version" in rows:
        done = max(
            (row["number"] for row in await session.run(
                f"SELECT number FROM {options.keyspace}.schema_version WHERE part = 'schema'"
            )),
            default=0,
        )  # fmt: skip
        findings.append(Finding("version", done == VERSION, f"the schema is at {done}, this programme at {VERSION}"))
    return findings


def _replication(session: ClusterSession, replication: dict[str, str]) -> Finding:
    """Whether copies are where they should be, and whether there are nodes enough for them."""
    copies = {
        name: int(number.partition("/")[0])
        for name, number in replication.items()
        if name != "class" and number.partition("/")[0].isdigit()
    }
    local = session.local_datacenter
    nodes = session.nodes_by_datacenter()
    if "NetworkTopologyStrategy" not in replication.get("class", ""):
        return Finding("replication", False, f"replication is {replication}: NetworkTopologyStrategy is wanted")
    if not copies.get(local):
        return Finding("replication", False, f"there is no copy in our data centre {local}: {replication}")
    for name, number in copies.items():
        if nodes.get(name, 0) < number:
            return Finding("replication", False, f"{number} copies in {name}, which has {nodes.get(name, 0)} nodes")
    listed = ", ".join(f"{number} in {name}" for name, number in sorted(copies.items()))
    if copies[local] < 3:
        return Finding("replication", False, f"copies: {listed}; with fewer than 3 no node may die")
    return Finding("replication", True, f"copies: {listed}")
