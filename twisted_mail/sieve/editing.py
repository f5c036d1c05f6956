"""Edits of a header carried out on its octets (RFC 5293). What stays is not touched by as much as a space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted_mail.mime import Field, iterate_fields, unfold
from twisted_mail.sieve.values import Edit

__all__ = ["edit_header", "header_field"]

_LINE: Final = 78
"""Octets after which a field that is added is folded, where it has white space (RFC 5322 section 2.1.1)."""


def edit_header(header: bytes, edits: Iterable[Edit]) -> bytes:
    """*header* (a block, with or without its blank line, of a message whose body follows) after *edits*, in order.

    An edit that finds nothing changes nothing.
    """
    for edit in edits:
        header = _added(header, edit) if edit.value is not None else _deleted(header, edit)
    return header


def header_field(name: str, value: str) -> bytes:
    """A field as it stands in a header: UTF-8 as it is (RFC 6532, as delivery stores it), ends of line only where it is
    folded, at white space and to some 78 octets a line."""
    words = " ".join(value.replace("\x00", "").splitlines()).strip().encode("utf-8", "replace")
    line = name.encode("utf-8", "replace") + b":"
    if len(line) + 1 + len(words) <= _LINE:
        return line + b" " + words + b"\r\n"
    lines: list[bytes] = []
    for word in words.split(b" "):
        # Not behind the name alone, and no line of white space alone.
        if word and len(line) + 1 + len(word) > _LINE and b" " in line.rstrip():
            lines.append(line)
            line = b" " + word
        else:
            line += b" " + word
    lines.append(line)
    return b"\r\n".join(lines) + b"\r\n"


def _added(header: bytes, edit: Edit) -> bytes:
    field = header_field(edit.name, edit.value or "")
    if not edit.last:
        # An mbox "From " line is no field, and stays in front.
        at = header.index(b"\n") + 1 if header.startswith((b"From ", b">From ")) and b"\n" in header else 0
        return header[:at] + field + header[at:]
    if header.endswith((b"\n\r\n", b"\n\n")) or header in (b"\r\n", b"\n"):
        at = len(header) - (2 if header.endswith(b"\r\n") else 1)
        return header[:at] + field + header[at:]
    if header and not header.endswith(b"\n"):
        header += b"\r\n"
    return header + field


def _deleted(header: bytes, edit: Edit) -> bytes:
    name = edit.name.lower().encode("utf-8", "replace")
    fields = [field for field in iterate_fields(header) if field.name == name]
    if edit.last:
        fields.reverse()
    if edit.nth:
        fields = fields[edit.nth - 1 : edit.nth]
    if edit.matching:
        wanted = {value.encode("utf-8", "surrogateescape") for value in edit.matching}
        fields = [field for field in fields if unfold(field.value) in wanted]
    return _without(header, fields)


def _without(header: bytes, fields: list[Field]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for field in sorted(fields, key=lambda field: field.start):
        pieces.append(header[at : field.start])
        at = field.end
    pieces.append(header[at:])
    return b"".join(pieces)
