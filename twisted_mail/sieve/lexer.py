"""From the text of a script to its words (RFC 5228 section 8.1): names, tags, numbers, strings, marks.

Comments and white space are gone. Lines may end with CRLF or LF; in strings they end with CRLF, as in mail.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, NamedTuple, NoReturn

from twisted_mail.sieve.values import SieveError

__all__ = ["Source", "Token", "Word", "words_of"]

NUMBER_MOST: Final = (1 << 63) - 1
"""Section 2.4.1 asks for 2**31-1 at least."""


class Word:
    """Kinds of words."""

    NAME: Final = "a name"
    TAG: Final = "a tag"
    NUMBER: Final = "a number"
    STRING: Final = "a string"
    MARK: Final = "a mark"
    END: Final = "the end of the script"


class Token(NamedTuple):
    """One word, and where it begins."""

    kind: str
    value: str
    at: int


class Source:
    """The text of a script, and the way from offsets to lines."""

    def __init__(self, text: str, name: str = ""):
        self.text = text
        self.name = name
        """Of an included script: what `include` called it."""
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def line(self, at: int) -> int:
        """From 1."""
        return bisect_right(self._lines, at)

    def fail(self, text: str, at: int) -> NoReturn:
        """Raises: SieveError with line and column (in characters, from 1)."""
        raise self.error(text, at)

    def error(self, text: str, at: int) -> SieveError:
        """The error, to be raised."""
        line = self.line(at)
        if self.name:
            text = f"in the included script {self.name!r}: {text}"
        return SieveError(text, line, at - self._lines[line - 1] + 1)


_BLANK: Final = r"(?:[ \t\r\n]+|\#[^\n]*|/\*.*?\*/)*+"
"""Possessive: no word is ever found inside of a comment."""
_SPACE: Final = re.compile(_BLANK, re.DOTALL)
_WORD: Final = re.compile(
    _BLANK
    + r"""(?:
    (?P<mark>[\[\](){},;])
    | "(?P<string>[^"\\]*+(?:\\.[^"\\]*+)*+)"
    | (?P<text>(?i:text):[ \t]*(?:\#[^\n]*)?\r?\n)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | :(?P<tag>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9]+)(?P<unit>[KMGkmg]?)(?![A-Za-z0-9_])
    )""",
    re.VERBOSE | re.DOTALL,
)
_LAST_LINE = re.compile(r"^\.\r?(?:\n|\Z)", re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NEW_LINE = re.compile(r"\r?\n")
_DOTS = re.compile(r"^\.(?=\.)", re.MULTILINE)
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}


def words_of(source: Source) -> list[Token]:
    """All words, an `END` last.

    Raises: SieveError for what is no word.
    """
    text = source.text
    if (nul := text.find("\0")) >= 0:
        source.fail("a NUL octet has no place in a script", nul)
    words: list[Token] = []
    add = words.append
    at = 1 if text.startswith("\ufeff") else 0  # editors put a byte order mark there
    word = _WORD.match
    while (found := word(text, at)) is not None:
        at = found.end()
        kind = found.lastgroup
        if kind == "mark":
            add(Token(Word.MARK, found[1], at - 1))
        elif kind == "string":
            value = found[2]
            if "\\" in value:
                value = _ESCAPED.sub(r"\1", value)
            if "\n" in value:
                value = _NEW_LINE.sub("\r\n", value)
            add(Token(Word.STRING, value, found.start(2) - 1))
        elif kind == "name":
            add(Token(Word.NAME, found[4].lower(), found.start(4)))
        elif kind == "tag":
            add(Token(Word.TAG, found[5].lower(), found.start(5) - 1))
        elif kind == "unit":
            begin = found.start(6)
            add(Token(Word.NUMBER, _number(source, found[6], found[7], begin), begin))
        else:
            last = _LAST_LINE.search(text, at)
            if last is None:
                source.fail("this text: has no end (a line of one dot)", found.start(3))
            # Section 2.4.2: of two dots in front one is taken away; ".x" with one only stays as it is.
            value = _DOTS.sub("", text[at : last.start()])
            add(Token(Word.STRING, _NEW_LINE.sub("\r\n", value), found.start(3)))
            at = last.end()
    space = _SPACE.match(text, at)
    at = space.end() if space is not None else at
    if at < len(text):
        _complain(source, at)
    add(Token(Word.END, "", at))
    return words


def _number(source: Source, digits: str, unit: str, at: int) -> str:
    if len(digits) > 19 or (value := int(digits) << _UNITS[unit.lower()]) > NUMBER_MOST:
        source.fail(f"a number may be {NUMBER_MOST} at most", at)
    return str(value)


def _complain(source: Source, at: int) -> NoReturn:
    text = source.text
    if text[at] == '"':
        source.fail("this string has no end", at)
    if text.startswith("/*", at):
        source.fail("this comment has no end", at)
    if text[at].isdigit():
        source.fail("a number is made of digits and at most one of K, M, G", at)
    if text[at] == ":":
        source.fail("a tag is a colon and a name", at)
    source.fail(f"{text[at]!r} has no place here", at)
