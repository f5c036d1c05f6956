"""The read and unread lists in CQL: ``read_emails`` and ``unread_emails``, one partition for each bucket of an account.

Every statement's timestamp is made of the modseq it belongs to, so whatever comes again or late converges: the higher
modseq stands, and of a put and a delete at one timestamp the delete wins (that is the servers' own rule). Such timestamps
are small numbers beside the microseconds that the servers would take; `DROPPED`, at which a partition goes whole, lies
above all of them and in the past (ScyllaDB refuses timestamps of the future). So a dropped bucket's number can never
be used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec import msgpack

from twisted_mail.storage.cql.statements import Batch, Row, Session, Statement, statement
from twisted_mail.storage.cql.together import all_of
from twisted_mail.storage.interfaces import ListDelete, ListName, ListPut, ListRow
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq

__all__ = ["BATCH_BYTES", "BATCH_ROWS", "DROPPED", "CQLLists"]

DROPPED: Final = 1_600_000_000_000_000
"""The timestamp of a dropped bucket (microseconds: September 2020); no account has so many entries."""
BATCH_ROWS: Final = 64
BATCH_BYTES: Final = 48 * 1024
"""A batch is one mutation of one partition; servers warn and refuse by octets."""
BATCHES_AT_ONCE: Final = 8
LONGEST_TEXT: Final = 2048
"""Characters of a sender, subject or preview that a line shows: a line is bounded, and with it a partition."""
EPOCH: Final = datetime(1970, 1, 1)
MILLISECOND: Final = timedelta(milliseconds=1)

_COLUMNS: Final = "received, uid, message_bucket, message_id, sender, subject, preview, flags, size"


def _put(table: str) -> Statement:
    return statement(
        f"INSERT INTO {table} (user_id, bucket, folder, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " USING TIMESTAMP ?",
        idempotent=True,
    )


def _delete(table: str) -> Statement:
    return statement(
        f"DELETE FROM {table} USING TIMESTAMP ?"
        " WHERE user_id = ? AND bucket = ? AND folder = ? AND received = ? AND uid = ?",
        idempotent=True,
    )


def _newest(table: str) -> Statement:
    return statement(
        f"SELECT {_COLUMNS} FROM {table} WHERE user_id = ? AND bucket = ? AND folder = ? LIMIT ?", idempotent=True
    )


def _below(table: str) -> Statement:
    return statement(
        f"SELECT {_COLUMNS} FROM {table}"
        " WHERE user_id = ? AND bucket = ? AND folder = ? AND (received, uid) < (?, ?) LIMIT ?",
        idempotent=True,
    )


def _drop(table: str) -> Statement:
    return statement(f"DELETE FROM {table} USING TIMESTAMP ? WHERE user_id = ? AND bucket = ?", idempotent=True)


PUT: Final[dict[ListName, Statement]] = {"read": _put("read_emails"), "unread": _put("unread_emails")}
DELETE: Final[dict[ListName, Statement]] = {"read": _delete("read_emails"), "unread": _delete("unread_emails")}
NEWEST: Final[dict[ListName, Statement]] = {"read": _newest("read_emails"), "unread": _newest("unread_emails")}
BELOW: Final[dict[ListName, Statement]] = {"read": _below("read_emails"), "unread": _below("unread_emails")}
DROP: Final = (_drop("read_emails"), _drop("unread_emails"), _drop("list_reached"))
REACHED = statement("SELECT reached FROM list_reached WHERE user_id = ? AND bucket = ?", idempotent=True)
MARK_REACHED = statement(
    "INSERT INTO list_reached (user_id, bucket, reached) VALUES (?, ?, ?) USING TIMESTAMP ?", idempotent=True
)

Part = tuple[Statement, tuple[Any, ...]]


def _uuid(account: AccountId) -> UUID:
    return UUID(bytes=account.octets)


def _part(account: UUID, change: ListPut | ListDelete, modseq: int) -> Part:
    if isinstance(change, ListDelete):
        place = (account, change.bucket, UUID(bytes=change.folder.octets), change.received, change.uid)
        return DELETE[change.name], (modseq, *place)
    row = change.row
    return PUT[change.name], (
        account,
        change.bucket,
        UUID(bytes=row.folder.octets),
        row.received,
        row.uid,
        row.message.bucket,
        UUID(bytes=row.message.id.octets),
        row.sender[:LONGEST_TEXT],
        row.subject[:LONGEST_TEXT],
        row.preview[:LONGEST_TEXT],
        msgpack.encode(row.flags),
        row.size,
        modseq,
    )


def _size(change: ListPut | ListDelete) -> int:
    """About the octets of a part."""
    if isinstance(change, ListDelete):
        return 64
    row = change.row
    return 128 + 4 * (len(row.sender) + len(row.subject) + len(row.preview)) + sum(map(len, row.flags))


def _batches(account: UUID, changes: Sequence[ListPut | ListDelete], modseq: int) -> Iterator[Batch]:
    """*changes* by partition, in batches of bounded size."""
    partitions: dict[tuple[ListName, int], list[ListPut | ListDelete]] = {}
    for change in changes:
        partitions.setdefault((change.name, change.bucket), []).append(change)
    for some in partitions.values():
        parts: list[Part] = []
        octets = 0
        for change in some:
            size = _size(change)
            if parts and (len(parts) >= BATCH_ROWS or octets + size > BATCH_BYTES):
                yield Batch(parts)
                parts, octets = [], 0
            parts.append(_part(account, change, modseq))
            octets += size
        yield Batch(parts)


def _to_row(folder: MailboxId, row: Row) -> ListRow:
    return ListRow(
        folder,
        (row["received"] - EPOCH) // MILLISECOND,
        row["uid"],
        MessageKey(row["message_bucket"], MessageId(row["message_id"].bytes)),
        row["sender"],
        row["subject"],
        row["preview"],
        msgpack.decode(row["flags"], type=tuple[str, ...]),
        row["size"],
    )


class CQLLists:
    """Implements `Lists`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        place = (_uuid(account), bucket, UUID(bytes=folder.octets))
        if limit < 1:
            return []
        if before is None:
            rows = await self._session.execute(NEWEST[name], (*place, limit))
        else:
            rows = await self._session.execute(BELOW[name], (*place, *before, limit))
        return [_to_row(folder, row) for row in rows]

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        batches = list(_batches(_uuid(account), changes, int(modseq)))
        for start in range(0, len(batches), BATCHES_AT_ONCE):
            some = batches[start : start + BATCHES_AT_ONCE]
            await all_of(self._session.write_batch(batch) for batch in some)

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        rows = await self._session.execute(REACHED, (_uuid(account), bucket))
        return ModSeq(rows[0]["reached"] if rows else 0)

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        await self._session.execute(MARK_REACHED, (_uuid(account), bucket, int(modseq), int(modseq)))

    async def drop(self, account: AccountId, bucket: int) -> None:
        for drop in DROP:
            await self._session.execute(drop, (DROPPED, _uuid(account), bucket))
