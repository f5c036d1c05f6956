"""Records in CQL: a partition for each space. The database's own TTL ends them; who writes last wins.

Their owners write a key from one place at a time, or do not mind who wins, so no agreement is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from twisted_mail.storage.cql.statements import Session, statement
from twisted_mail.storage.interfaces import Record

__all__ = ["CQLRecords"]

PUT: Final = statement("INSERT INTO record (space, key, value) VALUES (?, ?, ?)", idempotent=True)
PUT_FOR: Final = statement("INSERT INTO record (space, key, value) VALUES (?, ?, ?) USING TTL ?", idempotent=True)
GET: Final = statement("SELECT value FROM record WHERE space = ? AND key = ?", idempotent=True)
DELETE: Final = statement("DELETE FROM record WHERE space = ? AND key = ?", idempotent=True)
LIST: Final = statement("SELECT key, value FROM record WHERE space = ? AND key > ? LIMIT ?", idempotent=True)

MOST_SECONDS: Final = 5 * 365 * 86_400
"""A longer TTL is none: files of many versions know no date behind January 2038."""


class CQLRecords:
    """Implements `Records`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        record = Record(key, value)
        if ttl is None or ttl > MOST_SECONDS:
            await self._session.execute(PUT, (space, record.key, record.value))
        else:
            # whole seconds, and never 0, which the servers take for "for good"
            seconds = max(math.ceil(ttl), 1)
            await self._session.execute(PUT_FOR, (space, record.key, record.value, seconds))

    async def get(self, space: str, key: str) -> bytes | None:
        rows = await self._session.execute(GET, (space, key))
        return bytes(rows[0]["value"]) if rows else None

    async def delete(self, space: str, key: str) -> None:
        await self._session.execute(DELETE, (space, key))

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        rows = await self._session.execute(LIST, (space, after, limit))
        return [Record(row["key"], bytes(row["value"])) for row in rows]
