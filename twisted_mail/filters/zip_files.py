"""What is inside zip archives, as far as can be said without unpacking them: names, passwords, bombs.

Only the central directory is read (APPNOTE.TXT 6.3, sections 4.3.12 and 4.3.16), of members their first octets, and of
archives in an archive as much as `Budget` has: no archive costs more than that, whatever it says about itself.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.inside import BOMB_BYTES, BOMB_RATIO, DEEPEST, HEAD, Budget, Inside, Look
from twisted_mail.filters.packed_files import begins_as_archive

__all__ = ["is_zip", "zip_members"]

_END: Final = b"PK\x05\x06"
_END_RECORD: Final = struct.Struct("<4s4H2LH")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    flags: int
    method: int
    compressed: int
    size: int
    offset: int


def is_zip(tail: bytes) -> bool:
    """Whether *tail*, the end of a file, is that of a zip archive."""
    return _end_of(tail) is not None


def _end_of(tail: bytes) -> int | None:
    """Where the end of central directory record begins."""
    at = tail.rfind(_END, max(0, len(tail) - 65_535 - _END_RECORD.size))
    return at if at >= 0 and at + _END_RECORD.size <= len(tail) else None


def zip_members(octets: bytes, size: int, budget: Budget, depth: int, look: Look) -> Iterator[Inside]:
    """What is in the archive of *size* octets of which *octets* is the end (or all). *look* looks into archives in it. Never
    raises."""
    end = _end_of(octets)
    if end is None:
        return
    _, _, _, _, count, length, offset, _ = _END_RECORD.unpack_from(octets, end)
    begin = end - length
    # Where offsets count from: something may stand before the archive (a program that unpacks it, say).
    base = begin - offset
    if begin < 0 or offset == 0xFFFF_FFFF or count == 0xFFFF:
        yield Inside("opaque", "")
        return
    whole = len(octets) == size
    total = packed = 0
    for entry in _entries(octets, begin, end):
        budget.members -= 1
        if budget.members < 0:
            yield Inside("bomb", "more files than anybody counts")
            return
        total += entry.size
        packed += entry.compressed
        yield from _member(octets, entry, base, whole, budget, depth, look)
    if (total > BOMB_BYTES and total > BOMB_RATIO * size) or packed > size:
        yield Inside("bomb", f"{total} octets in {size}")


def _entries(octets: bytes, at: int, end: int) -> Iterator[_Entry]:
    while at + _ENTRY.size <= end and octets.startswith(b"PK\x01\x02", at):
        (_, _, _, flags, method, _, _, _, compressed, size, name, extra, comment, _, _, _, offset) = _ENTRY.unpack_from(
            octets, at
        )
        at += _ENTRY.size
        text = octets[at : at + min(name, end - at)].decode("utf-8" if flags & 0x800 else "cp437", "replace")
        yield _Entry(text, flags, method, compressed, size, offset)
        at += name + extra + comment


def _member(
    octets: bytes, entry: _Entry, base: int, whole: bool, budget: Budget, depth: int, look: Look
) -> Iterator[Inside]:
    if entry.flags & 1:
        yield Inside("encrypted", entry.name)
        yield Inside("member", entry.name)
        return
    head = b""
    archive = entry.name.lower().endswith((".zip", ".jar"))
    if whole and budget.heads > 0 and not entry.name.endswith("/"):
        budget.heads -= 1
        head = _inflated(octets, entry, base, HEAD)
        archive = archive or begins_as_archive(head)
    yield Inside("member", entry.name, head)
    if not archive:
        return
    if depth >= DEEPEST:
        yield Inside("bomb", f"{entry.name}: archives in archives in archives")
    elif not whole or entry.size > budget.inflated_bytes:
        yield Inside("opaque", entry.name)
    else:
        inner = _inflated(octets, entry, base, budget.inflated_bytes)
        budget.inflated_bytes -= len(inner)
        if is_zip(inner) or begins_as_archive(inner):
            yield from look(inner, len(inner), budget, depth + 1)
        else:
            yield Inside("opaque", entry.name)


def _inflated(octets: bytes, entry: _Entry, base: int, most: int) -> bytes:
    """The first *most* octets of a member; what is broken or packed in another way than by deflate is empty."""
    at = base + entry.offset
    if at < 0 or at + _LOCAL.size > len(octets) or not octets.startswith(b"PK\x03\x04", at):
        return b""
    fields = _LOCAL.unpack_from(octets, at)
    at += _LOCAL.size + fields[9] + fields[10]
    data = memoryview(octets)[at : at + entry.compressed]
    if entry.method == 0:
        return bytes(data[:most])
    if entry.method != 8 or most <= 0:
        return b""
    try:
        return zlib.decompressobj(-15).decompress(data, most)
    except zlib.error:
        return b""
