"""All commands in one table; reading a command is one look-up (RFC 9051 section 9, ``command``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from twisted_mail.imap.commands import any as any_state
from twisted_mail.imap.commands import append, auth, fetch, listing, mailbox, message, search
from twisted_mail.imap.cursor import ArgumentAnnounced, Cursor
from twisted_mail.imap.extensions import EXTENSIONS
from twisted_mail.imap.syntax import (
    BadCommand,
    BadSyntax,
    Command,
    CommandLine,
    Modes,
    Streamed,
    Syntax,
    Syntaxes,
    Tagged,
)

__all__ = ["COMMANDS", "Argument", "announced", "build", "parse", "tag_of"]

FAMILIES: Final[tuple[Syntaxes, ...]] = (
    any_state.COMMANDS,
    auth.COMMANDS,
    mailbox.COMMANDS,
    listing.COMMANDS,
    message.COMMANDS,
    append.COMMANDS,
    search.COMMANDS,
    fetch.COMMANDS,
    *(extension.COMMANDS for extension in EXTENSIONS),
)

# tag = 1*<any ASTRING-CHAR except "+">; a command's name and arguments follow single spaces.
_TAG: Final = re.compile(rb'([^\x00-\x20\x7f-\xff(){%*"\\+]+)(?= |$)')
_START: Final = re.compile(rb'([^\x00-\x20\x7f-\xff(){%*"\\+]+) ((?:[Uu][Ii][Dd] )?[A-Za-z][A-Za-z0-9.-]*)(?= |$)')


@dataclass(frozen=True, slots=True)
class Argument(Command):
    """The announced literal is an argument of a command that is well-formed so far: take it whole."""


def build(families: Iterable[Syntaxes]) -> dict[bytes, Syntax]:
    """One table of all *families*. Raises ValueError for a name that two of them have, or that is not in capitals."""
    table: dict[bytes, Syntax] = {}
    for family in families:
        for name, syntax in family.items():
            if name in table:
                raise ValueError(f"two commands are named {name!r}")
            if name != name.upper():
                raise ValueError(f"a command's name is in capitals: {name!r}")
            table[name] = syntax
    return table


COMMANDS: Final = build(FAMILIES)
_NO_MODES: Final = Modes()


def tag_of(text: bytes) -> bytes | None:
    """The tag at the start of a command that may be incomplete; None where there is none."""
    match = _TAG.match(text)
    return match.group(1) if match else None


def parse(line: CommandLine, modes: Modes = _NO_MODES) -> Tagged:
    """Read a whole command. What cannot be read is a `BadCommand`; nothing is raised."""
    return _parse(line, modes, open=False)


def announced(line: CommandLine, size: int, modes: Modes = _NO_MODES) -> Tagged:
    """What a literal of *size* octets is, that *line* ends by announcing.

    The command is `Argument`; or Append or Replace, read as far as it has come, whose last message this is; or
    BadCommand, so that the literal need not be taken at all.
    """
    return _parse(CommandLine(line.text, (*line.literals, Streamed(size))), modes, open=True)


def _parse(line: CommandLine, modes: Modes, *, open: bool) -> Tagged:
    text = line.text
    start = _START.match(text)
    if start is None:
        tag = tag_of(text)
        if tag is None:
            why = "missing tag" if text else "empty line"
        else:
            why = "missing command" if len(text) <= len(tag) + 1 else "bad command"
        return Tagged(tag, b"", BadCommand(tag, why))
    tag = start.group(1)
    name = start.group(2).upper()
    syntax = COMMANDS.get(name)
    if syntax is None:
        return Tagged(tag, b"", BadCommand(tag, "unknown command"))
    try:
        command = syntax.parse(Cursor(line, modes, start.end(), open=open))
    except ArgumentAnnounced as error:
        command = Argument() if open else BadCommand(tag, error.text)
    except BadSyntax as error:
        command = BadCommand(tag, error.text)
    return Tagged(tag, name, command, syntax.states)
