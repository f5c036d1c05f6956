"""Date fields: RFC 5322 section 3.3 with the obsolete forms of section 4.3, and what senders make of them.

Tolerated: no day name or a wrong one, names of months in full, two and three digit years, no seconds, dots between hours
and minutes, zone names with or without comments, a zone without sign, ISO 8601, asctime.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from twisted_mail.mime.parameters import strip_comments

__all__ = ["Moment", "parse_date"]

_MONTHS: Final = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
# RFC 5322 section 4.3; military letters count as -0000 there, since RFC 822 had them the wrong way round.
_ZONES: Final = {
    "ut": 0, "utc": 0, "gmt": 0, "z": 0, "edt": -240, "est": -300, "cdt": -300, "cst": -360, "mdt": -360, "mst": -420,
    "pdt": -420, "pst": -480, "wet": 0, "west": 60, "bst": 60, "cet": 60, "met": 60, "mez": 60, "cest": 120, "mest": 120,
    "mesz": 120, "eet": 120, "eest": 180, "msk": 180, "msd": 240, "ist": 330, "jst": 540, "kst": 540, "hst": -600,
    "akst": -540, "akdt": -480, "ast": -240, "adt": -180, "nst": -210, "ndt": -150, "aest": 600, "aedt": 660, "nzst": 720,
    "nzdt": 780,
}  # fmt: skip

_TIME: Final = r"(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2})(?:[.,]\d{1,9})?)?\s*(am|pm)?"
_ZONE: Final = r"\s*(?:(?:gmt|utc?)?\s*([+-])?\s*(\d{1,2}:\d\d|\d{3,4})|([a-z]{1,5}))?"
_RFC: Final = re.compile(
    r"\s*(?:[a-z]{2,9}[.,\s]\s*,?)?\s*(\d{1,2})[\s.,-]*([a-z]{3,9})[\s.,-]+(\d{2,4})(?:[\s,]+(?:at\s)?\s*" + _TIME + _ZONE + ")?"
)
_ISO: Final = re.compile(r"\s*(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[t\s]\s*" + _TIME + _ZONE + ")?")
_ASCTIME: Final = re.compile(
    r"\s*(?:[a-z]{2,9}[,\s]\s*)?([a-z]{3,9})[\s.]+(\d{1,2}),?\s+(?:" + _TIME + _ZONE + r"[,\s]+)?(\d{4})"
    r"(?:,?\s+" + _TIME + _ZONE + ")?"
)
_EPOCH: Final = date(1970, 1, 1).toordinal()


class Moment(NamedTuple):
    """A point in time, and how it was written."""

    epoch: int
    """Seconds since 1970-01-01 UTC; may be negative."""
    zone_minutes: int
    """East of Greenwich."""
    days: int
    """The calendar date as written, zone disregarded (RFC 9051 SENTON), in days since 1970-01-01."""


@lru_cache(maxsize=256)
def parse_date(raw: bytes) -> Moment | None:
    """The moment that a Date field names, or None if nobody could tell."""
    text = strip_comments(raw[:256]).decode("ascii", "replace").lower()
    if (match := _RFC.match(text)) is not None:
        day, month, year, *clock = match.groups()
        return _moment(year, month, day, clock)
    if (match := _ISO.match(text)) is not None:
        year, month, day, *clock = match.groups()
        return _moment(year, month, day, clock)
    if (match := _ASCTIME.match(text)) is not None:
        groups = match.groups()
        month, day, year = groups[0], groups[1], groups[9]
        return _moment(year, month, day, list(groups[2:9] if groups[2] else groups[10:17]))
    return None


def _moment(year: str, month: str, day: str, clock: list[str | None]) -> Moment | None:
    number = int(month) if month.isdigit() else _MONTHS.get(month[:3], 0)
    full = int(year)
    if len(year) == 2:
        full += 2000 if full < 50 else 1900
    elif len(year) == 3:
        full += 1900
    try:
        days = date(full, number, int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    hours, minutes, seconds, half, sign, digits, name = clock
    hour = int(hours or 0)
    if half == "pm" and hour < 12:
        hour += 12
    elif half == "am" and hour == 12:
        hour = 0
    zone = 0
    if digits:
        digits = digits.replace(":", "").zfill(4)
        zone = int(digits[:-2]) * 60 + int(digits[-2:])
        if sign == "-":
            zone = -zone
        if abs(zone) >= 24 * 60:
            zone = 0
    elif name:
        zone = _ZONES.get(name, 0)
    if hour > 24 or int(minutes or 0) > 59:
        hour, minutes, seconds = 0, "0", "0"
    clock_seconds = hour * 3600 + int(minutes or 0) * 60 + min(int(seconds or 0), 60)
    return Moment(days * 86400 + clock_seconds - zone * 60, zone, days)
