"""What a message's octets are put together from: runs of its row's cells and of blobs, some of them encoded anew.

A run in `base64` is stored decoded. Its octets are the base64 lines of what is stored: `line` characters and a line end
each (the last one shorter, if it is), cut at the run's length; so what came without a last line end comes back without.
"""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

import msgspec

from twisted_mail.storage.interfaces import Blobs, Corrupt
from twisted_mail.values import BlobRef

__all__ = ["Run", "assemble", "base64_lines", "encode_runs", "refs_of", "runs_of"]

_CHUNK: Final = 64 * 1024


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A run of a message's octets: where they lie, from which offset there, how many octets of the message."""

    place: Literal["header", "inline", "blob", "base64"]
    start: int
    length: int
    hash: str = ""
    size: int = 0
    """Of the whole blob."""
    generation: int = 0
    line: int = 0
    """Characters in a line; a multiple of 4."""
    line_end: Literal["", "\n", "\r\n"] = ""
    decoded: int = 0
    """Octets of the blob that the run is made from."""

    @property
    def ref(self) -> BlobRef | None:
        """The blob, if it lies in one."""
        return BlobRef(self.hash, self.size, self.generation) if self.hash else None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Run, ...])


def encode_runs(runs: Sequence[Run]) -> bytes:
    """The ``manifest`` cell."""
    return _encoder.encode(tuple(runs))


def runs_of(manifest: bytes) -> tuple[Run, ...]:
    """Inverse of `encode_runs`. Raises Corrupt."""
    try:
        return _decoder.decode(manifest)
    except msgspec.MsgspecError as error:
        raise Corrupt("malformed message manifest") from error


def refs_of(manifest: bytes) -> tuple[BlobRef, ...]:
    """The blobs that a message lies in, each once. Raises Corrupt."""
    return tuple(dict.fromkeys(ref for run in runs_of(manifest) if (ref := run.ref) is not None))


def base64_lines(data: bytes, line: int, line_end: bytes) -> bytes:
    """*data* in base64, each line of *line* characters (the last one perhaps fewer) with its line end."""
    text = binascii.b2a_base64(data, newline=False)
    lines = [text[at : at + line] for at in range(0, len(text), line)]
    lines.append(b"")
    return line_end.join(lines)


async def assemble(
    blobs: Blobs, cells: Sequence[bytes], start: int = 0, end: int | None = None
) -> AsyncIterator[bytes]:
    """The octets ``[start:end)`` of a message from its cells ``header``, ``inline`` and ``manifest``, in chunks of
    at most 64 KiB. Raises NotFound, Corrupt, Unavailable.

    The first blob is opened before the first chunk comes: whoever has announced a message's size when the object store
    turns out to be down can only end the connection."""
    header, inline, manifest = cells
    at = 0
    parts: list[tuple[Run, int, int]] = []
    for run in runs_of(manifest):
        low = max(start - at, 0)
        high = run.length if end is None else min(run.length, end - at)
        at += run.length
        if low < high:
            parts.append((run, low, high))
    opened: tuple[Run, AsyncIterator[bytes], bytes] | None = None
    if parts and parts[0][0].ref is None:
        for run, low, high in parts:
            if run.ref is not None:
                chunks = _of_blob(blobs, run.ref, run, low, high)
                opened = run, chunks, await anext(chunks, b"")
                break
    for run, low, high in parts:
        ref = run.ref
        if ref is None:
            cell = header if run.place == "header" else inline
            for place in range(run.start + low, run.start + high, _CHUNK):
                yield cell[place : min(place + _CHUNK, run.start + high)]
        elif opened is not None and opened[0] is run:
            if opened[2]:
                yield opened[2]
            async for chunk in opened[1]:
                yield chunk
        else:
            async for chunk in _of_blob(blobs, ref, run, low, high):
                yield chunk


def _of_blob(blobs: Blobs, ref: BlobRef, run: Run, low: int, high: int) -> AsyncIterator[bytes]:
    """The octets ``[low:high)`` of a run that lies in a blob."""
    if run.place == "base64":
        return _encoded(blobs, ref, run, low, high)
    return blobs.open(ref, run.start + low, run.start + high)


async def _encoded(blobs: Blobs, ref: BlobRef, run: Run, low: int, high: int) -> AsyncIterator[bytes]:
    """The octets ``[low:high)`` of a run in base64: only the lines that they touch are read."""
    line_end = run.line_end.encode()
    wide, narrow = run.line + len(line_end), run.line // 4 * 3
    first = low // wide
    skip, left = low - first * wide, high - low
    begin, stop = first * narrow, min(((high - 1) // wide + 1) * narrow, run.decoded)
    rest = b""
    async for chunk in blobs.open(ref, run.start + begin, run.start + stop):
        begin += len(chunk)
        chunk = rest + chunk
        whole = len(chunk) if begin >= stop else len(chunk) // narrow * narrow
        chunk, rest = chunk[:whole], chunk[whole:]
        octets = base64_lines(chunk, run.line, line_end)[skip : skip + left]
        skip = 0
        left -= len(octets)
        for place in range(0, len(octets), _CHUNK):
            yield octets[place : place + _CHUNK]
