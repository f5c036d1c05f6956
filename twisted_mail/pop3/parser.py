"""Commands as values (RFC 1939 section 9, and the extensions')."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["SYNTAX", "BadCommand", "Command", "parse_command"]

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_MECHANISM: Final = re.compile(r"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command with its arguments; those that it has not got are None or empty."""

    verb: str
    """In upper case."""
    message: int | None = None
    """A message number; 0 where the client wrote 0."""
    lines: int = 0
    text: str = ""
    initial: str | None = None
    """AUTH's initial response, in base64 or ``=`` (RFC 5034 section 4)."""


@dataclass(frozen=True, slots=True)
class BadCommand:
    """A line that is no command."""

    why: str
    verb: str = ""
    """The command that it wanted to be, if that is known."""


class _Wrong(Exception):
    """The arguments do not fit."""


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _Wrong("that is not a number")
    return int(text)


def _nothing(verb: str, rest: str) -> Command:
    if rest:
        raise _Wrong("this command has no arguments")
    return Command(verb)


def _perhaps_message(verb: str, rest: str) -> Command:
    return Command(verb, _number(rest) if rest else None)


def _message(verb: str, rest: str) -> Command:
    if not rest:
        raise _Wrong("a message number is missing")
    return Command(verb, _number(rest))


def _top(verb: str, rest: str) -> Command:
    parts = rest.split()
    if len(parts) != 2:
        raise _Wrong("a message number and a number of lines are needed")
    return Command(verb, _number(parts[0]), _number(parts[1]))


def _user(verb: str, rest: str) -> Command:
    if not rest:
        raise _Wrong("a name is missing")
    return Command(verb, text=rest)


def _pass(verb: str, rest: str) -> Command:
    if not rest:
        raise _Wrong("a password is missing")
    return Command(verb, text=rest)


def _auth(verb: str, rest: str) -> Command:
    mechanism, _, initial = rest.partition(" ")
    if mechanism and not _MECHANISM.fullmatch(mechanism):
        raise _Wrong("that is not the name of a mechanism")
    return Command(verb, text=mechanism.upper(), initial=initial.strip(" ") or None)


def _language(verb: str, rest: str) -> Command:
    if len(rest) > 100 or " " in rest:
        raise _Wrong("that is not a language tag")
    return Command(verb, text=rest)


SYNTAX: Final[Mapping[str, Callable[[str, str], Command]]] = {
    "USER": _user,
    "PASS": _pass,
    "STAT": _nothing,
    "LIST": _perhaps_message,
    "RETR": _message,
    "DELE": _message,
    "NOOP": _nothing,
    "RSET": _nothing,
    "QUIT": _nothing,
    "TOP": _top,
    "UIDL": _perhaps_message,
    "CAPA": _nothing,
    "STLS": _nothing,
    "AUTH": _auth,
    "UTF8": _nothing,
    "LANG": _language,
}


def parse_command(line: bytes) -> Command | BadCommand:
    """A line without its line end. Keywords are read without case (RFC 1939 section 3).

    A password (PASS) is everything behind the one space, other spaces included (section 7); elsewhere spaces around
    arguments do no harm. Names and passwords are UTF-8 (RFC 6856 section 2.2).
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return BadCommand("that is not UTF-8")
    if any(character < " " or character == "\x7f" for character in text):
        return BadCommand("control characters are not allowed")
    verb, _, rest = text.partition(" ")
    verb = verb.upper() if verb.isascii() else ""
    parse = SYNTAX.get(verb)
    if parse is None:
        return BadCommand("unknown command")
    try:
        return parse(verb, rest if verb == "PASS" else rest.strip(" "))
    except _Wrong as wrong:
        return BadCommand(str(wrong), verb)
