"""Stores that fail on demand, around stores that work: what callers do about failures is tested with these.

A script says, one operation after the other, what goes wrong; it is a list or any iterator (one that Hypothesis draws
from, say), and when it has ended nothing goes wrong any more. Nothing here waits, or depends on anything but the script.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted_mail.storage.interfaces import (
    AccountLog,
    Blobs,
    BlobWriter,
    Checkpoint,
    ChooseGeneration,
    Conflict,
    LogEntry,
    MessageRow,
    Messages,
    NewEntry,
    Refused,
    StorageError,
    Unavailable,
)
from twisted_mail.values import AccountId, BlobRef, EntryId, MessageKey, ModSeq

__all__ = ["Fault", "FaultyAccountLog", "FaultyBlobs", "FaultyMessages"]

T = TypeVar("T")


class Fault(enum.Enum):
    """What goes wrong. A read that has any of them but NONE and RACE raises Unavailable."""

    NONE = "nothing"
    REFUSED = "Refused: nothing is written"
    LOST = "Unavailable, and nothing is written"
    HIDDEN = "Unavailable, although it is written"
    LATE = "Unavailable, and it is written some operations later, if it still can be"
    RACE = "Conflict: of a checkpoint, or of an append whose entries were written by a repetition inside the store"


@dataclass
class _Late:
    """A write that is still on its way."""

    act: Callable[[], Awaitable[Any]]
    operations: int
    ids: tuple[EntryId, ...] = ()


class _Faulty:
    """The script, and what is on its way."""

    def __init__(self, script: Iterable[Fault], *, operations: Collection[str] | None = None, late_by: int = 3) -> None:
        self._script = iter(script)
        self._operations = operations
        self._late_by = late_by
        self._late: list[_Late] = []
        self.happened: list[tuple[str, Fault]] = []
        """Each operation, and what the script had for it."""

    async def settle_late(self) -> None:
        """Let everything that is on its way arrive."""
        while self._late:
            await self._arrive(self._late.pop(0))

    async def _arrive(self, late: _Late) -> None:
        try:
            await late.act()
        except (StorageError, ValueError):
            pass  # it came too late (a blob's writer was aborted, a head has moved): nobody hears of it

    async def _fault(self, operation: str) -> Fault:
        """What goes wrong with *operation*; and time goes on."""
        for late in list(self._late):
            late.operations -= 1
            if late.operations <= 0:
                self._late.remove(late)
                await self._arrive(late)
        fault = Fault.NONE
        if self._operations is None or operation in self._operations:
            fault = next(self._script, Fault.NONE)
        self.happened.append((operation, fault))
        return fault

    async def _read(self, operation: str) -> None:
        if await self._fault(operation) not in (Fault.NONE, Fault.RACE):
            raise Unavailable(f"{operation} got no answer")

    async def _write(self, operation: str, act: Callable[[], Awaitable[T]], ids: Sequence[EntryId] = ()) -> T:
        match await self._fault(operation):
            case Fault.REFUSED:
                raise Refused(f"{operation} was refused")
            case Fault.LOST:
                raise Unavailable(f"{operation} got no answer")
            case Fault.HIDDEN:
                await act()
                raise Unavailable(f"{operation} got no answer")
            case Fault.LATE:
                self._late.append(_Late(act, self._late_by, tuple(ids)))
                raise Unavailable(f"{operation} got no answer")
            case Fault.RACE if operation in ("append", "save_checkpoint"):
                if operation == "append":
                    await act()
                raise Conflict(f"{operation} came second")
        return await act()


class FaultyAccountLog(_Faulty):
    """An `AccountLog` that fails by *script*. While an append is late `settle` does not know of it (Unavailable)."""

    def __init__(
        self,
        inner: AccountLog,
        script: Iterable[Fault],
        *,
        operations: Collection[str] | None = None,
        late_by: int = 3,
    ) -> None:
        super().__init__(script, operations=operations, late_by=late_by)
        self._inner = inner

    async def head(self, account: AccountId) -> ModSeq:
        await self._read("head")
        return await self._inner.head(account)

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        await self._read("read")
        return await self._inner.read(account, after, limit)

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        kept = tuple(entries)
        return await self._write(
            "append", lambda: self._inner.append(account, expected, kept), [entry.id for entry in kept]
        )

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        await self._read("settle")
        if any(late.ids == tuple(ids) for late in self._late):
            raise Unavailable("it is still on its way")
        return await self._inner.settle(account, expected, ids)

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        await self._read("load_checkpoint")
        return await self._inner.load_checkpoint(account, chunks)

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        chunks, names = dict(changed), dict(kept)
        await self._write(
            "save_checkpoint", lambda: self._inner.save_checkpoint(account, previous, modseq, chunks, names)
        )

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        await self._write("trim", lambda: self._inner.trim(account, through))

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        kept = dict(chunks)
        await self._write("start_at", lambda: self._inner.start_at(account, modseq, kept))

    async def erase(self, account: AccountId) -> None:
        await self._write("erase", lambda: self._inner.erase(account))


class FaultyMessages(_Faulty):
    """A `Messages` that fails by *script*."""

    def __init__(
        self,
        inner: Messages,
        script: Iterable[Fault],
        *,
        operations: Collection[str] | None = None,
        late_by: int = 3,
    ) -> None:
        super().__init__(script, operations=operations, late_by=late_by)
        self._inner = inner

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        kept = tuple(rows)
        await self._write("put", lambda: self._inner.put(account, kept))

    async def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        await self._read("get_many")
        async for batch in self._inner.get_many(account, keys, columns):
            yield batch

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        kept = tuple(keys)
        await self._write("delete_many", lambda: self._inner.delete_many(account, kept))

    async def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        await self._read("iterate")
        async for batch in self._inner.iterate(account):
            yield batch


class FaultyBlobs(_Faulty):
    """A `Blobs` that fails by *script*; ``write``, ``finish``, ``open``, ``delete`` and ``iterate`` count."""

    def __init__(
        self, inner: Blobs, script: Iterable[Fault], *, operations: Collection[str] | None = None, late_by: int = 3
    ) -> None:
        super().__init__(script, operations=operations, late_by=late_by)
        self._inner = inner

    def writer(self) -> BlobWriter:
        return _FaultyWriter(self, self._inner.writer())

    async def write(self, operation: str, act: Callable[[], Awaitable[T]]) -> T:
        """For the writer."""
        return await self._write(operation, act)

    async def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        await self._read("open")
        async for chunk in self._inner.open(ref, start, end):
            yield chunk

    async def delete(self, ref: BlobRef) -> None:
        await self._write("delete", lambda: self._inner.delete(ref))

    async def iterate(self) -> AsyncIterator[BlobRef]:
        await self._read("iterate")
        async for ref in self._inner.iterate():
            yield ref


class _FaultyWriter:
    """Implements `BlobWriter`. After a failure the writer is over, as a real one's is."""

    def __init__(self, blobs: FaultyBlobs, inner: BlobWriter) -> None:
        self._blobs = blobs
        self._inner = inner

    async def _carry_out(self, operation: str, act: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._blobs.write(operation, act)
        except StorageError:
            if self._blobs.happened[-1][1] is not Fault.LATE:
                await self._inner.abort()
            raise

    async def write(self, chunk: bytes) -> None:
        await self._carry_out("write", lambda: self._inner.write(chunk))

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        return await self._carry_out("finish", lambda: self._inner.finish(generation))

    async def abort(self) -> None:
        await self._inner.abort()
