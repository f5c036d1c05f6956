"""Cutting the client's octets into commands (RFC 9051 sections 2.2 and 4.3, RFC 7888, RFC 3516).

`Wire` is pulled: `receive` only keeps octets, `next_event` takes one event's worth of them. What a client has
pipelined behind a command therefore stays octets until the caller asks again, so that STARTTLS can throw it away,
COMPRESS can inflate it, and AUTHENTICATE and IDLE can read lines that are not commands.

A session asks in a loop, and stops when it has a command to carry out::

    match wire.next_event():
        case CommandReceived(line):                        # registry.parse(line, modes)
            ...
        case LiteralAnnounced(line, size):                 # registry.announced(line, size, modes) says what it is
            send(wire.accept_literal(stream=is_message))   # or wire.refuse_literal()
        case LiteralData(octets): ...                      # of a streamed literal, then LiteralEnd()
        case Refused(line): ...                            # now the tagged NO or BAD
        case LineTooLong(start): ...                       # BAD, with registry.tag_of(start)
        case None: ...                                     # wait for octets

A line ends at LF. CR before it is part of the line end; a bare LF is taken as one too (it is what people type into
``openssl s_client``, and nothing in IMAP relays lines). Any other CR, and NUL, stays in the line, where the grammar
has no place for it.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from twisted_mail.imap.syntax import CommandLine, Streamed
from twisted_mail.imap.wire_events import (
    CommandReceived,
    Event,
    Limits,
    Line,
    LineTooLong,
    LiteralAnnounced,
    LiteralData,
    LiteralEnd,
    Refused,
)

__all__ = [
    "CommandReceived",
    "Event",
    "Limits",
    "Line",
    "LineTooLong",
    "LiteralAnnounced",
    "LiteralData",
    "LiteralEnd",
    "Refused",
    "Wire",
]

CONTINUATION: Final = b"+ Ready for the literal\r\n"
ENDLESS: Final = 10**20
"""Octets of a literal whose announcement has more than 20 digits: the connection's rest."""

# {n}, {n+}, ~{n}, ~{n+}, at the end of a line.
_ANNOUNCEMENT: Final = re.compile(rb"(~?)\{([0-9]+)(\+?)\}\Z")
START_OCTETS: Final = 1024
"""Kept of a line that is too long, to see its tag."""
_TAIL_OCTETS: Final = 64
"""Kept of a line that is swallowed, to see whether it announces a literal."""


class _Doing(enum.Enum):
    LINE = enum.auto()
    DECISION = enum.auto()
    WHOLE_LITERAL = enum.auto()
    STREAM = enum.auto()
    SWALLOW_LITERAL = enum.auto()
    SWALLOW_LINE = enum.auto()
    SWALLOW_PLAIN = enum.auto()
    SWALLOWED = enum.auto()


class Wire:
    """The cutter of one connection. It holds at most one command and what was received but not asked for."""

    __slots__ = (
        "_after",
        "_at",
        "_buffer",
        "_doing",
        "_left",
        "_literals",
        "_pending",
        "_scanned",
        "_size",
        "_tail",
        "_text",
        "limits",
    )

    def __init__(self, limits: Limits | None = None):
        self.limits = limits or Limits()
        """May be replaced between commands."""
        self._buffer = bytearray()
        self._at = 0
        self._scanned = 0  # no LF lies between _at and here
        self._doing = _Doing.LINE
        self._text = b""  # of the command so far, with announcements
        self._literals: list[bytes | Streamed] = []
        self._size = 0  # octets of _literals
        self._left = 0  # octets of the literal still to come
        self._pending: LiteralAnnounced | None = None
        self._tail = b""  # the end of a line that is swallowed
        self._after: Refused | LineTooLong | None = None  # what to say when all of it is swallowed

    # --- octets -------------------------------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Octets received and not yet asked for: above some bound, stop reading from the peer."""
        return len(self._buffer) - self._at

    @property
    def between_commands(self) -> bool:
        """Whether nothing of a command has been taken: the connection may be switched or ended cleanly here."""
        return self._doing is _Doing.LINE and not self._text

    def receive(self, data: bytes) -> None:
        """Keep *data* until it is asked for."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Take out all octets that were not asked for (what follows COMPRESS is compressed: RFC 4978 section 3)."""
        rest = bytes(memoryview(self._buffer)[self._at :])
        self.discard_buffered()
        return rest

    def discard_buffered(self) -> int:
        """Throw away all octets that were not asked for, and say how many: after STARTTLS nothing that came in
        the clear may count (RFC 9051 section 6.2.1, RFC 8314)."""
        count = self.buffered
        self._buffer = bytearray()
        self._at = self._scanned = 0
        return count

    def _take(self, count: int) -> bytes:
        start, end = self._at, self._at + count
        if start == 0 and end == len(self._buffer):
            taken = bytes(self._buffer)
            self._buffer.clear()
            self._at = 0
        else:
            with memoryview(self._buffer) as view:
                taken = bytes(view[start:end])
            self._skip(count)
        self._scanned = self._at
        return taken

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0
        elif self._at > 65_536 and self._at * 2 > len(self._buffer):
            del self._buffer[: self._at]
            self._at = 0
        self._scanned = self._at

    def _cut_line(self, most: int) -> bytes | None:
        """The next line, without its end. None if its end has not come, or if it is longer than *most*: then
        more than that is buffered."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        # The line end may be one or two octets; neither counts.
        if end - self._at > most and end - self._at - self._buffer.endswith(b"\r", self._at, end) > most:
            self._scanned = end
            return None
        line = self._take(end + 1 - self._at)
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    # --- events -------------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next event, or None: more octets are needed.

        Raises RuntimeError while a LiteralAnnounced is undecided.
        """
        while True:
            doing = self._doing
            if doing is _Doing.LINE:
                return self._next_line()
            if doing is _Doing.STREAM:
                return self._stream()
            if doing is _Doing.WHOLE_LITERAL:
                if self.buffered < self._left:
                    return None
                self._literals.append(self._take(self._left))
                self._size += self._left
                self._doing = _Doing.LINE
                continue
            if doing is _Doing.DECISION:
                raise RuntimeError("the announced literal is neither accepted nor refused")
            if doing is _Doing.SWALLOW_PLAIN:
                return self._swallow_plain()
            if not self._swallow():
                return None
            after, self._after = self._after, None
            self._clear()
            return after

    def next_line(self) -> Line | LineTooLong | None:
        """The next line as it stands, for AUTHENTICATE's responses and IDLE's DONE; None: more octets are needed.

        Raises RuntimeError inside a command.
        """
        if self._doing is _Doing.SWALLOW_PLAIN:
            return self._swallow_plain()
        if not self.between_commands:
            raise RuntimeError("a plain line cannot begin inside a command")
        line = self._cut_line(self.limits.line)
        if line is not None:
            return Line(line)
        if self.buffered <= self.limits.line + 1:
            return None
        self._after = LineTooLong(self._start())
        self._doing = _Doing.SWALLOW_PLAIN
        return self._swallow_plain()

    def _swallow_plain(self) -> LineTooLong | None:
        """The rest of a line that is no command, and so announces nothing."""
        end = self._buffer.find(b"\n", self._at)
        self._skip((end + 1 - self._at) if end >= 0 else self.buffered)
        if end < 0:
            return None
        after, self._after = self._after, None
        self._doing = _Doing.LINE
        assert isinstance(after, LineTooLong)
        return after

    def _start(self) -> bytes:
        """The beginning of the line that is too long."""
        return bytes(self._buffer[self._at : self._at + min(START_OCTETS, self.limits.line)])

    def _next_line(self) -> Event | None:
        room = self.limits.line - len(self._text)
        line = self._cut_line(room)
        if line is None:
            # CR of the line end may be the one octet above the limit.
            if self.buffered <= room + 1:
                return None
            self._after = LineTooLong(self._text[:START_OCTETS] or self._start())
            self._clear()
            self._doing = _Doing.SWALLOW_LINE
            return self.next_event()
        if line[-1:] == b"}":
            match = _ANNOUNCEMENT.search(line, max(0, line.rfind(b"{") - 1))
            if match is not None:
                return self._announce(line, match)
        if not self._text:
            return CommandReceived(CommandLine(line))
        command = CommandLine(self._text + line, tuple(self._literals))
        self._clear()
        return CommandReceived(command)

    def _announce(self, line: bytes, match: re.Match[bytes]) -> LiteralAnnounced:
        self._text += line + b"\r\n"
        size = _size_of(match)
        synchronising = not match.group(3)
        limits = self.limits
        self._pending = LiteralAnnounced(
            CommandLine(self._text, tuple(self._literals)),
            size,
            synchronising,
            bool(match.group(1)),
            size <= limits.literal and len(self._text) + self._size + size <= limits.command,
            len(self._literals) < limits.literals
            and (synchronising or limits.non_synchronising is None or size <= limits.non_synchronising),
        )
        self._doing = _Doing.DECISION
        return self._pending

    def _stream(self) -> LiteralData | LiteralEnd | None:
        if self._left == 0:
            self._doing = _Doing.LINE
            return LiteralEnd()
        count = min(self._left, self.buffered)
        if not count:
            return None
        self._left -= count
        return LiteralData(self._take(count))

    # --- decisions ----------------------------------------------------------------------------------------------

    def accept_literal(self, *, stream: bool = False) -> bytes:
        """Take the announced literal, whole or as LiteralData and LiteralEnd. Returns what to send: the
        continuation of a synchronising literal, else nothing.

        Raises RuntimeError if none is announced, ValueError if it does not fit or is not allowed.
        """
        pending = self._decide()
        if not pending.allowed or not (stream or pending.fits):
            self._pending, self._doing = pending, _Doing.DECISION
            raise ValueError("the literal is too large")
        self._left = pending.size
        if stream:
            self._literals.append(Streamed(pending.size))
            self._doing = _Doing.STREAM
        else:
            self._doing = _Doing.WHOLE_LITERAL
        return CONTINUATION if pending.synchronising else b""

    def refuse_literal(self) -> None:
        """Give up the command. `Refused` comes when its octets have gone past: at once after a synchronising
        literal, which the client now must not send; else after the literal and the rest of the command."""
        pending = self._decide()
        self._after = Refused(pending.line)
        self._clear()
        if pending.synchronising:
            self._doing = _Doing.SWALLOWED
        else:
            self._swallow_literal(pending.size)

    def abort_literal(self) -> None:
        """Give up a command in the middle of a streamed literal (the store refused it): the rest of the literal and
        of the command goes past unread, and then `Refused` comes.

        Raises RuntimeError if no literal is being streamed.
        """
        if self._doing is not _Doing.STREAM:
            raise RuntimeError("no literal is being streamed")
        self._after = Refused(CommandLine(self._text, tuple(self._literals[:-1])))
        left = self._left
        self._clear()
        self._swallow_literal(left)

    def _decide(self) -> LiteralAnnounced:
        pending = self._pending
        if pending is None:
            raise RuntimeError("no literal is announced")
        self._pending = None
        return pending

    def _clear(self) -> None:
        self._text = b""
        self._literals = []
        self._size = self._left = 0
        self._tail = b""
        self._doing = _Doing.LINE

    # --- swallowing ---------------------------------------------------------------------------------------------

    def _swallow_literal(self, size: int) -> None:
        self._left = size
        self._doing = _Doing.SWALLOW_LITERAL

    def _swallow(self) -> bool:
        """Let octets of a refused command go past. False: more are needed."""
        while self._doing is not _Doing.SWALLOWED:
            if self._doing is _Doing.SWALLOW_LITERAL:
                count = min(self._left, self.buffered)
                self._skip(count)
                self._left -= count
                if self._left:
                    return False
                self._doing = _Doing.SWALLOW_LINE
                self._tail = b""
            end = self._buffer.find(b"\n", self._at)
            stop = end if end >= 0 else len(self._buffer)
            self._tail = (self._tail + self._buffer[max(self._at, stop - _TAIL_OCTETS) : stop])[-_TAIL_OCTETS:]
            if end < 0:
                self._skip(self.buffered)
                return False
            self._skip(end + 1 - self._at)
            match = _ANNOUNCEMENT.search(self._tail.removesuffix(b"\r"))
            # A synchronising literal is not sent: the client waits for a continuation, and gets the tagged answer.
            if match is not None and match.group(3):
                self._swallow_literal(_size_of(match))
            else:
                self._doing = _Doing.SWALLOWED
        return True


def _size_of(match: re.Match[bytes]) -> int:
    digits = match.group(2).lstrip(b"0")
    return int(digits or b"0") if len(digits) <= 20 else ENDLESS
