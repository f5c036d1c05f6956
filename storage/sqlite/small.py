"""Leases and allowances in SQLite, and notices and counters over the processes that share the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted_mail.storage.memory.small import MemoryBus, MemoryCache
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import AccountId, ModSeq

__all__ = ["SQLiteAllowances", "SQLiteLeases", "SharedBus", "SharedCache"]


@operation("lease.acquire")
def acquire(tx: Transaction, name: str, ttl: float) -> int | None:
    now = tx.now()
    # the row stays after a release: its number must only ascend
    row = tx.db.execute(
        "INSERT INTO lease VALUES (?1, 1, ?2) "
        "ON CONFLICT DO UPDATE SET number = number + 1, expires = ?2 WHERE expires <= ?3 RETURNING number",
        (name, now + ttl, now),
    ).fetchone()
    return None if row is None else int(row[0])


@operation("lease.renew", repeatable=True)
def renew(tx: Transaction, name: str, number: int, ttl: float) -> bool:
    now = tx.now()
    done = tx.db.execute(
        "UPDATE lease SET expires = ? WHERE name = ? AND number = ? AND expires > ?", (now + ttl, name, number, now)
    )
    return done.rowcount > 0


@operation("lease.release", repeatable=True)
def release(tx: Transaction, name: str, number: int) -> None:
    tx.db.execute("UPDATE lease SET expires = 0 WHERE name = ? AND number = ?", (name, number))


@operation("allowance.take")
def take(tx: Transaction, name: str, day: int, n: int, limit: int) -> int:
    got = max(0, min(n, limit - _taken(tx.db, name, day)))
    if got:
        tx.db.execute(
            "INSERT INTO allowance VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET taken = taken + excluded.taken",
            (name, day, got),
        )
    return got


def _taken(db: sqlite3.Connection, name: str, day: int) -> int:
    row = db.execute("SELECT taken FROM allowance WHERE name = ? AND day = ?", (name, day)).fetchone()
    return row[0] if row else 0


class SQLiteLeases:
    """Implements `Leases`."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers

    async def acquire(self, name: str, ttl: float) -> int | None:
        number: int | None = await self._writers.write("lease.acquire", name, ttl)
        return number

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        return bool(await self._writers.write("lease.renew", name, number, ttl))

    async def release(self, name: str, number: int) -> None:
        await self._writers.write("lease.release", name, number)


class SQLiteAllowances:
    """Implements `Allowances`."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        return int(await self._writers.write("allowance.take", name, day, n, limit))

    async def taken(self, name: str, day: int) -> int:
        return await self._readers.run(_taken, name, day)


class SharedBus:
    """Implements `Bus`: within the process directly, to the others through the one that writes."""

    def __init__(self, local: MemoryBus, tell_others: Callable[[AccountId, ModSeq], None]) -> None:
        self._local = local
        self._tell_others = tell_others

    def publish(self, account: AccountId, modseq: ModSeq) -> None:
        self._local.publish(account, modseq)
        self._tell_others(account, modseq)

    def subscribe(self, account: AccountId, moved: Callable[[ModSeq], None]) -> Callable[[], None]:
        return self._local.subscribe(account, moved)


class SharedCache:
    """Implements `Cache`: values in this process, counters in the one that writes, where all add to the same."""

    def __init__(self, local: MemoryCache, count: Callable[[str, float, int], Any]) -> None:
        self._local = local
        self._count = count

    async def get(self, key: str) -> bytes | None:
        return await self._local.get(key)

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await self._local.set(key, value, ttl)

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        return int(await self._count(key, ttl, by))
