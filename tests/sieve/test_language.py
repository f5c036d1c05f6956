"""RFC 5228: its examples, and what it says of control, actions and tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sieve.scripts import A, B, environment, fails, files, holds, run
from twisted_mail.sieve import Message, compile_script
from twisted_mail.sieve.values import Discard, FileInto, Keep, Redirect


def header(*lines: bytes) -> bytes:
    return b"\n".join(lines) + b"\n\nbody\n"


# --- section 3: control


def test_both_messages_of_section_3_1_are_dropped_and_another_one_is_filed() -> None:
    text = """
        require "fileinto";
        if header :contains "from" "coyote" {
            discard;
        } elsif header :contains ["subject"] ["$$$"] {
            discard;
        } else {
            fileinto "INBOX";
        }"""
    assert run(text, A).actions == (Discard(),)
    assert run(text, B).actions == (Discard(),)
    assert run(text, header(b"From: x@y")).actions == (FileInto("INBOX"),)


def test_redirects_of_section_3_1() -> None:
    text = """
        if header :contains ["From"] ["coyote"] {
            redirect "acm@example.com";
        } elsif header :contains "Subject" "$$$" {
            redirect "postmaster@example.com";
        } else {
            redirect "field@example.com";
        }"""
    assert run(text, A).actions == (Redirect("acm@example.com"),)
    assert run(text, B).actions == (Redirect("postmaster@example.com"),)
    assert run(text, header(b"From: x@y")).actions == (Redirect("field@example.com"),)


def test_only_the_first_true_branch_is_taken_and_a_chain_without_else_may_take_none() -> None:
    assert files(
        run('require "fileinto"; if true { fileinto "a"; } elsif true { fileinto "b"; } else { fileinto "c"; }')
    ) == ["a"]
    assert run("if false { discard; } elsif false { discard; }").actions == (Keep(),)


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("else { keep; }", 1, "behind no if"),
        ("elsif true { keep; }", 1, "behind no if"),
        ("if true { } keep; else { }", 19, "behind no if"),
        ("if true { } else { } elsif true { }", 22, "behind an else"),
        ("if true { } else { } else { }", 22, "behind an else"),
        ("if { keep; }", 1, "one test"),
        ("if true;", 1, "a block"),
        ("if (true) { }", 1, "one test"),
        ("if true { } else true { }", 18, "no test"),
        ("keep { }", 1, "no block"),
        ("keep true;", 6, "no test"),
        ("if not { }", 4, "one test"),
        ("if allof true { }", 4, "list of tests"),
        ("if not (true) { }", 4, "one test"),
    ],
)
def test_control_that_stands_wrong_is_found_where_it_stands(text: str, column: int, why: str) -> None:
    error = fails(text)
    assert (error.line, error.column) == (1, column)
    assert why in error.text


def test_require_takes_lists_and_stands_in_front() -> None:
    assert run('require ["fileinto", "reject"]; require "vacation"; keep;').actions == (Keep(),)
    error = fails('require "fileinto";\nkeep;\n  require "envelope";')
    assert (error.line, error.column) == (3, 3)
    error = fails('require ["fileinto",\n "no-such-thing"];')
    assert (error.line, error.column) == (2, 2)
    assert "no-such-thing" in error.text
    assert fails("require 3;").column == 9
    assert fails("require;").column == 1
    assert fails('if true { require "fileinto"; }').column == 11


def test_what_was_not_required_is_not_there() -> None:
    assert 'require "fileinto"' in fails('fileinto "x";').text
    assert 'require "envelope"' in fails('if envelope "from" "x" { }').text
    assert 'require "copy"' in fails('redirect :copy "a@b.c";').text


def test_stop_ends_everything_and_leaves_the_implicit_keep() -> None:
    assert run("if true { stop; } discard;").actions == (Keep(),)
    assert run('require "fileinto"; fileinto "x"; stop; discard;').actions == (FileInto("x"),)


# --- section 4: actions


def test_without_any_action_there_is_the_implicit_keep() -> None:
    assert run("if size :over 500K { discard; }").actions == (Keep(),)
    assert run("").actions == (Keep(),)


def test_size_keeps_or_discards_as_section_4_3_says() -> None:
    for text in ("if size :under 1M { keep; } else { discard; }", "if not size :under 1M { discard; }"):
        assert run(text).actions == (Keep(),)
        assert run(text, A + b"x" * (1 << 20)).actions == (Discard(),)


def test_fileinto_and_discard_cancel_the_implicit_keep_and_get_along() -> None:
    outcome = run('require "fileinto"; fileinto "a"; discard;')
    assert outcome.actions == (FileInto("a"), Discard())
    assert run('require "fileinto"; keep; fileinto "a";').actions == (Keep(), FileInto("a"))


def test_the_same_mailbox_and_the_same_address_count_once() -> None:
    text = 'require "fileinto"; fileinto "a"; fileinto "a"; redirect "x@example.org"; redirect "X@example.org"; keep; keep;'
    assert run(text).actions == (FileInto("a"), Redirect("X@example.org"), Keep())
    assert run('require "fileinto"; keep; fileinto "inbox";').actions == (FileInto("inbox"),)


def test_copies_leave_the_implicit_keep() -> None:
    text = 'require ["fileinto", "copy"]; fileinto :copy "a"; redirect :copy "x@example.org";'
    assert run(text).actions == (FileInto("a"), Redirect("x@example.org"), Keep())


@pytest.mark.parametrize(
    "address",
    ["", "x", "x@", "@y", "a@b, c@d", "a b@c", "friends: a@b;", "<@r:a@b>", 'a@b\\"', "x@y z", "<a@b", "a@b\tc"],
)
def test_redirect_refuses_what_is_no_address(address: str) -> None:
    assert "no address" in fails(f'redirect "{address}";').text


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("bart@example.com", "bart@example.com"),
        ("Bart Simpson <bart@example.com>", "bart@example.com"),
        ('\\"Simpson, Bart\\" <bart@example.com>', "bart@example.com"),
        ('\\"b s\\"@example.com', '"b s"@example.com'),
        ("bart@[192.0.2.1]", "bart@[192.0.2.1]"),
        ("jürgen@exämple.org", "jürgen@exämple.org"),
    ],
)
def test_redirect_takes_an_address_or_a_phrase_with_one(given: str, address: str) -> None:
    assert run(f'redirect "{given}";').actions == (Redirect(address),)


def test_a_mailbox_has_a_name_without_control_characters() -> None:
    assert fails('require "fileinto"; fileinto "";').column == 30
    assert "control" in fails('require "fileinto"; fileinto "a\tb";').text
    assert "octets" in fails(f'require "fileinto"; fileinto "{"x" * 2000}";').text


# --- section 5: tests


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ("allof (false, false)", False),
        ("allof (false, true)", False),
        ("allof (true, true)", True),
        ("allof (true, true, true)", True),
        ("allof (true, true, false)", False),
        ("anyof (false, false)", False),
        ("anyof (false, true)", True),
        ("anyof (true, true)", True),
        ("anyof (false, false, true)", True),
        ("anyof (false)", False),
        ("not false", True),
        ("not true", False),
        ("not not true", True),
    ],
)
def test_logic(test: str, true: bool) -> None:
    assert holds(test) is true


def test_exists_asks_for_all_of_the_fields() -> None:
    assert holds('exists ["From", "DATE"]')
    assert not holds('exists ["From", "Cc"]')
    assert not holds('exists "From:"')
    assert run('if not exists ["From","Date"] { discard; }', header(b"From: x@y")).actions == (Discard(),)


def test_exists_or_header_of_section_2_5_1() -> None:
    text = 'if anyof (not exists ["From", "Date"], header :contains "from" "fool@example.com") { discard; }'
    assert run(text, A).actions == (Keep(),)
    assert run(text, header(b"From: fool@example.com", b"Date: now")).actions == (Discard(),)


def test_a_field_that_is_there_contains_the_empty_key_and_one_that_is_not_does_not() -> None:
    octets = header(b"X-Caffeine: C8H10N4O2", b"X-Empty:")
    assert not holds('header :is ["X-Caffeine"] [""]', octets)
    assert holds('header :contains ["X-Caffeine"] [""]', octets)
    assert not holds('header :contains "X-Nothing" ""', octets)
    assert holds('header :is "X-Empty" ""', octets)
    assert holds('not header :matches "Cc" "?*"', octets)
    assert holds('not header :matches "X-Empty" "?*"', octets)


def test_header_values_are_unfolded_trimmed_and_decoded() -> None:
    octets = header(b"Subject:  =?utf-8?q?Gr=C3=BC=C3=9Fe?=", b" aus Wien  ")
    assert holds('header :is "subject" "Grüße aus Wien"', octets)
    assert holds('header :is "subject" "gRÜßE AUS wIEN"', octets) is False  # Ü is not of US-ASCII
    assert holds('header :is "subject" "GRüßE AUS wIEN"', octets)


def test_any_field_and_any_key_do() -> None:
    octets = header(b"To: a@example.org", b"Cc: b@example.org", b"To: c@example.org")
    assert holds('header :is ["to", "cc"] ["x", "C@example.ORG"]', octets)
    assert holds('header :contains ["bcc", "cc"] "b@"', octets)
    assert not holds('header :is ["to", "cc"] ["b@example", ""]', octets)


def test_names_of_fields_that_cannot_be_are_no_error() -> None:
    assert not holds('header :contains ["", "a b", "sub:ject", "süß"] ""')


def test_address_reads_addresses_only() -> None:
    octets = header(
        b'From: "tim@example.net" <Tim@Example.com> (tim@example.org)', b"To: Group: a@b.example, c@d.example;"
    )
    assert holds('address :is :all "from" "tim@example.com"', octets)
    assert not holds('address :contains "from" ["example.net", "example.org"]', octets)
    assert holds('address :is :localpart "from" "TIM"', octets)
    assert holds('address :domain "from" "example.com"', octets)
    assert not holds('address :comparator "i;octet" :domain "from" "example.com"', octets)
    assert holds('address "to" "c@d.example"', octets)
    assert not holds('address :contains "to" "group"', octets)


def test_an_address_that_is_none_matches_as_a_whole_only() -> None:
    octets = header(b"From: youcouldberich")
    assert holds('address :contains "from" "rich"', octets)
    assert not holds('address :contains :localpart "from" ""', octets)
    assert not holds('address :contains :domain "from" ""', octets)


def test_address_is_for_fields_with_addresses() -> None:
    error = fails('if address "subject" "x" { }')
    assert error.column == 12


def test_envelope() -> None:
    given: dict[str, Any] = {"envelope_from": "tim@example.com", "envelope_to": "Me+Lists@example.org"}
    assert holds('envelope :all :is "from" "tim@example.com"', require="envelope", **given)
    assert holds('envelope :localpart "TO" "me+lists"', require="envelope", **given)
    assert holds('envelope :domain ["from", "to"] "example.org"', require="envelope", **given)
    assert holds('envelope :is "from" "a@b"', require="envelope", envelope_from="<@x,@y:a@b>")


def test_the_null_reverse_path_is_the_empty_string_whatever_part_is_asked_for() -> None:
    for part in (":all", ":localpart", ":domain", ":user", ":detail"):
        assert holds(f'envelope {part} :is "from" ""', require="envelope subaddress", envelope_from="")
    assert holds('envelope :count "eq" :comparator "i;ascii-numeric" "from" "0"',
                 require="envelope relational comparator-i;ascii-numeric", envelope_from="")  # fmt: skip


def test_parts_of_an_envelope_that_there_are_not() -> None:
    assert "no part 'sender'" in fails('require "envelope"; if envelope "sender" "x" { }').text
    assert "envelope-dsn" in fails('require "envelope"; if envelope "notify" "x" { }').text


def test_envelopes_of_rfc_6009() -> None:
    extra = {"notify": "SUCCESS,FAILURE", "orcpt": "rfc822;a@b", "ret": "HDRS", "envid": "QQ1", "bymode": "R"}
    require = "envelope envelope-dsn envelope-deliverby relational comparator-i;ascii-numeric"
    assert holds('envelope "notify" "failure"', require=require, envelope_extra=extra)
    assert holds(
        'envelope :count "eq" :comparator "i;ascii-numeric" "notify" "2"', require=require, envelope_extra=extra
    )
    assert holds('envelope "orcpt" "rfc822;a@b"', require=require, envelope_extra=extra)
    assert holds('envelope "bymode" "r"', require=require, envelope_extra=extra)
    assert not holds('envelope :contains "bytrace" ""', require=require, envelope_extra=extra)
    assert not holds('envelope :localpart :contains "ret" ""', require=require, envelope_extra=extra)


def test_sizes_that_are_equal_are_neither_over_nor_under() -> None:
    size = len(A.replace(b"\n", b"\r\n"))
    assert not holds(f"size :over {size}")
    assert not holds(f"size :under {size}")
    assert holds(f"size :over {size - 1}")
    assert holds(f"size :under {size + 1}")
    assert fails("if size 3 { }").column == 4


# --- RFC 5233


def test_user_and_detail() -> None:
    text = """
        require ["envelope", "subaddress", "fileinto"];
        if envelope :user "to" "postmaster" {
            fileinto "inbox.postmaster";
            stop;
        }
        if envelope :detail "to" "mta-filters" {
            fileinto "inbox.ietf-mta-filters";
        }
        if envelope :detail "to" "foo" {
            redirect "ken@example.net";
        }"""
    assert files(run(text, envelope_to="postmaster+x@example.com")) == ["inbox.postmaster"]
    assert files(run(text, envelope_to="ken+mta-filters@example.com")) == ["inbox.ietf-mta-filters"]
    assert run(text, envelope_to="ken+foo@example.com").actions == (Redirect("ken@example.net"),)
    assert run(text, envelope_to="ken@example.com").actions == (Keep(),)


def test_without_a_separator_user_is_the_whole_and_detail_matches_nothing() -> None:
    given: dict[str, Any] = {"require": "envelope subaddress", "envelope_to": "ken@example.com"}
    assert holds('envelope :user "to" "ken"', **given)
    assert not holds('envelope :contains :detail "to" ""', **given)
    assert holds('envelope :is :detail "to" ""', require="envelope subaddress", envelope_to="ken+@example.com")
    assert holds('envelope :detail "to" "a+b"', require="envelope subaddress", envelope_to="ken+a+b@example.com")
    assert holds('envelope :detail "to" "a"', require="envelope subaddress", envelope_to="ken-a@b", separator="-")
    assert holds('address :detail "to" "x"', header(b"To: me+x@example.org"), require="subaddress")


# --- section 9

EXTENDED = """
    #
    # Example Sieve Filter
    # Declare any optional features or extension used by the script
    #
    require ["fileinto"];

    #
    # Handle messages from known mailing lists
    # Move messages from IETF filter discussion list to filter mailbox
    #
    if header :is "Sender" "owner-ietf-mta-filters@imc.org"
            {
            fileinto "filter";  # move to "filter" mailbox
            }
    #
    # Keep all messages to or from people in my company
    #
    elsif address :DOMAIN :is ["From", "To"] "example.com"
            {
            keep;               # keep in "In" mailbox
            }

    #
    # Try and catch unsolicited email.  If a message is not to me,
    # or it contains a subject known to be spam, file it away.
    #
    elsif anyof (NOT address :all :contains
                   ["To", "Cc", "Bcc"] "me@example.com",
                 header :matches "subject"
                   ["*make*money*fast*", "*university*dipl*mas*"])
            {
            fileinto "spam";   # move to "spam" mailbox
            }
    else
            {
            # Move all other (non-company) mail to "personal"
            # mailbox.
            fileinto "personal";
            }"""


@pytest.mark.parametrize(
    ("octets", "action"),
    [
        (header(b"Sender: owner-ietf-mta-filters@imc.org", b"To: x@example.com"), FileInto("filter")),
        (header(b"From: Someone <a@EXAMPLE.com>"), Keep()),
        (header(b"From: a@b.c", b"To: you@b.c"), FileInto("spam")),
        (
            header(b"From: a@b.c", b"Cc: me@example.com.b.c", b"Subject: How to MAKE some money very fast"),
            FileInto("spam"),
        ),
        (header(b"From: a@b.c", b"Cc: me@example.com.b.c", b"Subject: lunch"), FileInto("personal")),
    ],
)
def test_the_extended_example_of_section_9(octets: bytes, action: FileInto | Keep) -> None:
    assert run(EXTENDED, octets).actions == (action,)


# --- section 2.10.6


def test_an_error_at_run_time_ends_in_the_implicit_keep_alone() -> None:
    text = """require ["fileinto", "variables"];
        fileinto "a";
        redirect "${nobody}";"""
    outcome = run(text)
    assert outcome.actions == (Keep(),)
    assert outcome.error is not None
    assert outcome.error.line == 3
    assert outcome.trace[-1].startswith("failed: line 3")


def test_the_trace_says_what_happened_with_its_line() -> None:
    outcome = run('require "fileinto";\nif header :contains "subject" "present" {\n  fileinto "gifts";\n  stop;\n}')
    assert outcome.trace == (
        'line 2: if header :contains "subject" "present": true',
        'line 3: fileinto "gifts"',
        "line 4: stop",
    )


def test_the_trace_can_say_what_was_false_too() -> None:
    text = 'if header :is "subject" "x" {\n discard;\n} elsif size :over 1M { discard; }\nif exists "from" { stop; }'
    trace = compile_script(text, explain=True).run(Message(A), environment()).trace
    assert trace == (
        'line 1: if header :is "subject" "x": false',
        "line 3: elsif size :over 1048576: false",
        'line 4: if exists "from": true',
        "line 4: stop",
        "implicit keep",
    )
    assert compile_script(text).run(Message(A), environment()).trace == trace[2:]
