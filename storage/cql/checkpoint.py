"""Checkpoints: a manifest on the account's head row, and chunks in parts in a table of their own.

The manifest lies on the head row because the pointer to it moves there by compare-and-set, and because a cold account is
then read with two queries: head row (with manifest and the chunk called ``head``), and tail. Its chunks are written
before, under the id of whoever writes them, and become visible with it. Those that neither of the two kept manifests
names are deleted right afterwards; what a crash left is found by `sweep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar
from uuid import UUID

import msgspec
from twisted.logger import Logger

from twisted_mail.storage.cells import pack, unpack
from twisted_mail.storage.cql.heads import HEAD_ROW, Heads, of
from twisted_mail.storage.cql.statements import Batch, Row, Session, statement
from twisted_mail.storage.interfaces import Checkpoint, Conflict, Corrupt, StorageError, Unavailable
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["Checkpoints"]

T = TypeVar("T")

NEAR: Final = "head"
"""The chunk that is kept with the manifest where it is small enough."""
NEAR_BYTES: Final = 64 * 1024
MANIFEST_BYTES: Final = 128 * 1024
"""A larger manifest lies among the chunks, under the empty name."""
PART_BYTES: Final = 256 * 1024
BATCH_BYTES: Final = 256 * 1024
"""Small chunks are written together up to this."""
SAVE_SECONDS: Final = 600.0
"""Whoever takes longer to write its chunks gives up: `sweep` may take them for garbage later on."""
GARBAGE_SECONDS: Final = 3600.0
"""Chunks that no manifest names are left alone for so long: their writer may not be done."""

_LOAD = statement(
    f"""SELECT head, fence, trimmed, checkpoint, older, manifest FROM account_log
        WHERE user_id = ? AND modseq = {HEAD_ROW}""",
    idempotent=True,
)
_LOAD_STALE = statement(_LOAD.text, idempotent=True, consistency="LOCAL_ONE")
_LOAD_BOTH = statement(
    f"""SELECT head, fence, trimmed, checkpoint, older, manifest, older_manifest FROM account_log
        WHERE user_id = ? AND modseq = {HEAD_ROW}""",
    idempotent=True,
)
_LOAD_BOTH_HARD = statement(_LOAD_BOTH.text, idempotent=True, consistency="LOCAL_SERIAL")
_CREATE = statement(
    f"""INSERT INTO account_log (user_id, modseq, head, fence, trimmed, checkpoint, older)
        VALUES (?, {HEAD_ROW}, 0, ?, 0, 0, 0) IF NOT EXISTS""",
    idempotent=False,
    conditional=True,
)
_MOVE = statement(
    f"""UPDATE account_log SET checkpoint = ?, manifest = ?, older = ?, older_manifest = ?
        WHERE user_id = ? AND modseq = {HEAD_ROW} IF checkpoint = ?""",
    idempotent=False,
    conditional=True,
)
_BEGIN_AT = statement(
    f"""INSERT INTO account_log (user_id, modseq, head, fence, trimmed, checkpoint, manifest, older)
        VALUES (?, {HEAD_ROW}, ?, ?, ?, ?, ?, 0) IF NOT EXISTS""",
    idempotent=False,
    conditional=True,
)
_BEGIN_AT_ANEW = statement(
    f"""UPDATE account_log SET head = ?, fence = ?, trimmed = ?, checkpoint = ?, manifest = ?
        WHERE user_id = ? AND modseq = {HEAD_ROW} IF head = 0 AND fence = ? AND checkpoint = 0""",
    idempotent=False,
    conditional=True,
)
_PART = statement(
    "INSERT INTO account_checkpoint (user_id, chunk, modseq, writer, part, data) VALUES (?, ?, ?, ?, ?, ?)",
    idempotent=True,
)
_CHUNK = statement(
    """SELECT part, data FROM account_checkpoint
       WHERE user_id = ? AND chunk = ? AND modseq = ? AND writer = ?""",
    idempotent=True,
)
_CHUNK_STALE = statement(_CHUNK.text, idempotent=True, consistency="LOCAL_ONE")
_REMOVE = statement(
    "DELETE FROM account_checkpoint WHERE user_id = ? AND chunk = ? AND modseq = ? AND writer = ?", idempotent=True
)
_REMOVE_ALL = statement("DELETE FROM account_checkpoint WHERE user_id = ?", idempotent=True)
_LIST = statement("SELECT chunk, modseq, writer, part FROM account_checkpoint WHERE user_id = ?", idempotent=True)


class _Manifest(msgspec.Struct, array_like=True, frozen=True):
    """A checkpoint's chunks, and where each lies."""

    modseq: int
    chunks: dict[str, tuple[int, int]]
    """Name to the number of the checkpoint that wrote it, and how many parts it has (0: it is in `near`)."""
    writers: dict[int, bytes]
    """Who wrote the chunks of each of these checkpoints."""
    near: dict[str, bytes]

    @property
    def places(self) -> set[_Place]:
        """Where its chunks lie."""
        return {(name, at, self.writers[at]) for name, (at, parts) in self.chunks.items() if parts}


class _Elsewhere(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """A manifest that is too large for the head row."""

    modseq: int
    writer: bytes
    parts: int


_Place = tuple[str, int, bytes]
"""A chunk: name, number of its checkpoint, writer."""
NOTHING: Final = _Manifest(0, {}, {}, {})
MANIFEST: Final = ""
"""The name of a manifest among the chunks."""


class Checkpoints:
    """The checkpoint half of an `AccountLog`."""

    _log = Logger()

    def __init__(
        self,
        session: Session,
        heads: Heads,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._heads = heads
        self._clock = clock
        self._wall = wall

    # --- reading

    async def load(
        self, account: AccountId, chunks: Collection[str] | None, *, stale: bool = False
    ) -> Checkpoint | None:
        """See `AccountLog.load_checkpoint`; *stale*: what any one replica says."""
        seen: int | None = None
        while True:
            rows = await self._session.execute(_LOAD_STALE if stale else _LOAD, (of(account),))
            row = rows[0] if rows else None
            if not stale:
                self._heads.take(account, row)
            if row is None or not row["checkpoint"]:
                return None
            try:
                manifest = await self._manifest(account, row["manifest"])
                wanted = manifest.chunks if chunks is None else [name for name in chunks if name in manifest.chunks]
                found = await self._chunks(account, manifest, wanted)
            except Corrupt:
                if stale:
                    raise Unavailable("this replica lacks a part of the checkpoint") from None
                if seen == row["checkpoint"]:
                    raise
                seen = row["checkpoint"]  # two newer ones may have been made meanwhile, and its chunks deleted
                continue
            named = {name: ModSeq(at) for name, (at, _) in manifest.chunks.items()}
            return Checkpoint(ModSeq(manifest.modseq), named, found)

    async def _manifest(self, account: AccountId, cell: bytes | None) -> _Manifest:
        if not cell:
            return NOTHING
        kind, rest = cell[:1], unpack(cell[1:])
        if kind == b"M":
            return _decode(rest, _Manifest)
        elsewhere = _decode(rest, _Elsewhere)
        data = await self._chunk(account, (MANIFEST, elsewhere.modseq, elsewhere.writer), elsewhere.parts)
        return _decode(data, _Manifest)

    async def _chunks(self, account: AccountId, manifest: _Manifest, wanted: Collection[str]) -> dict[str, bytes]:
        far = [name for name in wanted if name not in manifest.near]
        places = [(name, manifest.chunks[name][0], manifest.writers[manifest.chunks[name][0]]) for name in far]
        parameters = [(of(account), name, at, UUID(bytes=writer)) for name, at, writer in places]
        answers: Sequence[Sequence[Row]] = ()
        if parameters:
            try:
                answers = await self._session.execute_many(_CHUNK, parameters)
            except Unavailable:
                # rows never change: what one replica has is right, and what it lacks is seen
                answers = await self._session.execute_many(_CHUNK_STALE, parameters)
                if any(len(rows) != manifest.chunks[name][1] for name, rows in zip(far, answers, strict=True)):
                    raise
        found = {name: _joined(name, manifest.chunks[name][1], rows) for name, rows in zip(far, answers, strict=True)}
        return {name: manifest.near[name] if name in manifest.near else found[name] for name in wanted}

    async def _chunk(self, account: AccountId, place: _Place, parts: int) -> bytes:
        name, at, writer = place
        parameters = (of(account), name, at, UUID(bytes=writer))
        try:
            rows = await self._session.execute(_CHUNK, parameters)
        except Unavailable:
            rows = await self._session.execute(_CHUNK_STALE, parameters)
            if len(rows) != parts:
                raise
        return _joined(name, parts, rows)

    # --- writing

    async def save(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        """See `AccountLog.save_checkpoint`. Raises: Unavailable also where it is not known whether it was made; to make
        another one on top of *previous* is right then, and one of the two will come to stand."""
        if modseq <= previous:
            raise Conflict(f"the newest checkpoint is {previous} at least")
        deadline = self._clock() + SAVE_SECONDS
        rows = await self._session.execute(_LOAD_BOTH, (of(account),))
        if not rows or rows[0]["head"] is None:
            await self._session.apply(_CREATE, (of(account), _new_id()))
            rows = await self._session.execute(_LOAD_BOTH, (of(account),))
        row = rows[0]
        if (row["checkpoint"] or 0) != previous:
            raise Conflict(f"the newest checkpoint is {row['checkpoint']}")
        current = await self._manifest(account, row["manifest"])
        writer = _new_id()
        new = self._next(current, modseq, writer, changed, kept)
        cell = await self._write(account, new, writer, changed)
        older = _older_cell(row["manifest"], current)
        if self._clock() > deadline:
            raise Unavailable("the checkpoint took too long to write")
        move = (int(modseq), cell, int(previous), older, of(account), int(previous))
        try:
            moved = await self._session.apply(_MOVE, move)
        except Unavailable:
            await self._settle(account, previous, new, writer)
        else:
            if not moved:
                await self._settle(account, previous, new, writer, certain=True)
        await self._remove_dropped(account, row["older_manifest"], current, new)

    async def begin_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        """See `AccountLog.start_at`."""
        known = await self._heads.look(account)
        if known.head or known.checkpoint:
            raise Conflict(f"the account stands at {known.head}")
        writer = _new_id()
        new = self._next(NOTHING, modseq, writer, chunks, {})
        cell = await self._write(account, new, writer, chunks)
        at, user = int(modseq), of(account)
        try:
            if known.fence is None:
                begun = await self._session.apply(_BEGIN_AT, (user, at, _new_id(), at, at, cell))
            else:
                begun = await self._session.apply(_BEGIN_AT_ANEW, (at, _new_id(), at, at, cell, user, known.fence))
        except Unavailable:
            await self._settle(account, ModSeq(0), new, writer)
        else:
            if not begun:
                await self._settle(account, ModSeq(0), new, writer, certain=True)
        self._heads.forget(account)

    def _next(
        self,
        current: _Manifest,
        modseq: ModSeq,
        writer: UUID,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> _Manifest:
        chunks: dict[str, tuple[int, int]] = {}
        writers: dict[int, bytes] = {}
        near: dict[str, bytes] = {}
        for name, at in kept.items():
            place = current.chunks.get(name)
            if place is None or place[0] != at:
                raise Conflict(f"the newest checkpoint has no chunk {name} of {at}")
            chunks[name] = place
            writers[place[0]] = current.writers[place[0]]
            if name in current.near:
                near[name] = current.near[name]
        for name, data in changed.items():
            small = name == NEAR and len(data) <= NEAR_BYTES
            if small:
                near[name] = data
            chunks[name] = (int(modseq), 0 if small else max(1, -(-len(pack(data)) // PART_BYTES)))
        writers[int(modseq)] = writer.bytes
        return _Manifest(int(modseq), chunks, writers, near)

    async def _write(
        self, account: AccountId, manifest: _Manifest, writer: UUID, changed: Mapping[str, bytes]
    ) -> bytes:
        """Write the chunks; returns the cell for the head row."""
        rows = [
            (name, part, data)
            for name, octets in changed.items()
            if name not in manifest.near
            for part, data in enumerate(_parts(pack(octets)))
        ]
        cell = _cell(manifest)
        if len(cell) > MANIFEST_BYTES + NEAR_BYTES:
            parts = _parts(pack(msgspec.msgpack.encode(manifest)))
            rows += [(MANIFEST, part, data) for part, data in enumerate(parts)]
            cell = b"E" + pack(msgspec.msgpack.encode(_Elsewhere(manifest.modseq, writer.bytes, len(parts))))
        batch: list[tuple[str, int, bytes]] = []
        octets = 0
        for row in rows:
            if batch and octets + len(row[2]) > BATCH_BYTES:
                await self._write_parts(account, manifest.modseq, writer, batch)
                batch, octets = [], 0
            batch.append(row)
            octets += len(row[2])
        if batch:
            await self._write_parts(account, manifest.modseq, writer, batch)
        return cell

    async def _write_parts(
        self, account: AccountId, modseq: int, writer: UUID, parts: Sequence[tuple[str, int, bytes]]
    ) -> None:
        user = of(account)
        rows = [(user, name, modseq, writer, part, data) for name, part, data in parts]
        if len(rows) == 1:
            await self._session.execute(_PART, rows[0])
        else:
            await self._session.write_batch(Batch([(_PART, row) for row in rows]))

    async def _settle(
        self, account: AccountId, previous: ModSeq, new: _Manifest, writer: UUID, *, certain: bool = False
    ) -> None:
        """Whether the pointer is ours after all; returns if it is. Raises: Conflict, Unavailable."""
        rows = await self._session.execute(_LOAD_BOTH_HARD, (of(account),))
        row = rows[0] if rows else None
        for cell in (row["manifest"], row["older_manifest"]) if row is not None else ():
            found = await self._manifest(account, cell)
            if found.modseq == new.modseq and found.writers.get(new.modseq) == writer.bytes:
                return
        stands = (row["checkpoint"] or 0) if row is not None else 0
        if stands == previous and not certain:
            raise Unavailable("it is not known whether the checkpoint was made")
        await self._remove(account, {place for place in new.places if place[2] == writer.bytes})
        raise Conflict(f"the newest checkpoint is {stands}")

    # --- removing

    async def _remove_dropped(
        self, account: AccountId, dropped: bytes | None, current: _Manifest, new: _Manifest
    ) -> None:
        """Delete what only the manifest that has just been dropped named. What fails stays as garbage for `sweep`."""
        try:
            old = await self._manifest(account, dropped)
            gone = old.places - current.places - new.places
            if dropped and dropped[:1] == b"E":
                gone.add((MANIFEST, old.modseq, old.writers[old.modseq]))
            await self._remove(account, gone)
        except StorageError as error:
            self._log.info("chunks of account {id} stay for a sweep: {why}", id=account, why=error)

    async def _remove(self, account: AccountId, places: Collection[_Place]) -> None:
        user = of(account)
        await self._session.execute_many(
            _REMOVE, [(user, name, at, UUID(bytes=writer)) for name, at, writer in sorted(places)]
        )

    async def remove_all(self, account: AccountId) -> None:
        await self._session.execute(_REMOVE_ALL, (of(account),))

    async def sweep(self, account: AccountId) -> int:
        """Delete chunks that no kept manifest names and whose writer must have given up; returns how many.

        Costs one read of all keys of the account's chunks. Raises: Unavailable."""
        horizon = int((self._wall() - GARBAGE_SECONDS) * 1000)
        found: set[_Place] = set()
        async for rows in self._session.pages(_LIST, (of(account),)):
            found.update((row["chunk"], row["modseq"], row["writer"].bytes) for row in rows)
        # the manifests are read after the list: what became named meanwhile is among them
        rows = await self._session.execute(_LOAD_BOTH_HARD, (of(account),))
        named: set[_Place] = set()
        for cell in (rows[0]["manifest"], rows[0]["older_manifest"]) if rows else ():
            manifest = await self._manifest(account, cell)
            named |= manifest.places
            if cell and cell[:1] == b"E":
                named.add((MANIFEST, manifest.modseq, manifest.writers[manifest.modseq]))
        garbage = {place for place in found - named if int.from_bytes(place[2][:6], "big") < horizon}
        await self._remove(account, garbage)
        return len(garbage)


def _new_id() -> UUID:
    """An id that begins with the milliseconds of its making, from which `sweep` tells its age."""
    return UUID(bytes=MessageId.new().octets)


def _cell(manifest: _Manifest) -> bytes:
    return b"M" + pack(msgspec.msgpack.encode(manifest))


def _older_cell(cell: bytes | None, manifest: _Manifest) -> bytes:
    """The cell of *manifest* when it becomes the older one: without what only a reader of the newest needs."""
    if not cell or cell[:1] == b"E":
        return cell or b""
    return _cell(_Manifest(manifest.modseq, manifest.chunks, manifest.writers, {}))


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"a checkpoint's manifest cannot be read: {error}") from error


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)] or [b""]


def _joined(name: str, parts: int, rows: Sequence[Row]) -> bytes:
    if [row["part"] for row in rows] != list(range(parts)):
        raise Corrupt(f"the checkpoint names the chunk {name or 'manifest'}, of which parts are missing")
    return unpack(b"".join(row["data"] for row in rows))
