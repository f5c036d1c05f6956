"""XCLIENT: a trusted server in front says who its client is, and the session begins anew for that one.

Postfix's XCLIENT_README. NAME, PROTO, HELO and the destination are understood and not used: names are looked up by
ourselves, and a client greets again after XCLIENT.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Final

from twisted_mail.services import Authentication, Peer, Vouching
from twisted_mail.smtp.commands import Xclient

__all__ = ["ATTRIBUTES", "named", "offered", "read_attributes"]

ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
_UNKNOWN: Final = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})


def offered(authentication: Authentication | None) -> str:
    """The line of EHLO; LOGIN only where people log in, and somebody can be found without a password."""
    login = isinstance(authentication, Vouching)
    return " ".join(["XCLIENT", *(each for each in ATTRIBUTES if login or each != "LOGIN")])


def read_attributes(pairs: list[tuple[str, str]]) -> Xclient:
    """The command, from names in upper case and decoded values. Raises: ValueError, with what is wrong."""
    if not pairs:
        raise ValueError("attributes are needed")
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in ATTRIBUTES:
            raise ValueError(f"{name} is not an attribute")
        if name in given:
            raise ValueError(f"{name} is given twice")
        if not value or len(value) > 255 or not value.isprintable():
            raise ValueError(f"{name} has no such value")
        given[name] = "" if value.upper() in _UNKNOWN else value
    for name in ("PORT", "DESTPORT"):
        number = given.get(name, "")
        if number and (re.fullmatch(r"[0-9]{1,5}", number) is None or int(number) > 65_535):
            raise ValueError(f"{name} is not a port")
    for name in ("ADDR", "DESTADDR"):
        if given.get(name):
            given[name] = _address(given[name], name)
    if given.get("PROTO") and given["PROTO"].upper() not in ("SMTP", "ESMTP"):
        raise ValueError("PROTO is SMTP or ESMTP")
    return Xclient(given.get("ADDR", ""), int(given.get("PORT") or 0), given.get("LOGIN", ""))


def _address(text: str, name: str) -> str:
    try:
        # an IPv6 address has a tag in front, so that nobody takes it for something else
        address = ipaddress.ip_address(text[5:] if text.upper().startswith("IPV6:") else text)
    except ValueError:
        raise ValueError(f"{name} is not an address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{name} is not an address")
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
    return str(address)


def named(peer: Peer, command: Xclient) -> Peer:
    """Who the peer is now. Where the address is not known it stays that of the server in front: a client without one would
    be taken for one on this machine. What TLS proves is proved of the server in front, not of its client."""
    if not command.address:
        return replace(peer, channel_bindings={})
    return replace(peer, address=command.address, port=command.port, channel_bindings={})
