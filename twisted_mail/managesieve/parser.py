"""Commands as values (RFC 5804 section 4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twisted_mail.managesieve.wire import LineFault, Raw

__all__ = ["SCRIPT_COMMANDS", "SYNTAX", "BadCommand", "Command", "parse_command", "parse_string"]

SCRIPT_COMMANDS: Final = frozenset({b"PUTSCRIPT", b"CHECKSCRIPT"})
"""Whose literals may be as long as a script."""
_TOKEN: Final = re.compile(rb'"((?:[^"\\\r\n\0]|\\["\\])*)"|([!#-\'*-Z\[\]-z|~}]+)')
"""A quoted string, or an atom (a number is one)."""
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_MECHANISM: Final = re.compile(r"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command with its arguments; those that it has not got are None or empty."""

    verb: str
    """In upper case."""
    name: str = ""
    """Of a script as the client gave it, or of a SASL mechanism; of RENAMESCRIPT the old one."""
    new_name: str = ""
    text: str | None = None
    """The script; NOOP's tag; AUTHENTICATE's initial response in base64."""
    size: int = 0


@dataclass(frozen=True, slots=True)
class BadCommand:
    """What came is no command."""

    why: str
    verb: str = ""
    """The command that it wanted to be, if that is known."""
    fault: LineFault | None = None


class _Wrong(Exception):
    """The arguments do not fit."""


@dataclass(frozen=True, slots=True)
class _Atom:
    text: str


_Argument = str | _Atom
"""A string, quoted or literal; or an atom."""


def _decoded(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _Wrong("that is not UTF-8") from None


def _arguments(raw: Raw) -> list[_Argument]:
    """Of the whole command, its verb first. Arguments are apart by one space (more do no harm)."""
    found: list[_Argument] = []
    for number, text in enumerate(raw.texts):
        at = 0
        if number:
            found.append(_decoded(raw.literals[number - 1]))
            if text and not text.startswith(b" "):
                raise _Wrong("a space is missing behind the literal")
        while at < len(text):
            if text[at] == 0x20:
                at += 1
                continue
            token = _TOKEN.match(text, at)
            if token is None:
                raise _Wrong("that is neither a string nor a number")
            at = token.end()
            if at < len(text) and text[at] != 0x20:
                raise _Wrong("a space is missing between arguments")
            if token[2] is not None:
                found.append(_Atom(token[2].decode("ascii")))
            else:
                found.append(re.sub(r"\\(.)", r"\1", _decoded(token[1])))
    return found


def _string(argument: _Argument, what: str) -> str:
    if isinstance(argument, _Atom):
        raise _Wrong(f"{what} is a string: in quotes, or a literal")
    return argument


def _count(arguments: list[_Argument], least: int, most: int | None = None) -> None:
    if len(arguments) < least:
        raise _Wrong("an argument is missing" if least == 1 else "arguments are missing")
    if len(arguments) > (least if most is None else most):
        raise _Wrong("there are too many arguments")


def _nothing(verb: str, arguments: list[_Argument]) -> Command:
    if arguments:
        raise _Wrong("this command has no arguments")
    return Command(verb)


def _name(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 1)
    return Command(verb, _string(arguments[0], "the name of a script"))


def _authenticate(verb: str, arguments: list[_Argument]) -> Command:
    """``command-authenticate = "AUTHENTICATE" SP auth-type [SP string]``; a mechanism without quotes does no harm."""
    _count(arguments, 1, 2)
    mechanism = arguments[0].text if isinstance(arguments[0], _Atom) else arguments[0]
    if not _MECHANISM.fullmatch(mechanism):
        raise _Wrong("that is not the name of a mechanism")
    initial = _string(arguments[1], "the initial response") if len(arguments) > 1 else None
    return Command(verb, mechanism.upper(), text=initial)


def _have_space(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 2)
    size = arguments[1]
    if not isinstance(size, _Atom) or not _NUMBER.fullmatch(size.text) or int(size.text) >= 1 << 32:
        raise _Wrong("that is not a number")
    return Command(verb, _string(arguments[0], "the name of a script"), size=int(size.text))


def _put_script(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 2)
    return Command(verb, _string(arguments[0], "the name of a script"), text=_string(arguments[1], "a script"))


def _check_script(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 1)
    return Command(verb, text=_string(arguments[0], "a script"))


def _rename_script(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 2)
    old, new = (_string(argument, "the name of a script") for argument in arguments)
    return Command(verb, old, new)


def _noop(verb: str, arguments: list[_Argument]) -> Command:
    _count(arguments, 0, 1)
    return Command(verb, text=_string(arguments[0], "a tag") if arguments else None)


SYNTAX: Final[Mapping[str, Callable[[str, list[_Argument]], Command]]] = {
    "AUTHENTICATE": _authenticate,
    "STARTTLS": _nothing,
    "LOGOUT": _nothing,
    "CAPABILITY": _nothing,
    "HAVESPACE": _have_space,
    "PUTSCRIPT": _put_script,
    "LISTSCRIPTS": _nothing,
    "SETACTIVE": _name,
    "GETSCRIPT": _name,
    "DELETESCRIPT": _name,
    "RENAMESCRIPT": _rename_script,
    "CHECKSCRIPT": _check_script,
    "NOOP": _noop,
    "UNAUTHENTICATE": _nothing,
}


def parse_command(raw: Raw) -> Command | BadCommand:
    """What came whole. Keywords are read without case."""
    first = raw.texts[0][:16].lstrip(b" ").partition(b" ")[0].upper()
    verb = first.decode("ascii", "replace") if first.decode("ascii", "replace") in SYNTAX else ""
    if raw.fault is not None:
        return BadCommand(raw.fault.value, verb, raw.fault)
    if not verb:
        return BadCommand("unknown command")
    try:
        return SYNTAX[verb](verb, _arguments(raw)[1:])
    except _Wrong as wrong:
        return BadCommand(str(wrong), verb)


def parse_string(raw: Raw) -> str | BadCommand:
    """What the client answers in a SASL exchange: one string (section 2.1)."""
    if raw.fault is not None:
        return BadCommand(raw.fault.value, fault=raw.fault)
    try:
        arguments = _arguments(raw)
        _count(arguments, 1)
        return _string(arguments[0], "an answer")
    except _Wrong as wrong:
        return BadCommand(str(wrong))
