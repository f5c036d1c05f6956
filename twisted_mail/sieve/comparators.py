"""Comparators (RFC 4790): how strings are folded before they are compared, and in which order they come.

``i;octet`` and ``i;ascii-casemap`` (RFC 4790 section 9), ``i;ascii-numeric`` (section 9.1), ``i;unicode-casemap``
(RFC 5051). Strings are Unicode here; the order of code points is that of UTF-8's octets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["COMPARATORS", "Comparator", "fold"]

_UPPER: Final = {code: code - 32 for code in range(97, 123)}


def fold(value: str) -> str:
    """As ``i;ascii-casemap`` sees it: A to Z as a to z, and nothing else changed (so offsets stay)."""
    if value.isascii():
        return value.lower()
    # Octets know no letters but those; translate() would take ten times as long.
    return value.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _upper(value: str) -> str:
    """Order is that of capitals (RFC 4790 section 9.2.1): ``_`` comes behind ``Z``."""
    return value.upper() if value.isascii() else value.translate(_UPPER)


def _same(value: str) -> str:
    return value


_DIGITS: Final = re.compile(r"[0-9]+")


def _number(value: str) -> tuple[int, str]:
    """Digits in front as a number of any length; without any, more than every number."""
    found = _DIGITS.match(value)
    if found is None:
        return (1 << 62, "")
    digits = found[0].lstrip("0")
    return (len(digits), digits)  # longer is more; of one length the order of digits is that of numbers


class _Titles(dict[int, str]):
    """For `str.translate`: the title case of a character that is one character too (RFC 5051 section 2 step (b))."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        title = character.title()
        found = self[code] = title if len(title) == 1 else character
        return found


_TITLES: Final = _Titles()


def _unicode(value: str) -> str:
    """RFC 5051 section 2: title case of each character, and its full decomposition."""
    if value.isascii():
        return value.upper()
    return unicodedata.normalize("NFKD", value.translate(_TITLES))


@dataclass(frozen=True, slots=True)
class Comparator:
    """One comparator."""

    name: str
    folded: Callable[[str], str] | None
    """Equal strings become the same, parts of strings parts of it; None: it compares numbers only."""
    order: Callable[[str], Any]
    """A key to sort by; equal where strings are equal."""
    caseless: bool = False
    cost: int = 1
    """What folding a text costs, compared with looking for something in it."""


COMPARATORS: Final = {
    comparator.name: comparator
    for comparator in (
        Comparator("i;octet", _same, _same),
        Comparator("i;ascii-casemap", fold, _upper, True),
        Comparator("i;ascii-numeric", None, _number),
        Comparator("i;unicode-casemap", _unicode, _unicode, True, 4),
    )
}
