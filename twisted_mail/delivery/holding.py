"""A message that is held while it is judged, and how it is passed on with other fields in its header."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.values import Changes, Mail
from twisted_mail.queueing.spool import Spool

__all__ = ["HEADER_BYTES", "Field", "HeldMessage", "fields_of", "front", "rewritten"]

HEADER_BYTES: Final = 1 << 20
"""Of a header that filters are shown, and that can be changed; what is behind it goes on as it is."""

SMALL: Final = 64 * 1024
"""Octets of a message that is passed on in one piece."""

_field = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:[^\n]*\n[ \t])*[^\n]*(?:\n|\Z))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a header, where it lies in it."""

    name: bytes
    """As spelled."""
    value: bytes
    """Raw: all behind the colon, with its folding, without the last line end."""
    start: int
    end: int


def fields_of(header: bytes) -> list[Field]:
    """The fields of *header*; lines that are no fields are left out."""
    found = []
    for match in _field.finditer(header):
        value = match[2]
        value = value[:-2] if value.endswith(b"\r\n") else value.removesuffix(b"\n")
        found.append(Field(match[1], value, match.start(), match.end()))
    return found


class HeldMessage:
    """Implements `filters.values.Arrived` over a spool."""

    def __init__(self, mail: Mail, spool: Spool) -> None:
        self._mail = mail
        self._spool = spool
        self._start: bytearray | None = bytearray()
        """The beginning of the message, until its header is whole."""
        self._header = b""
        self._cut: list[Field] | None = None
        self._pairs: list[tuple[bytes, bytes]] | None = None

    async def write(self, chunk: bytes) -> None:
        """The next octets. Raises: OSError."""
        if self._start is not None:
            at = max(len(self._start) - 3, 0)
            self._start += chunk
            end = -2 if self._start.startswith(b"\r\n") else self._start.find(b"\r\n\r\n", at)
            if end != -1 or len(self._start) >= HEADER_BYTES:
                self._header = bytes(self._start[: HEADER_BYTES if end == -1 else min(end + 2, HEADER_BYTES)])
                self._start = None
        await self._spool.write(chunk)

    @property
    def mail(self) -> Mail:
        """The transaction."""
        return self._mail

    @property
    def size(self) -> int:
        """Octets."""
        return self._spool.size

    @property
    def header(self) -> bytes:
        """See `Arrived.header`."""
        return self._header if self._start is None else bytes(self._start)

    @property
    def cut(self) -> Sequence[Field]:
        """The fields with their places."""
        if self._cut is None:
            self._cut = fields_of(self.header)
        return self._cut

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """See `Arrived.fields`."""
        if self._pairs is None:
            self._pairs = [(each.name, each.value) for each in self.cut]
        return self._pairs

    def chunks(self) -> AsyncIterator[bytes]:
        """See `Arrived.chunks`."""
        return self._spool.chunks()

    async def octets(self, most: int) -> bytes:
        """See `Arrived.octets`."""
        taken: list[bytes] = []
        left = most
        async for chunk in self._spool.chunks():
            taken.append(chunk[:left])
            left -= len(taken[-1])
            if left <= 0:
                break
        return b"".join(taken)

    async def passed_on(self, header: bytes, body: bytes | None) -> AsyncIterator[bytes]:
        """The message with another *header* (see `header` for where it ends), and another *body* if there is one."""
        skip = len(self.header)
        if body is None and self.size <= SMALL:  # one piece is parsed and kept faster than two
            octets = b"".join([chunk async for chunk in self._spool.chunks()])
            yield octets if header is self.header else header + octets[skip:]
            return
        if header:
            yield header
        if body is not None:
            yield b"\r\n" + body
            return
        async for chunk in self._spool.chunks():
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:] if skip else chunk
            skip = 0

    def close(self) -> None:
        """Nothing of it stays."""
        self._spool.close()


def _line(name: str, value: str) -> bytes:
    """A field as one or more lines. What comes from a filter is told nothing that could end the header."""
    if "\n" not in value and "\r" not in value:
        return f"{name}: {value.lstrip(' ')}\r\n".encode("utf-8", "surrogateescape")
    folded = re.sub(r"\r?\n(?![ \t])", "\r\n ", value.strip("\r\n"))
    return f"{name}: {folded.lstrip(' ')}".replace("\r\n", "\n").replace("\r", " ").replace("\n", "\r\n").encode(
        "utf-8", "surrogateescape"
    ) + b"\r\n"


def rewritten(header: bytes, fields: Sequence[Field], removed: Sequence[int], changes: Sequence[Changes]) -> bytes:
    """*header* without the fields at the places *removed*, and with all *changes*.

    Every filter was shown the same header, so numbers and positions are those of *fields*, whatever the others do.
    """
    if not removed and not any(each.inserted or each.added or each.changed for each in changes):
        return header
    drop = set(removed)
    places: dict[str, list[int]] = {}
    for place, each in enumerate(fields):
        places.setdefault(each.name.decode("ascii").lower(), []).append(place)
    instead: dict[int, bytes] = {}
    before: dict[int, list[bytes]] = {}
    last: list[bytes] = []
    for change in changes:
        for one in change.changed:
            found = places.get(one.name.lower(), [])
            if 1 <= one.nth <= len(found):
                instead[found[one.nth - 1]] = b"" if one.value is None else _line(one.name, one.value)
            elif one.value is not None:
                last.append(_line(one.name, one.value))
        for index, name, value in change.inserted:
            before.setdefault(max(min(index, len(fields)), 0), []).append(_line(name, value))
        last += [_line(name, value) for name, value in change.added]
    result: list[bytes] = []
    at = 0
    for place, each in enumerate(fields):
        result += before.get(place, ())
        result.append(header[at : each.start])
        if place not in drop:
            result.append(instead.get(place, header[each.start : each.end]))
        at = each.end
    return b"".join([*result, *before.get(len(fields), ()), header[at:], *last])


def front(fields: Sequence[tuple[str, str]]) -> bytes:
    """New fields as octets, in that order."""
    return b"".join(_line(name, value) for name, value in fields)
