"""Message rows: immutable, a partition for each bucket, a few cells each (`message_cells`); large cells lie in parts beside.

What is larger than `CELL_BYTES` packed (the text for searches may have 16 MiB) goes to ``message_part`` first, and its
cell says in how many parts. Rows never change: what one replica has is right, so where no quorum answers one replica does,
and only a row that it lacks is an error.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

from cassandra.query import UNSET_VALUE
from twisted.internet.defer import Deferred

from twisted_mail.storage.cql.gathering import Gathering
from twisted_mail.storage.cql.heads import of
from twisted_mail.storage.cql.message_cells import CELLS, LARGE, Reader, cells_of, reader
from twisted_mail.storage.cql.statements import Batch, Row, Session, Statement, statement
from twisted_mail.storage.cql.together import all_of
from twisted_mail.storage.interfaces import COLUMNS, Corrupt, MessageRow, Unavailable
from twisted_mail.values import AccountId, MessageId, MessageKey

__all__ = ["CQLMessages", "select"]

CELL_BYTES: Final = 128 * 1024
"""Twelve of these stay far below what a mutation may have."""
PART_BYTES: Final = 256 * 1024
_IN_PARTS: Final = 2
"""The first octet of a cell that is stored in parts (those of `pack` are 0 and 1); their number follows."""
BATCH_BYTES: Final = 128 * 1024
"""Small rows of one bucket are written together up to this."""
WRITES: Final = 8
"""Such groups under way at once, of one caller."""
KEYS: Final = 250
"""Rows asked for at once: a query costs us as much as some fifty rows of its answer."""
KEYS_LARGE: Final = 32
"""The same where a column is wanted that may be large."""
AHEAD: Final = 2
"""Queries that are under way while a batch is being used."""
KNOWN_BUCKETS: Final = 50_000

_PUT = statement(
    f"INSERT INTO message (user_id, bucket, message_id, {', '.join(CELLS)}, parts) "
    f"VALUES (?, ?, ?, {', '.join('?' for _ in CELLS)}, ?)",
    idempotent=True,
)
_PUT_PART = statement(
    "INSERT INTO message_part (user_id, bucket, message_id, name, part, data) VALUES (?, ?, ?, ?, ?, ?)",
    idempotent=True,
)
_PUT_BUCKET = statement("INSERT INTO message_bucket (user_id, bucket) VALUES (?, ?)", idempotent=True)
_PARTS = statement(
    "SELECT part, data FROM message_part WHERE user_id = ? AND bucket = ? AND message_id = ? AND name = ?",
    idempotent=True,
)
_PARTS_STALE = statement(_PARTS.text, idempotent=True, consistency="LOCAL_ONE")
_WITH_PARTS = statement(
    "SELECT message_id, parts FROM message WHERE user_id = ? AND bucket = ? AND message_id IN ?", idempotent=True
)
_DELETE_PARTS = statement(
    "DELETE FROM message_part WHERE user_id = ? AND bucket = ? AND message_id = ?", idempotent=True
)
_DELETE = statement("DELETE FROM message WHERE user_id = ? AND bucket = ? AND message_id = ?", idempotent=True)
_DELETE_BUCKET = statement("DELETE FROM message_bucket WHERE user_id = ? AND bucket = ?", idempotent=True)
_BUCKETS = statement("SELECT bucket FROM message_bucket WHERE user_id = ?", idempotent=True)
_KEYS = statement("SELECT message_id FROM message WHERE user_id = ? AND bucket = ?", idempotent=True)

_selects: dict[tuple[tuple[str, ...], str], Statement] = {}


def select(cells: Iterable[str], consistency: str = "LOCAL_QUORUM") -> Statement:
    """The query for *cells* of some rows of a bucket: always the same object for the same cells."""
    wanted = tuple(cells)
    found = _selects.get((wanted, consistency))
    if found is None:
        text = f"SELECT {', '.join(('message_id', *wanted))} FROM message WHERE user_id = ? AND bucket = ? AND message_id IN ?"
        found = _selects[wanted, consistency] = Statement(text, True, consistency)
    return found


def _check(columns: Iterable[str]) -> None:
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")


class CQLMessages:
    """Implements `Messages`."""

    def __init__(self, session: Session, *, stale_reads: bool = True) -> None:
        self._session = session
        self._stale_reads = stale_reads
        self._buckets: OrderedDict[tuple[AccountId, int], None] = OrderedDict()
        """Buckets that are known to be listed."""
        self._gathering = Gathering(self._write, BATCH_BYTES)

    # --- writing

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        for row in rows:
            _check(row.cells)
        for bucket in {row.key.bucket for row in rows}:
            await self._list_bucket(account, bucket)
        open_batches: dict[int, tuple[list[Sequence[Any]], int]] = {}
        full: list[list[Sequence[Any]]] = []
        for row in rows:
            values, octets, parts = self._values(account, row)
            if parts:
                await self._session.execute_many(_PUT_PART, parts)
            batch, size = open_batches.get(row.key.bucket, ([], 0))
            if batch and size + octets > BATCH_BYTES:
                full.append(batch)
                batch, size = [], 0
                if len(full) >= WRITES:
                    await all_of(self._write(batch) for batch in full)
                    full = []
            if len(rows) == 1:  # from a delivery: others may be on their way into the same bucket
                await self._gathering.add((account, row.key.bucket), values, octets)
                return
            batch.append(values)
            open_batches[row.key.bucket] = (batch, size + octets)
        await all_of(self._write(batch) for batch in [*full, *(batch for batch, _ in open_batches.values())])

    async def _list_bucket(self, account: AccountId, bucket: int) -> None:
        """Before a bucket has its first row it is listed, so that `iterate` finds it."""
        if (account, bucket) in self._buckets:
            self._buckets.move_to_end((account, bucket))
            return
        await self._session.execute(_PUT_BUCKET, (of(account), bucket))
        self._buckets[account, bucket] = None
        if len(self._buckets) > KNOWN_BUCKETS:
            self._buckets.popitem(last=False)

    async def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:
            await self._session.execute(_PUT, rows[0])
        else:
            await self._session.write_batch(Batch([(_PUT, row) for row in rows]))

    def _values(self, account: AccountId, row: MessageRow) -> tuple[list[Any], int, list[Sequence[Any]]]:
        """The row's values, how many octets they have, and the parts of its large cells."""
        place = (of(account), row.key.bucket, row.key.id.octets)
        values: list[Any] = [*place]
        parts: list[Sequence[Any]] = []
        octets = 0
        cells = cells_of(row.cells)
        for name in CELLS:
            cell = cells.get(name)
            if cell is None:
                values.append(UNSET_VALUE)  # a null would be a tombstone
                continue
            if len(cell) > CELL_BYTES:
                pieces = [cell[start : start + PART_BYTES] for start in range(0, len(cell), PART_BYTES)]
                parts += [(*place, name, number, piece) for number, piece in enumerate(pieces)]
                cell = bytes((_IN_PARTS,)) + len(pieces).to_bytes(4, "big")
            octets += len(cell)
            values.append(cell)
        values.append(True if parts else UNSET_VALUE)
        return values, octets, parts

    # --- reading

    async def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        _check(columns)
        read = reader(tuple(columns))
        size = KEYS_LARGE if LARGE.intersection(columns) else KEYS
        under_way: deque[Deferred[Sequence[tuple[bytes, ...] | None]]] = deque()
        try:
            for start in range(0, len(keys), size):
                reading = self._batch(account, keys[start : start + size], read)
                under_way.append(Deferred.fromCoroutine(reading))
                if len(under_way) > AHEAD:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for abandoned in under_way:
                abandoned.addErrback(lambda failure: None)
                abandoned.cancel()

    async def _batch(
        self, account: AccountId, keys: Sequence[MessageKey], read: Reader
    ) -> Sequence[tuple[bytes, ...] | None]:
        wanted: dict[int, dict[bytes, None]] = {}
        for key in keys:
            wanted.setdefault(key.bucket, {})[key.id.octets] = None
        user = of(account)
        parameters = [(user, bucket, list(ids)) for bucket, ids in wanted.items()]
        try:
            answers = await self._session.execute_many(select(read.cells), parameters)
        except Unavailable:
            answers = await self._stale(read.cells, parameters)
        found = {
            bucket: await self._read((user, bucket), rows, read) for bucket, rows in zip(wanted, answers, strict=True)
        }
        if len(found) == 1:
            get = found.popitem()[1].get
            return [get(key.id.octets) for key in keys]
        return [found[key.bucket].get(key.id.octets) for key in keys]

    async def _read(
        self, partition: Sequence[Any], rows: Sequence[Row], read: Reader
    ) -> Mapping[bytes, tuple[bytes, ...]]:
        """The columns of *rows* by message."""
        for name in read.cells:
            for row in rows:
                if (cell := row[name]) and cell[0] == _IN_PARTS:
                    row[name] = await self._joined((*partition, row["message_id"], name), cell)
        return {row["message_id"]: read(row) for row in rows}

    async def _stale(self, cells: Sequence[str], parameters: Sequence[Sequence[Any]]) -> Sequence[Sequence[Row]]:
        """The same of one replica, as long as it has every row."""
        if not self._stale_reads:
            raise Unavailable("no quorum, and answers of one replica are switched off (stale_reads)")
        answers = await self._session.execute_many(select(cells, "LOCAL_ONE"), parameters)
        if any(len(rows) != len(asked[2]) for asked, rows in zip(parameters, answers, strict=True)):
            raise Unavailable("no quorum, and the replica that answers lacks a row")
        return answers

    async def _joined(self, place: Sequence[Any], cell: bytes) -> bytes:
        """The cell at *place* (account, bucket, message, column), of which *cell* says in how many parts it lies."""
        count = int.from_bytes(cell[1:5], "big")
        try:
            rows = await self._session.execute(_PARTS, place)
        except Unavailable:
            if not self._stale_reads:
                raise
            rows = await self._session.execute(_PARTS_STALE, place)
            if len(rows) != count:
                raise
        if [row["part"] for row in rows] != list(range(count)):
            raise Corrupt(f"parts of the cell {place[3]} of a message row are missing")
        return b"".join([row["data"] for row in rows])

    # --- deleting and listing

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        user = of(account)
        by_bucket: dict[int, list[bytes]] = {}
        for key in keys:
            by_bucket.setdefault(key.bucket, []).append(key.id.octets)
        for bucket, ids in by_bucket.items():
            for start in range(0, len(ids), KEYS):
                some = ids[start : start + KEYS]
                rows = await self._session.execute(_WITH_PARTS, (user, bucket, some))
                parted = [(user, bucket, row["message_id"]) for row in rows if row["parts"]]
                # parts first: a row without its parts is seen and can be deleted again, parts without a row cannot
                if parted:
                    await self._session.execute_many(_DELETE_PARTS, parted)
                there = [row["message_id"] for row in rows]
                if there:
                    await self._session.write_batch(Batch([(_DELETE, (user, bucket, id)) for id in there]))

    async def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        user = of(account)
        buckets = [row["bucket"] for row in await self._session.execute(_BUCKETS, (user,))]
        for bucket in buckets:
            async for rows in self._session.pages(_KEYS, (user, bucket)):
                yield [MessageKey(bucket, MessageId(row["message_id"])) for row in rows]

    async def sweep_buckets(self, account: AccountId) -> int:
        """Take buckets off the list that have no row; returns how many. Only for buckets that are closed or accounts
        that are erased: one that gets its first row at this moment would be missed by `iterate`."""
        user = of(account)
        gone = 0
        for row in await self._session.execute(_BUCKETS, (user,)):
            async for _ in self._session.pages(_KEYS, (user, row["bucket"]), 1):
                break
            else:
                self._buckets.pop((account, row["bucket"]), None)
                await self._session.execute(_DELETE_BUCKET, (user, row["bucket"]))
                gone += 1
        return gone
