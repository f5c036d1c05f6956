"""Dates (RFC 5322 sections 3.3 and 4.3) and what senders make of them."""

from __future__ import annotations

import email.utils
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.mime import parse_date


def moment(raw: bytes) -> tuple[int, int] | None:
    found = parse_date(raw)
    return None if found is None else (found.epoch, found.zone_minutes)


@pytest.mark.parametrize(
    ("raw", "epoch", "zone"),
    [
        # RFC 5322 appendix A
        (b"Fri, 21 Nov 1997 09:55:06 -0600", 880127706, -360),
        (b"Tue, 1 Jul 2003 10:52:37 +0200", 1057049557, 120),
        (b"Thu, 13 Feb 1969 23:32:54 -0330", -27723426, -210),
        (b"Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)", -27723480, -210),
        (b"21 Nov 97 09:55:06 GMT", 880106106, 0),
        # obsolete zones
        (b"Fri, 21 Nov 1997 09:55:06 EST", 880124106, -300),
        (b"Fri, 21 Nov 1997 09:55:06 PDT", 880131306, -420),
        (b"Fri, 21 Nov 1997 09:55:06 UT", 880106106, 0),
        (b"Fri, 21 Nov 1997 09:55:06 A", 880106106, 0),
        (b"Fri, 21 Nov 1997 09:55:06 XYZ", 880106106, 0),
        # real life
        (b"21 Nov 1997 09:55:06", 880106106, 0),
        (b"Fri, 21 Nov 1997 09:55 +0000", 880106100, 0),
        (b"Fri, 21 Nov 1997", 880070400, 0),
        (b"Wed, 21 Nov 1997 09:55:06 +0000", 880106106, 0),
        (b"Fri 21 Nov 1997 09:55:06 +0000", 880106106, 0),
        (b"Friday, 21-Nov-97 09:55:06 GMT", 880106106, 0),
        (b"Fri, 21 November 1997 09:55:06 +0000", 880106106, 0),
        (b"Fri, 21 Nov 1997 9:5:6 +0000", 880103106, 0),
        (b"Fri, 21 Nov 1997 09.55.06 +0000", 880106106, 0),
        (b"Fri, 21 Nov 1997 09:55:06 +01:00", 880102506, 60),
        (b"Fri, 21 Nov 1997 09:55:06 +0100 (CET)", 880102506, 60),
        (b"Fri, 21 Nov 1997 09:55:06 GMT+0100", 880102506, 60),
        (b"Fri, 21 Nov 1997 09:55:06 0100", 880102506, 60),
        (b"Fri, 21 Nov 1997 09:55:60 +0000", 880106160, 0),
        (b"Fri, 21 Nov 1997 09:55:06 PM +0000", 880149306, 0),
        (b"1997-11-21T09:55:06Z", 880106106, 0),
        (b"1997-11-21 09:55:06 +0100", 880102506, 60),
        (b"Fri Nov 21 09:55:06 1997", 880106106, 0),
        (b"Fri Nov 21 09:55:06 EST 1997", 880124106, -300),
        (b"Nov 21, 1997 09:55:06 +0100", 880102506, 60),
        (b"Sat, 1 Jan 49 00:00:00 +0000", 2493072000, 0),
        (b"Sat, 1 Jan 50 00:00:00 +0000", -631152000, 0),
        (b"Sat, 1 Jan 100 00:00:00 +0000", 946684800, 0),
        (b"Fri, 21 Nov 1997 09:55:06 +9999", 880106106, 0),
        (b"Fri, 21 Nov 1997 99:99:99 +0000", 880070400, 0),
    ],
)
def test_moments(raw: bytes, epoch: int, zone: int) -> None:
    assert moment(raw) == (epoch, zone)


@pytest.mark.parametrize("raw", [b"", b"yesterday", b"32 Jan 2020 00:00:00 +0000", b"1 Foo 2020", b"0 Jan 2020", b"\xff\x00", b"2020"])
def test_what_is_no_date(raw: bytes) -> None:
    assert parse_date(raw) is None


def test_the_calendar_date_disregards_the_zone() -> None:
    late = parse_date(b"Fri, 21 Nov 1997 23:55:06 -0800")
    assert late is not None
    assert date.fromordinal(late.days + date(1970, 1, 1).toordinal()) == date(1997, 11, 21)
    assert late.epoch // 86400 == late.days + 1


@given(st.integers(-(2**31), 2**33), st.integers(-23 * 60, 23 * 60))
@settings(max_examples=150, deadline=None)
def test_what_the_standard_library_writes_is_read_as_it_was(epoch: int, zone: int) -> None:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch)
    local = when.astimezone(timezone(timedelta(minutes=zone)))
    assert moment(email.utils.format_datetime(local).encode()) == (epoch, zone)


@given(st.lists(st.sampled_from([b"1", b"99", b"2020", b"jan", b":", b"-", b"+", b"/", b" ", b"t", b"z", b",", b"(", b".", b"\xff"]), max_size=25))
@settings(max_examples=300, deadline=None)
def test_no_octets_raise(pieces: list[bytes]) -> None:
    parse_date(b"".join(pieces))
