"""The read and unread lists in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import msgpack

from twisted_mail.storage.interfaces import ListDelete, ListName, ListPut, ListRow
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq

__all__ = ["SQLiteLists"]

# Of two changes the one with the higher modseq stands, at one modseq a delete (deleted = 1) wins; so a row that was
# deleted stays as a mark until its bucket is dropped, and changes converge in whatever order they come.
_APPLY = """
INSERT INTO list_row VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET
    modseq = excluded.modseq, deleted = excluded.deleted, message_bucket = excluded.message_bucket,
    message = excluded.message, sender = excluded.sender, subject = excluded.subject, preview = excluded.preview,
    flags = excluded.flags, size = excluded.size
WHERE excluded.modseq > modseq OR (excluded.modseq = modseq AND excluded.deleted >= deleted)
"""


@operation("lists.apply", repeatable=True)
def apply(tx: Transaction, rows: Sequence[Sequence[object]]) -> None:
    tx.db.executemany(_APPLY, rows)


@operation("lists.mark_reached", repeatable=True)
def mark_reached(tx: Transaction, account: bytes, bucket: int, modseq: int) -> None:
    tx.db.execute(
        "INSERT INTO list_reached VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET modseq = max(modseq, excluded.modseq)",
        (account, bucket, modseq),
    )


@operation("lists.drop", repeatable=True)
def drop(tx: Transaction, account: bytes, bucket: int) -> None:
    for name in ("read", "unread"):
        tx.db.execute("DELETE FROM list_row WHERE account = ? AND list = ? AND bucket = ?", (account, name, bucket))
    tx.db.execute("DELETE FROM list_reached WHERE account = ? AND bucket = ?", (account, bucket))


def _page(
    db: sqlite3.Connection,
    account: bytes,
    name: str,
    bucket: int,
    folder: bytes,
    before: tuple[int, int] | None,
    limit: int,
) -> list[ListRow]:
    # "received <= ?" is what the key's order can use; the pair then decides within one millisecond
    received, uid = before or (2**63 - 1, 2**63 - 1)
    rows = db.execute(
        "SELECT received, uid, message_bucket, message, sender, subject, preview, flags, size FROM list_row "
        "WHERE account = ? AND list = ? AND bucket = ? AND folder = ? AND received <= ? AND (received < ? OR uid < ?) "
        "AND NOT deleted ORDER BY received DESC, uid DESC LIMIT ?",
        (account, name, bucket, folder, received, received, uid, limit),
    ).fetchall()
    return [
        ListRow(
            MailboxId(folder),
            row[0],
            row[1],
            MessageKey(row[2], MessageId(row[3])),
            row[4],
            row[5],
            row[6],
            msgpack.decode(row[7], type=tuple[str, ...]),
            row[8],
        )
        for row in rows
    ]


def _reached(db: sqlite3.Connection, account: bytes, bucket: int) -> int:
    row = db.execute("SELECT modseq FROM list_reached WHERE account = ? AND bucket = ?", (account, bucket)).fetchone()
    return row[0] if row else 0


class SQLiteLists:
    """Implements `Lists`."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        return await self._readers.run(_page, account.octets, name, bucket, folder.octets, before, limit)

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        rows: list[tuple[object, ...]] = []
        for change in changes:
            key = (account.octets, change.name, change.bucket)
            if isinstance(change, ListDelete):
                place = (change.folder.octets, change.received, change.uid)
                rows.append((*key, *place, int(modseq), 1, None, None, None, None, None, None, None))
            else:
                row = change.row
                place = (row.folder.octets, row.received, row.uid)
                message = (row.message.bucket, row.message.id.octets)
                shown = (row.sender, row.subject, row.preview, msgpack.encode(row.flags), row.size)
                rows.append((*key, *place, int(modseq), 0, *message, *shown))
        await self._writers.write("lists.apply", rows)

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        return ModSeq(await self._readers.run(_reached, account.octets, bucket))

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        await self._writers.write("lists.mark_reached", account.octets, bucket, int(modseq))

    async def drop(self, account: AccountId, bucket: int) -> None:
        await self._writers.write("lists.drop", account.octets, bucket)
