"""Edits of a header carried out on its octets (RFC 5293). What stays is not touched by as much as a space."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from typing import Final

from twisted_mail.mime import Field, iterate_fields, unfold
from twisted_mail.sieve.values import Edit

__all__ = ["edit_header", "front_of", "header_field", "is_field_name"]

_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,998}")

_LINE: Final = 78
"""Octets after which a field that is added is folded, where it has white space (RFC 5322 section 2.1.1)."""
_ENCODED: Final = 39
"""Octets that become an encoded word of 64: with a short name in front it is a line of 76 (RFC 2047 section 2)."""
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def edit_header(header: bytes, edits: Iterable[Edit]) -> bytes:
    """*header* (a block, with or without its blank line, of a message whose body follows) after *edits*, in order.

    An edit that finds nothing changes nothing.
    """
    for edit in edits:
        header = _added(header, edit) if edit.value is not None else _deleted(header, edit)
    return header


def front_of(header: bytes) -> int:
    """Octets that stay in front whatever is added: an mbox "From " line, which is no field, or the Return-Path that
    delivery has written (RFC 5321 section 4.4)."""
    if header.startswith((b"From ", b">From ")) and b"\n" in header:
        return header.index(b"\n") + 1
    first = next(iterate_fields(header), None) if header[:12].lower() == b"return-path:" else None
    return first.end if first is not None else 0


def header_field(name: str, value: str) -> bytes:
    """A field as it stands in a header: of *value* ends of line become spaces, other control characters go away, and what
    is not ASCII is encoded (RFC 2047). Folded at white space, to some 78 octets a line."""
    value = _CONTROL.sub("", " ".join(value.splitlines())).strip()
    line = name.encode("utf-8", "replace") + b":"
    words = value.encode("ascii").split(b" ") if value.isascii() and "=?" not in value else _encoded_words(value)
    lines: list[bytes] = []
    for word in words:
        # Not behind the name alone, and no line of white space alone.
        if word and len(line) + 1 + len(word) > _LINE and b" " in line.rstrip():
            lines.append(line)
            line = b""
        line += b" " + word
    lines.append(line)
    return b"\r\n".join(lines) + b"\r\n"


def is_field_name(text: str) -> bool:
    """``field-name`` (RFC 5322 section 2.2)."""
    return _FIELD_NAME.fullmatch(text) is not None


def _encoded_words(text: str) -> list[bytes]:
    """Encoded words of at most 75 octets, none of which cuts a character (RFC 2047 sections 2 and 5)."""
    words: list[bytes] = []
    octets = b""
    for character in text:
        more = character.encode("utf-8", "replace")
        if len(octets) + len(more) > _ENCODED:
            words.append(octets)
            octets = b""
        octets += more
    words.append(octets)
    return [b"=?utf-8?B?" + b2a_base64(word, newline=False) + b"?=" for word in words]


def _added(header: bytes, edit: Edit) -> bytes:
    field = header_field(edit.name, edit.value or "")
    if not edit.last:
        at = front_of(header)
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
