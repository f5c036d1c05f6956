"""The header of a message, or of a part of it, as a script sees it: every field looked at only when it is asked for, and
once. Nothing here raises, whatever the octets: what is no header has no fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from twisted_mail.mime import Mailbox, decode_header, mailboxes_of, parse_addresses, unfold
from twisted_mail.mime.headers import split_fields
from twisted_mail.sieve.comparators import fold

__all__ = ["HEADER_BYTES", "Address", "Header"]

HEADER_BYTES: Final = 1 << 20
"""Of a header, that are looked at."""
_MOST_NAMES: Final = 40


class Address(NamedTuple):
    """An address of a structured field (RFC 5228 section 2.7.4)."""

    full: str
    """``local@domain``; what could not be read as an address, as it stands: only ``:all`` may match it."""
    local: str
    """Without quoting; empty where `valid` is false."""
    domain: str
    valid: bool
    """There are a local part and a domain."""


_PLAIN: Final = re.compile(
    r"(?:\A|,)\s*+(?:[^\"\\<>@,;:()\[\]]*+(<))?+(([^\"\\<>@,;:()\[\]\s]++)@([^\"\\<>@,;:()\[\]\s]++))(?(1)>)\s*+(?=,|\Z)"
)
"""``local@domain`` or ``Name <local@domain>``, nothing quoted: nearly all addresses. The address, and its two parts."""


_UNQUOTED: Final = re.compile(r"[^\"\\<>@,;:()\[\]\s]+")


def _plain_addresses(text: str) -> list[tuple[str, str, str, str]] | None:
    """What `_PLAIN` finds, where the field has nothing else."""
    found = _PLAIN.findall(text)
    return found if len(found) == text.count(",") + 1 else None


def _addresses(value: bytes) -> tuple[Address, ...]:
    """Those of one field, unfolded."""
    if value.isascii() and (plain := _plain_addresses(value.decode("ascii"))) is not None:
        return tuple([Address(full, local, domain, True) for _, full, local, domain in plain])
    return tuple([_address(mailbox) for mailbox in mailboxes_of(parse_addresses(value))])


def _address(mailbox: Mailbox) -> Address:
    local = mailbox.local.decode("utf-8", "replace")
    domain = mailbox.host.decode("utf-8", "replace")
    if local and domain:
        # Dots where they must not be need no quotes to be understood, and senders know of none.
        full = f"{local}@{domain}" if _UNQUOTED.fullmatch(local) else mailbox.address
        return Address(full, local, domain, True)
    return Address(f"{local}@{domain}" if domain else local, "", "", False)


def _text(value: bytes) -> str:
    """What a field's raw value says."""
    value = unfold(value)
    if value.isascii() and b"=?" not in value and (text := value.decode("ascii")).isprintable():
        return text
    return decode_header(value)


@lru_cache(maxsize=1024)
def _pattern(names: frozenset[str]) -> re.Pattern[str] | None:
    """Finds the fields of these names; None where that is no quicker than to read all."""
    if not names or len(names) > _MOST_NAMES:
        return None
    chosen = "|".join([re.escape(name) for name in sorted(names)])
    return re.compile("\n(" + chosen + r")[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE | re.ASCII)


_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")


class Header:
    """The fields of one header block. Names are asked for in lower case; values stand in the order of the block."""

    __slots__ = ("_addresses", "_expected", "_fields", "_found_first", "_raw", "_values", "folds", "octets", "texts")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        """The block as it stands, perhaps with its blank line."""
        self._fields: dict[bytes, list[bytes]] | None = None
        self._expected: frozenset[str] = frozenset()
        self._found_first: dict[str, list[str]] = {}
        """Raw values of the names that were expected, octets as characters of the same number."""
        self._raw: dict[str, tuple[bytes, ...]] = {}
        self._values: dict[str, tuple[str, ...]] = {}
        self.folds: dict[str, tuple[str, ...]] = {}
        """What `folded` knows already."""
        self.texts: dict[str, str] = {}
        """What `folded_text` knows already."""
        self._addresses: dict[str, tuple[tuple[Address, ...], ...]] = {}

    def expect(self, names: frozenset[str]) -> None:
        """Says which names will be asked for, if any. Others may be, too: then all of the header is read."""
        if self._expected or self._fields is not None or (pattern := _pattern(names)) is None:
            return
        self._expected = names
        fields = self._found_first
        # As characters: whether an octet is in octets takes five times as long to find out.
        for name, value in pattern.findall("\n" + self.octets.decode("latin-1")):
            name = name.lower()
            if name in fields:
                fields[name].append(value)
            else:
                fields[name] = [value]
        # What needs no decoding is made here, in one go; a call for each name would cost twice as much.
        values, folds, lines = self._values, self.folds, self.texts
        for name, found in fields.items():
            texts = []
            for value in found:
                if "\n" in value:
                    value = _FOLD.sub("", value)
                value = value.strip(" \t\r\n")
                if "=?" in value or not value.isascii() or not value.isprintable():
                    break
                texts.append(value)
            else:
                values[name] = tuple(texts)
                if len(texts) == 1:
                    lines[name] = text = texts[0].lower()
                    folds[name] = (text,)
                else:
                    folds[name] = tuple([text.lower() for text in texts])
        for name in names:
            if name not in fields:
                folds[name] = values[name] = ()
                lines[name] = ""

    def _found(self, name: str) -> Sequence[bytes]:
        if name in self._expected:
            return [value.encode("latin-1") for value in self._found_first.get(name, ())]
        fields = self._fields
        if fields is None:
            fields = self._fields = _gathered(split_fields(self.octets))
        # Names that are not ASCII are no names of fields; any encoding says so.
        return fields.get(name.encode("utf-8", "replace"), ())

    def exists(self, name: str) -> bool:
        """Whether there is such a field, an empty one too."""
        return bool(self._found(name))

    def raw(self, name: str) -> tuple[bytes, ...]:
        """The values, unfolded, without white space around them, encoded words as they are."""
        raw = self._raw.get(name)
        if raw is None:
            raw = self._raw[name] = tuple([unfold(value) for value in self._found(name)])
        return raw

    def values(self, name: str) -> tuple[str, ...]:
        """The values, unfolded, without white space around them, encoded words decoded (RFC 5228 section 2.7.2)."""
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = tuple([_text(value) for value in self._found(name)])
        return values

    def folded(self, name: str) -> tuple[str, ...]:
        """`values` as ``i;ascii-casemap`` compares them."""
        folded = self.folds.get(name)
        if folded is None:
            folded = self.folds[name] = tuple([fold(value) for value in self.values(name)])
        return folded

    def folded_text(self, name: str) -> str:
        """`folded`, a line each, in which a part of a line is looked for; empty where there is no such field."""
        text = self.texts.get(name)
        if text is None:
            text = self.texts[name] = "\n".join(self.folded(name))
        return text

    def addresses(self, name: str) -> tuple[tuple[Address, ...], ...]:
        """The addresses of every field *name*, in order, those of groups too; names of groups are left out."""
        addresses = self._addresses.get(name)
        if addresses is None:
            addresses = self._addresses[name] = tuple([_addresses(unfold(value)) for value in self._found(name)])
        return addresses

    def folded_parts(self, name: str) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        """Of all addresses of all fields *name* what may be compared, as ``i;ascii-casemap`` does: the whole, local parts,
        domains. What is no valid address has a whole alone."""
        first = self._found_first.get(name)
        if first is not None and len(first) == 1 and first[0].isascii():
            plain = _plain_addresses(_FOLD.sub("", first[0]).strip(" \t\r\n").lower())
            if plain:
                _, fulls, locals, domains = zip(*plain)
                return fulls, locals, domains
        addresses = [address for field in self.addresses(name) for address in field]
        valid = [address for address in addresses if address.valid]
        return (
            [fold(address.full) for address in addresses],
            [fold(address.local) for address in valid],
            [fold(address.domain) for address in valid],
        )

    def names(self) -> list[str]:
        """The names that occur, in lower case, each once, in the order of the block."""
        self._found("")  # which nobody expects
        return [name.decode("ascii") for name in self._fields or ()]


def _gathered(fields: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Raw values by name in lower case."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        name = name.lower()
        if name in found:
            found[name].append(value)
        else:
            found[name] = [value]
    return found
