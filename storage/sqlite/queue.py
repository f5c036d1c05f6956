"""The queue in SQLite: one table, with a lease token."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from twisted_mail.storage.interfaces import ItemState, LeasedItem, QueueFilter, QueueItem, QueueStatus
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["SQLiteQueue"]

_ITEM = "id, use, envelope, body_hash, body_size, domain, sender, attempts, last_reply, created, body_generation"

# a row has values of SQLite's types, hence Any
Row = Sequence[Any]


@operation("queue.put", repeatable=False)
def put(tx: Transaction, item: Row, delay: float) -> bool:
    # one process writes: between the look and the row nobody puts the same
    done = tx.db.execute(
        f"INSERT INTO queue ({_ITEM}, due) SELECT ?,?,?,?,?,?,?,?,?,?,?,? "
        "WHERE NOT EXISTS (SELECT 1 FROM queue WHERE id = ?)",
        (*item, tx.now() + delay, item[0]),
    )
    return done.rowcount > 0


@operation("queue.lease")
def lease(tx: Transaction, use: str, limit: int, seconds: float) -> list[Row]:
    now = tx.now()
    # a lease that ran out is due at the moment when it did
    due = tx.db.execute(
        f"SELECT number, {_ITEM} FROM queue WHERE use = ? AND held = 0 AND due <= ? ORDER BY due, number LIMIT ?",
        (use, now, limit),
    ).fetchall()
    tokens = [uuid4().hex for _ in due]
    tx.db.executemany(
        "UPDATE queue SET attempts = attempts + 1, token = ?, due = ? WHERE number = ?",
        [(token, now + seconds, row[0]) for token, row in zip(tokens, due, strict=True)],
    )
    return [[*row[1:], token, now + seconds] for token, row in zip(tokens, due, strict=True)]


@operation("queue.extend", repeatable=True)
def extend(tx: Transaction, token: str, seconds: float) -> bool:
    return tx.db.execute("UPDATE queue SET due = ? WHERE token = ?", (tx.now() + seconds, token)).rowcount > 0


@operation("queue.ack")
def ack(tx: Transaction, token: str) -> bool:
    return tx.db.execute("DELETE FROM queue WHERE token = ?", (token,)).rowcount > 0


@operation("queue.retry")
def retry(
    tx: Transaction, token: str, delay: float, last_reply: str, envelope: bytes | None, attempted: bool
) -> bool:
    done = tx.db.execute(
        "UPDATE queue SET due = ?, last_reply = ?, token = NULL, envelope = coalesce(?, envelope), "
        "attempts = attempts - ? WHERE token = ?",
        (tx.now() + delay, last_reply, envelope, 0 if attempted else 1, token),
    )
    return done.rowcount > 0


@operation("queue.hold", repeatable=True)
def hold(tx: Transaction, id: bytes) -> bool:
    return tx.db.execute("UPDATE queue SET held = 1, token = NULL WHERE id = ?", (id,)).rowcount > 0


@operation("queue.release")
def release(tx: Transaction, id: bytes) -> bool:
    done = tx.db.execute("UPDATE queue SET held = 0, due = ? WHERE id = ? AND held = 1", (tx.now(), id))
    return done.rowcount > 0


@operation("queue.delete")
def delete(tx: Transaction, id: bytes) -> bool:
    return tx.db.execute("DELETE FROM queue WHERE id = ?", (id,)).rowcount > 0


_STATE = "CASE WHEN held THEN 'held' WHEN due <= :now THEN 'due' WHEN token IS NULL THEN 'waiting' ELSE 'leased' END"


def _list(db: sqlite3.Connection, parameters: dict[str, Any]) -> list[Row]:
    conditions = ["id > :after"]
    conditions += [f"{name} = :{name}" for name in ("use", "domain", "sender") if parameters[name] is not None]
    if parameters["state"] == ItemState.HELD.value:
        conditions.append("held = 1")  # as the index says it
    elif parameters["state"] is not None:
        conditions.append(f"{_STATE} = :state")
    return db.execute(
        f"SELECT {_ITEM}, {_STATE}, due FROM queue WHERE {' AND '.join(conditions)} ORDER BY id LIMIT :limit",
        parameters,
    ).fetchall()


def _to_item(row: Row, attempts: int) -> QueueItem:
    id, use, envelope, body_hash, body_size, domain, sender, _, last_reply, created, generation = row[:11]
    body = None if body_hash is None else BlobRef(body_hash, body_size, generation)
    return QueueItem(DeliveryId(id), use, envelope, body, domain, sender, attempts, last_reply, created)


def row_of(item: QueueItem) -> Row:
    """What `put` writes of *item*."""
    body = (None, None) if item.body is None else (item.body.hash, item.body.size)
    generation = 0 if item.body is None else item.body.generation
    rest = (item.domain, item.sender, item.attempts, item.last_reply, item.created, generation)
    return (item.id.octets, item.use, item.envelope, *body, *rest)


class SQLiteQueue:
    """Implements `Queue`. A lease that ran out stays its holder's until another takes the item."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        return bool(await self._writers.write("queue.put", row_of(item), delay))

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        rows = await self._writers.write("queue.lease", use, limit, seconds)
        return [LeasedItem(_to_item(row, row[7] + 1), row[11], row[12]) for row in rows]

    async def extend(self, token: str, seconds: float) -> bool:
        return bool(await self._writers.write("queue.extend", token, seconds))

    async def ack(self, token: str) -> bool:
        return bool(await self._writers.write("queue.ack", token))

    async def retry(
        self, token: str, delay: float, last_reply: str, *, envelope: bytes | None = None, attempted: bool = True
    ) -> bool:
        return bool(await self._writers.write("queue.retry", token, delay, last_reply, envelope, attempted))

    async def hold(self, item: DeliveryId) -> bool:
        return bool(await self._writers.write("queue.hold", item.octets))

    async def release(self, item: DeliveryId) -> bool:
        return bool(await self._writers.write("queue.release", item.octets))

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        parameters = {
            "use": filter.use,
            "state": None if filter.state is None else filter.state.value,
            "domain": filter.domain,
            "sender": filter.sender,
            "after": b"" if after is None else after.octets,
            "limit": limit,
            "now": self._writers.now(),
        }
        rows = await self._readers.run(_list, parameters)
        return [QueueStatus(_to_item(row, row[7]), ItemState(row[11]), row[12]) for row in rows]

    async def delete(self, item: DeliveryId) -> bool:
        return bool(await self._writers.write("queue.delete", item.octets))
