"""Canonicalisation (RFC 6376 section 3.4): header fields at once, bodies as they pass.

A body is hashed in one pass and constant memory: of what may yet turn out to be trailing empty lines only the number is
kept. A line ends with CRLF here; a bare CR or LF is an octet like others.
"""

from __future__ import annotations

import enum
import hashlib
import re
from typing import Final

__all__ = ["BodyHash", "Canon", "relax_field"]

_RUNS: Final = re.compile(rb" {2,}")
_WHITE: Final = re.compile(rb"[ \t]+")
_LINE_END: Final = b"\r\n"
_MANY: Final = _LINE_END * 4096


class Canon(enum.Enum):
    """How octets are made alike before they are hashed."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


def relax_field(raw: bytes) -> bytes:
    """A whole field, its last line end included or not, in the "relaxed" form (section 3.4.2), without a line end."""
    name, _, value = raw.partition(b":")
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    if b"\t" in value or b"  " in value:
        value = _WHITE.sub(b" ", value)
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" ")


class BodyHash:
    """SHA-256 of a canonical body, of its first *length* octets if that is given (``l=``, section 3.4.5)."""

    __slots__ = ("_canon", "_digest", "_hash", "_held", "_length", "_lines", "size")

    def __init__(self, canon: Canon, length: int | None = None) -> None:
        self._canon = canon
        self._length = length
        self._hash = hashlib.sha256()
        self._held = b""
        """What the next octets decide about: white space at the end as one space, a CR."""
        self._lines = 0
        """Line ends that are hashed only if something follows."""
        self._digest: bytes | None = None
        self.size = 0
        """Octets of the canonical body so far."""

    @classmethod
    def known(cls, canon: Canon, digest: bytes) -> BodyHash:
        """One that was made before; its `size` is not known any more."""
        made = cls(canon)
        made._digest = digest
        return made

    def update(self, chunk: bytes) -> None:
        """The next octets of the body."""
        data = self._held + chunk if self._held else chunk
        if self._canon is Canon.RELAXED:
            if b"\t" in data:
                data = data.replace(b"\t", b" ")
            if b"  " in data:
                data = _RUNS.sub(b" ", data)
            if b" \r\n" in data:
                data = data.replace(b" \r\n", _LINE_END)
            end = b" \r" if data.endswith(b" \r") else b"\r" if data.endswith(b"\r") else b" "
        else:
            end = b"\r"
        if data.endswith(end):
            self._held = end
            data = data[: -len(end)]
        else:
            self._held = b""
        self._take(data)

    def digest(self) -> bytes:
        """The body has ended."""
        if self._digest is None:
            # White space behind the last line's text is not there, as before any line end.
            self._take(b"" if self._held == b" " else self._held)
            if self.size or self._canon is Canon.SIMPLE:
                # Sections 3.4.3 and 3.4.4: one line end closes what there is; of nothing, only "simple" makes a line.
                self._hashed(_LINE_END)
            self._digest = self._hash.digest()
        return self._digest

    def _take(self, data: bytes) -> None:
        """Hash octets of the canonical body but for line ends at their end."""
        if not data:
            return
        if data.endswith(_LINE_END):
            cut = _trailing(data)
            lines = (len(data) - cut) // 2
            data = data[:cut]
        else:
            lines = 0
        if data:
            while self._lines:
                some = min(self._lines, 4096)
                self._hashed(_MANY if some == 4096 else _LINE_END * some)
                self._lines -= some
            self._hashed(data)
        self._lines += lines

    def _hashed(self, data: bytes) -> None:
        if self._length is not None and self.size + len(data) > self._length:
            self._hash.update(data[: max(self._length - self.size, 0)])
        else:
            self._hash.update(data)
        self.size += len(data)


def _trailing(data: bytes) -> int:
    """Where the line ends at the end of *data* begin, if nothing else follows; *data* ends with one."""
    cut = len(data.rstrip(b"\r\n"))
    # In a mixture of CRs and LFs the pairs begin behind the last two equal ones.
    if (doubled := data.rfind(b"\n\n", cut)) >= 0:
        cut = doubled + 2
    if (doubled := data.rfind(b"\r\r", cut)) >= 0:
        cut = doubled + 1
    return cut + 1 if data[cut : cut + 1] == b"\n" else cut
