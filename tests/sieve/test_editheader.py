"""editheader (RFC 5293): what a script sees after its edits, and what is recorded for whoever stores the message."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails, files, run
from twisted_mail.sieve import Message, Outcome
from twisted_mail.sieve.editing import edit_header
from twisted_mail.sieve.values import Keep

REQUIRE = 'require ["editheader", "fileinto", "variables", "relational", "index"];\n'
HELLOS = b"X-Hello: one\nSubject: s\nX-Hello: two\nX-Hello: three\nReceived: r\nAuto-Submitted: auto-replied\n\nbody\n"


def edited(text: str, octets: bytes = HELLOS) -> Message:
    """The message as it is stored after the edits of a run."""
    outcome = run(REQUIRE + text, octets)
    assert outcome.error is None, outcome.error
    header, _, body = octets.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    return Message(edit_header(header + b"\r\n\r\n", outcome.edits) + body)


def failed(text: str) -> Outcome:
    outcome = run(REQUIRE + text)
    assert outcome.error is not None
    return outcome


def test_a_message_is_not_redirected_twice() -> None:
    text = """
        if not header :contains "X-Sieve-Filtered" ["<kim@job.example.com>", "<kim@home.example.com>"] {
            addheader "X-Sieve-Filtered" "<kim@job.example.com>";
            redirect "kim@home.example.com";
        }"""
    assert edited(text, A).values("x-sieve-filtered") == ("<kim@job.example.com>",)
    assert run(REQUIRE + text, b"X-Sieve-Filtered: <kim@home.example.com>\n\n").actions == (Keep(),)


def test_counting_comes_before_matching() -> None:
    octets = b"Delivered-To: ann@example.com\nDelivered-To: bob@example.com\n\n"
    text = 'deleteheader :index {} :contains "Delivered-To" "bob@example.com";'
    assert len(edited(text.format(1), octets).values("delivered-to")) == 2
    assert edited(text.format(2), octets).values("delivered-to") == ("ann@example.com",)


def test_the_examples_of_section_7() -> None:
    assert edited('addheader "X-Hello" "World"; deleteheader :index 1 "X-Hello";').header.octets == Message(
        HELLOS.replace(b"\n", b"\r\n")
    ).header.octets
    text = 'deleteheader :index 1 "X-Hello"; deleteheader :index 2 "X-Hello";'
    assert edited(text).values("x-hello") == ("two",), "the first and the third"
    text = 'addheader "X-Hello" "World"; if header :contains "X-Hello" "World" { fileinto "international"; }'
    assert files(run(REQUIRE + text)) == ["international"]
    text = 'keep; addheader "X-Flavor" "vanilla"; keep;'
    assert run(REQUIRE + text).actions == (Keep(),)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('deleteheader "x-hello";', ()),
        ('deleteheader :index 2 "x-hello";', ("one", "three")),
        ('deleteheader :index 1 :last "x-hello";', ("one", "two")),
        ('deleteheader :index 3 :last "x-hello";', ("two", "three")),
        ('deleteheader :index 4 "x-hello";', ("one", "two", "three")),
        ('deleteheader "x-hello" "TWO";', ("one", "three")),
        ('deleteheader :matches "x-hello" ["t*", "x"];', ("one",)),
        ('deleteheader :comparator "i;octet" "x-hello" "TWO";', ("one", "two", "three")),
        ('deleteheader :contains "x-hello" "e";', ("two",)),
        ('deleteheader :value "gt" "x-hello" "p";', ("one",)),
        ('deleteheader :count "ge" "x-hello" "3";', ()),
        ('deleteheader :count "ge" "x-hello" "4";', ("one", "two", "three")),
        ('set "n" "x-hello"; deleteheader "${n}" "one";', ("two", "three")),
        ('deleteheader "x-nonsense";', ("one", "two", "three")),
        ('addheader :last "x-hello" "four"; addheader "x-hello" "zero";', ("zero", "one", "two", "three", "four")),
    ],
)
def test_what_is_left_is_what_the_script_sees_and_what_is_stored(text: str, left: tuple[str, ...]) -> None:
    assert edited(text).values("x-hello") == left
    count = f'if header :count "eq" "x-hello" "{len(left)}" {{ fileinto "yes"; }}'
    assert files(run(REQUIRE + text + count, HELLOS)) == ["yes"]


def test_what_tells_loops_and_machines_is_not_touched() -> None:
    text = """deleteheader "Received"; deleteheader :index 1 "AUTO-submitted"; addheader "Received" "x";
        addheader "Auto-Submitted" "no"; deleteheader "Subject"; addheader "Subject" "new";"""
    message = edited(text)
    assert message.values("received") == ("r",)
    assert message.values("auto-submitted") == ("auto-replied",)
    assert message.values("subject") == ("new",)


def test_fields_that_delivery_puts_in_front_do_not_shift_what_is_deleted() -> None:
    outcome = run(REQUIRE + 'deleteheader :index 1 "x-hello";', HELLOS)
    stored = edit_header(b"X-Hello: of the server\r\n" + HELLOS, outcome.edits)
    assert Message(stored).values("x-hello") == ("of the server", "two", "three")


def test_values_are_encoded_where_they_must_be_and_cannot_leave_their_line() -> None:
    text = 'addheader "X-New" "Grüße\n\nBcc: x@example.org";'
    message = edited(text)
    assert message.values("x-new") == ("Grüße  Bcc: x@example.org",)
    assert not message.header.exists("bcc")
    assert message.header.octets.isascii()
    text = 'addheader "X-New" "' + "ä" * 998 + '"; if header "x-new" "' + "ä" * 998 + '" { fileinto "same"; }'
    assert files(run(REQUIRE + text)) == ["same"]
    assert max(map(len, edited(text).header.octets.split(b"\r\n"))) <= 76


def test_matching_what_is_deleted_sets_no_match_variables() -> None:
    text = 'if header :matches "subject" "*" { deleteheader :matches "x-hello" "t*"; fileinto "${1}"; }'
    assert files(run(REQUIRE + text, HELLOS)) == ["s"]


@pytest.mark.parametrize(
    "text",
    [
        'addheader "X New" "x";',
        'addheader "X:" "x";',
        'addheader "" "x";',
        'addheader "Ü" "x";',
        'deleteheader "X New";',
        'deleteheader :last "X-New";',
        'deleteheader :index 0 "X-New";',
    ],
)
def test_what_is_no_name_of_a_field_is_an_error(text: str) -> None:
    assert fails(REQUIRE + text).line == 2


def test_what_turns_out_to_be_no_name_makes_the_run_fail_and_keeps_the_message_as_it_came() -> None:
    outcome = failed('addheader "X-A" "1"; set "n" "a b"; addheader "${n}" "x"; fileinto "y";')
    assert outcome.actions == (Keep(),) and outcome.edits == ()


def test_edits_are_bounded() -> None:
    assert failed('addheader "X-A" "1";' * 201).edits == ()
