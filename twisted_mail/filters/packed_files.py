"""Files that are packed by gzip, bzip2 or xz, and tar archives: unpacked up to a bound, listed without being trusted.

RFC 1952 (gzip), the xz file format 1.1.0, POSIX.1-2017 pax (tar, with the long names of GNU). Octets come from strangers: nothing
here raises, allocates more than it is told, or goes round in circles.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["TarMember", "Unpacked", "begins_as_archive", "is_tar", "packing_of", "tar_members", "unpack"]

_SLICE: Final = 1 << 12
_PIECE: Final = 1 << 16
SUSPICIOUS: Final = 50
"""Octets out of one octet in: what gives less is not counted any further than it is kept."""
_STREAMS: Final = 1000
"""Packed streams one behind the other, which count as one file."""
_DICTIONARY_BYTES: Final = 80 << 20
"""What xz may take for the largest dictionary that it offers (64 MiB)."""
_BLOCK: Final = 512
_LONG_NAME: Final = 1 << 16
_PAX: Final = re.compile(rb"\d{1,10} path=([^\n]*)\n")


class _Unpacker(Protocol):
    """As the decompressors of `bz2` and `lzma` are."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor, made like the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(made) < max_length
        return made


def _unpacker(packing: str) -> _Unpacker:
    if packing == "gzip":
        return _Gzip()
    return bz2.BZ2Decompressor() if packing == "bzip2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, _DICTIONARY_BYTES)


def packing_of(head: bytes) -> str:
    """``gzip``, ``bzip2`` or ``xz``, by the first octets of a file; empty: none of them."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    return "xz" if head.startswith(b"\xfd7zXZ\0") else ""


def begins_as_archive(head: bytes) -> bool:
    """Whether a file is something that can be looked into: zip, tar, or packed."""
    return head.startswith(b"PK\x03\x04") or bool(packing_of(head)) or is_tar(head)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a packed file holds, as far as it was unpacked."""

    octets: bytes
    """The beginning."""
    whole: bool
    """`octets` is all."""
    size: int
    """As far as was counted; `octets` may be shorter."""
    used: int
    """Octets of the packed file that gave these, at most."""
    name: str = ""
    """The file's name before it was packed (gzip), if that is said."""


def unpack(data: bytes, packing: str, most: int, counted: int) -> Unpacked:
    """The first *most* octets, and, of what may be a bomb, how many there are up to *counted*."""
    unpacker = _unpacker(packing)
    made: list[bytes] = []
    kept = size = at = streams = 0
    whole = False
    try:
        while size < most or (size < counted and size > SUSPICIOUS * at):
            piece = data[at : at + _SLICE] if unpacker.needs_input else b""
            if unpacker.needs_input and not piece:
                break
            at += len(piece)
            got = unpacker.decompress(piece, _PIECE)
            size += len(got)
            if kept < most:
                made.append(got[: most - kept])
                kept += len(made[-1])
            if unpacker.eof:
                at -= len(unpacker.unused_data)
                streams += 1
                if packing_of(data[at : at + 10]) != packing:
                    whole = kept == size
                    break
                if streams >= _STREAMS:
                    break
                unpacker = _unpacker(packing)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError):
        pass  # broken: what came before is all there is to see
    return Unpacked(b"".join(made), whole, size, min(at, len(data)), _name(data) if packing == "gzip" else "")


def _name(data: bytes) -> str:
    """FNAME (RFC 1952 section 2.3)."""
    flags, at = data[3:4], 10
    if not flags or not flags[0] & 8:
        return ""
    if flags[0] & 4:
        at += 2 + int.from_bytes(data[10:12], "little")
    return data[at : at + 1024].partition(b"\0")[0].decode("latin-1")


# --- tar


@dataclass(frozen=True, slots=True)
class TarMember:
    """One file of a tar archive."""

    name: str
    offset: int
    size: int


def is_tar(head: bytes) -> bool:
    """Whether a file begins as tar archives do: with a header whose sum is right."""
    return len(head) >= _BLOCK and head[0] != 0 and _sum_is_right(head[:_BLOCK])


def _sum_is_right(block: bytes) -> bool:
    said = _number(block[148:156])
    return said is not None and said == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _number(field: bytes) -> int | None:
    """Octal, or base 256 where it does not fit (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def tar_members(octets: bytes) -> Iterator[TarMember]:
    """The files of the archive that begins with *octets*; up to the first header that is broken. Links and folders have a size of
    0."""
    at = 0
    name = ""
    while at + _BLOCK <= len(octets):
        block = octets[at : at + _BLOCK]
        size = _number(block[124:136])
        if block[0] == 0 or size is None or size < 0 or not _sum_is_right(block):
            return
        at += _BLOCK
        kind = block[156:157]
        if kind == b"L":  # GNU: the next one's name
            name = octets[at : at + min(size, _LONG_NAME)].partition(b"\0")[0].decode("utf-8", "replace")
        elif kind == b"x":  # pax: the next one's attributes
            found = _PAX.search(octets[at : at + min(size, _LONG_NAME)])
            name = found[1].decode("utf-8", "replace") if found is not None else name
        elif kind not in (b"g", b"K"):
            if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
                size = 0
            yield TarMember(name or _short_name(block), at, size)
            name = ""
        at += -(-size // _BLOCK) * _BLOCK


def _short_name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "replace")
