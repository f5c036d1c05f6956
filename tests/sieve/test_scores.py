"""spamtest, spamtestplus, virustest (RFC 5235), environment (RFC 5183), reject and ereject (RFC 5429)."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails, files, holds, run
from twisted_mail.sieve.commands.scores import spam_value
from twisted_mail.sieve.values import Discard, FileInto, Keep, Redirect, Reject

REQUIRE = "relational comparator-i;ascii-numeric spamtestplus virustest"


def test_percents_become_one_to_ten_and_ten_can_be_reached() -> None:
    assert [spam_value(percent) for percent in (0, 5, 6, 50, 94, 95, 100, 250, -3)] == [1, 1, 2, 6, 9, 10, 10, 10, 1]
    assert {spam_value(percent) for percent in range(101)} == set(range(1, 11))


@pytest.mark.parametrize(
    ("percent", "mailbox"), [(None, "unclassified"), (0.0, "not-spam"), (20.0, "spam-trap"), (80.0, "")]
)
def test_the_examples_of_section_3_2_2(percent: float | None, mailbox: str) -> None:
    for first in (':value "eq"', ':percent :count "eq"'):
        text = f"""require ["spamtestplus", "fileinto", "relational", "comparator-i;ascii-numeric"];
            if spamtest {first} :comparator "i;ascii-numeric" "0" {{ fileinto "unclassified"; }}
            elsif spamtest :percent :value "eq" :comparator "i;ascii-numeric" "0" {{ fileinto "not-spam"; }}
            elsif spamtest :percent :value "lt" :comparator "i;ascii-numeric" "37" {{ fileinto "spam-trap"; }}
            else {{ discard; }}"""
        expected = (FileInto(mailbox),) if mailbox else (Discard(),)
        assert run(text, spam_percent=percent).actions == expected


@pytest.mark.parametrize(
    ("test", "percent", "virus", "true"),
    [
        ('spamtest "0"', None, 0, True),
        ('spamtest "1"', 0.0, 0, True),
        ('spamtest :value "ge" :comparator "i;ascii-numeric" "3"', 40.0, 0, True),
        ('spamtest :value "ge" :comparator "i;ascii-numeric" "3"', 10.0, 0, False),
        ('spamtest :percent "0"', None, 0, True),
        ('spamtest :percent "100"', 99.6, 0, True),
        ('spamtest :count "eq" "1"', 0.0, 0, True),
        ('virustest "0"', None, 0, True),
        ('virustest "5"', None, 5, True),
        ('virustest :value "ge" :comparator "i;ascii-numeric" "4"', None, 1, False),
        ('virustest :count "eq" "0"', None, 0, True),
        ('virustest :count "eq" "1"', None, 1, True),
    ],
)
def test_what_the_filters_found(test: str, percent: float | None, virus: int, true: bool) -> None:
    assert holds(test, A, REQUIRE, spam_percent=percent, virus=virus) is true


def test_percents_need_the_newer_capability() -> None:
    assert "spamtestplus" in fails('require "spamtest"; if spamtest :percent "1" { keep; }').text


# --- environment

ITEMS = {"location": "MDA", "remote-host": "", "name": "ours", "remote-ip": "192.0.2.1"}


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ('environment "location" "mda"', True),
        ('environment "LOCATION" "MDA"', True),
        ('environment :matches "remote-ip" "192.*"', True),
        ('environment :contains "item" ""', False),
        ('environment :is "item" ""', False),
        ('environment :contains "remote-host" ""', True),
        ('environment :count "eq" "remote-host" "0"', True),
        ('environment :count "eq" "name" "1"', True),
        ('environment :count "eq" "item" "0"', False),
        ('environment ["vnd.x"] "x"'.replace("[", "").replace("]", ""), False),
    ],
)
def test_what_is_known_of_where_a_script_runs(test: str, true: bool) -> None:
    assert holds(test, A, "environment relational", items=ITEMS) is true


# --- reject


def test_the_examples_of_rfc_5429() -> None:
    text = """require ["ereject"];
        if address "from" "coyote@desert.example.org" { ereject "I no longer accept mail from this address"; }"""
    assert run(text).actions == (Reject("I no longer accept mail from this address", True),)
    text = """require ["reject"];
        if header :contains "from" "coyote@desert.example.org" {
            reject text:
I am not taking mail from you, and I don't
want your birdseed, either!
.
            ;
        }"""
    assert run(text).actions == (
        Reject("I am not taking mail from you, and I don't\r\nwant your birdseed, either!\r\n"),
    )
    text = """require ["ereject", "spamtest", "fileinto", "comparator-i;ascii-numeric", "relational"];
        if spamtest :value "ge" :comparator "i;ascii-numeric" "6" { ereject "spam"; }
        elsif spamtest :value "ge" :comparator "i;ascii-numeric" "4" { fileinto "Suspect"; }"""
    assert run(text, spam_percent=90.0).actions == (Reject("spam", True),)
    assert files(run(text, spam_percent=40.0)) == ["Suspect"]


@pytest.mark.parametrize("name", ["reject", "ereject"])
@pytest.mark.parametrize("other", ["keep;", 'fileinto "a";', 'redirect "a@example.org";', 'reject "b";', 'ereject "c";'])
def test_a_message_is_refused_or_delivered(name: str, other: str) -> None:
    require = 'require ["reject", "ereject", "fileinto"]; '
    for text in (f'{name} "x"; {other}', f'{other} {name} "x";'):
        outcome = run(require + text)
        assert outcome.error is not None and outcome.error.line == 1 and outcome.actions == (Keep(),)


def test_what_is_discarded_may_be_refused() -> None:
    assert run('require "reject"; discard; reject "x";').actions == (Discard(), Reject("x"))
    assert Redirect("a@example.org") in run('redirect "a@example.org";').actions
