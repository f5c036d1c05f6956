"""``mailto`` as a way to notify (RFC 5436): the URI taken apart (RFC 6068), and which fields it may set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from twisted_mail.sieve.addressing import outbound_address
from twisted_mail.sieve.editing import is_field_name

__all__ = ["Mailto", "encode_url", "parse_mailto"]

_MOST: Final = 20
"""Recipients of one notification."""
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PERCENT: Final = re.compile("%(?![0-9A-Fa-f]{2})")

_OWN: Final = frozenset(
    "auto-submitted received return-path message-id date from sender mime-version content-type content-transfer-encoding "
    "dkim-signature authentication-results bcc resent-from resent-to resent-cc resent-bcc resent-date resent-sender "
    "resent-message-id".split()
)
"""Fields that a URI may not set (RFC 5436 sections 2.7 and 5): they say where a message comes from, and what it is."""


@dataclass(frozen=True, slots=True)
class Mailto:
    """What a URI says. Nothing in it ends a line."""

    recipients: tuple[str, ...]
    """Of the URI's path and its ``to``."""
    copies: tuple[str, ...] = ()
    """Of ``cc``."""
    subject: str = ""
    body: str = ""
    """Lines end with ``\\n``."""
    fields: tuple[tuple[str, str], ...] = ()
    """The others, in order; without those that it may not set."""


def parse_mailto(uri: str) -> Mailto:
    """Raises: ValueError for what is no such URI, or names no address."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() != "mailto":
        raise ValueError("not a mailto: URI")
    if not uri.isascii() or not uri.isprintable() or set(uri) & set(' <>"\\^`{|}') or _PERCENT.search(uri):
        raise ValueError("not a URI: some characters must be percent-encoded")
    path, _, query = rest.partition("#")[0].partition("?")
    recipients = [_text(piece) for piece in path.split(",")] if path else []
    copies: list[str] = []
    fields: list[tuple[str, str]] = []
    subject = body = ""
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        name, text = _text(name).lower(), _text(value)
        if not equals or not is_field_name(name):
            raise ValueError(f"{pair!r} is no field and value")
        if name == "body":
            body = unquote(value).replace("\r\n", "\n").replace("\r", "\n")
        elif name == "subject":
            subject = text
        elif name in ("to", "cc"):
            (recipients if name == "to" else copies).extend([piece.strip() for piece in text.split(",")])
        elif name not in _OWN:
            fields.append((name, text))
    for address in (*recipients, *copies):
        if outbound_address(address) != address:
            raise ValueError(f"{address!r} is no address")
    if not recipients:
        raise ValueError("no address to send to")
    if len(recipients) + len(copies) > _MOST:
        raise ValueError(f"more than {_MOST} addresses")
    return Mailto(tuple(recipients), tuple(copies), subject, body, tuple(fields))


def _text(encoded: str) -> str:
    """One line of what is percent-encoded."""
    return " ".join(unquote(encoded).split())


def encode_url(value: str) -> str:
    """``:encodeurl`` (RFC 5435 section 6): every octet that is not unreserved (RFC 3986 section 2.3) as ``%XX``."""
    return "".join([chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in value.encode("utf-8", "replace")])
