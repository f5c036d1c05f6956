"""The Authentication-Results field (RFC 8601): made, read, and told apart from forged ones.

What is read was written by strangers, and what is made has strangers' words in it: an address, a selector, a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from twisted_mail.dns.names import BadName, a_labels
from twisted_mail.filters.values import AuthenticationResult

__all__ = ["FIELD", "BadResults", "ParsedResults", "forged", "parse", "render"]

FIELD: Final = "Authentication-Results"

_TOKEN: Final = re.compile(r"[!#-'*+.0-9A-Z^-~-]+")
_KEYWORD: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_PROPERTY: Final = re.compile(r"([A-Za-z0-9-]+)\.([A-Za-z0-9_-]+)")
# Classes of all but some: one that goes up to U+10FFFF takes milliseconds to compile, at each start of a process.
_ATEXT: Final = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
_LDH: Final = r"[^\x00-,./:-@\[-`{-\x7f]"
_ADDRESS: Final = re.compile(rf"(?:{_ATEXT}+(?:\.{_ATEXT}+)*)?@{_LDH}+(?:\.{_LDH}+)*")
_NOT_PRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_IN_COMMENTS: Final = re.compile(r"([()\\])")
_IN_QUOTES: Final = re.compile(r'(["\\])')
_WIDTH: Final = 78
_VALUE: Final = 300
"""Most characters of a value that is written."""
_RESULTS: Final = 100
_LONGEST: Final = 65_536
"""Octets of a field that is read."""
_FOLD: Final = "\r\n\t"


class BadResults(ValueError):
    """A field that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class ParsedResults:
    """What a field says."""

    authserv_id: str
    """Who says it; as it was spelled."""
    results: tuple[AuthenticationResult, ...]
    """Empty for ``none``."""
    version: int = 1


# --- made


def render(authserv_id: str, results: Iterable[AuthenticationResult]) -> str:
    """The field's value, folded with CRLF and a tab, no line above 998 octets; ``none`` if there are no *results*.

    Words of others are cut and quoted; without non-ASCII characters in them the value is ASCII (else UTF-8, RFC 6532). A
    result whose method or value is no keyword is left out.
    """
    lines = [line for each in list(results)[:_RESULTS] if (line := _resinfo(each))]
    return f"{_value(authserv_id)};{_FOLD}" + (f";{_FOLD}".join(lines) if lines else "none")


@lru_cache(maxsize=1024)
def _resinfo(result: AuthenticationResult) -> str:
    """(Remembered: most are the same from one message to the next.)"""
    if not _KEYWORD.fullmatch(result.method) or not _KEYWORD.fullmatch(result.value):
        return ""
    words = [f"{result.method}={result.value}"]
    if result.comment and (comment := _clean(result.comment)):
        words.append("(" + _IN_COMMENTS.sub(r"\\\1", comment) + ")")
    if result.reason and (reason := _clean(result.reason)):
        words.append(f"reason={_quoted(reason)}")
    words += [f"{name}={_value(value)}" for name, value in result.properties if value and _is_property(name)]
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH - 8:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return f"{_FOLD} ".join(lines)


@lru_cache(maxsize=256)
def _is_property(name: str) -> bool:
    return _PROPERTY.fullmatch(name) is not None


def _clean(text: str) -> str:
    if text.isprintable():
        return text.strip()[:_VALUE]
    return _NOT_PRINTABLE.sub(" ", text).strip()[:_VALUE]


def _value(text: str) -> str:
    """A token, an address (section 2.2: ``pvalue``), or quoted."""
    if len(text) <= _VALUE and _TOKEN.fullmatch(text):
        return text
    clean = _clean(text)
    if _ADDRESS.fullmatch(clean):
        return clean
    return _quoted(clean)


def _quoted(text: str) -> str:
    return '"' + _IN_QUOTES.sub(r"\\\1", text) + '"'


# --- read


class _Cursor:
    """A field's value, word by word."""

    _WHITE: Final = re.compile(r"[ \t\r\n]*")
    _QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
    _BARE: Final = re.compile(r'[^ \t\r\n;()"]+')
    _IN_COMMENT: Final = re.compile(r"[()\\]")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> str:
        """``[CFWS]``; the first comment's text."""
        said = ""
        while True:
            match = self._WHITE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if not self.text.startswith("(", self.at):
                return said
            comment = self._comment()
            said = said or comment

    def _comment(self) -> str:
        begin, depth = self.at + 1, 0
        while (mark := self._IN_COMMENT.search(self.text, self.at)) is not None:
            self.at = mark.end()
            if mark[0] == "\\":
                self.at += 1
            elif mark[0] == "(":
                depth += 1
            else:
                depth -= 1
                if not depth:
                    return re.sub(r"\\(.)", r"\1", self.text[begin : self.at - 1])
        raise BadResults("a comment without an end")

    def take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[0]

    def literal(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def value(self) -> str:
        """A token, a quoted string or an address; whatever is written without white space is let through."""
        match = self._QUOTED.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            said = re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)
            if self.text.startswith("@", self.at):
                said += self.take(self._BARE) or ""
            return said
        bare = self.take(self._BARE)
        if bare is None:
            raise BadResults("a value is missing")
        return bare

    @property
    def ended(self) -> bool:
        return self.at >= len(self.text)


def parse(value: str | bytes) -> ParsedResults:
    """Read a field's value, folded or not. Raises: BadResults."""
    cursor = _Cursor(_text(value))
    authserv_id, version = _identifier(cursor)
    results: list[AuthenticationResult] = []
    while not cursor.ended:
        if not cursor.literal(";"):
            raise BadResults("a semicolon is missing")
        cursor.space()
        if cursor.ended:
            break
        if not results and re.match(r"none[ \t\r\n]*(?:\(|$)", cursor.text[cursor.at : cursor.at + 20], re.IGNORECASE):
            cursor.at += 4
            cursor.space()
            continue
        if len(results) >= _RESULTS:
            raise BadResults("too many results")
        results.append(_read_resinfo(cursor))
    return ParsedResults(authserv_id, tuple(results), version)


def _text(value: str | bytes) -> str:
    if len(value) > _LONGEST:
        raise BadResults("a field that is too long")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _identifier(cursor: _Cursor) -> tuple[str, int]:
    cursor.space()
    authserv_id = cursor.value()
    cursor.space()
    version = cursor.take(re.compile(r"[0-9]{1,9}"))
    cursor.space()
    if not cursor.ended and not cursor.text.startswith(";", cursor.at):
        raise BadResults("no identifier")
    return authserv_id, int(version or 1)


def _read_resinfo(cursor: _Cursor) -> AuthenticationResult:
    method = cursor.take(_KEYWORD)
    cursor.space()
    if cursor.literal("/"):
        cursor.space()
        cursor.take(_KEYWORD)
        cursor.space()
    if method is None or not cursor.literal("="):
        raise BadResults("no method")
    cursor.space()
    result = cursor.take(_KEYWORD)
    if result is None:
        raise BadResults("no result")
    comment, reason, properties = cursor.space(), "", list[tuple[str, str]]()
    while not cursor.ended and not cursor.text.startswith(";", cursor.at):
        name = cursor.take(re.compile(r"[A-Za-z0-9-]+"))
        cursor.space()
        if cursor.literal("."):
            cursor.space()
            name = f"{name}.{cursor.take(re.compile(r'[A-Za-z0-9_-]+'))}"
            cursor.space()
        if name is None or not cursor.literal("="):
            raise BadResults("malformed property")
        cursor.space()
        said = cursor.value()
        cursor.space()
        if "." in name:
            properties.append((name.lower(), said))
        elif name.lower() == "reason":
            reason = said
    return AuthenticationResult(method.lower(), result.lower(), reason, tuple(properties), comment)


# --- forged


def forged(fields: Sequence[tuple[bytes, bytes]], *authserv_ids: str) -> list[int]:
    """Which of *fields* (name, value) claim to be ours (section 5): Authentication-Results of one of *authserv_ids*, and such
    as cannot be read, for who knows what others read in them."""
    ours = {_plain(each) for each in authserv_ids}
    found = []
    for index, (name, value) in enumerate(fields):
        if name.strip().lower() != b"authentication-results":
            continue
        try:
            cursor = _Cursor(_text(value))
            said, _ = _identifier(cursor)
        except BadResults:
            found.append(index)
            continue
        if _plain(said) in ours:
            found.append(index)
    return found


def _plain(authserv_id: str) -> str:
    """In one spelling of all that mean the same host."""
    bare = "".join(authserv_id.split())
    try:
        return a_labels(bare)
    except BadName:
        return bare.lower().removesuffix(".")
