"""The one normalisation for search, and how stored text is searched.

`fold` is i;unicode-casemap (RFC 5051) in effect: characters are decomposed (with compatibility), their case is folded,
and the result is UTF-8. So e with acute matches however it was composed, and a needle matches by octets. White space
keeps its number: what is exact to RFC 9051 section 6.4.4 is the substring, and a needle with one space means one space.
Only ends of lines are made alike (CRLF, CR and LF are one ``\\n``), no-break spaces decompose to spaces, and NUL, which
no needle can hold, goes away: it is the mark between stored parts.

Two cells are kept of a message:

``search_header``
    A line ``name:value\\n`` for each field of its header, in order, unfolded, decoded and folded; a line ``\\n`` first, so
    that each field begins behind a line end.
``search_text``
    The texts (each ``text/*`` part, each embedded message's header in the form above), joined by `SEPARATOR`; then
    `MIME_HEADERS`, then the lines of the body parts' own header fields (with a line ``filename:`` where the name is not
    ASCII), which TEXT sees and BODY does not.
"""

from __future__ import annotations

from typing import Final
from unicodedata import normalize

__all__ = ["MIME_HEADERS", "SEPARATOR", "fold", "match_body", "match_header", "match_text", "plain_lines"]

SEPARATOR: Final = b"\n\x00\n"
"""Between two texts: no needle reaches over it."""
MIME_HEADERS: Final = b"\n\x00\x00\n"
"""Before the fields of body parts."""


def plain_lines(text: str) -> str:
    """*text* with one ``\\n`` for each end of line."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def fold(text: str) -> bytes:
    """*text* normalised for comparing. Idempotent."""
    text = plain_lines(text)
    if text.isascii():
        text = text.lower()
    else:
        text = normalize("NFKD", normalize("NFKD", text).casefold())
        text = normalize("NFKD", text.casefold())
    octets = text.encode("utf-8", "replace")
    return octets.translate(None, b"\x00") if b"\x00" in octets else octets




def match_header(search_header: bytes, name: str, needle: bytes) -> bool:
    """Whether a field *name* (any case) holds *needle* (folded); an empty needle asks whether there is such a field."""
    start = b"\n" + name.lower().encode("utf-8", "replace") + b":"
    if not needle:
        return start in search_header
    if b"\n" in needle:
        return False  # a field is one line
    # The needle first: it is mostly not there at all, and that is one fast scan.
    at = search_header.find(needle)
    while at >= 0:
        line = search_header.rfind(b"\n", 0, at)
        end = search_header.find(b"\n", at)
        end = len(search_header) if end < 0 else end
        # What was found may lie in the name; the value is what counts.
        if search_header.startswith(start, line) and search_header.find(needle, line + len(start), end) >= 0:
            return True
        at = search_header.find(needle, end)
    return False


def match_body(search_text: bytes, needle: bytes) -> bool:
    """SEARCH BODY: *needle* (folded) is in one of the texts."""
    if needle not in search_text:
        return False
    end = search_text.find(MIME_HEADERS)
    return end < 0 or search_text.find(needle, 0, end) >= 0


def match_text(search_header: bytes, search_text: bytes, needle: bytes) -> bool:
    """SEARCH TEXT: *needle* (folded) is in the header, a text, or a body part's header fields."""
    return needle in search_header or needle in search_text
