"""Whether a message is junk for one account: the judgement over it, and what the account says about senders and points.

An account's own settings: ``junk.threshold`` (points; ``off``: never for its points), ``junk.allow`` and ``junk.block``
(addresses and ``@domains``, parted by white space or commas).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from twisted_mail.delivery.judgement import Judgement
from twisted_mail.filters.values import Action
from twisted_mail.mime import first_value, mailboxes_of, parse_addresses
from twisted_mail.values import canonical_address, canonical_domain

__all__ = ["ALLOW", "BLOCK", "JUNK_SETTINGS", "THRESHOLD", "authors_of", "junk_reason", "read_list", "read_threshold"]

THRESHOLD: Final = "junk.threshold"
ALLOW: Final = "junk.allow"
BLOCK: Final = "junk.block"
JUNK_SETTINGS: Final = (THRESHOLD, ALLOW, BLOCK)
MOST_AUTHORS: Final = 50
_PARTS: Final = re.compile(r"[\s,]+")


def read_threshold(text: str) -> float:
    """The points from which on mail is junk; infinite for ``off``. Raises: ValueError."""
    if text.strip().lower() == "off":
        return float("inf")
    points = float(text)
    if points != points:
        raise ValueError("not a number")
    return points


@lru_cache(maxsize=4096)
def read_list(text: str) -> frozenset[str]:
    """The entries of a list, as the directory spells addresses. Raises: ValueError, naming what is no entry."""
    found: set[str] = set()
    for entry in filter(None, _PARTS.split(text)):
        local, at, domain = entry.rpartition("@")
        if not at or not domain:
            raise ValueError(f"{entry!r} is neither an address nor @domain")
        found.add(canonical_address(entry) if local else "@" + canonical_domain(domain))
    return frozenset(found)


def authors_of(header: bytes) -> tuple[str, ...]:
    """The addresses of From."""
    raw = first_value(header, b"from")
    if raw is None:
        return ()
    found: list[str] = []
    for mailbox in mailboxes_of(parse_addresses(raw[:65_536])):
        if mailbox.local and mailbox.host and len(found) < MOST_AUTHORS:
            found.append(_canonical(mailbox.address))
    return tuple(found)


def junk_reason(
    settings: Mapping[str, str], judgement: Judgement | None, sender: str, header: bytes
) -> tuple[bool, str]:
    """Whether it is junk, and why (or why not, where something spoke for it; empty: nothing to say)."""
    allowed, blocked = _entries(settings, ALLOW), _entries(settings, BLOCK)
    if allowed or blocked:
        authors = authors_of(header)
        if allowed and (entry := _listed(allowed, authors)) and _vouched(judgement, authors):
            return False, f"{entry} is on the list of senders whose mail is never junk"
        if blocked and (entry := _listed(blocked, (*authors, _canonical(sender)))):
            return True, f"{entry} is on the list of senders whose mail is junk"
    if judgement is None:
        return False, ""
    if judgement.action >= Action.JUNK and not judgement.by_score:
        return True, "a filter says that it is junk"
    own = settings.get(THRESHOLD)
    if own is not None:
        try:
            points = read_threshold(own)
        except ValueError:
            points = None
        if points is not None:
            if judgement.score >= points:
                return True, f"it has {judgement.score:.1f} points, and for this account {points:g} are junk"
            if judgement.by_score:
                return False, f"it has {judgement.score:.1f} points, and only {points:g} are junk for this account"
            return False, ""
    if judgement.by_score and judgement.action >= Action.JUNK:
        return True, f"it has {judgement.score:.1f} points"
    return False, ""


def _canonical(address: str) -> str:
    try:
        return canonical_address(address)
    except ValueError:
        return ""


def _entries(settings: Mapping[str, str], name: str) -> frozenset[str]:
    text = settings.get(name)
    if not text:
        return frozenset()
    try:
        return read_list(text)
    except ValueError:  # it was checked when it was set; a list that is broken lets nothing through
        return frozenset()


def _listed(entries: frozenset[str], addresses: Iterable[str]) -> str:
    """The entry that names one of *addresses*; empty: none does."""
    for address in addresses:
        if address in entries:
            return address
        domain = "@" + address.rpartition("@")[2]
        if address and domain in entries:
            return domain
    return ""


def _vouched(judgement: Judgement | None, authors: Iterable[str]) -> bool:
    """Whether From may be believed: where nobody looked at it, it is."""
    if judgement is None or judgement.author_domain is None:
        return True
    domain = _canonical("x@" + judgement.author_domain).rpartition("@")[2]
    domains = {author.rpartition("@")[2] for author in authors}
    return bool(domain) and domains == {domain}
