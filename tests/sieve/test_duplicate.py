"""duplicate (RFC 7352)."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import fails, run
from twisted_mail.sieve import Outcome
from twisted_mail.sieve.commands.duplicates import tracking_key
from twisted_mail.sieve.values import Discard, FileInto, Keep

NOW = 1_000_000.0
MESSAGE = b"""\
From: x@example.org
To: support@example.com
Message-ID:  <1@example.org>
Subject: ALERT: fileserver
X-Event-ID: 17
X-Event-ID: 18
X-Ticket-ID: 17
X-Word: =?utf-8?q?gr=C3=BCn?=
X-Empty:

body
"""


def duplicate(text: str, seen: dict[str, float] | None = None) -> Outcome:
    outcome = run(
        'require ["duplicate", "variables", "fileinto", "imap4flags", "mailbox"];\n' + text,
        MESSAGE,
        seen=seen or {},
        now=NOW,
    )
    assert outcome.error is None, outcome.error
    return outcome


WEEK = 7 * 86_400
ID = tracking_key("", "<1@example.org>")


@pytest.mark.parametrize(
    "test",
    [
        "if duplicate { discard; }",
        'if duplicate :header "message-id" { discard; }',
        'if header :matches "message-id" "*" { if duplicate :uniqueid "${0}" { discard; } }',
    ],
)
def test_the_three_ways_of_section_3_2_are_one(test: str) -> None:
    first = duplicate(test)
    assert first.actions == (Keep(),) and first.tracked == {ID: WEEK}
    again = duplicate(test, {ID: NOW - 5})
    assert again.actions == (Discard(),) and again.tracked == {}


def test_an_id_is_forgotten_after_its_time_whatever_is_still_remembered() -> None:
    text = "if duplicate :seconds 60 { discard; }"
    assert duplicate(text, {ID: NOW - 59}).actions == (Discard(),)
    late = duplicate(text, {ID: NOW - 60})
    assert late.actions == (Keep(),) and late.tracked == {ID: 60}


def test_last_counts_from_the_last_time_it_was_seen() -> None:
    assert duplicate("if duplicate :last { discard; }", {ID: NOW - 5}).tracked == {ID: WEEK}


def test_zero_seconds_is_never_a_duplicate() -> None:
    outcome = duplicate("if duplicate :seconds 0 { discard; }", {ID: NOW})
    assert outcome.actions == (Keep(),) and outcome.tracked == {}


def test_there_is_a_longest_time_and_it_is_no_error_to_ask_for_more() -> None:
    assert duplicate("if duplicate :seconds 2000000000 { discard; }").tracked == {ID: 90 * 86_400}


def test_in_one_run_the_answer_stays_the_same() -> None:
    outcome = duplicate('if duplicate { discard; } if duplicate { discard; } if not duplicate { fileinto "x"; }')
    assert outcome.actions == (FileInto("x"),)


def test_of_several_fields_the_first_is_the_id_and_without_one_nothing_is_remembered() -> None:
    assert duplicate('if duplicate :header "X-Event-ID" { discard; }').tracked == {tracking_key("", "17"): WEEK}
    assert duplicate('if duplicate :header "X-Word" { discard; }').tracked == {tracking_key("", "grün"): WEEK}
    for name in ("X-Nonsense", "no name of a field", "X-Empty"):
        outcome = duplicate(f'if duplicate :header "{name}" {{ discard; }}', {tracking_key("", ""): NOW})
        assert outcome.actions == (Keep(),) and outcome.tracked == {}


def test_ids_match_with_their_case() -> None:
    assert duplicate('if duplicate :uniqueid "A" { discard; }', {tracking_key("", "a"): NOW}).actions == (Keep(),)


def test_handles_keep_ids_apart() -> None:
    text = r"""
        if duplicate :header "X-Event-ID" :handle "notifier" { discard; }
        if allof (duplicate :header "X-Ticket-ID" :handle "support", address "to" "support@example.com",
                  header :contains "subject" "fileserver") { setflag "\\seen"; }"""
    assert duplicate(text, {tracking_key("notifier", "17"): NOW}).actions == (Discard(),)
    assert duplicate(text, {tracking_key("support", "17"): NOW}).actions == (Keep(("\\seen",)),)
    assert duplicate(text).tracked == {tracking_key("notifier", "17"): WEEK, tracking_key("support", "17"): WEEK}
    assert tracking_key("a", "b:c") != tracking_key("a:b", "c")


def test_the_examples_of_section_5() -> None:
    text = 'if duplicate { fileinto :create "Trash/Duplicate"; }'
    assert duplicate(text, {ID: NOW}).actions == (FileInto("Trash/Duplicate", create=True),)
    text = r"""if header :matches "subject" "ALERT: *" {
                   if duplicate :seconds 60 :uniqueid "${1}" { setflag "\\seen"; }
                   fileinto "Alerts"; }"""
    assert duplicate(text).actions == (FileInto("Alerts"),)
    assert duplicate(text, {tracking_key("", "fileserver"): NOW - 9}).actions == (FileInto("Alerts", ("\\seen",)),)


def test_a_run_that_fails_remembers_nothing() -> None:
    outcome = run('require ["duplicate", "reject"]; if not duplicate { keep; } reject "x";', MESSAGE)
    assert outcome.error is not None and not outcome.tracked


def test_header_and_uniqueid_exclude_each_other() -> None:
    assert "exclude" in fails('require "duplicate"; if duplicate :header "a" :uniqueid "b" { keep; }').text
