"""Message rows in SQLite: what is read in bulk in one table, what is read singly in another."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from twisted_mail.storage.cells import pack, unpack
from twisted_mail.storage.interfaces import COLUMNS, MessageRow
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import AccountId, MessageId, MessageKey

__all__ = ["SQLiteMessages", "operands", "put"]

BRIEF: Final = ("common_header", "envelope", "structure", "preview", "body", "facts")
"""Columns of ``message_brief``, as they are."""
FULL: Final = ("search_header", "search_text", "manifest", "layout", "header", "inline")
"""Columns of ``message_full``, packed."""
assert set(BRIEF) | set(FULL) == set(COLUMNS)

FIRST_BATCH: Final = 128
"""Rows in the first batch; later ones are as many as fill about BATCH_BYTES."""
BATCH_BYTES: Final = 1 << 20
MAX_BATCH: Final = 2048
LOOKUP: Final = 100
"""Keys in one IN list."""

Cells = tuple[bytes, ...]
Operands = list[tuple[object, ...]]
Key = tuple[int, bytes]
"""Bucket, id."""


# --- writing


def _insert(table: str, columns: Sequence[str]) -> str:
    names = ("account", "bucket", "id", *columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO NOTHING"


_INSERT_BRIEF = _insert("message_brief", BRIEF)
_INSERT_FULL = _insert("message_full", FULL)


@operation("messages.put", repeatable=True)
def put(tx: Transaction, brief: Sequence[Sequence[object]], full: Sequence[Sequence[object]]) -> None:
    tx.db.executemany(_INSERT_BRIEF, brief)
    tx.db.executemany(_INSERT_FULL, full)


def operands(account: AccountId, rows: Sequence[MessageRow]) -> tuple[Operands, Operands]:
    """What `put` takes: the rows as the two tables have them. Raises: ValueError for a column that does not exist."""
    brief: Operands = []
    full: Operands = []
    for row in rows:
        cells = row.cells
        known = 0
        key = (account.octets, row.key.bucket, row.key.id.octets)
        for columns, table, how in ((BRIEF, brief, bytes), (FULL, full, pack)):
            known += sum(column in cells for column in columns)
            table.append((*key, *[how(cells.get(column, b"")) for column in columns]))
        if known != len(cells):
            raise ValueError(f"no such column: {', '.join(sorted(set(cells) - set(COLUMNS)))}")
    return brief, full


@operation("messages.delete", repeatable=True)
def delete(tx: Transaction, account: bytes, keys: Sequence[Key]) -> None:
    for table in ("message_brief", "message_full"):
        tx.db.executemany(
            f"DELETE FROM {table} WHERE account = ? AND bucket = ? AND id = ?",
            [(account, bucket, id) for bucket, id in keys],
        )


# --- reading


class _Selection:
    """The statements for one set of columns, and how a row of theirs becomes cells."""

    def __init__(self, columns: Sequence[str]) -> None:
        for column in columns:
            if column not in COLUMNS:
                raise ValueError(f"no such column: {column}")
        full = [column in FULL for column in columns]
        both = any(full) and not all(full)
        if both:
            # the second table is reached by key for each row of the first
            source = "message_brief AS m JOIN message_full AS f ON f.account = m.account AND f.bucket = m.bucket AND f.id = m.id"
        else:
            source = ("message_full" if any(full) else "message_brief") + " AS m"
        names = ", ".join(f"{'f' if both and is_full else 'm'}.{c}" for c, is_full in zip(columns, full, strict=True))
        select = f"SELECT m.id{', ' if names else ''}{names} FROM {source} WHERE m.account = ? AND m.bucket = ?"
        self.wide = any(full)
        self.range = f"{select} AND m.id BETWEEN ? AND ? ORDER BY m.id LIMIT ?"
        self.lookup = f"{select} AND m.id IN ({','.join('?' * LOOKUP)})"
        self.one = f"{select} AND m.id = ?"
        self.packed = full
        self.cells: Callable[[Cells], Cells] = self._unpack if self.wide else _plain

    def _unpack(self, row: Cells) -> Cells:
        cells = row[1:]
        return tuple(unpack(cell) if packed else cell for cell, packed in zip(cells, self.packed, strict=True))


def _plain(row: Cells) -> Cells:
    return row[1:]


def _get(
    db: sqlite3.Connection, account: bytes, keys: Sequence[MessageKey], selection: _Selection
) -> list[Cells | None]:
    """The cells for *keys*, in their order."""
    buckets: dict[int, list[bytes]] = {}
    for key in keys:
        buckets.setdefault(key.bucket, []).append(key.id.octets)
    if len(buckets) == 1:
        [(bucket, ids)] = buckets.items()
        return _get_of_bucket(db, account, bucket, ids, selection)
    found = {bucket: iter(_get_of_bucket(db, account, bucket, ids, selection)) for bucket, ids in buckets.items()}
    return [next(found[key.bucket]) for key in keys]


def _get_of_bucket(
    db: sqlite3.Connection, account: bytes, bucket: int, ids: list[bytes], selection: _Selection
) -> list[Cells | None]:
    cells = selection.cells
    if len(ids) < 4:
        rows = [db.execute(selection.one, (account, bucket, id)).fetchone() for id in ids]
        return [None if row is None else cells(row) for row in rows]
    ordered = sorted(set(ids))
    found: dict[bytes, Cells] = {}
    rest = ordered
    # In an account whose mailboxes grew side by side the keys of one lie among those of others. Bodies that nobody
    # asked for are dear, so a range of them is only read after a look at the keys.
    room = len(ordered) * (2 if selection.wide else 3) + 8
    if not selection.wide or _close_together(db, account, bucket, ordered, room):
        rows = db.execute(selection.range, (account, bucket, ordered[0], ordered[-1], room)).fetchall()
        if len(rows) == len(ids) and [row[0] for row in rows] == ids:
            return [cells(row) for row in rows]
        wanted = set(ordered)
        found = {row[0]: cells(row) for row in rows if row[0] in wanted}
        rest = [id for id in ordered if id > rows[-1][0]] if len(rows) == room else []
    for start in range(0, len(rest), LOOKUP):
        some = rest[start : start + LOOKUP]
        # one statement for every length: the last key again fills what is left
        padded = some + [some[-1]] * (LOOKUP - len(some))
        found.update((row[0], cells(row)) for row in db.execute(selection.lookup, (account, bucket, *padded)))
    return [found.get(id) for id in ids]


def _close_together(db: sqlite3.Connection, account: bytes, bucket: int, ids: Sequence[bytes], room: int) -> bool:
    """Whether the range of the ascending *ids* has fewer than *room* rows."""
    count = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM message_brief WHERE account = ? AND bucket = ? AND id BETWEEN ? AND ? LIMIT ?)",
        (account, bucket, ids[0], ids[-1], room),
    ).fetchone()[0]
    return bool(count < room)


def _iterate(db: sqlite3.Connection, account: bytes, bucket: int, after: bytes, limit: int) -> list[MessageKey]:
    rows = db.execute(
        "SELECT bucket, id FROM message_brief WHERE account = ? AND (bucket, id) > (?, ?) ORDER BY bucket, id LIMIT ?",
        (account, bucket, after, limit),
    ).fetchall()
    return [MessageKey(bucket, MessageId(id)) for bucket, id in rows]


class SQLiteMessages:
    """Implements `Messages`."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        await self._writers.write("messages.put", *operands(account, rows))

    async def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        selection = _Selection(columns)
        start, size = 0, FIRST_BATCH
        ahead: Deferred[list[Cells | None]] | None = None

        def ask() -> Deferred[list[Cells | None]]:
            return self._readers.run(_get, account.octets, keys[start : start + size], selection)

        try:
            while start < len(keys):
                batch = await (ahead or ask())
                ahead = None
                start += len(batch)
                # every 8th row says how large they are
                sample = [sum(map(len, row)) + 64 for row in batch[::8] if row is not None]
                if sample:
                    size = min(MAX_BATCH, max(8, BATCH_BYTES * len(sample) // sum(sample)))
                if start < len(keys):
                    ahead = ask()  # read while the caller works on this batch
                yield batch
        finally:
            if ahead is not None:
                ahead.addErrback(lambda failure: None)  # nobody wants it any more

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        await self._writers.write("messages.delete", account.octets, [(key.bucket, key.id.octets) for key in keys])

    async def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        bucket, after = -1, b""
        while batch := await self._readers.run(_iterate, account.octets, bucket, after, MAX_BATCH):
            bucket, after = batch[-1].bucket, batch[-1].id.octets
            yield batch
