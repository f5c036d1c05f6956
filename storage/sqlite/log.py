"""The accounts' logs and checkpoints in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import msgpack

from twisted_mail.storage.cells import pack, unpack
from twisted_mail.storage.interfaces import Checkpoint, Conflict, Corrupt, LogEntry, MessageRow, NewEntry, Trimmed
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.messages import SQLiteMessages, operands, put
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import AccountId, EntryId, ModSeq

__all__ = ["SQLiteAccountLog"]


# --- writing: operations of the process that writes


@operation("log.append")
def append(tx: Transaction, account: bytes, expected: int, entries: Sequence[tuple[bytes, bytes]]) -> int:
    head = expected + len(entries)
    moved = tx.db.execute(
        "UPDATE account_head SET head = ? WHERE account = ? AND head = ?", (head, account, expected)
    ).rowcount
    if not moved:
        if expected == 0:
            moved = tx.db.execute(
                "INSERT INTO account_head (account, head) VALUES (?, ?) ON CONFLICT DO NOTHING", (account, head)
            ).rowcount
        if not moved:
            raise Conflict(f"the account stands at {_head(tx.db, account)}")
    tx.db.executemany(
        "INSERT INTO account_log VALUES (?, ?, ?, ?)",
        [(account, number, id, data) for number, (id, data) in enumerate(entries, expected + 1)],
    )
    return head


@operation("log.append_with_rows")
def append_with_rows(
    tx: Transaction,
    account: bytes,
    expected: int,
    entries: Sequence[tuple[bytes, bytes]],
    brief: Sequence[Sequence[object]],
    full: Sequence[Sequence[object]],
) -> int:
    head = append(tx, account, expected, entries)
    put(tx, brief, full)
    return head


@operation("log.settle", repeatable=True)
def settle(tx: Transaction, account: bytes, expected: int, ids: Sequence[bytes]) -> bool:
    # Among the writes, although it only reads: whatever this process was sent before has then been carried out.
    rows = tx.db.execute(
        "SELECT id FROM account_log WHERE account = ? AND modseq > ? ORDER BY modseq LIMIT ?",
        (account, expected, len(ids)),
    ).fetchall()
    _check_trimmed(tx.db, account, expected)
    return [row[0] for row in rows] == list(ids)


@operation("log.save_checkpoint")
def save_checkpoint(
    tx: Transaction, account: bytes, previous: int, modseq: int, manifest: bytes, chunks: Sequence[tuple[str, bytes]]
) -> None:
    db = tx.db
    kept = db.execute(
        "SELECT modseq, chunks FROM checkpoint_manifest WHERE account = ? ORDER BY modseq DESC", (account,)
    ).fetchall()
    newest = kept[0][0] if kept else 0
    if newest != previous or modseq <= previous:
        raise Conflict(f"the newest checkpoint is {newest}")
    db.execute("INSERT INTO checkpoint_manifest VALUES (?, ?, ?)", (account, modseq, manifest))
    db.executemany(
        "INSERT OR REPLACE INTO checkpoint_chunk VALUES (?, ?, ?, ?)",
        [(account, name, modseq, data) for name, data in chunks],
    )
    if len(kept) < 2:
        return
    named = set(_manifest(manifest).items()) | set(_manifest(kept[0][1]).items())
    for old, old_manifest in kept[1:]:
        gone = set(_manifest(old_manifest).items()) - named
        db.executemany(
            "DELETE FROM checkpoint_chunk WHERE account = ? AND name = ? AND modseq = ?",
            [(account, name, written) for name, written in gone],
        )
        db.execute("DELETE FROM checkpoint_manifest WHERE account = ? AND modseq = ?", (account, old))


@operation("log.trim", repeatable=True)
def trim(tx: Transaction, account: bytes, through: int) -> None:
    older = tx.db.execute("SELECT min(modseq) FROM checkpoint_manifest WHERE account = ?", (account,)).fetchone()[0]
    through = min(through, older or 0, _head(tx.db, account))
    if through > 0:
        tx.db.execute("DELETE FROM account_log WHERE account = ? AND modseq <= ?", (account, through))
        tx.db.execute("UPDATE account_head SET trimmed = ?1 WHERE account = ?2 AND trimmed < ?1", (through, account))


@operation("log.start_at")
def start_at(tx: Transaction, account: bytes, modseq: int, manifest: bytes, chunks: Sequence[tuple[str, bytes]]) -> None:
    if _head(tx.db, account):
        raise Conflict(f"the account stands at {_head(tx.db, account)}")
    erase(tx, account)
    tx.db.execute("INSERT INTO account_head (account, head, trimmed) VALUES (?1, ?2, ?2)", (account, modseq))
    save_checkpoint(tx, account, 0, modseq, manifest, chunks)


@operation("log.erase", repeatable=True)
def erase(tx: Transaction, account: bytes) -> None:
    for table in ("account_log", "account_head", "checkpoint_manifest", "checkpoint_chunk"):
        tx.db.execute(f"DELETE FROM {table} WHERE account = ?", (account,))


# --- reading: in a thread of the pool


def _head(db: sqlite3.Connection, account: bytes) -> int:
    row = db.execute("SELECT head FROM account_head WHERE account = ?", (account,)).fetchone()
    return row[0] if row else 0


def _check_trimmed(db: sqlite3.Connection, account: bytes, after: int) -> None:
    row = db.execute("SELECT trimmed FROM account_head WHERE account = ?", (account,)).fetchone()
    if row is not None and row[0] > after:
        raise Trimmed(f"entries up to {row[0]} are gone")


def _read(db: sqlite3.Connection, account: bytes, after: int, limit: int) -> list[LogEntry]:
    rows = db.execute(
        "SELECT modseq, id, data FROM account_log WHERE account = ? AND modseq > ? ORDER BY modseq LIMIT ?",
        (account, after, limit),
    ).fetchall()
    if not rows or rows[0][0] != after + 1:
        _check_trimmed(db, account, after)
    return [LogEntry(ModSeq(modseq), EntryId(id), data) for modseq, id, data in rows]


def _load(db: sqlite3.Connection, account: bytes, wanted: Collection[str] | None) -> Checkpoint | None:
    db.execute("BEGIN")  # manifest and chunks of one moment
    try:
        row = db.execute(
            "SELECT modseq, chunks FROM checkpoint_manifest WHERE account = ? ORDER BY modseq DESC LIMIT 1", (account,)
        ).fetchone()
        if row is None:
            return None
        manifest = _manifest(row[1])
        packed = {}
        for name in manifest if wanted is None else wanted:
            if name not in manifest:
                continue
            found = db.execute(
                "SELECT data FROM checkpoint_chunk WHERE account = ? AND name = ? AND modseq = ?",
                (account, name, manifest[name]),
            ).fetchone()
            if found is None:
                raise Corrupt(f"checkpoint {row[0]} names the chunk {name} of {manifest[name]}, which is not there")
            packed[name] = found[0]
    finally:
        db.execute("COMMIT")
    return Checkpoint(
        ModSeq(row[0]),
        {name: ModSeq(written) for name, written in manifest.items()},
        {name: unpack(data) for name, data in packed.items()},
    )


def _manifest(encoded: bytes) -> dict[str, int]:
    return msgpack.decode(encoded, type=dict[str, int])


def _pack_chunks(db: sqlite3.Connection, chunks: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return [(name, pack(data)) for name, data in chunks.items()]


class SQLiteAccountLog:
    """Implements `AccountLog` and `AppendsRows`."""

    def __init__(self, writers: Writers, readers: ReaderPool, messages: SQLiteMessages) -> None:
        self._writers = writers
        self._readers = readers
        self.messages = messages

    async def head(self, account: AccountId) -> ModSeq:
        return ModSeq(await self._readers.run(_head, account.octets))

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        return await self._readers.run(_read, account.octets, int(after), -1 if limit is None else limit)

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        pairs = [(entry.id.octets, entry.data) for entry in entries]
        return ModSeq(await self._writers.write("log.append", account.octets, int(expected), pairs))

    async def append_with_rows(
        self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry], rows: Sequence[MessageRow]
    ) -> ModSeq:
        pairs = [(entry.id.octets, entry.data) for entry in entries]
        return ModSeq(
            await self._writers.write(
                "log.append_with_rows", account.octets, int(expected), pairs, *operands(account, rows)
            )
        )

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        arguments: tuple[Any, ...] = (account.octets, int(expected), [id.octets for id in ids])
        return bool(await self._writers.write("log.settle", *arguments))

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        return await self._readers.run(_load, account.octets, chunks)

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        manifest = {name: int(written) for name, written in kept.items()} | dict.fromkeys(changed, int(modseq))
        packed = await self._readers.run(_pack_chunks, changed)
        await self._writers.write(
            "log.save_checkpoint", account.octets, int(previous), int(modseq), msgpack.encode(manifest), packed
        )

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        await self._writers.write("log.trim", account.octets, int(through))

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        manifest = msgpack.encode(dict.fromkeys(chunks, int(modseq)))
        packed = await self._readers.run(_pack_chunks, chunks)
        await self._writers.write("log.start_at", account.octets, int(modseq), manifest, packed)

    async def erase(self, account: AccountId) -> None:
        await self._writers.write("log.erase", account.octets)
