"""vacation (RFC 5230), vacation-seconds (RFC 6131), and copies of what is answered (RFC 8580)."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails, run
from twisted_mail.sieve import RunLimits
from twisted_mail.sieve.commands.vacation import implicit_handle
from twisted_mail.sieve.values import Discard, FileInto, Keep, Reject, Vacation

LIMITS = RunLimits(vacation_min_seconds=0)


def vacation(text: str, octets: bytes = A, require: str = "vacation", limits: RunLimits | None = None) -> Vacation:
    names = ", ".join(f'"{name}"' for name in require.split())
    outcome = run(f"require [{names}];\n{text}", octets, limits=limits)
    assert outcome.error is None, outcome.error
    (found,) = [action for action in outcome.actions if isinstance(action, Vacation)]
    return found


def header(subject: str) -> bytes:
    return f"From: x@example.org\nSubject: {subject}\n\nbody\n".encode()


def test_the_examples_of_section_4_8() -> None:
    found = vacation("""vacation :days 23 :addresses ["tjs@example.edu", "ts4z@landru.example.edu"]
        "I'm away until October 19.
        If it's an emergency, call 911, I guess." ;""")
    assert found.seconds == 23 * 86_400
    assert found.addresses == ("tjs@example.edu", "ts4z@landru.example.edu")
    assert found.reason.startswith("I'm away until October 19.")
    text = """require "vacation";
        if header :contains "from" "boss@example.edu" { redirect "pleeb@isp.example.org"; }
        else { vacation "Sorry, I'm away, I'll read your message when I get around to it."; }"""
    assert [type(action) for action in run(text).actions] == [Vacation, Keep]
    assert not any(isinstance(a, Vacation) for a in run(text, b"From: boss@example.edu\n\nx").actions)


def test_what_says_the_same_is_one_response_and_what_says_something_else_another() -> None:
    text = """if header :contains "subject" "cyrus" { vacation "I'm out -- send mail to cyrus-bugs"; }
              else { vacation "I'm out -- call me at +1 304 555 0123"; }"""
    bug, dinner = vacation(text, header("Cyrus bug")), vacation(text, header("come over for dinner"))
    assert bug.handle != dinner.handle
    assert bug.handle == vacation(text, header("another cyrus")).handle


def test_variables_make_no_new_responses() -> None:
    text = """if header :matches "subject" "*" {
                  vacation :subject "Automatic response to: ${1}" "I'm away -- send mail to foo in my absence"; }"""
    one, two = (vacation(text, header(word), "vacation variables") for word in ("one", "two"))
    assert (one.subject, two.subject) == ("Automatic response to: one", "Automatic response to: two")
    assert one.handle == two.handle, "section 4.2: arguments as they stand in the script"


def test_a_handle_names_several_responses_as_one() -> None:
    text = """if header :contains "subject" "lunch" { vacation :handle "ran-away" "I'm out and can't meet for lunch"; }
              else { vacation :handle "ran-away" "I'm out"; }"""
    assert vacation(text, header("lunch?")).handle == vacation(text, header("dinner?")).handle == "ran-away"


def test_each_argument_counts_for_the_name_of_a_response_by_its_place() -> None:
    handles = {
        implicit_handle("a", "", False, "b"),
        implicit_handle("", "a", False, "b"),
        implicit_handle("", "", False, "ab"),
        implicit_handle("", "", True, "ab"),
        implicit_handle("ab", "", False, ""),
        implicit_handle("a", "b", False, ""),
    }
    assert len(handles) == 6


def test_a_mime_entity_is_passed_on_as_it_is() -> None:
    found = vacation("""vacation :mime text:
Content-Type: multipart/alternative; boundary=foo

--foo

I'm at the beach relaxing.  Mmmm, surf...
--foo--
.
;""")
    assert found.mime
    assert found.reason.startswith("Content-Type: multipart/alternative; boundary=foo\r\n\r\n--foo\r\n")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("", 7 * 86_400),
        (":days 0", 86_400),
        (":days 1", 86_400),
        (":days 30", 30 * 86_400),
        (":days 9999999", 90 * 86_400),
        (":seconds 0", 86_400),
        (":seconds 90000", 90_000),
        (":seconds 2147483647", 90 * 86_400),
    ],
)
def test_periods_are_kept_within_what_the_server_allows(asked: str, seconds: int) -> None:
    assert vacation(f'vacation {asked} "x";', require="vacation-seconds").seconds == seconds


def test_where_the_server_allows_it_every_message_is_answered() -> None:
    assert vacation('vacation :handle "auto-resp" :seconds 0 "x";', A, "vacation-seconds", LIMITS).seconds == 0
    assert vacation('vacation :seconds 1800 "x";', A, "vacation-seconds", LIMITS).seconds == 1800
    longest = RunLimits(vacation_min_seconds=10 * 86_400)
    assert vacation('vacation "x";', limits=longest).seconds == 10 * 86_400


def test_seconds_need_their_capability_which_brings_vacation_along() -> None:
    assert "vacation-seconds" in fails('require "vacation"; vacation :seconds 3 "x";').text
    assert "exclude each other" in fails('require "vacation-seconds"; vacation :days 1 :seconds 3 "x";').text


@pytest.mark.parametrize("sender", ["a@example.org", "Ann <a@example.org>", "Ann <a@example.org>, b@example.org"])
def test_who_it_is_from_is_a_list_of_addresses(sender: str) -> None:
    assert vacation(f'vacation :from "{sender}" "x";').sender == sender


@pytest.mark.parametrize("sender", ["nobody", "a@", "a b@example.org", "a@example.org b", "", "a@example.org,"])
def test_who_is_no_address_is_an_error_when_the_script_is_compiled(sender: str) -> None:
    assert "no address" in fails(f'require "vacation"; vacation :from "{sender}" "x";').text


def test_who_turns_out_to_be_no_address_makes_the_run_fail() -> None:
    outcome = run('require ["vacation", "variables"]; set "a" "nobody"; vacation :from "${a}" "x";')
    assert outcome.error is not None and outcome.actions == (Keep(),)


def test_it_is_asked_for_once_and_goes_with_everything_but_reject() -> None:
    assert run('require "vacation"; vacation "a"; vacation "a";').error is not None
    for text in ('vacation "a"; reject "b";', 'reject "b"; vacation "a";'):
        outcome = run(f'require ["vacation", "reject"]; {text}')
        assert outcome.error is not None and outcome.actions == (Keep(),)
    text = 'require ["vacation", "fileinto"]; discard; fileinto "x"; redirect "a@example.org"; keep; vacation "a";'
    assert run(text).error is None
    assert Discard() in run('require "vacation"; discard; vacation "x";').actions
    assert Reject("b") in run('require ["reject"]; reject "b";').actions


# --- RFC 8580


def test_a_copy_of_the_answer_is_filed_where_fcc_says() -> None:
    text = r"""vacation :days 7 :subject "Holiday" :from "hmk@example.org"
        :fcc "Sent/vacation" :flags ["\\Seen", "$x"] :create :specialuse "\\Sent" "I am gone";"""
    found = vacation(text, require="vacation fcc mailbox imap4flags special-use fileinto")
    assert found.fcc == FileInto("Sent/vacation", ("\\Seen", "$x"), True, "\\Sent")


def test_a_copy_has_no_flags_of_the_message_at_hand() -> None:
    found = vacation(r'setflag "\\Flagged"; vacation :fcc "Sent" "x";', require="vacation fcc imap4flags")
    assert found.fcc == FileInto("Sent")


@pytest.mark.parametrize("tag", [":create", ':flags "x"', r':specialuse "\\Sent"', ':mailboxid "F1"'])
def test_tags_of_a_mailbox_without_fcc_are_errors(tag: str) -> None:
    error = fails(
        f'require ["vacation", "fcc", "mailbox", "imap4flags", "special-use", "mailboxid"]; vacation {tag} "x";'
    )
    assert ":fcc" in error.text


def test_fcc_and_its_tags_need_their_capabilities() -> None:
    assert '"fcc"' in fails('require "vacation"; vacation :fcc "Sent" "x";').text
    assert '"mailbox"' in fails('require ["vacation", "fcc"]; vacation :fcc "Sent" :create "x";').text
