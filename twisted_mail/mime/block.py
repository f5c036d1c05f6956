"""One header block read once: first values, addresses joined, and its lines for search."""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.mime.fold import fold
from twisted_mail.mime.headers import split_fields
from twisted_mail.mime.words import decode_header

__all__ = ["Block"]

_ADDRESS_FIELDS: Final = frozenset({b"from", b"to", b"cc", b"bcc", b"sender", b"reply-to"})
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")


class Block:
    """The fields of a header. Of a field that comes twice the first counts, but the addresses of From, To, Cc, Bcc,
    Sender and Reply-To are all taken together (RFC 5322 section 4.5 lets them be repeated)."""

    __slots__ = ("fields", "first")

    def __init__(self, header: bytes) -> None:
        fields: list[tuple[bytes, bytes]] = []
        first: dict[bytes, bytes] = {}
        for name, value in split_fields(header):
            name = name.lower()
            if b"\n" in value:
                value = _FOLD.sub(b"", value)
            value = value.strip(b" \t\r\n")
            fields.append((name, value))
            if name not in first:
                first[name] = value
            elif name in _ADDRESS_FIELDS and value:
                first[name] = first[name] + b"," + value if first[name] else value
        self.fields = fields
        """(name in lower case, unfolded value), in order."""
        self.first = first

    def search_lines(self) -> bytes:
        """``name:value\\n`` for each field, decoded and folded, behind a first ``\\n`` (see `fold`)."""
        lines = [b""]
        for name, value in self.fields:
            if not value.isascii() or b"=?" in value:
                value = fold(decode_header(value)).replace(b"\n", b" ")
            lines.append(name + b":" + value)
        lines.append(b"")
        # What was decoded is folded already, and lower() leaves octets above 127 alone.
        text = b"\n".join(lines).lower()
        if b"\r" in text or b"\x00" in text:
            text = text.replace(b"\r", b" ").replace(b"\x00", b"")
        return text
