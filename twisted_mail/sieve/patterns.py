"""Patterns of ``:matches`` (RFC 5228 section 2.7.1) and ``:regex`` (draft-ietf-sieve-regex), both in linear time.

A glob is cut at its ``*`` into pieces that are looked for one behind the other, each as far to the left as possible:
that is the match in which every wildcard takes as little as possible (RFC 5229 section 3.2), and costs no more than
the pieces' own searches, whatever the pattern.

Regular expressions are POSIX extended ones (leftmost, longest), run by RE2, which never goes back over the text. It knows
no back-references, which extended expressions do not have anyway, and refuses an expression that would become too large.
At worst it does work for each character and each instruction of the expression, so that is what a search is charged for.

A pattern comes with its weight: what a search through 256 characters costs, in steps of `RunLimits.steps`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import re2

from twisted_mail.sieve.values import SieveError

__all__ = ["REGEX_TEXT", "Match", "glob", "glob_weight", "plain_glob", "quote_glob", "quote_regex", "regex"]

Match = Callable[[str], "tuple[str, ...] | None"]
"""The whole match and then what each wildcard (or group) took; None: no match."""

Fold = Callable[[str], str]

_PIECES: Final = re.compile(r"\\(.)|(\*)|(\?)|([^\\*?]+)|\\", re.DOTALL)
_SPECIAL: Final = re.compile(r"[*?\\]")
_REGEX_SPECIAL: Final = re.compile(r"[.*?+|^$(){}\[\]\\]")
REGEX_MEMORY: Final = 1 << 19
"""Octets that RE2 may use for one expression: some 8,000 instructions."""
REGEX_TEXT: Final = 1 << 15
"""Characters of a value that a regular expression looks at."""


def quote_glob(value: str) -> str:
    """``:quotewildcard`` (RFC 5229 section 4.1.2)."""
    return _SPECIAL.sub(r"\\\g<0>", value)


def quote_regex(value: str) -> str:
    """``:quoteregex`` (draft-ietf-sieve-regex section 4)."""
    return _REGEX_SPECIAL.sub(r"\\\g<0>", value)


def _cut(pattern: str) -> list[list[str | None]]:
    """The pieces between stars; in a piece None stands for ``?``, and texts are unquoted."""
    pieces: list[list[str | None]] = [[]]
    for found in _PIECES.finditer(pattern):
        piece = pieces[-1]
        if found[2]:
            pieces.append([])
        elif found[3]:
            piece.append(None)
        else:
            text = found[1] or found[4] or "\\"
            if piece and piece[-1] is not None:
                piece[-1] += text
            else:
                piece.append(text)
    return pieces


def plain_glob(pattern: str, fold: Fold) -> Callable[[str], bool]:
    """A glob whose wildcards nobody asks for; values must be folded already."""
    pieces = _folded(pattern, fold)
    if not any(None in piece for piece in pieces):
        texts = ["".join(part for part in piece if part is not None) for piece in pieces]
        first, last, middle = texts[0], texts[-1], [text for text in texts[1:-1] if text]
        if len(texts) == 1:
            return first.__eq__
        if not middle:
            if not last:
                return lambda value: value.startswith(first)
            if not first:
                return lambda value: value.endswith(last)
            least = len(first) + len(last)
            return lambda value: len(value) >= least and value.startswith(first) and value.endswith(last)
        if len(middle) == 1 and not first and not last:
            part = middle[0]
            return lambda value: part in value
    match = glob(pattern, fold)
    longest = max([part for piece in pieces for part in piece if part is not None], key=len, default="")
    return lambda value: longest in value and match(value) is not None


def glob_weight(pattern: str) -> int:
    """Text is looked for in linear time; with ``?`` in it, a piece is tried at each character that the search passes."""
    if "?" not in pattern or "*" not in pattern:
        return 1
    lengths = [sum(1 if part is None else len(part) for part in piece) for piece in _cut(pattern) if None in piece]
    return 1 + 4 * max(lengths, default=0)


def glob(pattern: str, fold: Fold) -> Match:
    """A glob that says what its wildcards took: of the value as it was before it was folded, where offsets stayed."""
    pieces = _folded(pattern, fold)
    compiled = [_piece(piece) for piece in pieces]
    if len(compiled) == 1:
        only = compiled[0]

        def whole(value: str) -> tuple[str, ...] | None:
            seen = fold(value)
            found = only.fullmatch(seen)
            if found is None:
                return None
            shown = value if len(value) == len(seen) else seen
            return (value, *[shown[start:end] for start, end in found.regs[1:]])

        return whole
    first, *middle, last = compiled
    tail = sum(1 if part is None else len(part) for part in pieces[-1])

    def match(value: str) -> tuple[str, ...] | None:
        seen = fold(value)
        end = len(seen) - tail
        found = first.match(seen)
        if found is None or end < found.end():
            return None
        spans = [*found.regs[1:]]
        at = found.end()
        for piece in middle:
            found = piece.search(seen, at, end)
            if found is None:
                return None
            spans.append((at, found.start()))
            spans += found.regs[1:]
            at = found.end()
        found = last.fullmatch(seen, end)
        if found is None:
            return None
        spans.append((at, end))
        spans += found.regs[1:]
        shown = value if len(value) == len(seen) else seen
        return (value, *[shown[start:stop] for start, stop in spans])

    return match


def _folded(pattern: str, fold: Fold) -> list[list[str | None]]:
    """Cut first: what is folded must not become a wildcard (U+FF0A decomposes to a star)."""
    return [[part if part is None else fold(part) for part in piece] for piece in _cut(pattern)]


@lru_cache(1024)
def _compiled(source: str) -> re.Pattern[str]:
    return re.compile(source, re.DOTALL)


def _piece(piece: list[str | None]) -> re.Pattern[str]:
    """One piece: of fixed length, so that a search for it goes back by less than the piece."""
    return _compiled("".join("(.)" if part is None else re.escape(part) for part in piece))


def regex(pattern: str, caseless: bool) -> tuple[Match, int]:
    """A regular expression, looked for anywhere in the first `REGEX_TEXT` characters of the value; and its weight.

    Raises: SieveError where it is none, or needs too much memory.
    """
    options = re2.Options()
    options.posix_syntax = True
    options.longest_match = True
    options.perl_classes = True  # \w, \s, \d: GNU's have the first two as well
    options.word_boundary = True
    options.one_line = True  # ^ and $ are the ends of the value, as they are for regcomp() without REG_NEWLINE
    options.case_sensitive = not caseless
    options.log_errors = False
    options.max_mem = REGEX_MEMORY
    options.dot_nl = True
    try:
        compiled = re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise SieveError(f"this is no regular expression: {text}")

    def match(value: str) -> tuple[str, ...] | None:
        found = compiled.search(value[:REGEX_TEXT].encode("utf-8", "replace"))
        if found is None:
            return None
        return tuple(
            "" if group is None else group.decode("utf-8", "replace") for group in (found[0], *found.groups())
        )

    return match, 2 * compiled.programsize
