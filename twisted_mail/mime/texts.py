"""What is collected of a message's texts while it is read: folded text for search, and the preview."""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.mime.charsets import decode
from twisted_mail.mime.fold import MIME_HEADERS, SEPARATOR, fold, plain_lines
from twisted_mail.mime.markup import html_text
from twisted_mail.mime.transfer import KNOWN, decode_transfer

__all__ = ["Texts", "part_text"]

_META: Final = re.compile(rb"<meta\b[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_PREVIEW_CHARACTERS: Final = 200
_PREVIEW_SOURCE: Final = 4000
_FOLDED_AT_ONCE: Final = 1 << 18
_QUOTED_LINE: Final = re.compile(r"^>.*$|^-- ?$[\s\S]*\Z", re.MULTILINE)
_INVISIBLE: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u00ad\u034f\ufeff]+")


def part_text(data: bytes, subtype: str, encoding: str, charset: str | None) -> str:
    """The text of a ``text/*`` body as sent: decoded, one ``\\n`` a line, HTML as its visible text. Never raises; an
    unknown transfer encoding gives no text (RFC 2045 section 6.4: it is octets)."""
    if encoding not in KNOWN:
        return ""
    octets = decode_transfer(encoding, data)
    if charset is None and subtype == "html" and (found := _META.search(octets[:2048])) is not None:
        charset = found[1].decode("ascii")
    text = decode(octets, charset)
    return html_text(text) if subtype == "html" else plain_lines(text)


class Texts:
    """The collection of one message."""

    __slots__ = ("_best", "_folded_room", "_headers", "_preview", "_texts", "cut", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        """Octets of text that may still be taken."""
        self._folded_room = room
        self.cut = False
        """Whether there was more."""
        self._texts: list[bytes] = []
        self._headers: list[bytes] = []
        self._preview = ""
        self._best = 9

    def add_header(self, lines: bytes) -> None:
        """The header of an embedded message, as search lines: it is text of the message around it."""
        self._texts.append(self._fitting(lines))

    def add_mime_header(self, lines: bytes) -> None:
        """The header fields of a body part, as search lines."""
        self._headers.append(self._fitting(lines))

    def _fitting(self, lines: bytes) -> bytes:
        if len(lines) > self.room:
            self.cut = True
            lines = _cut(lines, self.room)
        self.room -= len(lines)
        return lines

    def add_text(self, text: str, subtype: str, aside: bool) -> None:
        """The text of one part; *aside*: it is an attachment, or in an embedded message."""
        if not text:
            return
        self._texts.append(self._folded(text))
        rank = (0 if subtype == "plain" else 1 if subtype == "html" else 2) + (3 if aside else 0)
        if rank < self._best and (preview := _preview(text)):
            self._best, self._preview = rank, preview

    def _folded(self, text: str) -> bytes:
        """*text* folded, as far as there is room: decomposing can make eighteen characters of one."""
        pieces = []
        for at in range(0, len(text), _FOLDED_AT_ONCE):
            piece = fold(text[at : at + _FOLDED_AT_ONCE] if len(text) > _FOLDED_AT_ONCE else text)
            if len(piece) > self._folded_room:
                self.cut = True
                piece = _cut(piece, self._folded_room)
                self._folded_room = 0
            else:
                self._folded_room -= len(piece)
            pieces.append(piece)
            if not self._folded_room:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def preview(self) -> str:
        """At most 200 characters of the best text, white space collapsed (RFC 8970 section 3.1)."""
        return self._preview

    def search_text(self) -> bytes:
        """The cell that `fold` describes."""
        text = SEPARATOR.join(self._texts)
        return text + MIME_HEADERS + b"".join(self._headers) if self._headers else text


def _cut(octets: bytes, room: int) -> bytes:
    """At most *room* octets, not ending within a character."""
    return octets[:room].decode("utf-8", "ignore").encode()


def _preview(text: str) -> str:
    source = text[:_PREVIEW_SOURCE]
    # What is quoted and what signs says nothing about the message, unless there is nothing else.
    own = _QUOTED_LINE.sub("", source) if ">" in source or "--" in source else source
    for candidate in (own, source):
        if not candidate.isascii():
            candidate = _INVISIBLE.sub("", candidate)
        words = " ".join(candidate.split(None, _PREVIEW_CHARACTERS // 2))  # so many words, and what parts them, are enough
        if not words[:_PREVIEW_CHARACTERS].isprintable():
            clean = "".join([character if character.isprintable() else " " for character in words])
            words = " ".join(clean.split())
        if words:
            return words[:_PREVIEW_CHARACTERS].strip()
    return ""
