"""Cutting the stream: command lines, dot-stuffed messages, counted chunks; and where CR and LF stand apart.

Only CRLF ends a line and only CRLF "." CRLF ends a message (RFC 5321 section 2.3.8 and 4.1.1.4): whatever else another
program may take for an end is refused, so that no two programs can see different messages in one stream.
"""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = ["DISCARD_BYTES", "DotStuffed", "Input", "LineEnds", "LineFault"]

DISCARD_BYTES: Final = 1 << 20
"""So much of a line that was refused already is thrown away while its end is looked for."""

END: Final = b"\r\n.\r\n"
_dot_between = re.compile(rb"[\r\n]\.[\r\n]")


class LineFault(enum.Enum):
    """Why a line is not one."""

    TOO_LONG = "too long"
    BARE = "bare CR or LF"
    ENDLESS = "no end in sight"
    """More than DISCARD_BYTES after one of the others: there is nothing to wait for."""


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
        """Throw away everything that has come (RFC 3207 section 4.2: nothing from before the handshake is trusted)."""
        self._buffer.clear()
        self._discarding = False
        self._discarded = 0

    def starts_with(self, verb: bytes) -> bool:
        """Whether the octets that wait begin with *verb* (in upper case), in any case."""
        return self._buffer[: len(verb)].upper() == verb

    def line(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CRLF, which has at most *limit* octets with it; None: it has not come whole yet.

        A line with a bare LF is refused at once (its writer may never send a CRLF), one that is too long at its
        *limit*; in both cases everything up to the next CRLF is dropped with it, so it gets one reply and none of it
        is taken for a command.
        """
        if self._discarding and not self._discard():
            if self._discarded > DISCARD_BYTES:
                return LineFault.ENDLESS
            return None
        buffer = self._buffer
        end = buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(buffer) < limit:
                return None
            self._discarding, self._discarded = True, 0
            return LineFault.TOO_LONG
        if end == 0 or buffer[end - 1] != 13:
            self._discarding, self._discarded = True, 0
            return LineFault.BARE
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        return line if 13 not in line else LineFault.BARE

    def _discard(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end >= 0:
            del self._buffer[: end + 2]
            self._discarding = False
            return True
        keep = 1 if self._buffer[-1:] == b"\r" else 0
        self._discarded += len(self._buffer) - keep
        del self._buffer[: len(self._buffer) - keep]
        return False

    def take(self, limit: int) -> bytes:
        """At most *limit* octets, whatever they are."""
        if len(self._buffer) <= limit:
            taken = bytes(self._buffer)
            self._buffer.clear()
        else:
            taken = bytes(self._buffer[:limit])
            del self._buffer[:limit]
        return taken

    def give_back(self, data: bytes) -> None:
        """*data* was not used: it comes first again."""
        if data:
            self._buffer[:0] = data


class DotStuffed:
    """A message as DATA carries it (RFC 5321 section 4.5.2): octets in, the message's own octets out.

    The CRLF of the DATA command counts as the one before the first line, so an empty message ends with ``.`` CRLF.
    """

    __slots__ = ("_before", "_first", "_held", "ended", "lone_dot")

    def __init__(self, *, look_for_lone_dots: bool = False) -> None:
        self._held = b"\r\n"
        self._first = True
        self._before: bytes | None = b"" if look_for_lone_dots else None
        self.ended = False
        self.lone_dot = False
        """A dot between line ends of any kind that was not the end, but may be to another program (only looked for
        when asked: `LineEnds` finds these, and more)."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(octets of the message, octets behind its end). Once `ended`, the second is what follows it."""
        raw = self._held + data
        rest = b""
        end = raw.find(END)
        if end >= 0:
            self.ended = True
            rest = raw[end + 5 :]
            raw = raw[: end + 2]
        else:
            # What may be the beginning of an end waits for the next octets.  It begins with CR, so what goes out
            # is never cut between CR and LF, nor between them and a dot.
            held = 0
            for length in (4, 3, 2, 1):
                if raw.endswith(END[:length]):
                    held = length
                    break
            self._held = raw[len(raw) - held :]
            raw = raw[: len(raw) - held] if held else raw
        if not raw:
            return b"", rest
        if self._before is not None:
            around = self._before + raw
            self.lone_dot = self.lone_dot or _dot_between.search(around) is not None
            self._before = around[-2:]
        # A lone dot is the end, which is found already: each dot after CRLF that is left was put there.
        out = raw.replace(b"\r\n.", b"\r\n")
        if self._first:
            self._first = False
            return out[2:], rest
        return out, rest


class LineEnds:
    """Looks for CR and LF that stand alone in a stream of octets, however it is cut."""

    __slots__ = ("_after_cr", "bare")

    def __init__(self) -> None:
        self._after_cr = False
        self.bare = False
        """One was found."""

    def feed(self, data: bytes) -> None:
        """Look at the next octets."""
        if not data or self.bare:
            return
        pairs, returns, feeds = data.count(b"\r\n"), data.count(b"\r"), data.count(b"\n")
        if self._after_cr:
            if not data.startswith(b"\n"):
                self.bare = True
                return
            feeds -= 1
        self._after_cr = data.endswith(b"\r")
        if self._after_cr:
            returns -= 1
        self.bare = not pairs == returns == feeds

    def close(self) -> None:
        """The stream has ended."""
        if self._after_cr:
            self.bare = True
