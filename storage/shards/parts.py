"""Files of shards on their way to the object store and back, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards.indexing import IndexThreads
from twisted_mail.storage.shards.manifest import PART, ShardFile

__all__ = ["Parts"]

AT_ONCE: Final = 4
"""Parts that one process has in memory, of all accounts together."""


class Parts:
    """Sends and fetches; at most `AT_ONCE` parts are on their way."""

    def __init__(self, objects: Objects, threads: IndexThreads) -> None:
        self._objects = objects
        self._threads = threads
        self._room = DeferredSemaphore(AT_ONCE)

    async def fetch(self, files: Sequence[ShardFile], prefix: str, folder: Path) -> None:
        """Write *files* into *folder*. Raises: NotFound (a part is gone), Corrupt (it is another), Unavailable."""
        await _together([self._fetch(file, prefix, folder / file.name) for file in files])

    async def _fetch(self, file: ShardFile, prefix: str, path: Path) -> None:
        whole = sha256()
        size = 0
        await self._threads.run(path.write_bytes, b"")
        for part in file.parts:
            async with self._room:
                stored = await self._objects.get(prefix + part)
                assert stored is not None
                whole.update(stored.data)
                size += len(stored.data)
                await self._threads.run(_append, path, stored.data)
        if size != file.size or whole.hexdigest() != file.digest:
            raise Corrupt(f"the file {file.name} of a search shard is not what was written")

    async def send(
        self, folder: Path, names: Sequence[str], token: str, prefix: str, sent: list[str]
    ) -> list[ShardFile]:
        """Store the files *names* of *folder* as parts called *token* and a number; *sent* grows by their names.

        Raises: Unavailable.
        """
        sizes = await self._threads.run(lambda: [(folder / name).stat().st_size for name in names])
        works = []
        number = 0
        for name, size in zip(names, sizes):
            parts = tuple(f"{token}-{number + at}" for at in range(-(-size // PART)))
            number += len(parts)
            works.append(self._send(folder / name, size, parts, prefix, sent))
        return await _together(works)

    async def _send(self, path: Path, size: int, parts: tuple[str, ...], prefix: str, sent: list[str]) -> ShardFile:
        whole = sha256()
        for at, part in enumerate(parts):
            async with self._room:
                data = await self._threads.run(_read, path, at * PART)
                whole.update(data)
                sent.append(part)
                await self._objects.put(prefix + part, data)
        return ShardFile(path.name, size, whole.hexdigest(), parts)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(PART)


async def _together(works: Sequence[Any]) -> list[Any]:
    """Await all; the first failure ends the others. Raises: that failure."""
    running = [Deferred.fromCoroutine(work) for work in works]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        failure = error.subFailure.value
        assert failure is not None
        raise failure from error
    finally:
        for each in running:
            each.cancel()
