"""Macros in SPF records (RFC 7208 section 7): read once, expanded for each message."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

__all__ = ["BadMacro", "Macro", "MacroString", "Values", "parse_macros"]

_EXPAND: Final = re.compile(r"\{([A-Za-z])([0-9]*)([rR]?)([.\-+,/_=]*)\}")
_SHORT: Final = {"%": "%", "_": " ", "-": "%20"}
_LETTERS: Final = frozenset("slodiphv")
_EXPLAIN_LETTERS: Final = frozenset("crt")
_MOST: Final = 4096
"""Characters that one expansion may have: no answer of the DNS makes more of it than that."""


class BadMacro(ValueError):
    """A macro that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class Macro:
    """``%{d2r-}`` and so on."""

    letter: str
    """Lower case."""
    escaped: bool
    """The letter is upper case: the outcome is escaped as in a URL."""
    parts: int
    """How many of the parts on the right are kept; 0: all."""
    reversed: bool
    delimiters: str

    def shape(self, value: str) -> str:
        """Section 7.3: cut, turned round, shortened, joined by dots."""
        pieces = re.split(f"[{re.escape(self.delimiters)}]", value)
        if self.reversed:
            pieces.reverse()
        if self.parts:
            pieces = pieces[-self.parts :]
        shaped = ".".join(pieces)
        return quote(shaped, safe="-._~") if self.escaped else shaped


@dataclass(frozen=True, slots=True)
class MacroString:
    """Literal text and macros, in order."""

    pieces: tuple[str | Macro, ...]
    text: str
    """As it was written."""

    @property
    def letters(self) -> frozenset[str]:
        """Which macros it has."""
        return frozenset(piece.letter for piece in self.pieces if isinstance(piece, Macro))

    def expand(self, values: Values) -> str:
        """With *values* put in."""
        parts = [piece if isinstance(piece, str) else piece.shape(values.value(piece.letter)) for piece in self.pieces]
        return "".join(parts)[:_MOST]


@dataclass(slots=True)
class Values:
    """What the letters stand for (section 7.2)."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    sender: str
    """With a local part always."""
    domain: str
    helo: str
    receiver: str
    moment: int
    validated: str = "unknown"
    """``p``: to be found out before it is asked for."""

    def value(self, letter: str) -> str:
        """Of one *letter*, lower case."""
        match letter:
            case "s":
                return self.sender
            case "l":
                return self.sender.rpartition("@")[0]
            case "o":
                return self.sender.rpartition("@")[2]
            case "d":
                return self.domain
            case "i":
                if self.address.version == 4:
                    return str(self.address)
                return ".".join(self.address.exploded.replace(":", ""))
            case "p":
                return self.validated
            case "v":
                return "in-addr" if self.address.version == 4 else "ip6"
            case "h":
                return self.helo
            case "c":
                return str(self.address)
            case "r":
                return self.receiver
            case _:
                return str(self.moment)


def parse_macros(text: str, *, explanation: bool = False) -> MacroString:
    """Read a ``macro-string``; of an *explanation*, ``explain-string``, which may have spaces and three more letters.

    Raises: BadMacro.
    """
    pieces: list[str | Macro] = []
    at = 0
    while at < len(text):
        percent = text.find("%", at)
        literal = text[at : percent if percent >= 0 else len(text)]
        if not all("!" <= letter <= "~" or (explanation and letter == " ") for letter in literal):
            raise BadMacro("a character that may not be there")
        if literal:
            pieces.append(literal)
        if percent < 0:
            break
        short = _SHORT.get(text[percent + 1 : percent + 2])
        if short is not None:
            pieces.append(short)
            at = percent + 2
            continue
        match = _EXPAND.match(text, percent + 1)
        if match is None:
            raise BadMacro(f"malformed macro in {text[:60]!r}")
        pieces.append(_macro(match, explanation))
        at = match.end()
    return MacroString(tuple(pieces), text)


def _macro(match: re.Match[str], explanation: bool) -> Macro:
    letter, digits, turned, delimiters = match.groups()
    small = letter.lower()
    if small not in _LETTERS and not (explanation and small in _EXPLAIN_LETTERS):
        raise BadMacro(f"no macro has the letter {letter}")
    if digits and (int(digits[:9]) == 0):
        raise BadMacro("a macro that keeps no part")
    return Macro(small, letter != small, int(digits[:9] or 0), bool(turned), delimiters or ".")
