"""What DSN and DELIVERBY add to an envelope, and tags of redirect (RFC 6009); section 7's examples among them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sieve.scripts import A, fails, files, run
from twisted_mail.sieve import Outcome
from twisted_mail.sieve.values import Keep, Redirect

REQUIRE = """require ["copy", "redirect-deliverby", "date", "variables", "relational", "comparator-i;ascii-numeric", "envelope",
"envelope-dsn", "envelope-deliverby", "redirect-dsn", "fileinto"];\n"""
NOW = 1_783_324_800.0
"""2026-07-06T08:00:00Z."""


def done(text: str, **given: Any) -> Outcome:
    outcome = run(REQUIRE + text, A, now=NOW, zone=120, **given)
    assert outcome.error is None, outcome.error
    return outcome


def redirected(text: str, **given: Any) -> Redirect:
    [found] = [action for action in done(text, **given).actions if isinstance(action, Redirect)]
    return found


def true(test: str, **given: Any) -> bool:
    return files(done(f'if {test} {{ fileinto "yes"; }}', **given)) == ["yes"]


# --- redirect


def test_a_private_copy_asks_for_no_notifications() -> None:
    assert redirected('redirect :copy :notify "NEVER" "elsewhere@example.com";') == Redirect("elsewhere@example.com", ("NEVER",))


def test_a_copy_to_the_telephone_has_ten_minutes() -> None:
    found = redirected('redirect :copy :bytimerelative 600 "cellphone@example.com";')
    assert found == Redirect("cellphone@example.com", deliver_by=(NOW + 600, "N")), "notify, which loses nothing, if nothing is said"


def test_a_copy_to_the_telephone_comes_back_after_ten_in_the_evening() -> None:
    """With the correction of erratum 2545."""
    text = """if currentdate :value "lt" :comparator "i;ascii-numeric" "hour" "22" {
        if currentdate :matches "date" "*" { set "date" "${0}"; }
        if currentdate :matches "zone" "*" { set "zone" "${0}"; }
        redirect :copy :bytimeabsolute "${date}T22:00:00${zone}" :bymode "return" "cellphone@example.com"; }"""
    assert redirected(text) == Redirect("cellphone@example.com", deliver_by=(NOW + 12 * 3600, "R"))


def test_all_tags_together() -> None:
    text = 'redirect :notify "success,DELAY" :ret "hdrs" :bytimeabsolute "2026-07-06T09:00:00Z" :bymode "Notify" :bytrace "a@b.example";'
    assert redirected(text) == Redirect("a@b.example", ("SUCCESS", "DELAY"), "HDRS", (NOW + 3600, "NT"))


@pytest.mark.parametrize(
    "tags",
    [
        ':notify "NEVER,FAILURE"',
        ':notify ""',
        ':notify "SUCCESS, FAILURE"',
        ':notify "SUCCESS,SUCCESS"',
        ':notify "ALWAYS"',
        ':ret "SOME"',
        ':bytimerelative 1 :bymode "later"',
        ':bytimerelative 0 :bymode "return"',
        ':bytimerelative 1 :bytimeabsolute "2026-07-06T09:00:00Z"',
        ':bytimeabsolute "2026-07-06T09:00:00"',
        ':bytimeabsolute "2026-07-06"',
        ':bymode "return"',
        ":bytrace",
        ":bytimerelative",
    ],
)
def test_what_makes_no_sense_is_an_error(tags: str) -> None:
    assert fails(REQUIRE + f'redirect {tags} "a@b.example";').line == 3


def test_what_variables_make_of_it_is_looked_at_too() -> None:
    assert redirected('set "n" "delay"; redirect :notify "${n},failure" "a@b.example";').notify == ("DELAY", "FAILURE")
    outcome = run(REQUIRE + 'set "n" "x"; redirect :notify "${n}" "a@b.example";')
    assert outcome.error is not None and outcome.error.line == 3 and outcome.actions == (Keep(),)


@pytest.mark.parametrize("tag", [':notify "NEVER"', ':ret "FULL"', ":bytimerelative 5"])
def test_the_tags_must_be_required(tag: str) -> None:
    assert 'require "redirect-' in fails(f'redirect {tag} "a@b.example";').text


# --- envelope


def test_which_notifications_were_asked_for() -> None:
    extra = {"notify": "FAILURE", "orcpt": "rfc822;ann@example.com"}
    assert not true('envelope "notify" "SUCCESS"', envelope_extra=extra)
    only = 'allof (envelope "notify" "FAILURE", envelope :comparator "i;ascii-numeric" :count "eq" "notify" "1")'
    assert true(only, envelope_extra=extra)
    assert not true(only, envelope_extra={"notify": "FAILURE,SUCCESS"})
    assert true('envelope :matches "orcpt" "rfc822;*@example.com"', envelope_extra=extra)


LATE = """anyof (envelope :contains "bytimerelative" "-",
    envelope :value "eq" :comparator "i;ascii-numeric" "bytimerelative" "0")"""


@pytest.mark.parametrize(("seconds", "late"), [(-1, True), (0, True), (1, False), (-600, True), (600, False)])
def test_what_did_not_make_it_in_time(seconds: int, late: bool) -> None:
    assert true(LATE, deliver_by=(NOW + seconds, "N")) is late
    text = 'if currentdate :matches "iso8601" "*" { set "now" "${0}"; if envelope :value "le" "bytimeabsolute" "${now}" { fileinto "late"; } }'
    assert files(done(text, deliver_by=(NOW + seconds, "N"))) == (["late"] if late else [])


def test_it_is_filed_by_the_hour_in_which_it_should_have_come() -> None:
    text = """if envelope :matches :zone "+0000" "bytimeabsolute" "*T*:*:*" { set "bdate" "${0}"; set "bhour" "${2}";
        if currentdate :zone "+0000" :value "ge" "iso8601" "${bdate}" { fileinto "missed-${bhour}"; } }"""
    assert files(done(text, deliver_by=(NOW - 7200, "N"))) == ["missed-06"]
    assert files(done(text, deliver_by=(NOW + 7200, "N"))) == []


def test_the_mode_and_the_trace() -> None:
    assert true('envelope "bymode" "R"', deliver_by=(NOW, "RT")) and true('envelope "bytrace" "T"', deliver_by=(NOW, "RT"))
    assert not true('envelope :contains "bytrace" ""', deliver_by=(NOW, "N"))
    for name in ("bymode", "bytrace", "bytimeabsolute", "bytimerelative"):
        assert not true(f'envelope :contains "{name}" ""'), "it was not given"
