"""Addresses that a script names, as those who are to get something (RFC 5228 section 2.4.2.3)."""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.mime import Mailbox, parse_addresses

__all__ = ["is_mailbox_list", "outbound_address"]

_BAD: Final = re.compile(r"[\x00-\x1f\x7f]")

# Classes of all but some: one that goes up to U+10FFFF takes milliseconds to compile, at each start of a process.
_ATOM: Final = r'[^\x00-\x20"(),:;<>@\[\\\]\x7f]'
_QUOTED: Final = r'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*+"'
_LABEL: Final = r"[^\x00-,./:-@\[-^`{-\x7f]++"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*+\.?|\[[^\[\]\\\s]++\]"
_ADDRESS: Final = rf"(?P<local>{_ATOM}++|{_QUOTED})@(?P<domain>{_DOMAIN})"
_BARE: Final = re.compile(rf"\s*+{_ADDRESS}\s*+")
_NAMED: Final = re.compile(rf"(?:\s*+(?:{_ATOM}++|{_QUOTED}))*+\s*+<{_ADDRESS}>\s*+")


def outbound_address(text: str) -> str | None:
    """The ``addr-spec`` of a ``sieve-address``: an address, or a phrase and an address in angle brackets; None: it is none.

    Routes, groups and comments have no place in it, nor have local parts of more than 128 characters, domains of more than
    255.
    """
    if len(text) > 2000:
        return None
    found = _BARE.fullmatch(text) or _NAMED.fullmatch(text)
    if found is None or len(found["local"]) > 128 or len(found["domain"]) > 255:
        return None
    return f"{found['local']}@{found['domain']}"


def is_mailbox_list(text: str) -> bool:
    """Whether *text* is a ``mailbox-list`` (RFC 5322 section 3.4), as a From field holds one."""
    if _BAD.search(text) or len(text) > 998:
        return False
    if outbound_address(text) is not None:
        return True
    found = parse_addresses(text.encode("utf-8", "replace"))
    return len(found) > 1 and all(
        isinstance(each, Mailbox) and outbound_address(each.address) is not None for each in found
    )
