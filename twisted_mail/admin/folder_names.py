"""Names of mailboxes as names of folders: the modified UTF-7 of RFC 3501 section 5.1.3, as other servers write them."""

from __future__ import annotations

import binascii
import re

__all__ = ["decode", "encode", "encode_character"]

_RUNS = re.compile(r"[^\x20-\x7e]+")
_CODED = re.compile(r"&([A-Za-z0-9+,]*)-")


def _base64(text: str) -> str:
    coded = binascii.b2a_base64(text.encode("utf-16-be"), newline=False).decode("ascii")
    return "&" + coded.rstrip("=").replace("/", ",") + "-"


def encode_character(character: str) -> str:
    """One character in the coded form, even where it need not be."""
    return _base64(character)


def encode(level: str, also: str = "") -> str:
    """*level* in modified UTF-7; the characters of *also* are coded too (``.`` between Maildir++ levels)."""
    level = _RUNS.sub(lambda run: _base64(run[0]), level.replace("&", "&-"))
    for character in also:
        level = level.replace(character, encode_character(character))
    return level


def decode(level: str) -> str:
    """What `encode` wrote; a name that is not modified UTF-7 (``R&D``) is taken as it stands."""
    if "&" not in level:
        return level
    if re.search(r"&(?![A-Za-z0-9+,]*-)", level):
        return level
    try:
        return _CODED.sub(lambda run: _decoded(run[1]), level)
    except ValueError:
        return level


def _decoded(coded: str) -> str:
    if not coded:
        return "&"
    octets = binascii.a2b_base64(coded.replace(",", "/") + "=" * (-len(coded) % 4))
    return octets.decode("utf-16-be")
