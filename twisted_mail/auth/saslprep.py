"""SASLprep (RFC 4013): names and passwords that look alike become the same octets."""

from __future__ import annotations

import stringprep
import unicodedata

__all__ = ["saslprep"]

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """*text* mapped and normalised (NFKC) as RFC 4013 section 2 says.

    Characters that Unicode 3.2 did not have (RFC 3454 table A.1: every emoji) are let through for stored strings
    too, where RFC 4013 section 2.5 refuses them: a password that was accepted must stay one.
    Raises: ValueError for control and other prohibited characters (section 2.3), and for text whose direction is not
    unambiguous (RFC 3454 section 6).
    """
    if text.isascii():
        if not text.isprintable():
            raise ValueError("control characters are not allowed")
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    for character in prepared:
        if any(prohibits(character) for prohibits in _PROHIBITED) or character < " " or character == "\x7f":
            raise ValueError("a character that is not allowed")
    if any(stringprep.in_table_d1(character) for character in prepared):
        if any(stringprep.in_table_d2(character) for character in prepared):
            raise ValueError("letters of both directions are mixed")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError("text that runs from right to left must begin and end so")
    return prepared
