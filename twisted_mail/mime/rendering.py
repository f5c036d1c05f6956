"""ENVELOPE and BODYSTRUCTURE as octets (RFC 9051 section 7.5.2, RFC 3501 section 7.4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from twisted_mail.mime.addresses import Address, Group, Mailbox, parse_addresses

__all__ = [
    "EMPTY_ENVELOPE",
    "EMPTY_TEXT",
    "language_list",
    "nstring",
    "parameter_list",
    "render_envelope",
    "string",
]

_QUOTED: Final = re.compile(rb"[^\x00\r\n\x80-\xff]{0,1000}")
EMPTY_ENVELOPE: Final = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
EMPTY_TEXT: Final = b'("text" "plain" NIL NIL NIL "7bit" 0 0)'
"""The structure of a message of which nothing is known."""


def string(value: bytes) -> bytes:
    """A quoted string where 7-bit text without line ends allows one, else a literal; NUL, which neither can hold, is
    left out."""
    if _QUOTED.fullmatch(value):
        if b'"' in value or b"\\" in value:
            value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'"' + value + b'"'
    if b"\x00" in value:
        return string(value.replace(b"\x00", b""))
    return b"{%d}\r\n%b" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """`string`, or NIL."""
    return b"NIL" if value is None else string(value)


def parameter_list(params: Iterable[tuple[bytes, bytes]]) -> bytes:
    """``body-fld-param``."""
    items = [string(name) + b" " + string(value) for name, value in params]
    return b"(" + b" ".join(items) + b")" if items else b"NIL"


def language_list(tags: Iterable[bytes]) -> bytes:
    """``body-fld-lang``: NIL, one string, or a list."""
    items = [string(tag) for tag in tags]
    if not items:
        return b"NIL"
    return items[0] if len(items) == 1 else b"(" + b" ".join(items) + b")"


def render_envelope(first: Mapping[bytes, bytes]) -> bytes:
    """``envelope``: date, subject, from, sender, reply-to, to, cc, bcc, in-reply-to, message-id.

    *first* maps field names (lower case) to unfolded values. Sender and Reply-To default to From, here and not in the
    client. A group begins with its name and ends with NIL, both without a host.
    """
    get = first.get
    sender = _addresses(get(b"from"))
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(get(b"date")),
        nstring(get(b"subject")),
        sender,
        _or(_addresses(get(b"sender")), sender),
        _or(_addresses(get(b"reply-to")), sender),
        _addresses(get(b"to")),
        _addresses(get(b"cc")),
        _addresses(get(b"bcc")),
        nstring(get(b"in-reply-to")),
        nstring(get(b"message-id")),
    )


def _or(value: bytes, other: bytes) -> bytes:
    return other if value == b"NIL" else value


def _addresses(raw: bytes | None) -> bytes:
    if not raw:
        return b"NIL"
    items: list[bytes] = []
    for address in parse_addresses(raw):
        items.extend(_one(address))
    return b"(" + b"".join(items) + b")" if items else b"NIL"


def _one(address: Address) -> list[bytes]:
    if isinstance(address, Group):
        members = [_mailbox(member) for member in address.members]
        return [b"(NIL NIL %b NIL)" % string(address.name), *members, b"(NIL NIL NIL NIL)"]
    return [_mailbox(address)]


def _mailbox(mailbox: Mailbox) -> bytes:
    # A missing host is the empty string: NIL there would begin a group.
    return b"(%b %b %b %b)" % (nstring(mailbox.name), nstring(mailbox.adl), string(mailbox.local), string(mailbox.host))
