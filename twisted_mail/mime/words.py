"""Encoded words (RFC 2047) and raw 8-bit text (RFC 6532) in header fields."""

from __future__ import annotations

import binascii
import re
from typing import Final

from twisted_mail.mime.charsets import decode, decode_unlabelled, python_codec

__all__ = ["decode_header"]

# Not the RFC's token: real words (spaces and "?" in Q words) break it, and a reader wants the text. Only the head is an
# expression; the end is looked for from there, so that no input costs more than its length.
_HEAD: Final = re.compile(rb"=\?([^?\s*]{1,60})(?:\*[^?\s]{0,40})?\?([bBqQ])\?")
_FOLD: Final = re.compile(rb"(?<![ \t])[ \t]*+\r?\n[ \t]++|[\r\n]++")
_STRIP_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]+")
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def decode_header(raw: bytes) -> str:
    """The text of a field's value: unfolded, encoded words decoded wherever they stand, 8-bit octets as UTF-8 if they
    are that. White space between adjacent encoded words goes away (RFC 2047 section 6.2). Never raises."""
    if b"\n" in raw or b"\r" in raw:
        raw = _FOLD.sub(b" ", raw)
    raw = raw.strip()
    text = _words(raw) if b"=?" in raw else decode_unlabelled(raw)
    return _CONTROL.sub("", text) if not text.isprintable() else text


def _words(raw: bytes) -> str:
    pieces: list[str] = []
    at = 0
    pending: tuple[str, list[bytes]] | None = None
    for match in _HEAD.finditer(raw):
        if match.start() < at:
            continue
        end = raw.find(b"?=", match.end())
        if end < 0:
            break
        between = raw[at : match.start()]
        adjacent = pending is not None and not between.strip(b" \t")
        label = match[1].decode("ascii", "replace").lower()
        data = _payload(match[2], raw[match.end() : end])
        if pending is not None and not adjacent:
            pieces.append(decode(b"".join(pending[1]), pending[0]))
            pending = None
        if between and not adjacent:
            pieces.append(decode_unlabelled(between))
        # A multi-octet character may be cut between two words of one charset, though it must not be: decode them as one.
        if pending is not None and pending[0] == label and python_codec(label) not in ("iso2022_jp_ext",):
            pending[1].append(data)
        else:
            if pending is not None:
                pieces.append(decode(b"".join(pending[1]), pending[0]))
            pending = (label, [data])
        at = end + 2
    if pending is not None:
        pieces.append(decode(b"".join(pending[1]), pending[0]))
    if at < len(raw):
        pieces.append(decode_unlabelled(raw[at:]))
    return "".join(pieces)


def _payload(encoding: bytes, data: bytes) -> bytes:
    if encoding in b"qQ":
        return binascii.a2b_qp(data, header=True)
    clean = _STRIP_BASE64.sub(b"", data)
    if len(clean) % 4 == 1:
        clean = clean[:-1]
    return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))
