"""Paths and mailboxes (RFC 5321 section 4.1.2 and 4.1.3, with the extensions of RFC 6531 section 3.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["BadPath", "Mailbox", "is_address_literal", "is_domain", "match_path", "parse_mailbox", "unquoted"]

# RFC 6531 section 3.3: atext, qtextSMTP and sub-domain take UTF-8 too; C1 controls never. Classes are written as what is
# not in them: one that goes up to U+10FFFF takes milliseconds to compile, at each start of a process.
_ATEXT: Final = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f-\x9f]'
_DOT_STRING: Final = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED: Final = r'"(?:[^\x00-\x1f"\\\x7f-\x9f]|\\[ -~])*"'
_LET_DIG: Final = r"[^\x00-/:-@\[-`{-\x9f]"
_LABEL: Final = rf"{_LET_DIG}(?:[^\x00-,./:-@\[-`{{-\x9f]*{_LET_DIG})?"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL: Final = r"\[[!-Z^-~]+\]"
_MAILBOX: Final = rf"(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})"
_ROUTE: Final = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"

_path = re.compile(rf"<(?:{_ROUTE})?(?P<mailbox>{_MAILBOX})>")
_mailbox = re.compile(_MAILBOX)
_domain = re.compile(_DOMAIN)
_quoted_pair = re.compile(r"\\(.)")

LOCAL_PART_BYTES: Final = 256
"""RFC 5321 section 4.5.3.1.1 asks for 64; bounce addresses in use (VERP, SRS) are longer."""
DOMAIN_BYTES: Final = 255
LABEL_BYTES: Final = 63


class BadPath(ValueError):
    """It is not a path; the text says why, for the peer."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """``Local-part "@" ( Domain / address-literal )``."""

    text: str
    """As it was given, without a source route."""
    local: str
    """Without quoting: ``joe`` for ``"joe"``."""
    domain: str

    def __str__(self) -> str:
        return self.text

    @property
    def plain(self) -> str:
        """``local@domain`` without quoting: what the rules about addresses compare."""
        return f"{self.local}@{self.domain}"


def unquoted(local: str) -> str:
    """A Local-part without its quoting, as both forms name the same mailbox (RFC 5321 section 4.1.2)."""
    if local.startswith('"'):
        return _quoted_pair.sub(r"\1", local[1:-1])
    return local


def is_address_literal(text: str) -> bool:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``; other tags (General-address-literal) mean nothing here."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            IPv6Address(inner[5:])
            return "%" not in inner
        IPv4Address(inner)
    except ValueError:
        return False
    return True


def is_domain(text: str) -> bool:
    """Domain of RFC 5321 with its length limits; U-labels allowed, underscores not."""
    return _domain.fullmatch(text) is not None and _lengths(text)


def _lengths(domain: str) -> bool:
    if domain.isascii() and len(domain) <= LABEL_BYTES:
        return True
    return len(domain.encode()) <= DOMAIN_BYTES and all(
        len(label.encode()) <= LABEL_BYTES or not label.isascii() for label in domain.split(".")
    )


def _checked(match: re.Match[str], text: str) -> Mailbox:
    local, domain = match["local"], match["domain"]
    if domain.startswith("["):
        if not is_address_literal(domain):
            raise BadPath("not an address literal")
    elif not _lengths(domain):
        raise BadPath("domain or label too long")
    if len(local) > 63 and len(local.encode()) > LOCAL_PART_BYTES:
        raise BadPath("local part too long")
    return Mailbox(text, unquoted(local), domain)


def match_path(text: str) -> tuple[Mailbox, str]:
    """A path at the start of *text*, and what follows it. Its source route is dropped (RFC 5321 appendix F.2).

    Raises: BadPath.
    """
    match = _path.match(text)
    if match is None:
        raise BadPath("not a path")
    return _checked(match, match["mailbox"]), text[match.end() :]


def parse_mailbox(text: str) -> Mailbox:
    """All of *text* as a Mailbox. Raises: BadPath."""
    match = _mailbox.fullmatch(text)
    if match is None:
        raise BadPath("not a mailbox")
    return _checked(match, text)
