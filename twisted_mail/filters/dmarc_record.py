"""DMARC policy records (RFC 9989 sections 4.7 and 4.8), and what RFC 7489 had besides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from twisted_mail.filters.origins import Disposition

__all__ = ["BadPolicy", "DMARCRecord", "ReportAddress", "parse_policy", "report_addresses", "select_policy"]

_VERSION: Final = re.compile(rb"[ \t]*v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_URI: Final = re.compile(r"mailto:([^!]+?)(?:!([0-9]{1,15})([kmgt]?))?\Z", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_OCTETS: Final = 4096
_MOST_TAGS: Final = 64
_ADDRESSES: Final = 5


class BadPolicy(ValueError):
    """What stands there cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """Where reports are to go."""

    address: str
    most_octets: int | None = None
    """``!10m`` (RFC 7489 section 6.2; RFC 9990 keeps it for reports): larger ones are not wanted."""


@dataclass(frozen=True, slots=True)
class DMARCRecord:
    """What a domain owner wants."""

    policy: Disposition = Disposition.NONE
    subdomains: Disposition | None = None
    """``sp=``."""
    missing: Disposition | None = None
    """``np=``: of subdomains that do not exist."""
    strict_dkim: bool = False
    strict_spf: bool = False
    suffix: str = "u"
    """``psd=``: ``y``, ``n`` or ``u``."""
    testing: bool = False
    """``t=y``, or ``pct=0`` of RFC 7489, which meant the same. Other percentages are passed over, as RFC 9989 has it."""
    reports: tuple[ReportAddress, ...] = ()
    """``rua=``."""
    options: str = "0"
    """``fo=``."""


def select_policy(records: Sequence[bytes]) -> DMARCRecord | None:
    """The policy among the TXT records of ``_dmarc.DOMAIN``; None: there is none (RFC 9989 section 4.10).

    Raises: BadPolicy (several, one tag twice, a policy that is none): it counts as no record.
    """
    ours = [each for each in records if _VERSION.match(each)]
    if len(ours) > 1:
        raise BadPolicy("several DMARC records")
    return parse_policy(ours[0]) if ours else None


@lru_cache(maxsize=2048)
def parse_policy(octets: bytes) -> DMARCRecord:
    """Read one record that begins with its version. Tags that are not known, and values that are not, are passed over.

    Raises: BadPolicy.
    """
    tags = _tags(octets)
    reports = report_addresses(tags.get("rua", ""))
    wanted = {name: _disposition(tags.get(name)) for name in ("p", "sp", "np")}
    for name, value in wanted.items():
        if value is None and name in tags:
            if not reports:
                raise BadPolicy(f"{name}={tags[name][:40]!r} is no policy")
            # Section 4.10.1: who wants reports gets them, as if p=none had been there.
            wanted = {}
            break
    return DMARCRecord(
        policy=wanted.get("p") or Disposition.NONE,
        subdomains=wanted.get("sp"),
        missing=wanted.get("np"),
        strict_dkim=tags.get("adkim", "").lower() == "s",
        strict_spf=tags.get("aspf", "").lower() == "s",
        suffix=tags["psd"].lower() if tags.get("psd", "").lower() in ("y", "n") else "u",
        testing=tags.get("t", "").lower() == "y" or tags.get("pct") == "0",
        reports=reports,
        options=tags.get("fo", "0") if re.fullmatch(r"[01ds](?::[01ds])*", tags.get("fo", "0")) else "0",
    )


def _tags(octets: bytes) -> dict[str, str]:
    if len(octets) > _MOST_OCTETS:
        raise BadPolicy("a record that is too long")
    tags: dict[str, str] = {}
    for part in octets.decode("latin-1").split(";")[:_MOST_TAGS]:
        name, equals, value = part.partition("=")
        name = name.strip(" \t").lower()
        if not equals or _NAME.match(name) is None:
            continue  # section 4.7: syntax errors are passed over
        if name in tags:
            raise BadPolicy(f"{name}= comes twice")  # RFC 6376 section 3.2, which these records follow
        tags[name] = value.strip(" \t")
    return tags


def _disposition(value: str | None) -> Disposition | None:
    try:
        return Disposition((value or "").lower())
    except ValueError:
        return None


def report_addresses(value: str) -> tuple[ReportAddress, ...]:
    """The ``mailto:`` URIs of ``rua=``, at most five; others are not served."""
    found: list[ReportAddress] = []
    for uri in value.split(","):
        match = _URI.match(uri.strip())
        if match is None:
            continue
        address = unquote(match[1].partition("?")[0])
        if _ADDRESS.fullmatch(address) is None:
            continue
        most = int(match[2]) * _UNITS[(match[3] or "").lower()] if match[2] is not None else None
        found.append(ReportAddress(address, most))
    return tuple(dict.fromkeys(found))[:_ADDRESSES]
