"""``date`` and ``currentdate`` (RFC 5260)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from twisted_mail.mime import parse_date
from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.commands.base import INDEX, selection
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.values import SieveError

__all__ = ["CAPABILITIES", "TESTS", "date_part", "zone_of"]

CAPABILITIES = ("date",)

_ZONE: Final = re.compile(r"([+-])([0-9]{2})([0-5][0-9])")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MJD_OF_ORDINAL: Final = 678576
"""Proleptic Gregorian ordinal of 1858-11-17, the Modified Julian Day 0."""


def _offset(when: datetime) -> int:
    """Minutes east of UTC."""
    offset = when.utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def _zone(when: datetime) -> str:
    minutes = _offset(when)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


def _iso(when: datetime) -> str:
    zone = _zone(when)
    return f"{when:%Y-%m-%dT%H:%M:%S}".zfill(19) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def _std11(when: datetime) -> str:
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day}, {when.day:02} {month} {when.year:04} {when:%H:%M:%S} {_zone(when)}"


_PARTS: Final[dict[str, Callable[[datetime], str]]] = {
    "year": lambda when: f"{when.year:04}",
    "month": lambda when: f"{when.month:02}",
    "day": lambda when: f"{when.day:02}",
    "date": lambda when: f"{when.year:04}-{when.month:02}-{when.day:02}",
    "julian": lambda when: str(when.toordinal() - _MJD_OF_ORDINAL),
    "hour": lambda when: f"{when.hour:02}",
    "minute": lambda when: f"{when.minute:02}",
    "second": lambda when: f"{when.second:02}",
    "time": lambda when: f"{when.hour:02}:{when.minute:02}:{when.second:02}",
    "iso8601": _iso,
    "std11": _std11,
    "zone": _zone,
    "weekday": lambda when: str(when.isoweekday() % 7),
}
"""Section 4.2."""


def date_part(name: str) -> Callable[[datetime], str] | None:
    """What reads a date part of that name."""
    return _PARTS.get(name.lower())


def _minutes(text: str) -> int | None:
    found = _ZONE.fullmatch(text)
    if found is None or int(found[2]) > 23:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes


def zone_of(args: Arguments) -> Callable[[Run], int | None]:
    """Minutes east of UTC; None: the original zone."""
    kind = args.choice("zone")
    if not kind:
        return lambda run: run.environment.zone
    if kind == "originalzone":
        return lambda run: None
    text, line = args.text("zone"), args.line
    if text.constant is not None:
        constant = _minutes(text.constant)
        if constant is None:
            args.fail(f"{text.constant!r} is no time zone like +0100", "zone")
        return lambda run: constant

    def zone(run: Run) -> int:
        minutes = _minutes(text(run))
        if minutes is None:
            raise SieveError(f"{text(run)[:100]!r} is no time zone like +0100", line)
        return minutes

    return zone


def _part_of(args: Arguments) -> Callable[[Run], Callable[[datetime], str]]:
    text, line = args.text("date part"), args.line
    if text.constant is not None:
        constant = date_part(text.constant)
        if constant is None:
            args.fail(f"{text.constant!r} is no part of a date", "date part")
        return lambda run: constant

    def part(run: Run) -> Callable[[datetime], str]:
        found = date_part(text(run))
        if found is None:
            raise SieveError(f"{text(run)[:100]!r} is no part of a date", line)
        return found

    return part


def _moment(epoch: float, minutes: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(0, UTC).astimezone(timezone(timedelta(minutes=minutes))) + timedelta(seconds=epoch)
    except (OverflowError, ValueError):
        return None


def _read(value: bytes) -> tuple[int, int] | None:
    """The last date in a field: behind the last semicolon, or all of it."""
    moment = parse_date(value.rpartition(b";")[2].strip())
    return None if moment is None else (moment.epoch, moment.zone_minutes)


def _date(args: Arguments) -> Check:
    name = args.text("header name")
    if name.constant is not None:
        args.scope.reads_fields((fold(name.constant),))
    match, zone, part = matcher(args), zone_of(args), _part_of(args)
    select = selection(args) or (lambda values: values[:1])

    def check(run: Run) -> bool:
        values: Sequence[object] = select(run.header.raw(fold(name(run))))
        found = _read(values[0]) if values and isinstance(values[0], bytes) else None
        if found is None:
            return match(run, ())
        epoch, original = found
        wanted = zone(run)
        when = _moment(epoch, original if wanted is None else wanted)
        return match(run, () if when is None else (part(run)(when),))

    return check


def _currentdate(args: Arguments) -> Check:
    match, zone, part = matcher(args), zone_of(args), _part_of(args)

    def check(run: Run) -> bool:
        when = _moment(int(run.environment.now), zone(run) or 0)
        return match(run, () if when is None else (part(run)(when),))

    return check


_AT: Final = Tag("zone", Kind.STRING, group="zone")

TESTS = {
    "date": TestSyntax(
        compile=_date,
        needs="date",
        tags=(*MATCHING, *INDEX, _AT, Tag("originalzone", group="zone")),
        operands=(
            Operand("header name", Kind.STRING),
            Operand("date part", Kind.STRING),
            Operand("keys", Kind.STRINGS),
        ),
    ),
    "currentdate": TestSyntax(
        compile=_currentdate,
        needs="date",
        tags=(*MATCHING, _AT),
        operands=(Operand("date part", Kind.STRING), Operand("keys", Kind.STRINGS)),
    ),
}
