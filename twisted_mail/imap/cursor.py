"""Reading a command's arguments: the terminals of RFC 9051 section 9 over (line, literals)."""

from __future__ import annotations

import datetime
import re
from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from twisted_mail.imap.names import decode_name
from twisted_mail.imap.sequence import SAVED, NumberSet, SequenceSet
from twisted_mail.imap.syntax import BadSyntax, CommandLine, Modes, Streamed

__all__ = ["MONTHS", "ArgumentAnnounced", "Cursor", "InternalDate", "MessageLiteral"]

T = TypeVar("T")

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = {name.upper().encode(): number for number, name in enumerate(MONTHS, 1)}

_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_LIST_CHARS: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_QUOTED: Final = re.compile(rb'"([^"\\\x00\r\n]*(?:\\["\\][^"\\\x00\r\n]*)*)"')
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_LITERAL: Final = re.compile(rb"(~?)\{([0-9]+)\+?\}\r\n")
_NUMBER: Final = re.compile(rb"[0-9]+")
_SET: Final = re.compile(rb"[0-9*:,]+")
_FLAG: Final = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_FLAGS: Final = re.compile(rb'\((\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+(?: \\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+)*)?\)')
_DATE: Final = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME: Final = re.compile(
    rb'"([ 0-3][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-2][0-9]):([0-5][0-9]):([0-6][0-9]) ([+-])([0-9]{2})([0-5][0-9])"'
)


@dataclass(frozen=True, slots=True)
class InternalDate:
    """``date-time``: seconds since 1970-01-01T00:00Z, and the zone it was given in, minutes east of UTC."""

    seconds: int
    zone: int


@dataclass(frozen=True, slots=True)
class MessageLiteral:
    """A message in APPEND or REPLACE: its size in octets, whether it came as literal8 (RFC 3516), and the octets
    themselves unless they were streamed."""

    size: int
    binary: bool = False
    octets: bytes | None = None


class ArgumentAnnounced(BadSyntax):
    """A string was read whose octets are not there: on an open line, the announced literal is an argument."""

    def __init__(self) -> None:
        super().__init__("expected a string, not a message")


class Cursor:
    """A place in a command. Every method reads one thing from there or raises BadSyntax; nothing else is raised."""

    __slots__ = ("at", "literals", "modes", "open", "taken", "text")

    def __init__(self, line: CommandLine, modes: Modes, at: int = 0, *, open: bool = False):
        self.text = line.text
        self.literals = line.literals
        self.modes = modes
        self.at = at
        self.taken = 0
        """How many literals were read."""
        self.open = open
        """The line ends in the announcement of a literal, which `literals` holds as `Streamed`."""

    # --- punctuation --------------------------------------------------------------------------------------------

    def space(self) -> Self:
        """``SP``, exactly one."""
        if self.text[self.at : self.at + 1] != b" ":
            raise BadSyntax("missing argument" if self.at >= len(self.text) else "expected a space")
        self.at += 1
        return self

    def end(self) -> None:
        """Nothing more."""
        if self.at != len(self.text):
            raise BadSyntax("unexpected text at the end")

    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def peek(self) -> bytes:
        """The next octet, empty at the end."""
        return self.text[self.at : self.at + 1]

    def skip(self, octets: bytes) -> bool:
        """Step over *octets* if they come next (case matters)."""
        if self.text.startswith(octets, self.at):
            self.at += len(octets)
            return True
        return False

    def expect(self, octets: bytes) -> Self:
        if not self.skip(octets):
            raise BadSyntax(f"expected {octets.decode('ascii')}")
        return self

    def word(self, name: bytes) -> bool:
        """Step over the keyword *name* (capitals here, any case there) if the next atom is it."""
        match = _ATOM.match(self.text, self.at)
        if match is not None and match.group().upper() == name:
            self.at = match.end()
            return True
        return False

    def list_of(self, read: Callable[[], T], *, empty: bool = False) -> list[T]:
        """``"(" item *(SP item) ")"``; with *empty*, ``()`` too."""
        self.expect(b"(")
        items: list[T] = []
        if empty and self.skip(b")"):
            return items
        while True:
            items.append(read())
            if self.skip(b")"):
                return items
            if len(items) >= self.modes.list_elements:
                raise BadSyntax("the list is too long")
            self.space()

    # --- atoms and strings --------------------------------------------------------------------------------------

    def _take(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise BadSyntax(f"expected {what}")
        self.at = match.end()
        return match.group()

    def atom(self) -> bytes:
        """``atom``, as it stands."""
        return self._take(_ATOM, "an atom")

    def keyword(self) -> bytes:
        """An atom in capitals."""
        return self._take(_ATOM, "a keyword").upper()

    def astring(self) -> bytes:
        """``astring = 1*ASTRING-CHAR / string``."""
        match = _ASTRING.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            return match.group()
        return self.string()

    def string(self) -> bytes:
        """``string = quoted / literal``. Octets above 127 are let through in a quoted string, in every mode."""
        match = _QUOTED.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            body: bytes = match.group(1)
            return _ESCAPED.sub(rb"\1", body) if b"\\" in body else body
        match = _LITERAL.match(self.text, self.at)
        if match is None or match.group(1):
            raise BadSyntax("expected a string")
        octets = self._literal(match)
        if isinstance(octets, Streamed):
            raise ArgumentAnnounced
        if b"\0" in octets:
            raise BadSyntax("NUL in a literal")
        return octets

    def nstring(self) -> bytes | None:
        """``nstring = string / nil``."""
        return None if self.word(b"NIL") else self.string()

    def _literal(self, match: re.Match[bytes]) -> bytes | Streamed:
        if self.taken >= len(self.literals):
            raise BadSyntax("the literal is missing")
        octets = self.literals[self.taken]
        self.taken += 1
        self.at = match.end()
        return octets

    def message(self) -> MessageLiteral:
        """``literal / literal8`` of APPEND (RFC 9051 section 6.3.12, RFC 3516 section 4.4); NULs are not looked for."""
        match = _LITERAL.match(self.text, self.at)
        if match is None:
            raise BadSyntax("expected a literal")
        octets = self._literal(match)
        binary = bool(match.group(1))
        if isinstance(octets, Streamed):
            return MessageLiteral(octets.size, binary)
        return MessageLiteral(len(octets), binary, octets)

    def text_string(self, what: str) -> str:
        """An ``astring`` in UTF-8, for names and the like."""
        try:
            return self.astring().decode("utf-8")
        except UnicodeDecodeError:
            raise BadSyntax(f"{what} is not UTF-8")

    # --- numbers and sets ---------------------------------------------------------------------------------------

    def number(self, bits: int = 32) -> int:
        """``number``: 0 to 2**bits - 1; ``number64`` and mod-sequences have 63 bits (RFC 9051, RFC 7162)."""
        digits = self._take(_NUMBER, "a number")
        if len(digits) > 20:
            raise BadSyntax("number too large")
        value = int(digits)
        if value >> bits:
            raise BadSyntax("number too large")
        return value

    def nz_number(self, bits: int = 32) -> int:
        """``nz-number``: as `number`, not 0 and without leading zeros."""
        if self.peek() == b"0":
            raise BadSyntax("expected a number above 0")
        return self.number(bits)

    def mod_sequence(self) -> int:
        """``mod-sequence-valzer``: 0 to 2**63 - 1 (RFC 7162 section 7)."""
        return self.number(63)

    def sequence_set(self) -> NumberSet:
        """``sequence-set``, or ``$`` (RFC 5182 section 2.1)."""
        if self.skip(b"$"):
            return SAVED
        return self.known_set()

    def known_set(self) -> SequenceSet:
        """``sequence-set`` without ``$``."""
        try:
            return SequenceSet.parse(self._take(_SET, "a sequence set"), self.modes.set_elements)
        except ValueError as error:
            raise BadSyntax(str(error))

    # --- flags --------------------------------------------------------------------------------------------------

    def flag(self) -> str:
        """``flag = "\\Answered" / … / flag-keyword / flag-extension``, as it is spelt."""
        return self._take(_FLAG, "a flag").decode("ascii")

    def flag_list(self) -> tuple[str, ...]:
        """``flag-list = "(" [flag *(SP flag)] ")"``."""
        match = _FLAGS.match(self.text, self.at)
        if match is None:
            raise BadSyntax("expected a list of flags")
        self.at = match.end()
        names = match.group(1)
        return tuple(names.decode("ascii").split(" ")) if names else ()

    # --- dates --------------------------------------------------------------------------------------------------

    def date(self) -> datetime.date:
        """``date = date-text / DQUOTE date-text DQUOTE``."""
        match = _DATE.match(self.text, self.at)
        if match is None:
            raise BadSyntax("expected a date")
        _, day, month, year = match.groups()
        self.at = match.end()
        return self._day(day, month, year)

    def _day(self, day: bytes, month: bytes, year: bytes) -> datetime.date:
        try:
            return datetime.date(int(year), _MONTH[month.upper()], int(day))
        except (KeyError, ValueError):
            raise BadSyntax("no such day")

    def date_time(self) -> InternalDate:
        """``date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE``."""
        match = _DATE_TIME.match(self.text, self.at)
        if match is None:
            raise BadSyntax("expected a date and time")
        day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
        when = self._day(day, month, year)
        hours, seconds = int(hour), int(second)
        zone = int(zone_hours) * 60 + int(zone_minutes)
        if hours > 23 or seconds > 60 or zone >= 24 * 60:
            raise BadSyntax("no such time")
        if sign == b"-":
            zone = -zone
        self.at = match.end()
        return InternalDate(timegm((when.year, when.month, when.day, hours, int(minute), seconds)) - zone * 60, zone)

    # --- mailboxes ----------------------------------------------------------------------------------------------

    def mailbox(self) -> str:
        """``mailbox = "INBOX" / astring``, decoded; INBOX in any case becomes ``INBOX``."""
        return self._name(self.astring())

    def list_mailbox(self) -> str:
        """``list-mailbox = 1*list-char / string``, decoded."""
        match = _LIST_CHARS.match(self.text, self.at)
        if match is None:
            return self._name(self.string())
        self.at = match.end()
        return self._name(match.group())

    def _name(self, octets: bytes) -> str:
        try:
            return decode_name(octets, utf8=self.modes.utf8)
        except ValueError:
            raise BadSyntax(f"the mailbox name is not {'UTF-8' if self.modes.utf8 else 'modified UTF-7'}")
