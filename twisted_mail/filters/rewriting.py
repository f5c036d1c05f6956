"""A message as filters want it: its header cut into fields, changed, and the message that a later filter sees then."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.values import Arrived, Changes, Mail, by_name

__all__ = ["Field", "Rewritten", "fields_of", "front", "pairs_of", "rewritten", "with_header"]

_field: Final = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:[^\n]*\n[ \t])*[^\n]*(?:\n|\Z))", re.MULTILINE)


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
        found.append(Field(match[1], _value(match[2]), match.start(), match.end()))
    return found


def pairs_of(header: bytes) -> list[tuple[bytes, bytes]]:
    """The same, as names and values only: that takes half of the time."""
    return [(name, _value(line)) for name, line in _field.findall(header)]


def _value(line: bytes) -> bytes:
    return line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")


def _line(name: str, value: str) -> bytes:
    """A field as one or more lines. What comes from a filter is told nothing that could end the header."""
    if "\n" not in value and "\r" not in value:
        return f"{name}: {value.lstrip(' ')}\r\n".encode("utf-8", "surrogateescape")
    folded = re.sub(r"\r?\n(?![ \t])", "\r\n ", value.strip("\r\n"))
    return f"{name}: {folded.lstrip(' ')}".replace("\r\n", "\n").replace("\r", " ").replace("\n", "\r\n").encode(
        "utf-8", "surrogateescape"
    ) + b"\r\n"


@dataclass(slots=True, eq=False)
class _Piece:
    """A field of a header that is being changed, or octets of it that are no field."""

    octets: bytes
    name: str = ""
    """Of a field, in lower case; empty: it is none."""
    gone: bool = False


class _Sheet:
    """A header that is being changed."""

    def __init__(self, header: bytes, fields: Sequence[Field]) -> None:
        self._pieces: list[_Piece] = []
        at = 0
        for each in fields:
            if each.start > at:
                self._pieces.append(_Piece(header[at : each.start]))
            self._pieces.append(_Piece(header[each.start : each.end], each.name.decode("ascii").lower()))
            at = each.end
        if at < len(header):
            self._pieces.append(_Piece(header[at:]))
        self.came = self.fields()
        """The fields as the message came."""

    def fields(self) -> list[_Piece]:
        """Those that are there now."""
        return [each for each in self._pieces if each.name and not each.gone]

    def change(self, changes: Changes, seen: Sequence[_Piece]) -> None:
        """Make *changes*, whose numbers are those of the fields *seen*."""
        named: dict[str, list[_Piece]] = {}
        for piece in seen:
            named.setdefault(piece.name, []).append(piece)
        last: list[_Piece] = []
        for one in changes.changed:
            found = named.get(one.name.lower(), [])
            if 1 <= one.nth <= len(found):
                piece = found[one.nth - 1]
                piece.gone = one.value is None
                if one.value is not None:
                    piece.octets = _line(one.name, one.value)
            elif one.value is not None:
                last.append(_new(one.name, one.value))
        for index, name, value in changes.inserted:
            self._pieces.insert(self._place(seen, index), _new(name, value))
        self._pieces += [*last, *(_new(name, value) for name, value in changes.added)]

    def _place(self, seen: Sequence[_Piece], index: int) -> int:
        """Where among the pieces something has to stand to be before the field of that *index*, or behind the last one."""
        if index < len(seen):
            return self._pieces.index(seen[max(index, 0)])
        return self._pieces.index(seen[-1]) + 1 if seen else 0

    def octets(self) -> bytes:
        return b"".join([each.octets for each in self._pieces if not each.gone])


def _new(name: str, value: str) -> _Piece:
    return _Piece(_line(name, value), name.lower())


def rewritten(header: bytes, removed: Sequence[int], changes: Sequence[Changes]) -> bytes:
    """*header* without the fields at the places *removed*, and with all *changes*.

    Filters were shown the same header, so numbers and positions are those of its fields, whatever the others do. Those of a chain
    have seen what the ones of the chain before them had made of it, and count so (`Changes.chained`).
    """
    if not removed and not any(each.inserted or each.added or each.changed for each in changes):
        return header
    sheet = _Sheet(header, fields_of(header))
    # those of the chain first: they have not seen what the others do
    for change in changes:
        if change.chained:
            sheet.change(change, sheet.fields())
    for change in changes:
        if not change.chained:
            sheet.change(change, sheet.came)
    for place in removed:
        sheet.came[place].gone = True
    return sheet.octets()


def front(fields: Sequence[tuple[str, str]]) -> bytes:
    """New fields as octets, in that order."""
    return b"".join(_line(name, value) for name, value in fields)


async def with_header(
    chunks: AsyncIterator[bytes], skip: int, header: bytes, body: bytes | None = None
) -> AsyncIterator[bytes]:
    """A message whose first *skip* octets are its header, with another *header*, and another *body* if there is one. *chunks*
    are closed."""
    try:
        if header:
            yield header
        if body is not None:
            yield b"\r\n" + body
            return
        async for chunk in chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:] if skip else chunk
            skip = 0
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


class Rewritten:
    """An `Arrived`: a message as the filters of a chain have left it for the next one."""

    def __init__(self, message: Arrived, changes: Sequence[Changes]) -> None:
        self._message = message
        self.mail: Mail = message.mail
        self.header = rewritten(message.header, (), changes)
        self._body = next((each.body for each in reversed(changes) if each.body is not None), None)
        body = message.size - len(message.header) if self._body is None else 2 + len(self._body)
        self.size = len(self.header) + body
        self.fields: Sequence[tuple[bytes, bytes]] = pairs_of(self.header)
        self.named: Mapping[bytes, Sequence[bytes]] = by_name(self.fields)

    def chunks(self) -> AsyncIterator[bytes]:
        """See `Arrived.chunks`."""
        return with_header(self._message.chunks(), len(self._message.header), self.header, self._body)

    async def octets(self, most: int) -> bytes:
        """See `Arrived.octets`."""
        taken: list[bytes] = []
        async for chunk in self.chunks():
            taken.append(chunk[:most])
            most -= len(taken[-1])
            if most <= 0:
                break
        return b"".join(taken)
