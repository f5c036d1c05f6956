"""enotify (RFC 5435) by mailto (RFC 5436, RFC 6068)."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sieve.scripts import A, fails, files, holds, run
from twisted_mail.sieve.mailto import Mailto, encode_url, parse_mailto
from twisted_mail.sieve.values import FileInto, Keep, Notify

KNITTING = b"""\
Return-Path: <knitting-bounces@example.com>
List-Id: Knitting Mailing List <knitting.example.com>
From: "Jeff Smith" <jeff@hobbies.example.com>
To: "Knitting Mailing List" <knitting@example.com>
Subject: [Knitting] A new sweater

I just finished a great new sweater!
"""


def test_the_first_example_of_rfc_5435() -> None:
    text = """require ["enotify", "fileinto", "variables"];
        if header :contains "from" "boss@example.org" {
            notify :importance "1" :message "This is probably very important" "mailto:alm@example.com";
            stop;
        }
        if header :contains "to" "sievemailinglist@example.org" {
            if header :matches "Subject" "*" { set "subject" "${1}"; }
            if header :matches "From" "*" { set "from" "${1}"; }
            notify :importance "3" :message "[SIEVE] ${from}: ${subject}" "mailto:alm@example.com";
            fileinto "INBOX.sieve";
        }"""
    assert run(text, b"From: boss@example.org\n\n").actions == (
        Notify(method="mailto:alm@example.com", message="This is probably very important", importance="1"),
        Keep(),
    )
    octets = b"From: a@example.org\nTo: sievemailinglist@example.org\nSubject: hi\n\n"
    assert run(text, octets).actions == (
        Notify(method="mailto:alm@example.com", message="[SIEVE] a@example.org: hi", importance="3"),
        FileInto("INBOX.sieve"),
    )


def test_the_second_example_of_rfc_5435() -> None:
    text = """require ["enotify", "fileinto", "variables", "envelope"];
        if header :matches "from" "*@*.example.org" {
            if envelope :all :matches "from" "*" { set "env_from" " [really: ${1}]"; }
            if header :matches "Subject" "*" { set "subject" "${1}"; }
            if address :matches :all "from" "*" { set "from_addr" "${1}"; }
            notify :message "${from_addr}${env_from}: ${subject}" "mailto:alm@example.com";
        }"""
    octets = b"From: a@x.example.org\nSubject: hi\n\n"
    (found, _) = run(text, octets, envelope_from="b@example.net").actions
    assert isinstance(found, Notify) and found.message == "a@x.example.org [really: b@example.net]: hi"


def test_the_example_of_rfc_5436() -> None:
    text = """require ["enotify", "variables"];
        if header :contains "list-id" "knitting.example.com" {
            if header :matches "Subject" "[*] *" {
                notify :message "From ${1} list: ${2}" :importance "3"
                    "mailto:0123456789@sms.example.net?to=backup@example.com";
            }
        }"""
    (found, _) = run(text, KNITTING).actions
    assert isinstance(found, Notify) and found.message == "From Knitting list: A new sweater"
    assert parse_mailto(found.method).recipients == ("0123456789@sms.example.net", "backup@example.com")


def test_other_methods_fail_only_where_they_are_come_to() -> None:
    text = """require ["enotify"];
        if notify_method_capability "xmpp:tim@example.com?message;subject=SIEVE" "Online" "yes" {
            notify :importance "1" :message "You got mail" "xmpp:tim@example.com?message;subject=SIEVE";
        } elsif not valid_notify_method "tel:+14085551212" { keep; } else { notify "tel:+14085551212"; }"""
    assert run(text).actions == (Keep(),)
    outcome = run('require ["enotify", "fileinto"]; fileinto "x"; notify "tel:+14085551212";')
    assert outcome.error is not None and outcome.actions == (Keep(),)


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ('valid_notify_method "mailto:a@example.org"', True),
        ('valid_notify_method "MAILTO:a@example.org?subject=%C3%BC"', True),
        ('valid_notify_method ["mailto:a@example.org", "http://gw.example.net/notify?test"]', False),
        ('valid_notify_method ["mailto:", "http://gw.example.net/notify?test"]', False),
        ('valid_notify_method "mailto:?to=a@example.org"', True),
        ('valid_notify_method "mailto:a"', False),
        ('valid_notify_method "mailto:a@example.org?cc=b"', False),
        ('valid_notify_method "mailto:a b@example.org"', False),
        ('valid_notify_method "mailto:a@example.org?body=%zz"', False),
        ('valid_notify_method "mailto:a@example.org?body"', False),
        ('valid_notify_method ""', False),
        ('notify_method_capability "mailto:a@example.org" "Online" "maybe"', True),
        ('notify_method_capability "mailto:a@example.org" "online" ["yes", "no"]', False),
        ('notify_method_capability :count "eq" "mailto:a@example.org" "online" "1"', True),
        ('notify_method_capability :contains "mailto:a@example.org" "colour" ""', False),
        ('notify_method_capability :contains "tel:+14085551212" "online" ""', False),
        ('notify_method_capability :contains "mailto:nobody" "online" ""', False),
    ],
)
def test_what_can_be_notified(test: str, true: bool) -> None:
    assert holds(test, A, "enotify relational") is true


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('notify "mailto:nobody";', "no address"),
        ('notify :importance "4" "mailto:a@example.org";', "importance"),
        ('notify :from "nobody" "mailto:a@example.org";', "no address"),
        ("notify;", "lacks"),
    ],
)
def test_what_is_wrong_is_said_when_the_script_is_compiled(text: str, why: str) -> None:
    assert why in fails('require "enotify"; ' + text).text


def test_a_notification_may_be_filed_too() -> None:
    text = r"""require ["enotify", "fcc", "special-use", "mailbox"];
        notify :fcc "Sent" :specialuse "\\Sent" :create :message "x" :options ["a=b"] :from "me@example.org"
            "mailto:a@example.org";"""
    assert run(text).actions[0] == Notify(
        method="mailto:a@example.org",
        message="x",
        sender="me@example.org",
        options=("a=b",),
        fcc=FileInto("Sent", create=True, special_use="\\Sent"),
    )


# --- mailto


def test_a_uri_is_taken_apart_and_may_not_set_what_says_where_mail_comes_from() -> None:
    uri = (
        "mailto:gorby%25kremvax@example.com,b@example.com?subject=a%20b&cc=c@example.com&to=d@example.com"
        "&body=one%0D%0Atwo&In-Reply-To=%3C1@example.com%3E&from=x@example.com&auto-submitted=no&X-A=1%0D%0ABcc:%20z"
    )
    assert parse_mailto(uri) == Mailto(
        ("gorby%kremvax@example.com", "b@example.com", "d@example.com"),
        ("c@example.com",),
        "a b",
        "one\ntwo",
        (("in-reply-to", "<1@example.com>"), ("x-a", "1 Bcc: z")),
    )


def test_recipients_are_few() -> None:
    with pytest.raises(ValueError):
        parse_mailto("mailto:" + ",".join(f"a{number}@example.org" for number in range(21)))


@given(st.text(max_size=80))
def test_whatever_the_uri_it_is_taken_apart_or_refused_and_nothing_in_it_ends_a_line(rest: str) -> None:
    try:
        found = parse_mailto("mailto:a@example.org?x=" + rest)
    except ValueError:
        return
    for text in (*found.recipients, *found.copies, found.subject, *(part for pair in found.fields for part in pair)):
        assert "\n" not in text and "\r" not in text


@given(st.text(max_size=80))
def test_encoding_for_urls_can_be_undone_and_leaves_what_is_unreserved(text: str) -> None:
    assert unquote(encode_url(text), errors="strict") == text
    assert parse_mailto("mailto:a@example.org?subject=" + encode_url(text)).subject == " ".join(text.split())


def test_encodeurl_comes_after_other_modifiers() -> None:
    text = 'require ["enotify", "variables", "fileinto"]; set :encodeurl :upper :length "u" "{}"; fileinto "${u}";'
    assert files(run(text.replace(":length ", "").replace("{}", "a b-~ü"))) == ["A%20B-~%C3%BC"]
    assert files(run(text.replace("{}", "a b-~ü"))) == ["13"], "RFC 5229 section 4.1: 40, 15, 10"
    assert '"enotify"' in fails('require "variables"; set :encodeurl "a" "b";').text
