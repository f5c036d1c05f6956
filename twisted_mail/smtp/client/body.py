"""Dot-stuffing (RFC 5321 section 4.5.2), however the message is cut."""

from __future__ import annotations

import re

from twisted_mail.smtp.wire import LineEnds

__all__ = ["DotStuffing"]

_dot_between = re.compile(rb"(?:\r|\n)\.(?:\r|\n)")


class DotStuffing:
    """A message's own octets in, what DATA carries out."""

    __slots__ = ("_before", "_ends", "unsafe")

    def __init__(self) -> None:
        self._before = b"\r\n"
        """The last octets that were given; the command's CRLF counts as the one before the first line."""
        self._ends = LineEnds()
        self.unsafe = False
        """A dot stands alone between line ends of which one is a CR or LF alone: another program may take it for the
        end of the message, and what follows for commands. Nothing more of it may be sent."""

    def feed(self, data: bytes) -> bytes:
        """The next octets."""
        if not data:
            return b""
        self._ends.feed(data)
        before = self._before
        out = data.replace(b"\r\n.", b"\r\n..") if b"\r\n." in data else data
        if data[:1] == b"." and before == b"\r\n":
            out = b"." + out
        elif data[:2] == b"\n." and before[-1:] == b"\r":
            out = b"\n." + out[1:]
        if self._ends.bare:
            # what is stuffed stands behind another dot: only one that was not can be alone between two ends
            self.unsafe = self.unsafe or _dot_between.search(before + out) is not None
        self._before = out[-2:] if len(out) > 1 else (before + out)[-2:]
        return out

    def end(self) -> bytes:
        """What ends the message: a CRLF, if its last line has none, and the dot. See `unsafe` after it, too."""
        if self._before == b"\r\n":
            return b".\r\n"
        if self._ends.bare and _dot_between.search(self._before + b"\r"):
            self.unsafe = True
        return b"\r\n.\r\n"
