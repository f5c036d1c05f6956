"""Addresses that a script names, as those who are to get something (RFC 5228 section 2.4.2.3)."""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.mime import Mailbox, parse_addresses

__all__ = ["is_mailbox_list", "outbound_address"]

_BAD: Final = re.compile(r"[\x00-\x1f\x7f]")
_LOCAL: Final = re.compile(r'[A-Za-z0-9!#$%&\'*+/=?^_`{|}~.\-\u0080-\U0010ffff]+|"(?:[^"\\]|\\.)*"')
_DOMAIN: Final = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff_-]+(?:\.[A-Za-z0-9\u0080-\U0010ffff_-]+)*\.?|\[[^\[\]\\ ]+\]")


def outbound_address(text: str) -> str | None:
    """The ``addr-spec`` of a ``sieve-address`` (an address, or a phrase and an address in angle brackets); None: it is none."""
    if _BAD.search(text) or len(text) > 998:
        return None
    found = parse_addresses(text.encode("utf-8", "replace"))
    if len(found) != 1:
        return None
    mailbox = found[0]
    if not isinstance(mailbox, Mailbox) or mailbox.adl or not mailbox.local or not mailbox.host:
        return None
    address = mailbox.address
    local, _, domain = address.rpartition("@")
    if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain) or len(local) > 256 or len(domain) > 255:
        return None
    # What stands around the address must be a phrase and brackets, or nothing: recovery is for mail that came in.
    if "<" in text:
        return address if text.rstrip().endswith(">") and text.count("<") == 1 else None
    return address if "@" in text and not re.search(r"\s", text.strip()) else None


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
