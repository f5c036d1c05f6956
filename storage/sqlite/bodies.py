"""Bodies of queued mail in the file that the queue is in: a small one costs a row there, and a file, a sync and its holders
in the store for blobs."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from typing import Final

from twisted_mail.storage.interfaces import BlobWriter, ChooseGeneration, NotFound, QueueItem, Refused
from twisted_mail.storage.sqlite import queue
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import BlobRef

__all__ = ["SQLiteBodies"]

CHUNK: Final = 65_536
MOST: Final = 1 << 20
"""Octets of one body: each goes through the process that writes, whole."""
PAGE: Final = 500


@operation("body.put", repeatable=True)
def put(tx: Transaction, hash: str, generation: int, data: bytes) -> None:
    tx.db.execute(
        "INSERT INTO queue_body (hash, generation, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (hash, generation, data)
    )


@operation("body.delete", repeatable=True)
def delete(tx: Transaction, hash: str, generation: int) -> None:
    tx.db.execute("DELETE FROM queue_body WHERE hash = ? AND generation = ?", (hash, generation))


@operation("body.put_with")
def put_with(tx: Transaction, hash: str, generation: int, data: bytes, item: queue.Row, delay: float) -> bool:
    put(tx, hash, generation, data)
    return queue.put(tx, item, delay)


@operation("body.ack_with")
def ack_with(tx: Transaction, token: str, hash: str, generation: int) -> bool:
    if not queue.ack(tx, token):
        return False
    delete(tx, hash, generation)
    return True


def _read(db: sqlite3.Connection, hash: str, generation: int, start: int, size: int) -> bytes | None:
    row = db.execute(
        "SELECT substr(data, ?, ?) FROM queue_body WHERE hash = ? AND generation = ?", (start + 1, size, hash, generation)
    ).fetchone()
    return None if row is None else bytes(row[0] or b"")


def _page(db: sqlite3.Connection, after: tuple[str, int]) -> list[tuple[str, int, int]]:
    return db.execute(
        "SELECT hash, length(data), generation FROM queue_body WHERE (hash, generation) > (?, ?) "
        "ORDER BY hash, generation LIMIT ?",
        (*after, PAGE),
    ).fetchall()


class SQLiteBodies:
    """Implements `Blobs` for bodies of at most 1 MiB, `PrefersSmall` and `CarriesItems`."""

    small_bytes = 64 * 1024

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._writers = writers
        self._readers = readers

    def writer(self) -> BlobWriter:
        return _Writer(self._writers)

    async def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        stop = ref.size if end is None else min(end, ref.size)
        found = await self._readers.run(_read, ref.hash, ref.generation, start, max(stop - start, 0))
        if found is None:
            raise NotFound(f"no body {ref.hash}")
        for at in range(0, len(found), CHUNK):
            yield found[at : at + CHUNK]

    async def delete(self, ref: BlobRef) -> None:
        await self._writers.write("body.delete", ref.hash, ref.generation)

    async def put_with(self, item: QueueItem, ref: BlobRef, octets: bytes, *, delay: float = 0.0) -> bool:
        row = queue.row_of(item)
        return bool(await self._writers.write("body.put_with", ref.hash, ref.generation, octets, row, delay))

    async def ack_with(self, token: str, ref: BlobRef) -> bool:
        return bool(await self._writers.write("body.ack_with", token, ref.hash, ref.generation))

    async def iterate(self) -> AsyncIterator[BlobRef]:
        after = ("", -1)
        while page := await self._readers.run(_page, after):
            for hash, size, generation in page:
                yield BlobRef(hash, size, generation)
            after = (page[-1][0], page[-1][2])


class _Writer:
    """Implements `BlobWriter`."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers
        self._chunks: list[bytes] = []
        self._size = 0
        self._open = True

    async def write(self, chunk: bytes) -> None:
        if not self._open:
            raise ValueError("the blob is finished")
        self._size += len(chunk)
        if self._size > MOST:
            self._chunks.clear()
            raise Refused(f"a body of more than {MOST} octets does not go into the queue's own store")
        self._chunks.append(bytes(chunk))

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        if not self._open:
            raise ValueError("the blob is finished")
        self._open = False
        content = b"".join(self._chunks)
        self._chunks.clear()
        ref = BlobRef(sha256(content).hexdigest(), len(content))
        if generation is not None:
            ref = replace(ref, generation=await generation(ref))
        await self._writers.write("body.put", ref.hash, ref.generation, content)
        return ref

    async def abort(self) -> None:
        self._open = False
        self._chunks.clear()
