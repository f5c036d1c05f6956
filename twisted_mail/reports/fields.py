"""Groups of fields of message/delivery-status and message/feedback-report: written so that nothing can be slipped in, and
read whoever wrote them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

from twisted_mail.mime import decode_header, iterate_fields, parse_date, unfold

__all__ = ["Group", "address_of", "date_of", "field", "groups", "rfc822", "text_of", "typed", "when", "without_type"]

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]+")
_WIDTH: Final = 76
_COMMENT: Final = re.compile(r"\s*\([^()]*\)\s*\Z")
_SPACES: Final = re.compile(r"[ \t]{2,}")
_MOST_TEXT: Final = 2000

Group = dict[str, list[str]]
"""Values by field name (lower case), unfolded."""


def text_of(text: str, ascii_only: bool = True, most: int = _MOST_TEXT) -> str:
    """*text* on one line, and not longer than makes sense; what is not ASCII becomes ``?`` with *ascii_only*."""
    line = _UNPRINTABLE.sub(" ", text).strip()[:most]
    return line.encode("ascii", "replace").decode() if ascii_only else line.encode("utf-8", "replace").decode("utf-8")


def field(name: str, value: str, *, ascii_only: bool = True) -> str:
    """``Name: value`` with its line end, folded where it has spaces."""
    words = text_of(value, ascii_only).split(" ")
    lines = [f"{name}:"]
    for word in words:
        # A line of white space only would be no continuation.
        if word and len(lines[-1]) + 1 + len(word) > _WIDTH and lines[-1].strip() and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def rfc822(address: str, international: bool) -> str:
    """An address with its type: ``rfc822;`` or, where it needs it, ``utf-8;`` (RFC 6533 section 3)."""
    if address.isascii():
        return f"rfc822; {address}"
    if international:
        return f"utf-8; {address}"
    # utf-8-addr-xtext: every other server can carry it.
    packed = "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):02X}}}" for c in address)
    return f"utf-8; {packed}"


def when(seconds: float) -> str:
    """A date as RFC 5322 writes it."""
    return formatdate(seconds)


def groups(octets: bytes, most: int = 1000) -> Sequence[Group]:
    """The groups of fields, parted by blank lines; empty ones left out."""
    found: list[Group] = []
    for block in re.split(rb"(?:\r?\n[ \t]*){2,}", octets.strip(b"\r\n\t ")):
        group: Group = {}
        for each in iterate_fields(block + b"\r\n"):
            group.setdefault(each.name.decode("ascii"), []).append(_line(each.value))
        if group:
            found.append(group)
        if len(found) >= most:
            break
    return found


def _line(raw: bytes) -> str:
    value = unfold(raw)
    text = decode_header(value) if b"=?" in value or not value.isascii() else value.decode("ascii")
    # Who folds a line mostly indents the next one.
    return _SPACES.sub(" ", text_of(text, ascii_only=False))


def typed(value: str) -> tuple[str, str]:
    """``type; value`` in two; a value without a type has an empty one."""
    kind, semicolon, rest = value.partition(";")
    if not semicolon or " " in kind.strip():
        return "", value.strip()
    return kind.strip().lower(), rest.strip()


def without_type(value: str) -> str:
    """What stands behind ``type;``, without comments."""
    return _COMMENT.sub("", typed(value)[1]).strip()


_PACKED: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")


def address_of(value: str) -> str:
    """The address of ``rfc822; address``, with or without angle brackets, whatever its type."""
    address = without_type(value).strip("<> ")
    if typed(value)[0] == "utf-8":
        address = _PACKED.sub(lambda match: _character(int(match[1], 16)), address)
    return address


def _character(code: int) -> str:
    return chr(code) if 0x20 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF and code != 0x7F else "?"


def date_of(values: Sequence[str]) -> float | None:
    """The first of *values* as seconds since 1970; None if it is no date."""
    if not values:
        return None
    moment = parse_date(values[0].encode("utf-8", "replace"))
    return None if moment is None else float(moment.epoch)
