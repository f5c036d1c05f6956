"""Small messages that the server writes for a user: header fields in which nothing can be slipped in, and a text."""

from __future__ import annotations

import quopri
import re
from collections.abc import Sequence
from email.header import Header
from typing import Final

from twisted_mail.sieve.editing import header_field

__all__ = ["encoded", "field", "letter", "one_line", "text_part"]

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BREAKS: Final = re.compile(r"\r\n|\r|\n")
_MOST_LINE: Final = 900
"""Octets of a line of text that is sent as it is (RFC 5322 section 2.1.1: 998)."""
_ADDRESSES: Final = frozenset(("from", "to", "cc", "bcc", "reply-to", "sender"))


def one_line(text: str, most: int = 900) -> str:
    """*text* on one line, without controls."""
    return _CONTROLS.sub(" ", text).strip()[:most]


def encoded(text: str, name: str) -> str:
    """*text* as the value of the field *name*: encoded words if, and only if, it is not ASCII (RFC 2047)."""
    line = one_line(text)
    if line.isascii():
        return line
    return Header(line.encode("utf-8", "replace").decode(), "utf-8", header_name=name).encode(linesep="\n")


def field(name: str, value: str) -> bytes:
    """``Name: value`` with its line end. Addresses and the like are not encoded: they must be what they are."""
    if name.lower() in _ADDRESSES or value.isascii():
        return header_field(name, one_line(value, 20_000))
    return f"{name}: ".encode() + encoded(value, name).replace("\n", "\r\n").encode() + b"\r\n"


def text_part(text: str) -> tuple[list[tuple[str, str]], bytes]:
    """MIME fields and body of a text in UTF-8, that passes any server."""
    octets = "\r\n".join(_BREAKS.split(text)).encode("utf-8", "replace")
    if octets and not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    plain = octets.isascii() and b"\0" not in octets and all(len(line) <= _MOST_LINE for line in octets.split(b"\r\n"))
    if not plain:
        octets = quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return [
        ("MIME-Version", "1.0"),
        ("Content-Type", f"text/plain; charset={'us-ascii' if octets.isascii() and plain else 'utf-8'}"),
        ("Content-Transfer-Encoding", "7bit" if plain else "quoted-printable"),
    ], octets


def letter(fields: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """The message of *fields* and *body*; fields without a value are left out."""
    return b"".join(field(name, value) for name, value in fields if value) + b"\r\n" + body
