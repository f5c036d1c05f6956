"""Files of shards on their way to the object store and back, part by part."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards.cache import digest_of
from twisted_mail.storage.shards.indexing import IndexThreads
from twisted_mail.storage.shards.manifest import PART, Piece, ShardFile

__all__ = ["Parts"]

AT_ONCE: Final = 4
"""Parts that one process has in memory, of all accounts together."""

_Slice = tuple[Path, int, int, int]
"""A file, where in it, where in the part, and how many octets."""


class Parts:
    """Sends and fetches; at most `AT_ONCE` parts are on their way."""

    def __init__(self, objects: Objects, threads: IndexThreads) -> None:
        self._objects = objects
        self._threads = threads
        self._room = DeferredSemaphore(AT_ONCE)

    async def fetch(self, files: Sequence[ShardFile], prefix: str, folder: Path) -> None:
        """Write *files* into *folder*. Raises: NotFound (a part is gone), Corrupt (it is another), Unavailable."""
        slices: dict[str, list[_Slice]] = {}
        for file in files:
            at = 0
            for piece in file.pieces:
                slices.setdefault(piece.part, []).append((folder / file.name, at, piece.at, piece.size))
                at += piece.size
        await self._threads.run(_make, [folder / file.name for file in files])
        await _together([self._fetch(prefix + part, wanted) for part, wanted in slices.items()])
        await self._threads.run(_compare, folder, files)

    async def _fetch(self, name: str, wanted: Sequence[_Slice]) -> None:
        async with self._room:
            stored = await self._objects.get(name)
            assert stored is not None
            await self._threads.run(_scatter, wanted, stored.data)

    async def send(
        self, folder: Path, names: Sequence[str], token: str, prefix: str, sent: list[str]
    ) -> list[ShardFile]:
        """Store the files *names* of *folder* as parts called *token* and a number; *sent* grows by their names.

        Raises: Unavailable.
        """
        measured = await self._threads.run(
            lambda: [((folder / name).stat().st_size, digest_of(folder / name)) for name in names]
        )
        files: list[ShardFile] = []
        slices: dict[str, list[_Slice]] = {}
        end = 0
        for name, (size, digest) in zip(names, measured):
            start, end, pieces = end, end + size, []
            at = start
            while at < end:
                number, inside = divmod(at, PART)
                piece = Piece(f"{token}-{number}", inside, min(PART - inside, end - at))
                slices.setdefault(piece.part, []).append((folder / name, at - start, inside, piece.size))
                pieces.append(piece)
                at += piece.size
            files.append(ShardFile(name, size, digest, tuple(pieces)))
        await _together([self._send(prefix, part, wanted, sent) for part, wanted in slices.items()])
        return files

    async def _send(self, prefix: str, part: str, wanted: Sequence[_Slice], sent: list[str]) -> None:
        async with self._room:
            data = await self._threads.run(_gather, wanted)
            sent.append(part)
            await self._objects.put(prefix + part, data)


def _make(paths: Sequence[Path]) -> None:
    for path in paths:
        path.write_bytes(b"")


def _scatter(wanted: Sequence[_Slice], data: bytes) -> None:
    view = memoryview(data)
    for path, at, inside, size in wanted:
        if inside + size > len(data):
            raise Corrupt(f"a part of the file {path.name} of a search shard is too short")
        with path.open("r+b") as file:
            file.seek(at)
            file.write(view[inside : inside + size])


def _gather(wanted: Sequence[_Slice]) -> bytes:
    data = []
    for path, at, _, size in wanted:
        with path.open("rb") as file:
            file.seek(at)
            data.append(file.read(size))
    return b"".join(data)


def _compare(folder: Path, files: Sequence[ShardFile]) -> None:
    for file in files:
        path = folder / file.name
        if os.stat(path).st_size != file.size or digest_of(path) != file.digest:
            raise Corrupt(f"the file {file.name} of a search shard is not what was written")


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await all; the first failure ends the others. Raises: that failure."""
    running = [Deferred.fromCoroutine(work) for work in works]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        failure = error.subFailure.value
        assert failure is not None
        raise failure from error
    finally:
        for each in running:
            each.cancel()
