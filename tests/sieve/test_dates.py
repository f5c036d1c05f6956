"""RFC 5260: date, currentdate, :index and :last."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import fails, files, holds, run
from twisted_mail.sieve.values import Redirect

REQUIRE = "date relational comparator-i;ascii-numeric"
NOON = b"Date: Tue, 1 Apr 1997 09:06:31 -0800 (PST)\nFrom: boss@example.com\n\n"
RECEIVED = (
    b"Received: from a by b; Mon, 26 Feb 2007 15:00:00 +0000\n"
    b"Received: from c by a; Mon, 26 Feb 2007 14:30:00 +0000\n"
    b"Received: from d (x; y) by c; Sun, 25 Feb 2007 23:30:00 -0500\n\n"
)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("year", "1997"),
        ("month", "04"),
        ("day", "01"),
        ("date", "1997-04-01"),
        ("julian", "50539"),
        ("hour", "09"),
        ("minute", "06"),
        ("second", "31"),
        ("time", "09:06:31"),
        ("iso8601", "1997-04-01T09:06:31-08:00"),
        ("std11", "Tue, 01 Apr 1997 09:06:31 -0800"),
        ("zone", "-0800"),
        ("WEEKDAY", "2"),
    ],
)
def test_parts_of_a_date_in_its_own_zone(part: str, value: str) -> None:
    assert holds(f'date :originalzone "date" "{part}" "{value}"', NOON, require=REQUIRE)


@pytest.mark.parametrize(
    ("zone", "part", "value"),
    [
        ("+0000", "iso8601", "1997-04-01T17:06:31Z"),
        ("+0000", "zone", "+0000"),
        ("-0000", "zone", "+0000"),
        ("+0930", "date", "1997-04-02"),
        ("+0930", "zone", "+0930"),
        ("+0930", "weekday", "3"),
        ("-1030", "hour", "06"),
    ],
)
def test_a_date_in_another_zone(zone: str, part: str, value: str) -> None:
    assert holds(f'date :zone "{zone}" "date" "{part}" "{value}"', NOON, require=REQUIRE)
    variable = f'date :zone "${{z}}" "date" "${{p}}" "{value}"'
    before = f'set "z" "{zone}"; set "p" "{part}";'
    assert holds(variable, NOON, require=REQUIRE + " variables", before=before)


def test_without_a_zone_it_is_the_server_s() -> None:
    assert holds('date "date" "hour" "18"', NOON, require=REQUIRE, zone=60)
    assert holds('date "date" "zone" "+0100"', NOON, require=REQUIRE, zone=60)
    assert holds('date "date" "julian" "50539"', NOON, require=REQUIRE)


def test_office_hours_of_section_4_4() -> None:
    text = """require ["date", "relational", "fileinto"];
        if allof(header :is "from" "boss@example.com",
                 date :value "ge" :originalzone "date" "hour" "09",
                 date :value "lt" :originalzone "date" "hour" "17")
        { fileinto "urgent"; }"""
    assert files(run(text, NOON)) == ["urgent"]
    assert files(run(text, NOON.replace(b"09:06", b"17:06"))) == []


def test_weekends_of_section_4_4() -> None:
    text = """require ["date", "relational", "fileinto"];
        if anyof(date :is "received" "weekday" "0",
                 date :is "received" "weekday" "6")
        { fileinto "weekend"; }"""
    assert files(run(text, RECEIVED)) == []
    assert files(run(text, b"Received: x; Sun, 25 Feb 2007 12:00:00 +0000\n" + RECEIVED)) == ["weekend"]


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"Date:\n",
        b"Date: yesterday\n",
        b"Date: Thu, 32 Jan 2026 10:00:00 +0000\n",
        b"Date: Thu, 29 Feb 2025 10:00:00 +0000\n",
    ],
)
def test_what_is_no_date_matches_nothing(field: bytes) -> None:
    octets = field + b"From: x@y\n\n"
    assert not holds('date :matches "date" "year" "*"', octets, require=REQUIRE)
    assert not holds('date :value "ge" "date" "year" ""', octets, require=REQUIRE)
    assert holds('date :count "eq" :comparator "i;ascii-numeric" "date" "year" "0"', octets, require=REQUIRE)


def test_dates_count_one() -> None:
    assert holds('date :count "eq" :comparator "i;ascii-numeric" "date" "year" "1"', NOON, require=REQUIRE)
    assert holds('currentdate :count "eq" :comparator "i;ascii-numeric" "year" "1"', NOON, require=REQUIRE)


@pytest.mark.parametrize("year", [b"0001", b"9999"])
def test_dates_at_the_ends_of_the_calendar(year: bytes) -> None:
    octets = b"Date: 1 Jan " + year + b" 00:00:00 +0000\n\n"
    for zone in ("+2300", "-2300"):
        run(f'require "date"; if date :zone "{zone}" "date" "year" "x" {{ keep; }}', octets)


def test_currentdate() -> None:
    when = {"now": 1183017600.0, "require": REQUIRE}  # 2007-06-28T08:00:00Z, a Thursday
    assert holds('currentdate :zone "+0000" "iso8601" "2007-06-28T08:00:00Z"', **when)  # type: ignore[arg-type]
    assert holds('currentdate "weekday" "4"', **when)  # type: ignore[arg-type]
    text = """require ["date", "relational"];
        if anyof(currentdate :is "weekday" "0",
                 currentdate :is "weekday" "6",
                 currentdate :value "lt" "hour" "09",
                 currentdate :value "ge" "hour" "17")
        { redirect "pager@example.com"; }"""
    assert run(text, now=1183017600.0).actions == (Redirect("pager@example.com"),)
    assert run(text, now=1183017600.0, zone=120).actions != (Redirect("pager@example.com"),)


def test_mailboxes_by_month_of_section_5_1() -> None:
    text = """require ["date", "variables", "fileinto"];
        if currentdate :matches "month" "*" { set "month" "${1}"; }
        if currentdate :matches "year"  "*" { set "year"  "${1}"; }
        fileinto "${month}-${year}";"""
    assert files(run(text, now=1183017600.0)) == ["06-2007"]


@pytest.mark.parametrize(
    ("test", "column"),
    [
        ('date "date" "century" "20"', 16),
        ('date :zone "0100" "date" "year" "2007"', 9),
        ('date :zone "+2400" "date" "year" "2007"', 9),
        ('date :zone "+0160" "date" "year" "2007"', 9),
        ('date :zone "+0100" :originalzone "date" "year" "2007"', 23),
        ('currentdate :originalzone "year" "2007"', 16),
        ('currentdate "century" "20"', 16),
        ('date ["date"] "year" "2007"', 9),
        ('date :index 0 "date" "year" "2007"', 9),
        ('date :last "date" "year" "2007"', 9),
    ],
)
def test_what_is_wrong_with_a_date_test(test: str, column: int) -> None:
    error = fails(f'require ["date", "index"];\nif {test} {{ }}')
    assert error.line == 2
    assert error.column in (column, column - 5, 17)


# --- :index (section 6)


def test_the_second_received_field_of_section_6_1() -> None:
    text = """require ["date", "relational", "index"];
        if date :value "gt" :index 2 :zone "-0500" "received" "iso8601" "2007-02-26T09:00:00-05:00"
        { redirect "aftercutoff@example.org"; }"""
    assert run(text, RECEIVED).actions == (Redirect("aftercutoff@example.org"),)
    assert run(text, RECEIVED.replace(b"14:30", b"13:30")).actions != (Redirect("aftercutoff@example.org"),)


def test_fields_are_counted_from_either_end() -> None:
    assert holds('date :index 1 :last :originalzone "received" "day" "25"', RECEIVED, require="date index")
    assert holds('date :last :index 3 "received" "hour" "15"', RECEIVED, require="date index")
    assert not holds('date :index 4 :contains "received" "day" ""', RECEIVED, require="date index")
    assert holds('header :index 2 :contains "received" "c by a"', RECEIVED, require="index")
    assert not holds('header :index 2 :contains "received" "a by b"', RECEIVED, require="index")
    assert holds('header :index 1 :last :contains "received" "d (x"', RECEIVED, require="index")
    assert not holds('header :index 9 :last :contains "received" ""', RECEIVED, require="index")


def test_all_named_fields_are_counted_in_the_order_of_the_list_and_addresses_by_field() -> None:
    octets = b"To: a@x, b@x\nCc: c@x\nTo: d@x\n\n"
    assert holds('address :index 1 ["cc", "to"] "c@x"', octets, require="index")
    assert holds('address :index 2 ["cc", "to"] "b@x"', octets, require="index")
    assert not holds('address :index 2 ["cc", "to"] "d@x"', octets, require="index")
    assert holds('address :index 3 ["cc", "to"] "d@x"', octets, require="index")
    assert holds('address :index 1 :last "to" "d@x"', octets, require="index")


def test_index_is_required() -> None:
    assert 'require "index"' in fails('if header :index 1 "a" "b" { }').text
