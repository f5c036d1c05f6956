"""Flags as scripts give them (RFC 5232 section 2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["flags_of"]

_SYSTEM: Final = {"\\answered", "\\flagged", "\\deleted", "\\seen", "\\draft"}
_KEYWORD: Final = re.compile(r"[!#$&'+-\[^-z|}~]+")


def flags_of(values: Iterable[str]) -> tuple[str, ...]:
    """The flags in strings that hold several each, with white space between; each once, whatever its case.

    What is no flag that a client could set is left out (section 2.1: the Sieve interpreter may ignore it).
    """
    flags: dict[str, str] = {}
    for value in values:
        for flag in value.split():
            key = flag.lower()
            if key in _SYSTEM or _KEYWORD.fullmatch(flag):
                flags.setdefault(key, flag)
    return tuple(flags.values())
