"""Blobs in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

from twisted_mail.storage.interfaces import BlobWriter, ChooseGeneration, NotFound
from twisted_mail.values import BlobRef

__all__ = ["MemoryBlobs"]

CHUNK = 65_536


class MemoryBlobs:
    """Implements `Blobs`."""

    def __init__(self) -> None:
        self._contents: dict[BlobRef, bytes] = {}

    def writer(self) -> BlobWriter:
        return _Writer(self._contents)

    async def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        content = self._contents.get(ref)
        if content is None:
            raise NotFound(f"no blob {ref.hash}")
        stop = len(content) if end is None else min(end, len(content))
        for at in range(start, stop, CHUNK):
            yield content[at : min(at + CHUNK, stop)]

    async def delete(self, ref: BlobRef) -> None:
        self._contents.pop(ref, None)

    async def iterate(self) -> AsyncIterator[BlobRef]:
        for ref in list(self._contents):
            yield ref


class _Writer:
    """Implements `BlobWriter`."""

    def __init__(self, contents: dict[BlobRef, bytes]) -> None:
        self._contents = contents
        self._chunks: list[bytes] = []
        self._open = True

    async def write(self, chunk: bytes) -> None:
        if not self._open:
            raise ValueError("the blob is finished")
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
        self._contents.setdefault(ref, content)
        return ref

    async def abort(self) -> None:
        self._open = False
        self._chunks.clear()
