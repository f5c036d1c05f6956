"""Printing the terminals of RFC 9051 section 9; `cursor` reads them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

from twisted_mail.imap.cursor import MONTHS, InternalDate
from twisted_mail.imap.names import encode_name

__all__ = ["QUOTED_OCTETS", "astring", "date_time", "flag_list", "literal", "mailbox", "nstring", "quoted", "string"]

QUOTED_OCTETS: Final = 1024
"""A longer string goes as a literal: clients have limits on lines too."""

_LATEST: Final = 253_402_300_799  # the last second of the year 9999
_EARLIEST: Final = -62_135_596_800  # the first of the year 1
_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_QUOTABLE: Final = re.compile(rb"[^\x00\r\n\x80-\xff]*")
_QUOTABLE_UTF8: Final = re.compile(rb"[^\x00\r\n]*")
_SPECIAL: Final = re.compile(rb'(["\\])')
_MONTHS: Final = [name.encode("ascii") for name in MONTHS]


def quoted(octets: bytes) -> bytes:
    """``quoted``. Raises ValueError for octets that no quoted string may hold: NUL, CR, LF."""
    if not _QUOTABLE_UTF8.fullmatch(octets):
        raise ValueError("cannot be quoted")
    return b'"' + _SPECIAL.sub(rb"\\\1", octets) + b'"'


def literal(octets: bytes, *, binary: bool = False) -> bytes:
    """``literal``, or ``literal8`` with *binary*."""
    return b"%s{%d}\r\n%s" % (b"~" if binary else b"", len(octets), octets)


def string(octets: bytes, *, utf8: bool = False) -> bytes:
    """``string``: quoted where it may be, a literal otherwise. Octets above 127 are quoted only with *utf8*, where
    they have to be UTF-8. NUL cannot be sent; it goes as 0x80, as a literal has no other octet for it."""
    if len(octets) <= QUOTED_OCTETS:
        if _QUOTABLE.fullmatch(octets):
            return (
                b'"' + _SPECIAL.sub(rb"\\\1", octets) + b'"' if b'"' in octets or b"\\" in octets else b'"%s"' % octets
            )
        if utf8 and _QUOTABLE_UTF8.fullmatch(octets) and _is_utf8(octets):
            return quoted(octets)
    return literal(octets.replace(b"\0", b"\x80"))


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def nstring(octets: bytes | None, *, utf8: bool = False) -> bytes:
    """``nstring``: None is ``NIL``."""
    return b"NIL" if octets is None else string(octets, utf8=utf8)


def astring(octets: bytes, *, utf8: bool = False) -> bytes:
    """``astring``: an atom where it may be. ``NIL`` is quoted, so that nobody takes it for the other NIL."""
    if _ASTRING.fullmatch(octets) and octets.upper() != b"NIL":
        return octets
    return string(octets, utf8=utf8)


def mailbox(name: str, *, utf8: bool) -> bytes:
    """``mailbox``: modified UTF-7, or UTF-8 once IMAP4rev2 or UTF8=ACCEPT is enabled."""
    return astring(encode_name(name, utf8=utf8), utf8=utf8)


def flag_list(flags: Iterable[str]) -> bytes:
    """``flag-list``."""
    return b"(" + " ".join(flags).encode("ascii") + b")"


def date_time(date: InternalDate) -> bytes:
    """``date-time``, quotes included, in the zone it was given in; a year outside 1 to 9999 becomes the nearest."""
    when = time.gmtime(min(max(date.seconds + date.zone * 60, _EARLIEST), _LATEST))
    hours, minutes = divmod(abs(date.zone), 60)
    return b'"%2d-%s-%04d %02d:%02d:%02d %s%02d%02d"' % (
        when.tm_mday,
        _MONTHS[when.tm_mon - 1],
        when.tm_year,
        when.tm_hour,
        when.tm_min,
        when.tm_sec,
        b"-" if date.zone < 0 else b"+",
        hours,
        minutes,
    )
