"""Delivery reports: people understand them, programs read back what was written, and nothing can be slipped in."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.reports.delivery import decode_xtext, subject_of, text_for_people, write_delivery_report
from twisted_mail.reports.explanations import explain
from twisted_mail.reports.fields import field, groups
from twisted_mail.reports.parts import Letter, Returned, bounded_header
from twisted_mail.reports.reading import read_delivery_report
from twisted_mail.reports.values import Action, DeliveryReport, NotAReport, RecipientStatus

NOW = 1_700_000_000.0
LETTER = Letter(
    "Mail delivery <mailer-daemon@mx.example.org>", "ann@example.org", "Not delivered: Lunch", "r1@mx.example.org", NOW,
    about="1@example.org",
)  # fmt: skip
HEADER = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\nMessage-ID: <1@example.org>\r\n"
FAILED = RecipientStatus(
    "bob@example.net", Action.FAILED, "5.1.1", original="Bob@example.net", remote="mx.example.net",
    diagnostic="550 5.1.1 <bob@example.net>: no such user (really)", last_attempt=NOW - 60,
)  # fmt: skip
REPORT = DeliveryReport((FAILED,), reporter="mx.example.org", envelope_id="e+1", arrival=NOW - 3600, message_id="1@example.org")


def parsed(octets: bytes) -> EmailMessage:
    return email.message_from_bytes(octets, policy=email.policy.SMTP)


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_another_library_reads_it_as_a_report() -> None:
    octets = write_delivery_report(REPORT, LETTER, Returned(HEADER, False), subject="Lunch")
    message = parsed(octets)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@example.org>"
    assert (message["To"], message["From"]) == ("ann@example.org", "Mail delivery <mailer-daemon@mx.example.org>")
    text, status, header = message.iter_parts()
    assert [part.get_content_type() for part in (text, status, header)] == [
        "text/plain", "message/delivery-status", "text/rfc822-headers",
    ]  # fmt: skip
    about, recipient = cast(list[EmailMessage], status.get_payload())
    assert about["Reporting-MTA"] == "dns; mx.example.org"
    assert about["Original-Envelope-Id"] == "e+1"
    assert recipient["Final-Recipient"] == "rfc822; bob@example.net"
    assert recipient["Action"] == "failed" and recipient["Status"] == "5.1.1"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 <bob@example.net>: no such user (really)"
    assert all(len(line) <= 78 for line in octets.split(b"\r\n"))
    assert b"\n" not in octets.replace(b"\r\n", b"") and not message.defects


def test_the_text_says_who_why_and_what_to_do() -> None:
    text = text_for_people(REPORT, subject="Lunch")
    assert 'Your message "Lunch" could not be delivered to the recipient below. It is not tried again.' in unwrapped(text)
    assert "\n  Bob@example.net\n" in text
    assert "There is no such address. Check the part before the @ for typing errors" in unwrapped(text)
    assert "The server mx.example.net said: 550 5.1.1 <bob@example.net>: no such user (really)" in unwrapped(text)
    delayed = RecipientStatus("bob@example.net", Action.DELAYED, "4.4.1", diagnostic="connection refused", retry_until=NOW)
    text = text_for_people(DeliveryReport((delayed,)))
    assert "has not reached" in text and "you need not do anything" in unwrapped(text)
    assert "It is tried until Tue, 14 Nov 2023 22:13:20" in text and "Our server says:" in text
    for action in Action:
        one = DeliveryReport((RecipientStatus("x@example.net", action, "2.0.0"),))
        assert "x@example.net" in text_for_people(one) and "recipient below" in unwrapped(text_for_people(one))
    many = DeliveryReport(tuple(RecipientStatus(f"{n}@example.net", Action.FAILED, "5.0.0") for n in range(60)))
    assert "and 10 more" in text_for_people(many)


@pytest.mark.parametrize("status", ["5.1.1", "4.7.1", "5.7.999", "5.99.1", "5.2.0", "nonsense", ""])
def test_every_code_has_words(status: str) -> None:
    what, remedy = explain(status)
    assert what.endswith(".") and remedy.endswith(".")


def test_the_subject_says_the_worst() -> None:
    done = RecipientStatus("x@example.net", Action.DELIVERED, "2.0.0")
    assert subject_of(DeliveryReport((done, FAILED)), "Lunch") == "Not delivered: Lunch"
    assert subject_of(DeliveryReport((done,))) == "Delivered"
    assert len(subject_of(REPORT, "x" * 1000)) < 130


def test_a_whole_message_comes_back_if_it_was_asked_for() -> None:
    for body, encoding in ((b"plain\r\n", "7bit"), ("grün\r\n".encode(), "8bit")):
        octets = write_delivery_report(REPORT, LETTER, Returned(HEADER + b"\r\n" + body, True))
        part = list(parsed(octets).iter_parts())[2]
        assert part.get_content_type() == "message/rfc822" and part["Content-Transfer-Encoding"] == encoding
        assert HEADER + b"\r\n" + body in octets
        assert (b"Content-Transfer-Encoding: 8bit\r\n\r\n--" in octets) == (encoding == "8bit")
        assert read_delivery_report(octets).message_id == "1@example.org"


def test_international_mail_is_reported_in_its_own_forms() -> None:
    """RFC 6533; and to those who cannot read UTF-8, in a form that every server carries."""
    status = RecipientStatus("bøb@exämple.net", Action.FAILED, "5.1.1", original="bøb@exämple.net", diagnostic="550 n'existe pas: bøb")
    report = DeliveryReport((status,), reporter="mx.example.org")
    header = "Subject: Grüße\r\nMessage-ID: <1@example.org>\r\n".encode()
    octets = write_delivery_report(report, LETTER, Returned(header, False, international=True), international=True)
    assert octets.isascii()
    assert b"message/global-delivery-status" in octets and b"message/global-headers" in octets
    read = read_delivery_report(octets).recipients[0]
    assert (read.recipient, read.diagnostic) == (status.recipient, status.diagnostic)
    octets = write_delivery_report(report, LETTER, Returned(header, False))
    assert b"utf-8; b\\x{F8}b@ex\\x{E4}mple.net" in octets
    assert read_delivery_report(octets).recipients[0].recipient == status.recipient


def test_what_a_server_said_cannot_become_a_field_or_a_part() -> None:
    said = "550 no\r\n\r\nFinal-Recipient: rfc822; eve@example.net\r\nAction: failed\r\n--report-r1mxexampleorg--\r\n\x00" + "x" * 5000
    status = RecipientStatus("bob@example.net", Action.FAILED, "5.1.1", diagnostic=said, remote="mx\r\nX: y")
    octets = write_delivery_report(DeliveryReport((status,), reporter="mx"), LETTER, None, subject="a\r\nBcc: eve@example.net")
    (read,) = read_delivery_report(octets).recipients
    assert read.recipient == "bob@example.net"
    assert b"\r\nX: y" not in octets and b"\r\nBcc:" not in octets and b"\x00" not in octets
    assert len(octets) < 10_000


def test_a_header_is_returned_in_whole_fields_up_to_a_bound() -> None:
    header = b"A: 1\r\nB: 2\n 3\r\n" + b"C: " + b"x" * 20_000 + b"\r\nD: 4\r\n\r\n"
    assert bounded_header(header) == b"A: 1\r\nB: 2\r\n 3\r\n"
    assert bounded_header(b"\r\n") == bounded_header(b"") == b""
    long = Returned(b"X: " + b"y" * 2000 + b"\r\n", False)
    assert max(map(len, write_delivery_report(REPORT, LETTER, long).split(b"\r\n"))) < 998


@pytest.mark.parametrize(
    ("text", "decoded"), [("abc", "abc"), ("a+2Bb+3Dc", "a+b=c"), ("+C3+BC", "ü"), ("+", "+"), ("+zz", "+zz"), ("a+2", "a+2")]
)
def test_xtext_is_undone(text: str, decoded: str) -> None:
    assert decode_xtext(text) == decoded


_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="()<>;="), min_size=1, max_size=40)
_WORDS = st.lists(_TEXT, min_size=1, max_size=12).map(" ".join)
_ADDRESSES = st.builds("{}@{}.example".format, st.text("abcdøüж.+-_0", min_size=1, max_size=20), st.text("abcä", min_size=1, max_size=9))
_TIMES = st.none() | st.integers(0, 2**32).map(float)
_STATUSES = st.builds(
    RecipientStatus,
    recipient=_ADDRESSES,
    action=st.sampled_from(Action),
    status=st.builds("{}.{}.{}".format, st.sampled_from("245"), st.integers(0, 9), st.integers(0, 99)),
    original=st.just("") | _ADDRESSES,
    remote=st.just("") | _TEXT,
    diagnostic=st.just("") | _WORDS,
    last_attempt=_TIMES,
)
_REPORTS = st.builds(
    DeliveryReport,
    recipients=st.lists(_STATUSES, min_size=1, max_size=5).map(tuple),
    reporter=_TEXT,
    envelope_id=st.just("") | _TEXT,
    arrival=_TIMES,
    message_id=st.just("1@example.org"),
)


@settings(max_examples=100, deadline=None)
@given(_REPORTS, st.booleans())
def test_what_is_written_is_read(report: DeliveryReport, international: bool) -> None:
    octets = write_delivery_report(report, LETTER, Returned(HEADER, False), international=international)
    assert octets.isascii() and max(map(len, octets.split(b"\r\n"))) <= 998
    assert read_delivery_report(octets) == report


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_a_field_is_one_field(value: str) -> None:
    octets = field("Name", value).encode()
    assert len(groups(octets)) <= 1
    assert all(list(group) == ["name"] and len(group["name"]) == 1 for group in groups(octets))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_garbage_is_a_typed_error(data: st.DataObject) -> None:
    octets = bytearray(write_delivery_report(REPORT, LETTER, Returned(HEADER, False)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 200))] = data.draw(st.binary(max_size=8))
        if not octets:
            break
    try:
        read_delivery_report(bytes(octets))
    except NotAReport:
        pass


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=500))
def test_any_octets_are_a_typed_error(octets: bytes) -> None:
    for head in (b"", b"X-Failed-Recipients: ", b"Content-Type: message/delivery-status\r\n\r\n"):
        try:
            read_delivery_report(head + octets)
        except NotAReport:
            pass
