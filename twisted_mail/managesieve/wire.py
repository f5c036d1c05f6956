"""Commands in: lines with the literals that are announced in them, over chunks of any size (RFC 5804 section 4).

A client's literals are non-synchronising (``{n+}``): it sends them without asking, so one that is too long can only be
thrown away as it comes. What a bound cuts off is a fault in the command, not the end of the stream: the next command is
found behind it.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Input", "LineFault", "Raw"]

_ANNOUNCED: Final = re.compile(rb"(^|[ (])\{([0-9]{1,30})(\+?)\}$")
_DISCARD_LINE: Final = 1 << 20
"""Octets of a line that is too long, before there is nothing to wait for."""


class LineFault(enum.Enum):
    """Why a command is not one."""

    LINE_TOO_LONG = "the line is too long"
    LITERAL_TOO_LONG = "the literal is too long"
    SYNCHRONISING = "a literal is announced as {n+} here"
    ENDLESS = "no end in sight"
    """More comes than is worth throwing away."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A whole command: *texts* between and around its *literals*, without line ends and announcements."""

    texts: tuple[bytes, ...]
    literals: tuple[bytes, ...] = ()
    fault: LineFault | None = None
    """A bound was passed: what is kept is the beginning (LINE_TOO_LONG), or empty in place of the literal."""


class Input:
    """Octets that have come and were not used yet."""

    __slots__ = ("_buffer", "_dropping", "_fault", "_left", "_lines", "_literals", "_long", "_searched", "_size", "_texts")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._texts: list[bytes] = []
        self._literals: list[bytes] = []
        self._fault: LineFault | None = None
        self._left: int | None = None
        """Octets of the literal that are to come; None: a line is."""
        self._size = 0
        """Of the lines so far."""
        self._long = False
        """They are too long."""
        self._dropping = 0
        """Octets thrown away so far."""
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take octets."""
        self._buffer += data

    def clear(self) -> None:
        """Throw away what has come: nothing from before the TLS handshake is trusted."""
        self._buffer.clear()
        self._begin()

    @property
    def first_word(self) -> bytes:
        """Of the command that is coming in, as far as it is there: what bounds hold for it."""
        start = self._texts[0] if self._texts else bytes(self._buffer[:16])
        return start[:16].lstrip(b" ").partition(b" ")[0].upper()

    def command(self, line_bytes: int, literal_bytes: int, discard_bytes: int) -> Raw | None:
        """The next command; None: not yet. Its lines have at most *line_bytes*, each literal *literal_bytes*."""
        while True:
            if self._left is not None:
                if not self._literal(literal_bytes):
                    return self._endless() if self._dropping > discard_bytes else None
            else:
                line = self._line(line_bytes)
                if line is None:
                    return self._endless() if self._dropping > _DISCARD_LINE else None
                announced = _ANNOUNCED.search(line)
                if announced is None:
                    self._texts.append(line)
                    return self._whole()
                if not announced[3]:
                    self._texts.append(line)
                    self._fault = self._fault or LineFault.SYNCHRONISING
                    return self._whole()
                self._texts.append(line[: announced.end(1)])
                self._left = int(announced[2])
                if self._left > literal_bytes:
                    self._fault = self._fault or LineFault.LITERAL_TOO_LONG
                if self._left > max(discard_bytes, literal_bytes):
                    return self._endless()

    def _line(self, limit: int) -> bytes | None:
        """The line that ends here, without its CRLF (a bare LF ends one too); of one that is too long, nothing is kept."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        length = len(buffer) if end < 0 else end + 1
        if self._size + length > limit:
            self._long = True
            self._fault = self._fault or LineFault.LINE_TOO_LONG
        if self._long:
            # the tail may announce a literal, which is part of it
            keep = 40
            if end < 0:
                if length > keep:
                    self._dropping += length - keep
                    del buffer[: length - keep]
                self._searched = len(buffer)
                return None
            tail = bytes(buffer[max(end - keep, 0) : end])
            self._dropping += length
            del buffer[:length]
            self._searched = 0
            announced = _ANNOUNCED.search(tail.removesuffix(b"\r"))
            return announced[0] if announced is not None else b""
        if end < 0:
            self._searched = length
            return None
        line = bytes(buffer[:end])
        del buffer[:length]
        self._searched = 0
        self._size += length
        return line[:-1] if line.endswith(b"\r") else line

    def _literal(self, limit: int) -> bool:
        """Whether the literal is through."""
        if self._left is None:
            return True
        buffer = self._buffer
        if self._fault is not None:
            drop = min(self._left, len(buffer))
            del buffer[:drop]
            self._dropping += drop
            self._left -= drop
            if self._left:
                return False
            self._literals.append(b"")
        else:
            if len(buffer) < self._left:
                return False
            self._literals.append(bytes(buffer[: self._left]))
            del buffer[: self._left]
        self._left = None
        self._searched = 0
        return True

    def _whole(self) -> Raw:
        raw = Raw(tuple(self._texts), tuple(self._literals), self._fault)
        self._begin()
        return raw

    def _endless(self) -> Raw:
        self.clear()
        return Raw((b"",), (), LineFault.ENDLESS)
