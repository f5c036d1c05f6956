"""Lines in, and messages out: dot-stuffing, line ends, and the first lines of a message, over chunks of any size."""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = ["END", "Head", "Input", "LineFault", "Stuffed"]

END: Final = b".\r\n"
"""Ends a multi-line response (RFC 1939 section 3)."""
DISCARD_BYTES: Final = 1 << 20
_bare_lf: Final = re.compile(rb"(?<!\r)\n")


class LineFault(enum.Enum):
    """Why a line is not one."""

    TOO_LONG = "too long"
    ENDLESS = "no end in sight"
    """More than a megabyte after TOO_LONG: there is nothing to wait for."""


class Input:
    """Octets that have come and were not used yet."""

    __slots__ = ("_buffer", "_discarded", "_discarding")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._discarding = False
        self._discarded = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take octets."""
        self._buffer += data

    def clear(self) -> None:
        """Throw away what has come (RFC 2595 section 4: nothing from before the handshake is trusted)."""
        self._buffer.clear()
        self._discarding = False

    def line(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CRLF (a bare LF ends one too), of at most *limit* octets with it; None: not yet.

        One that is too long gets its fault at the *limit*, once; the rest of it is thrown away as it comes.
        """
        buffer = self._buffer
        if self._discarding:
            end = buffer.find(b"\n")
            if end < 0:
                self._discarded += len(buffer)
                buffer.clear()
                return LineFault.ENDLESS if self._discarded > DISCARD_BYTES else None
            del buffer[: end + 1]
            self._discarding = False
        end = buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(buffer) < limit:
                return None
            self._discarding, self._discarded = True, 0
            return LineFault.TOO_LONG
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        return line[:-1] if line.endswith(b"\r") else line


class Stuffed:
    """A message as a multi-line response (RFC 1939 section 3): each line ends with CRLF, one that begins with a dot
    gets another before it. A bare LF becomes CRLF, a bare CR stays, a last line without an end gets one."""

    __slots__ = ("_at_start", "_held")

    def __init__(self) -> None:
        self._at_start = True
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The next octets of the message; what of them can be sent."""
        data = self._held + chunk
        if data.endswith(b"\r"):  # what it is shows with the next chunk
            self._held, data = b"\r", data[:-1]
        else:
            self._held = b""
        return self._send(data)

    def _send(self, data: bytes) -> bytes:
        if not data:
            return b""
        if data.count(b"\n") != data.count(b"\r\n"):
            data = _bare_lf.sub(b"\r\n", data)
        dot = b"." if self._at_start and data.startswith(b".") else b""
        self._at_start = data.endswith(b"\r\n")
        return dot + data.replace(b"\r\n.", b"\r\n..")

    def finish(self) -> bytes:
        """The message is over: its last octets, and the end of the response."""
        rest = self._send(self._held)
        self._held = b""
        return rest + (END if self._at_start else b"\r\n" + END)


class Head:
    """TOP (RFC 1939 section 7): the header, the blank line, and the first *lines* lines of the body."""

    __slots__ = ("_in_header", "_lines", "_start", "done")

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_header = True
        self._start = b""
        """The line of the header that has begun, as far as it may still be the blank one: nothing, CR, or other."""
        self.done = False
        """Nothing more is wanted."""

    def feed(self, chunk: bytes) -> bytes:
        """What of the message's next octets belongs to the answer."""
        at = 0
        if self._in_header:
            at = self._header(chunk)
            if self._in_header:
                return chunk
        if self._lines <= 0:
            self.done = True
            return chunk[:at]
        count = chunk.count(b"\n", at)
        if count < self._lines:
            self._lines -= count
            return chunk
        for _ in range(self._lines):
            at = chunk.index(b"\n", at) + 1
        self._lines = 0
        self.done = True
        return chunk[:at]

    def _header(self, chunk: bytes) -> int:
        """Read on to the end of the header; returns where the body begins in *chunk*, if it does."""
        at = 0
        while True:
            end = chunk.find(b"\n", at)
            if end < 0:
                if at < len(chunk):
                    self._start += chunk[at : at + 2]
                    self._start = self._start[:2]
                return len(chunk)
            if (self._start + chunk[at : min(end, at + 2)])[:2] in (b"", b"\r"):
                self._in_header = False
                return end + 1
            self._start = b""
            at = end + 1
