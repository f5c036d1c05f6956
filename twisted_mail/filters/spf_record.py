"""SPF records (RFC 7208 sections 4.5 to 6 and 12): read whole before anything of them is done.

A record with one error anywhere is in error (section 4.6), so nothing is asked of the DNS for one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from twisted_mail.filters.origins import SPF
from twisted_mail.filters.spf_macros import BadMacro, Macro, MacroString, parse_macros

__all__ = ["BadRecord", "Mechanism", "SPFRecord", "parse_record", "select_record"]

_QUALIFIERS: Final = {"+": SPF.PASS, "-": SPF.FAIL, "~": SPF.SOFTFAIL, "?": SPF.NEUTRAL}
_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_MECHANISM: Final = re.compile(r"([+?~-]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?![A-Za-z0-9_.-])(.*)", re.IGNORECASE)
_PREFIXES: Final = re.compile(r"(.*?)(?:/(0|[1-9][0-9]{0,2}))?(?://(0|[1-9][0-9]{0,2}))?\Z", re.DOTALL)
_PREFIX: Final = re.compile(r"(0|[1-9][0-9]{0,2})\Z")
_TOP_LABEL: Final = re.compile(r"(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_NAMED: Final = frozenset({"include", "exists"})
"""Mechanisms that cannot be without a domain."""
_MOST: Final = 8192
"""Octets of a record; the DNS could carry 64 KiB of one."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadRecord(ValueError):
    """The record is in error; the text says where."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A term that may match (section 5)."""

    name: str
    """Lower case."""
    qualifier: SPF
    """The outcome if it matches."""
    text: str
    """As it was written, for the reason."""
    domain: MacroString | None = None
    network: Network | None = None
    """Of ``ip4`` and ``ip6``."""
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class SPFRecord:
    """All of a record that counts."""

    mechanisms: tuple[Mechanism, ...]
    redirect: MacroString | None = None
    explanation: MacroString | None = None


def select_record(records: Sequence[bytes]) -> bytes | None:
    """The SPF record among the TXT records of a name, None if there is none (section 4.5). Raises: BadRecord (several)."""
    ours = [each for each in records if each[:6].lower() == b"v=spf1" and each[6:7] in (b"", b" ")]
    if len(ours) > 1:
        raise BadRecord("several SPF records")
    return ours[0] if ours else None


@lru_cache(maxsize=2048)
def parse_record(octets: bytes) -> SPFRecord:
    """Raises: BadRecord. Records are remembered: busy domains have them read a thousand times a minute."""
    if len(octets) > _MOST:
        raise BadRecord("a record that is too long")
    try:
        text = octets.decode("ascii")
    except UnicodeDecodeError:
        raise BadRecord("a record that is not ASCII") from None
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, MacroString] = {}
    for term in text[6:].split(" "):
        if not term:
            continue
        try:
            modifier = _MODIFIER.fullmatch(term)
            if modifier is None:
                mechanisms.append(_mechanism(term))
            else:
                _modifier(modifier[1].lower(), modifier[2], modifiers)
        except BadMacro as error:
            raise BadRecord(f"{term[:80]!r}: {error}") from error
    return SPFRecord(tuple(mechanisms), modifiers.get("redirect"), modifiers.get("exp"))


def _modifier(name: str, value: str, known: dict[str, MacroString]) -> None:
    if name not in ("redirect", "exp"):
        parse_macros(value)  # section 6: others are ignored, but have to be well-formed
        return
    if name in known:
        raise BadRecord(f"{name}= comes twice")
    known[name] = _domain_spec(value)


def _mechanism(term: str) -> Mechanism:
    match = _MECHANISM.fullmatch(term)
    if match is None:
        raise BadRecord(f"{term[:80]!r} is no mechanism")
    qualifier, name, rest = _QUALIFIERS[match[1] or "+"], match[2].lower(), match[3]
    if name == "all":
        if rest:
            raise BadRecord("all with something behind it")
        return Mechanism(name, qualifier, term)
    if name in ("ip4", "ip6"):
        return Mechanism(name, qualifier, term, network=_network(name, rest))
    prefix4, prefix6 = 32, 128
    if name in ("a", "mx"):
        rest, prefix4, prefix6 = _prefixes(rest)
    domain = None
    if rest:
        if not rest.startswith(":"):
            raise BadRecord(f"{term[:80]!r} is malformed")
        domain = _domain_spec(rest[1:])
    elif name in _NAMED:
        raise BadRecord(f"{name} without a domain")
    return Mechanism(name, qualifier, term, domain, None, prefix4, prefix6)


def _prefixes(rest: str) -> tuple[str, int, int]:
    """``dual-cidr-length`` taken off the end."""
    match = _PREFIXES.fullmatch(rest)
    assert match is not None  # its first group takes anything
    prefix4, prefix6 = int(match[2] or 32), int(match[3] or 128)
    if prefix4 > 32 or prefix6 > 128:
        raise BadRecord("a prefix that is too long")
    return match[1], 32 if match[2] is None else prefix4, 128 if match[3] is None else prefix6


def _network(name: str, rest: str) -> Network:
    if not rest.startswith(":"):
        raise BadRecord(f"{name} without an address")
    address, slash, prefix = rest[1:].partition("/")
    if (slash and _PREFIX.match(prefix) is None) or "%" in address:
        raise BadRecord(f"{name} with a malformed address")
    try:
        if name == "ip4":
            return ipaddress.IPv4Network((address, int(prefix or 32)), strict=False)
        return ipaddress.IPv6Network((address, int(prefix or 128)), strict=False)
    except ValueError:
        raise BadRecord(f"{name} with a malformed address") from None


def _domain_spec(text: str) -> MacroString:
    """``macro-string domain-end`` (section 7.1): it ends with a top label or a macro."""
    macros = parse_macros(text)
    if not macros.pieces:
        raise BadRecord("an empty domain")
    if isinstance(macros.pieces[-1], Macro) or text.endswith(("%%", "%_", "%-")):
        return macros
    _, dot, label = macros.pieces[-1].removesuffix(".").rpartition(".")
    if not dot or _TOP_LABEL.match(label) is None:
        raise BadRecord(f"{text[:80]!r} is no domain")
    return macros
