"""Records in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from twisted_mail.storage.interfaces import Record
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool

__all__ = ["SQLiteRecords"]

SWEPT: Final = 2
"""Records that ran out and go with each that comes: more than come, so that they never pile up."""


@operation("record.put", repeatable=True)
def put(tx: Transaction, space: str, key: str, value: bytes, ttl: float | None) -> None:
    now = tx.now()
    tx.db.execute(
        "INSERT INTO record VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET value = ?3, expires = ?4",
        (space, key, value, None if ttl is None else now + ttl),
    )
    tx.db.execute(
        "DELETE FROM record WHERE (space, key) IN "
        "(SELECT space, key FROM record WHERE expires <= ? ORDER BY expires LIMIT ?)",
        (now, SWEPT),
    )


@operation("record.put_many", repeatable=True)
def put_many(tx: Transaction, records: Sequence[tuple[str, str, bytes, float | None]]) -> None:
    for space, key, value, ttl in records:
        put(tx, space, key, value, ttl)


@operation("record.delete", repeatable=True)
def delete(tx: Transaction, space: str, key: str) -> None:
    tx.db.execute("DELETE FROM record WHERE space = ? AND key = ?", (space, key))


def _get(db: sqlite3.Connection, space: str, key: str, now: float) -> bytes | None:
    row = db.execute(
        "SELECT value FROM record WHERE space = ? AND key = ? AND (expires IS NULL OR expires > ?)", (space, key, now)
    ).fetchone()
    return None if row is None else bytes(row[0])


def _list(db: sqlite3.Connection, space: str, after: str, limit: int, now: float) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT key, value FROM record WHERE space = ? AND key > ? AND (expires IS NULL OR expires > ?) "
        "ORDER BY key LIMIT ?",
        (space, after, now, limit),
    ).fetchall()


class SQLiteRecords:
    """Implements `Records`."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        record = Record(key, value)
        await self._writers.write("record.put", space, record.key, record.value, ttl)

    async def put_many(self, records: Sequence[tuple[str, str, bytes, float | None]]) -> None:
        checked = [(space, (record := Record(key, value)).key, record.value, ttl) for space, key, value, ttl in records]
        await self._writers.write("record.put_many", checked)

    async def get(self, space: str, key: str) -> bytes | None:
        return await self._readers.run(_get, space, key, self._writers.now())

    async def delete(self, space: str, key: str) -> None:
        await self._writers.write("record.delete", space, key)

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        rows = await self._readers.run(_list, space, after, limit, self._writers.now())
        return [Record(*row) for row in rows]
