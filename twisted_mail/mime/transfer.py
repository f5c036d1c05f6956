"""Content-Transfer-Encoding undone (RFC 2045 section 6), whole or piece by piece, and whatever the octets are.

Tolerance: base64 passes over every octet outside its alphabet and starts anew after padding; quoted-printable keeps a
``=`` that starts nothing. Only an encoding that is not known raises.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

__all__ = ["IDENTITY", "KNOWN", "TransferDecoder", "UnknownEncoding", "decode_transfer"]

IDENTITY: Final = frozenset({"7bit", "8bit", "binary"})
KNOWN: Final = IDENTITY | {"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue", "uue"}

_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_SPACES: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")
_LONELY: Final = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n)")
"""An ``=`` that starts neither an octet nor a soft line break."""
_FULL_LINE: Final = re.compile(rb"[^\r\n]++")
_PAD: Final = re.compile(rb"=+")


_LONG_LINE: Final = 64 * 1024
_AT_ONCE: Final = 256 * 1024


class UnknownEncoding(ValueError):
    """A Content-Transfer-Encoding that is not known; BINARY answers it with UNKNOWN-CTE (RFC 3516 section 4.3)."""


def decode_transfer(encoding: str, data: bytes) -> bytes:
    """*data* without its transfer encoding (*encoding* in lower case). Raises: UnknownEncoding."""
    if encoding in IDENTITY:
        return data
    decoder = TransferDecoder(encoding)
    if len(data) <= _AT_ONCE:
        return decoder.feed(data) + decoder.close()
    # Garbage makes lists of tiny pieces: not of all of it at once.
    pieces = [decoder.feed(data[at : at + _AT_ONCE]) for at in range(0, len(data), _AT_ONCE)]
    return b"".join(pieces) + decoder.close()


class TransferDecoder:
    """The same for a stream: what `feed` and `close` return, joined, is the decoded body. Keeps at most a line."""

    __slots__ = ("_base64", "_encoding", "_rest", "_started", "_uu")

    def __init__(self, encoding: str) -> None:
        """Raises: UnknownEncoding."""
        if encoding not in KNOWN:
            raise UnknownEncoding(encoding)
        self._encoding = encoding
        self._rest = b""
        self._base64 = encoding == "base64"
        self._uu = encoding.endswith(("uuencode", "uue"))
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """Take the next octets and give what is decoded so far."""
        if self._base64:
            return self._feed_base64(data)
        if self._encoding in IDENTITY:
            return data
        data = self._rest + data
        # Whole lines only: a soft line break and white space before a line end need the line to be seen.
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > _LONG_LINE:
            # A line without end: leave what may belong to an escape, or to white space before a line end.
            cut = len(data) if self._uu or len(data) > 16 * _LONG_LINE else _cut_of_long_line(data)
        self._rest = data[cut:]
        return self._lines(data[:cut]) if cut else b""

    def close(self) -> bytes:
        """The end has come. A truncated last group gives the octets that are whole."""
        rest, self._rest = self._rest, b""
        if self._base64:
            return _group(rest)
        if rest and not self._uu:
            # A soft line break whose line end is missing.
            return _unquote(_SPACES.sub(b"", rest).removesuffix(b"="))
        return self._lines(rest) if rest else b""

    def _feed_base64(self, data: bytes) -> bytes:
        data = self._rest + data.translate(None, _NOT_BASE64)
        if b"=" not in data:
            cut = len(data) & ~3
            self._rest = data[cut:]
            return binascii.a2b_base64(data[:cut])
        pieces = _PAD.split(data)
        # What follows padding is a new base64 text of its own (concatenated files, signatures of lists).
        decoded = [_group(piece) for piece in pieces[:-1]]
        last = pieces[-1]
        cut = len(last) & ~3
        self._rest = last[cut:]
        decoded.append(binascii.a2b_base64(last[:cut]))
        return b"".join(decoded)

    def _lines(self, data: bytes) -> bytes:
        if self._uu:
            return self._uudecode(data)
        if b" " in data or b"\t" in data:
            data = _SPACES.sub(b"", data)
        return _unquote(data)

    def _uudecode(self, data: bytes) -> bytes:
        decoded = []
        for line in _FULL_LINE.findall(data):
            if not self._started:
                self._started = line.startswith(b"begin ")
            elif line.rstrip() == b"end":
                self._started = False
            else:
                # Only what the length says: some encoders write a wrong one or drop trailing blanks.
                count = (((line[0] - 32) & 63) * 4 + 5) // 3
                try:
                    decoded.append(binascii.a2b_uu(line[:count]))
                except binascii.Error:
                    continue
        return b"".join(decoded)


def _cut_of_long_line(data: bytes) -> int:
    cut = len(data.rstrip(b" \t\r"))
    equals = data.rfind(b"=", max(0, cut - 2), cut)
    if equals >= 0:
        cut = equals
    return cut


def _group(piece: bytes) -> bytes:
    """A base64 text of any length: one octet left over is dropped, two or three are completed."""
    if len(piece) % 4 == 1:
        piece = piece[:-1]
    return binascii.a2b_base64(piece + b"=" * (-len(piece) % 4))


def _unquote(data: bytes) -> bytes:
    if b"=" not in data:
        return data
    # a2b_qp makes one of two, and throws away a line behind "=" and a bare CR.
    return binascii.a2b_qp(_LONELY.sub(b"=3D", data))
