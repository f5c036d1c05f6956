"""References to blobs in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from twisted_mail.storage.holders import check_holder
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import BlobRef

__all__ = ["SQLiteReferences"]

LISTED: Final = 500
"""Rows of one step of `lost` and `iterate`."""


@operation("reference.add", repeatable=True)
def add(tx: Transaction, hash: str, generation: int, holder: str) -> None:
    tx.db.execute("INSERT INTO blob_reference VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (hash, generation, holder))


@operation("reference.remove", repeatable=True)
def remove(tx: Transaction, refs: Sequence[Sequence[Any]], holder: str) -> None:
    now = tx.now()
    for hash, generation, size in refs:
        tx.db.execute("INSERT INTO blob_lost VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (now, hash, generation, size))
        tx.db.execute(
            "DELETE FROM blob_reference WHERE hash = ? AND generation = ? AND holder = ?", (hash, generation, holder)
        )


@operation("reference.condemn", repeatable=True)
def condemn(tx: Transaction, hash: str, generation: int) -> None:
    tx.db.execute(
        "INSERT INTO blob_condemned VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET through = max(through, excluded.through)",
        (hash, generation),
    )


@operation("reference.settled", repeatable=True)
def settled(tx: Transaction, hash: str, generation: int, until: float) -> None:
    tx.db.execute("DELETE FROM blob_lost WHERE hash = ? AND generation = ? AND listed <= ?", (hash, generation, until))


def _holders(db: sqlite3.Connection, ref: BlobRef, limit: int) -> list[str]:
    rows = db.execute(
        "SELECT holder FROM blob_reference WHERE hash = ? AND generation = ? LIMIT ?", (ref.hash, ref.generation, limit)
    )
    return [row[0] for row in rows]


def _condemned(db: sqlite3.Connection, hash: str) -> int:
    row = db.execute("SELECT through FROM blob_condemned WHERE hash = ?", (hash,)).fetchone()
    return 0 if row is None else row[0] + 1


def _lost(db: sqlite3.Connection, after: tuple[float, str, int], until: float) -> list[tuple[float, str, int, int]]:
    return db.execute(
        "SELECT listed, hash, generation, size FROM blob_lost WHERE (listed, hash, generation) > (?, ?, ?) AND listed <= ? "
        "ORDER BY listed, hash, generation LIMIT ?",
        (*after, until, LISTED),
    ).fetchall()


def _all(db: sqlite3.Connection, after: tuple[str, int, str]) -> list[tuple[str, int, str]]:
    return db.execute(
        "SELECT hash, generation, holder FROM blob_reference WHERE (hash, generation, holder) > (?, ?, ?) "
        "ORDER BY hash, generation, holder LIMIT ?",
        (*after, LISTED),
    ).fetchall()


class SQLiteReferences:
    """Implements `References`. A condemnation is kept for ever."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def add(self, ref: BlobRef, holder: str) -> None:
        check_holder(holder)
        await self._writers.write("reference.add", ref.hash, ref.generation, holder)

    async def remove(self, refs: Sequence[BlobRef], holder: str) -> None:
        if refs:
            rows = [(ref.hash, ref.generation, ref.size) for ref in refs]
            await self._writers.write("reference.remove", rows, holder)

    async def holders(self, ref: BlobRef, limit: int = 1) -> Sequence[str]:
        return await self._readers.run(_holders, ref, limit)

    async def condemned(self, hash: str) -> int:
        return await self._readers.run(_condemned, hash)

    async def condemn(self, ref: BlobRef) -> None:
        await self._writers.write("reference.condemn", ref.hash, ref.generation)

    async def lost(self, until: float) -> AsyncIterator[BlobRef]:
        after = (-1.0, "", 0)
        while rows := await self._readers.run(_lost, after, until):
            for _, hash, generation, size in rows:
                yield BlobRef(hash, size, generation)
            after = rows[-1][:3]

    async def settled(self, ref: BlobRef, until: float) -> None:
        await self._writers.write("reference.settled", ref.hash, ref.generation, until)

    async def iterate(self) -> AsyncIterator[tuple[BlobRef, str]]:
        after = ("", 0, "")
        while rows := await self._readers.run(_all, after):
            for hash, generation, holder in rows:
                yield BlobRef(hash, 0, generation), holder
            after = rows[-1]
