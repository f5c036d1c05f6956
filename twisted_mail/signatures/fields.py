"""The header as signatures see it: whole fields as they came, chosen by name from below (RFC 6376 section 5.4.2).

Where a header ends and what is a field is decided as `mime` decides it: were the two to differ, a signature could pass
over fields that nobody is shown. So a line ends with LF, whether or not a CR stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from twisted_mail.signatures.canonical import Canon, relax_field

__all__ = ["Fields", "RawField", "find_body", "split_header"]

_FIELD: Final = re.compile(rb"\n([!-9;-~]++)([ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+)")
_BLANK: Final = re.compile(rb"\n\r?\n")
_FIRST_LINE: Final = re.compile(rb"[!-9;-~]++[ \t]*+:|[ \t]|>?From ")
_LINE: Final = 1000


class RawField(NamedTuple):
    """One field."""

    name: str
    """Lower case."""
    raw: bytes
    """From its name to its last octet; without the line end behind it."""

    @property
    def value(self) -> bytes:
        """After the colon, folded."""
        return self.raw.partition(b":")[2]

    @property
    def text(self) -> str:
        """`value` as UTF-8; what is none is replaced."""
        return self.value.decode("utf-8", "replace")


def find_body(octets: bytes | bytearray, ended: bool, searched: int = 0) -> int | None:
    """Where the body of a message that begins with *octets* begins; None while more octets are needed to say.

    *searched* octets were looked at before, in vain.
    """
    first = octets.find(b"\n", 0, _LINE)
    if first < 0 and len(octets) < _LINE and not ended:
        return None
    line = bytes(octets[: first + 1] if first >= 0 else octets[:_LINE])
    if line in (b"\r\n", b"\n"):
        return first + 1
    if _FIRST_LINE.match(line) is None:
        return 0
    blank = _BLANK.search(octets, max(searched - 2, 0))
    if blank is not None:
        return blank.end()
    return len(octets) if ended else None


def split_header(header: bytes) -> list[RawField]:
    """The fields of a header block, in order."""
    return [
        RawField(name.decode("ascii").lower(), name + (rest[:-1] if rest.endswith(b"\r") else rest))
        for name, rest in _FIELD.findall(b"\n" + header)
    ]


class Fields:
    """The fields of one message, and their canonical forms, made once."""

    def __init__(self, fields: Sequence[RawField]) -> None:
        self.all: tuple[RawField, ...] = tuple(fields)
        self._places: dict[str, list[int]] = {}
        for place, field in enumerate(self.all):
            self._places.setdefault(field.name, []).append(place)
        self._relaxed: dict[int, bytes] = {}

    def named(self, name: str) -> list[RawField]:
        """All fields *name*, from the top."""
        return [self.all[place] for place in self._places.get(name, ())]

    def count(self, name: str) -> int:
        """How many fields *name* there are."""
        return len(self._places.get(name, ()))

    def chosen(self, names: Iterable[str], canon: Canon) -> Iterator[bytes]:
        """What is hashed for ``h=`` *names* (lower case): each name takes the lowest field not taken yet, or nothing."""
        left = {name: len(places) for name, places in self._places.items()}
        for name in names:
            if (still := left.get(name, 0)) > 0:
                left[name] = still - 1
                place = self._places[name][still - 1]
                yield (self._relax(place) if canon is Canon.RELAXED else self.all[place].raw) + b"\r\n"

    def _relax(self, place: int) -> bytes:
        if (relaxed := self._relaxed.get(place)) is None:
            relaxed = self._relaxed[place] = relax_field(self.all[place].raw)
        return relaxed
