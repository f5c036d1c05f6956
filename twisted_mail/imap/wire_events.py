"""What `Wire` cuts from the stream, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.imap.syntax import CommandLine

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
]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one command may hold in memory, in octets."""

    line: int = 64 * 1024
    """A command without its literals; before login, 8 KiB are enough."""
    literal: int = 256 * 1024
    """A literal that is taken whole."""
    command: int = 1024 * 1024
    """A command with the literals that are taken whole."""
    literals: int = 1000
    """Literals in one command, streamed ones too (each is a look at the command so far)."""
    non_synchronising: int | None = None
    """Of a ``{n+}`` literal: 4096 where only LITERAL- is offered (RFC 7888 section 5); None: no rule."""


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A whole command."""

    line: CommandLine


@dataclass(frozen=True, slots=True)
class LiteralAnnounced:
    """A literal is next; `accept_literal` or `refuse_literal` has to be called before the next event.

    `line` is the command so far, its text ending with the announcement and CRLF. `fits` says whether it may be
    taken whole, `allowed` whether the client may send it at all (the LITERAL- rule, and how many there are).
    """

    line: CommandLine
    size: int
    synchronising: bool
    binary: bool
    fits: bool
    allowed: bool


@dataclass(frozen=True, slots=True)
class LiteralData:
    """Octets of a streamed literal, never empty."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class LiteralEnd:
    """A streamed literal is complete."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The octets of a command with a refused literal have all gone past: now it gets its tagged answer.

    `line` is the command up to the announcement of the literal that was refused.
    """

    line: CommandLine


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """A line above the limit has gone past; `start` is its beginning (of a command with literals: the command's),
    long enough to hold any tag that is reasonable."""

    start: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """A plain line, without its line end."""

    octets: bytes


Event = CommandReceived | LiteralAnnounced | LiteralData | LiteralEnd | Refused | LineTooLong
