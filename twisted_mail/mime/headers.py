"""Header fields: raw with their offsets, unfolded, filtered (RFC 5322 section 2.2), and decoded (RFC 2047, RFC 6532).

A header here is the octets of a header block, with or without its closing blank line. Lines end with LF or CRLF; a bare
CR is an octet like others. What is not a field (an mbox "From " line, garbage without a colon) is passed over when
fields are asked for and belongs to no field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from twisted_mail.mime.words import decode_header

__all__ = [
    "COMMON_FIELDS",
    "Field",
    "all_values",
    "common_header",
    "decode_header",
    "filter_fields",
    "first_value",
    "iterate_fields",
    "split_fields",
    "unfold",
]

COMMON_FIELDS: Final = frozenset(
    b"""
    bcc cc content-description content-disposition content-language content-transfer-encoding content-type date
    delivered-to envelope-to followup-to from importance in-reply-to list-archive list-help list-id list-owner list-post
    list-subscribe list-unsubscribe list-unsubscribe-post lines mail-followup-to mail-reply-to message-id mime-version
    newsgroups organization precedence priority references reply-to resent-date resent-from resent-message-id
    resent-to return-path sender status subject to user-agent x-bogosity x-envelope-from x-envelope-to x-forwarded-message-id
    x-face x-gm-message-state x-keywords x-label x-mailer x-mozilla-keys x-mozilla-status x-mozilla-status2
    x-msmail-priority x-original-to x-priority x-spam-flag x-spam-level x-spam-score x-spam-status x-status x-tuid
    x-universally-unique-identifier x-uniform-type-identifier x-apple-mail-remote-attachments auto-submitted
    disposition-notification-to keywords comments x-identity-key x-account-key x-beenthere x-loop thread-index
    thread-topic x-draft-info x-confirm-reading-to x-k9mail-identity x-offlineimap original-to
    """.split()
)
"""Lower-case names of the fields that Thunderbird, Apple Mail, Outlook, mutt and mbsync ask for over whole mailboxes.
Received, DKIM-Signature and ARC are left out: they are most of a header's octets, and nobody lists by them."""

# Expressions begin with the line end before a field: a fixed octet is looked for many times faster than "^". So they
# read blocks that have one put in front.
_FIELD: Final = re.compile(rb"\n([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)")
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")
_WHOLE: Final = re.compile(rb"\n(([!-9;-~]++)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+)")
_MOST_NAMES: Final = 150


class Field(NamedTuple):
    """One field as it stands in the header block."""

    name: bytes
    """Lower case."""
    value: bytes
    """Raw: after the colon, folded, without the last line end."""
    start: int
    """Of the name, octets from the block's beginning."""
    value_start: int
    end: int
    """Exclusive, with the last line end."""


def iterate_fields(header: bytes) -> Iterator[Field]:
    """The fields in order."""
    length = len(header)
    for match in _FIELD.finditer(b"\n" + header):
        value = match[2]
        yield Field(
            match[1].lower(),
            value[:-1] if value.endswith(b"\r") else value,
            match.start(),
            match.start(2) - 1,
            min(match.end(), length),
        )


def split_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """(name as written, raw value that may end with CR) of every field, in order: the quick form."""
    return _FIELD.findall(b"\n" + header)


def unfold(value: bytes) -> bytes:
    """The value as one line, without white space around it (RFC 5322 section 2.2.3)."""
    if b"\n" in value:
        value = _FOLD.sub(b"", value).replace(b"\n", b"")
    return value.strip(b" \t\r\n")


def first_value(header: bytes, name: bytes) -> bytes | None:
    """The unfolded value of the first field *name* (lower case), or None."""
    for field in iterate_fields(header):
        if field.name == name:
            return unfold(field.value)
    return None


def all_values(header: bytes, name: bytes) -> list[bytes]:
    """The unfolded values of every field *name* (lower case)."""
    return [unfold(field.value) for field in iterate_fields(header) if field.name == name]


@lru_cache(maxsize=256)
def _pattern(names: frozenset[bytes], invert: bool) -> re.Pattern[bytes]:
    """Every wanted field without its last LF. Field names are US-ASCII without distinction of case."""
    chosen = b"|".join(re.escape(name) for name in sorted(names)) or b"(?!)"
    if invert:
        chosen = b"(?!(?:" + chosen + rb")[ \t]*+:)[!-9;-~]++"
    return re.compile(b"\n((?:" + chosen + rb")[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE)


@lru_cache(maxsize=256)
def _compiled(names: tuple[bytes, ...] | frozenset[bytes], invert: bool) -> re.Pattern[bytes]:
    return _pattern(frozenset(name.lower() for name in names), invert)


def filter_fields(header: bytes, names: tuple[bytes, ...] | frozenset[bytes], invert: bool = False) -> bytes:
    """The fields whose name is one of *names* (with *invert*: is none of them), raw, in order, then the blank line.

    This is HEADER.FIELDS and HEADER.FIELDS.NOT (RFC 9051 section 6.4.5.1): the blank line is always there, and a last
    field that lacks its line end gets one. Measured: 2 µs from what `common_header` keeps, 4 µs from a header of 2 kB.
    """
    if len(names) > _MOST_NAMES:
        # Nobody honest: no expression is made and kept of it.
        wanted = frozenset(name.lower() for name in names)
        kept = [field for field, name in _WHOLE.findall(b"\n" + header) if (name.lower() in wanted) != invert]
    else:
        kept = _compiled(names, invert).findall(b"\n" + header)
    if not kept:
        return b"\r\n"
    if not header.endswith(b"\n") and header.endswith(kept[-1]):
        kept[-1] = kept[-1].removesuffix(b"\r") + b"\r"
    kept.append(b"\r\n")
    return b"\n".join(kept)


def common_header(header: bytes, names: Iterable[bytes] = COMMON_FIELDS) -> bytes:
    """What is kept of a header for reads in bulk: the fields of `COMMON_FIELDS`, raw and in order, and the blank line."""
    return filter_fields(header, names if isinstance(names, frozenset) else frozenset(names))
