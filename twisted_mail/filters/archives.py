"""What is inside archives, as far as can be said at a bounded cost: zip, tar, and files packed by gzip, bzip2 or xz.

Others (rar, 7z, zstd, disc images) are known by their names only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twisted_mail.filters.inside import BOMB_RATIO, DEEPEST, HEAD, Budget, Inside
from twisted_mail.filters.packed_files import begins_as_archive, is_tar, packing_of, tar_members, unpack
from twisted_mail.filters.zip_files import is_zip, zip_members

__all__ = ["Budget", "Inside", "walk"]

_COST: Final = {"bzip2": 8}
"""What takes longer is unpacked less far (bzip2: 0.2 s for a megabyte)."""


def walk(octets: bytes, size: int, budget: Budget, depth: int = 1, head: bytes = b"") -> Iterator[Inside]:
    """What is in the file of *size* octets of which *octets* is the end (or all) and *head* the beginning, if it is an archive.

    A file may be several kinds at once, by its beginning and by its end. Never raises.
    """
    if is_zip(octets):
        yield from zip_members(octets, size, budget, depth, walk)
    start = octets if len(octets) == size else head
    if packing := packing_of(start):
        yield from _packed(start, packing, len(start) == size, budget, depth)
    elif is_tar(start):
        yield from _tar(start, budget, depth)


def _packed(octets: bytes, packing: str, complete: bool, budget: Budget, depth: int) -> Iterator[Inside]:
    """*complete*: *octets* are all of the file."""
    cost = _COST.get(packing, 1)
    found = unpack(octets, packing, budget.inflated_bytes // cost, budget.counted_bytes)
    budget.inflated_bytes -= len(found.octets) * cost
    counted, budget.counted_bytes = budget.counted_bytes, max(budget.counted_bytes - found.size, 0)
    if found.size >= counted and found.size > BOMB_RATIO * found.used:
        yield Inside("bomb", f"{found.size} octets and more in {found.used}")
    inner = found.octets
    name = found.name or "what is packed"
    yield Inside("member", name, inner)
    if is_tar(inner):
        yield from _tar(inner, budget, depth)
    elif begins_as_archive(inner) or is_zip(inner):
        if depth >= DEEPEST:
            yield Inside("bomb", f"{name}: archives in archives in archives")
        elif found.whole or packing_of(inner):
            yield from walk(inner, len(inner), budget, depth + 1)
        else:
            yield Inside("opaque", name)
    elif not (found.whole and complete):
        yield Inside("opaque", name)


def _tar(octets: bytes, budget: Budget, depth: int) -> Iterator[Inside]:
    """*octets*: the beginning of the archive."""
    for member in tar_members(octets):
        budget.members -= 1
        if budget.members < 0:
            yield Inside("bomb", "more files than anybody counts")
            return
        begin = octets[member.offset : member.offset + min(member.size, HEAD)]
        yield Inside("member", member.name, begin)
        if not begins_as_archive(begin) or len(begin) < min(member.size, HEAD):
            continue
        if depth >= DEEPEST:
            yield Inside("bomb", f"{member.name}: archives in archives in archives")
        elif member.offset + member.size > len(octets) or member.size > budget.inflated_bytes:
            yield Inside("opaque", member.name)
        else:
            budget.inflated_bytes -= member.size
            inner = octets[member.offset : member.offset + member.size]
            yield from walk(inner, member.size, budget, depth + 1)
