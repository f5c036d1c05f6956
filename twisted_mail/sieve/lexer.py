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


_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_WORD = re.compile(
    r"""
    (?P<text>(?i:text):[ \t]*(?:\#[^\n]*)?\r?\n)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | :(?P<tag>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9]+)(?P<unit>[KMGkmg]?)(?![A-Za-z0-9_])
    | "(?P<string>[^"\\]*(?:\\.[^"\\]*)*)"
    | (?P<mark>[\[\](){},;])
    """,
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
    at = 1 if text.startswith("\ufeff") else 0  # editors put a byte order mark there
    space, word = _SPACE.match, _WORD.match
    while True:
        found = space(text, at)
        if found is not None:
            at = found.end()
        if at >= len(text):
            words.append(Token(Word.END, "", at))
            return words
        found = word(text, at)
        if found is None:
            _complain(source, at)
        kind = found.lastgroup
        end = found.end()
        if kind == "name":
            words.append(Token(Word.NAME, found["name"].lower(), at))
        elif kind == "tag":
            words.append(Token(Word.TAG, found["tag"].lower(), at))
        elif kind == "string":
            value = found["string"]
            if "\\" in value:
                value = _ESCAPED.sub(r"\1", value)
            if "\n" in value:
                value = _NEW_LINE.sub("\r\n", value)
            words.append(Token(Word.STRING, value, at))
        elif kind == "unit":
            words.append(Token(Word.NUMBER, _number(source, found["number"], found["unit"], at), at))
        elif kind == "mark":
            words.append(Token(Word.MARK, found["mark"], at))
        else:
            last = _LAST_LINE.search(text, end)
            if last is None:
                source.fail("this text: has no end (a line of one dot)", at)
            # Section 2.4.2: of two dots in front one is taken away; ".x" with one only stays as it is.
            value = _DOTS.sub("", text[end : last.start()])
            words.append(Token(Word.STRING, _NEW_LINE.sub("\r\n", value), at))
            end = last.end()
        at = end


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
