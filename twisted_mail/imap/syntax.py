"""What every command's syntax is made of: states, the values' base, and an entry of the registry."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from twisted_mail.imap.cursor import Cursor

__all__ = [
    "ANY",
    "LOGGED_IN",
    "NOT_LOGGED_IN",
    "SELECTED",
    "BadCommand",
    "BadSyntax",
    "Command",
    "CommandLine",
    "Modes",
    "State",
    "Streamed",
    "Syntax",
    "Syntaxes",
    "Tagged",
]


class State(enum.Enum):
    """States of a connection (RFC 9051 section 3)."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"


ANY: Final = frozenset((State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED))
NOT_LOGGED_IN: Final = frozenset((State.NOT_AUTHENTICATED,))
LOGGED_IN: Final = frozenset((State.AUTHENTICATED, State.SELECTED))
SELECTED: Final = frozenset((State.SELECTED,))


class BadSyntax(Exception):
    """The command does not follow the grammar. Its text may be sent to the client after ``BAD``."""

    def __init__(self, text: str, tag: bytes | None = None):
        super().__init__(text)
        self.text = text
        self.tag = tag


@dataclass(frozen=True, slots=True)
class Streamed:
    """A literal whose octets went past as `LiteralData` and were not kept."""

    size: int


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command as cut from the stream.

    `text` is without its line end; where a literal stood, its announcement and CRLF remain in it (``{5}CRLF``), and
    `literals` holds their octets in order.
    """

    text: bytes
    literals: tuple[bytes | Streamed, ...] = ()


@dataclass(frozen=True, slots=True)
class Modes:
    """What of a connection's history and limits bears on syntax."""

    utf8: bool = False
    """Mailbox names are UTF-8: IMAP4rev2 or UTF8=ACCEPT is enabled; else modified UTF-7."""
    charset_forbidden: bool = False
    """UTF8=ACCEPT is enabled: SEARCH with CHARSET is BAD (RFC 6855 section 3)."""
    set_elements: int = 1_000_000
    """Elements that one sequence set may have."""
    depth: int = 64
    """Parentheses, NOT and OR inside one another in SEARCH."""
    list_elements: int = 10_000
    """Elements of any one list: flags, header names, patterns, search keys."""


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands: what the client wants, without its tag."""


@dataclass(frozen=True, slots=True)
class BadCommand(Command):
    """What was no command: unknown or malformed. `tag` is None where not even that could be read."""

    tag: bytes | None
    why: str


@dataclass(frozen=True, slots=True)
class Syntax:
    """How the arguments of a command are read, and in which states it may come."""

    parse: Callable[[Cursor], Command]
    states: frozenset[State]


Syntaxes = Mapping[bytes, Syntax]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A command as it was read: `name` in capitals, with ``UID`` in front where it has it; empty for BadCommand."""

    tag: bytes | None
    name: bytes
    command: Command
    states: frozenset[State] = ANY
