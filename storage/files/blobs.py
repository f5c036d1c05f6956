"""Blobs as files, written and read in threads of their own."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from twisted_mail.storage.interfaces import (
    BlobWriter,
    ChooseGeneration,
    Corrupt,
    NotFound,
    Refused,
    StorageError,
    Unavailable,
)
from twisted_mail.values import BlobRef

__all__ = ["FileBlobs"]

T = TypeVar("T")

CHUNK: Final = 65_536
"""What a reader gets at a time."""
READ_AHEAD: Final = 8 * CHUNK
"""What is read from disk at a time."""
BUFFER: Final = 262_144
"""What a writer gathers before it asks a thread to write."""
SMALL: Final = 32_768
"""So much is hashed where it is, without a thread."""
LEFT_OVER_SECONDS: Final = 86_400.0
"""Age at which a temporary file is nobody's any more: no message takes a day to come in."""
TEMPORARY: Final = "incoming"
LISTED: Final = 1000
"""References of one step of `iterate`."""

_NAME: Final = re.compile(r"([0-9a-f]{64})-(\d{1,18})(?:\.([1-9]\d{0,8}))?")


class FileBlobs:
    """Implements `Blobs`."""

    _log = Logger()

    def __init__(self, folder: Path, reactor: Any, *, threads: int = 8, wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._reactor = reactor
        self._wall = wall
        self._pool = ThreadPool(0, threads, name="blobs")
        self.temporary = folder / TEMPORARY
        self.forced: set[Path] = set()
        """Folders whose own names this process has made durable."""

    async def start(self) -> None:
        """Make the folders and remove what crashed writes have left. Raises: StorageError."""
        try:
            self.temporary.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._remove_left_overs()
        except OSError as error:
            raise StorageError(f"the folder for blobs cannot be used: {error}") from error
        self._pool.start()

    async def close(self) -> None:
        """Finish what is being written, and end the threads."""
        if self._pool.started:
            self._pool.stop()

    def _remove_left_overs(self) -> None:
        oldest = self._wall() - LEFT_OVER_SECONDS
        for entry in os.scandir(self.temporary):
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                self._log.info("removing {name}, which an interrupted write has left", name=entry.name)
                os.unlink(entry.path)

    def path(self, ref: BlobRef) -> Path:
        """Where the content of *ref* lies."""
        later = f".{ref.generation}" if ref.generation else ""
        return self._folder / ref.hash[:2] / ref.hash[2:4] / f"{ref.hash}-{ref.size}{later}"

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do *work* in a thread. Raises: StorageError."""
        if not self._pool.started or self._pool.joined:
            raise Unavailable("the store of blobs is closed")
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, work, *arguments)
        try:
            return await done
        except OSError as error:
            raise _translate(error) from error

    # --- Blobs

    def writer(self) -> BlobWriter:
        return _Writer(self)

    async def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        file = await self.run(self._open, ref)
        at, stop = start, ref.size if end is None else min(end, ref.size)
        while at < stop:
            data = await self.run(file.read, min(READ_AHEAD, stop - at), at)
            if not data:
                raise Corrupt(f"the blob {ref.hash} ends at {at} of {ref.size} octets")
            at += len(data)
            for begin in range(0, len(data), CHUNK):
                yield data[begin : begin + CHUNK]

    def _open(self, ref: BlobRef) -> _File:
        try:
            file = _File(os.open(self.path(ref), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise NotFound(f"no blob {ref.hash}") from error
        if os.fstat(file.number).st_size != ref.size:
            raise Corrupt(f"the blob {ref.hash} does not have its {ref.size} octets")
        return file

    async def delete(self, ref: BlobRef) -> None:
        await self.run(self._delete, ref)

    def _delete(self, ref: BlobRef) -> None:
        # the folders stay: another writer may just be about to rename into one
        self.path(ref).unlink(missing_ok=True)

    async def iterate(self) -> AsyncIterator[BlobRef]:
        for outer in await self.run(_folders, self._folder):
            for inner in await self.run(_folders, outer):
                names = await self.run(os.listdir, inner)
                for name in names:
                    found = _NAME.fullmatch(name)
                    if found is not None:
                        yield BlobRef(found[1], int(found[2]), int(found[3] or 0))


def _folders(of: Path) -> list[Path]:
    """The folders of two hexadecimal digits in *of*."""
    return [of / name for name in sorted(os.listdir(of)) if len(name) == 2]


class _File:
    """A descriptor that is open for as long as anybody has this, be it a thread whose reader has gone already."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, count: int, at: int) -> bytes:
        return os.pread(self.number, count, at)

    def __del__(self) -> None:
        os.close(self.number)


class _Writer:
    """Implements `BlobWriter`. One operation at a time, as its caller awaits each.

    A caller that is cancelled waits no longer, but a thread may still be at work: `abort` must not close the file under
    it (the number may be another message's by the next write), nor miss what it is just opening.
    """

    def __init__(self, blobs: FileBlobs) -> None:
        self._blobs = blobs
        self._hash = sha256()
        self._size = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._file: int | None = None
        self._path = ""
        self._open = True
        self._lock = threading.RLock()
        """Held by the thread that works on the file."""
        self._in_threads = False
        self._given_up = False

    async def write(self, chunk: bytes) -> None:
        if not self._open:
            raise ValueError("the blob is finished")
        self._buffer.append(bytes(chunk))
        self._buffered += len(chunk)
        if self._buffered >= BUFFER:
            await self._in_thread(self._flush, self._take())

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        if not self._open:
            raise ValueError("the blob is finished")
        chosen = 0
        if generation is not None:
            if self._in_threads or self._buffered > SMALL:
                await self._in_thread(self._flush, self._take())
                asked = BlobRef(self._hash.hexdigest(), self._size)
            else:  # of what is small the hash costs less than a thread's turn, of which `_finish` is one anyway
                asked = BlobRef(sha256(b"".join(self._buffer)).hexdigest(), self._buffered)
            try:
                chosen = await generation(asked)
            except Exception:
                await self.abort()
                raise
        ref = await self._in_thread(partial(self._finish, generation=chosen), self._take())
        self._open = False
        return ref

    async def abort(self) -> None:
        if self._open:
            self._open = False
            self._given_up = True
            self._buffer.clear()
            if self._in_threads:
                await self._blobs.run(self._discard)

    async def _in_thread(self, work: Callable[[list[bytes]], T], chunks: list[bytes]) -> T:
        """Do *work*; when it fails nothing stays, and the writer is over."""
        self._in_threads = True
        try:
            return await self._blobs.run(self._locked, work, chunks)
        except StorageError:
            await self.abort()
            raise

    def _take(self) -> list[bytes]:
        chunks, self._buffer, self._buffered = self._buffer, [], 0
        return chunks

    # --- in a thread

    def _locked(self, work: Callable[[list[bytes]], T], chunks: list[bytes]) -> T:
        with self._lock:
            if self._given_up:
                raise Refused("the blob was given up")
            return work(chunks)

    def _flush(self, chunks: list[bytes]) -> None:
        if self._file is None:
            self._path = str(self._blobs.temporary / os.urandom(16).hex())
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        view = memoryview(b"".join(chunks))
        self._hash.update(view)
        self._size += len(view)
        while view:
            view = view[os.write(self._file, view) :]

    def _finish(self, chunks: list[bytes], generation: int) -> BlobRef:
        self._flush(chunks)
        assert self._file is not None
        ref = BlobRef(self._hash.hexdigest(), self._size, generation)
        target = self._blobs.path(ref)
        if target.exists():
            # Kept once. It was forced to disk before it got this name, but its folder perhaps only now.
            self._discard()
            self._make_folder(target.parent)
            force_folder(target.parent)
            return ref
        os.fsync(self._file)
        self._make_folder(target.parent)
        os.rename(self._path, target)
        os.close(self._file)
        self._file = None
        force_folder(target.parent)
        return ref

    def _make_folder(self, folder: Path) -> None:
        """A folder is only safe when those above it are forced to disk too; another may have made it just now."""
        if folder not in self._blobs.forced:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            force_folder(folder.parent)
            force_folder(folder.parent.parent)
            self._blobs.forced.add(folder)

    def _discard(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
                os.unlink(self._path)


def force_folder(path: Path) -> None:
    """Make the names in *path* durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _translate(error: OSError) -> StorageError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return Refused("the disk, or the room that blobs may take, is full")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Refused(f"blobs cannot be written: {error.strerror}")
        case errno.EMFILE | errno.ENFILE:
            return Refused("too many files are open")
    return Unavailable(f"the disk reports an error: {error.strerror}")
