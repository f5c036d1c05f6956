"""A message while it comes in, kept so that it can be read again: in memory while it is small, else in a file.

It is what makes a store that fails in the middle of a message harmless: the octets are still there for the queue. It
costs no more than `MEMORY_BYTES` of memory a message, and promises nothing: it is gone with the process, and nobody is
told 250 on its account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

__all__ = ["MEMORY_BYTES", "InThread", "Spool", "SpoolFolder"]

MEMORY_BYTES: Final = 256 * 1024
"""Of one message that are kept in memory; also what is written to its file at a time."""
_CHUNK: Final = 64 * 1024

InThread = Callable[..., Awaitable[Any]]
"""Calls a function with its arguments in a thread; the awaitable has what it returned, hence Any."""


class SpoolFolder:
    """Where spools have their files. They have no names, so that a crash leaves none."""

    def __init__(self, folder: Path, in_thread: InThread) -> None:
        self._folder = folder
        self._in_thread = in_thread

    def begin(self) -> Spool:
        """An empty spool."""
        return Spool(self._folder, self._in_thread)


class Spool:
    """Octets that were written once and may be read several times, until `close`."""

    def __init__(self, folder: Path, in_thread: InThread) -> None:
        self._folder = folder
        self._in_thread = in_thread
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._file: IO[bytes] | None = None
        self.size = 0
        """Octets written."""

    async def write(self, chunk: bytes) -> None:
        """Take the next octets. Raises: OSError."""
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        self.size += len(chunk)
        if self._gathered > MEMORY_BYTES:
            gathered, self._chunks, self._gathered = self._chunks, [], 0
            if self._file is None:
                self._file = await self._in_thread(self._open)
            await self._in_thread(self._file.writelines, gathered)

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return TemporaryFile(dir=self._folder, buffering=0)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Everything from the beginning, in chunks of at most some 64 KiB. Raises: OSError."""
        written = self.size - self._gathered
        at = 0
        while at < written and self._file is not None:
            chunk = await self._in_thread(self._read, self._file, at, min(_CHUNK, written - at))
            if not chunk:
                raise OSError("the spool's file has become shorter")
            at += len(chunk)
            yield chunk
        for chunk in list(self._chunks):
            yield chunk

    @staticmethod
    def _read(file: IO[bytes], at: int, size: int) -> bytes:
        file.seek(at)
        return file.read(size)

    def close(self) -> None:
        """Nothing of it stays. Again is harmless."""
        self._chunks.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
