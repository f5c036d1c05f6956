"""Reports of others, as their servers write them."""

from __future__ import annotations

import time

import pytest

from twisted_mail.reports.reading import READ_BYTES, guess_status, read_delivery_report
from twisted_mail.reports.values import Action, NotAReport

POSTFIX = b"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example.net (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary="3F.1/mx.example.net"

--3F.1/mx.example.net
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--3F.1/mx.example.net
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
X-Postfix-Queue-ID: 3F
X-Postfix-Sender: rfc822; ann@example.org
Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000 (UTC)

Final-Recipient: rfc822; bob@example.com
Original-Recipient: rfc822;bob@example.net
Action: failed
Status: 5.2.2
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; 552 5.2.2 <bob@example.com>: Recipient address
    rejected: Mailbox is full (over quota)

--3F.1/mx.example.net
Content-Description: Undelivered Message
Content-Type: message/rfc822

From: ann@example.org
Message-ID: <1@example.org>

text
--3F.1/mx.example.net--
"""
EXCHANGE = b"""\
From: postmaster@example.com
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: multipart/alternative; boundary=c

--c
Content-Type: text/plain

Delivery has failed to these recipients
--c
Content-Type: text/html

<p>Delivery has failed</p>
--c--
--b
Content-Type: message/delivery-status

Reporting-MTA: dns;EX1.example.com
Received-From-MTA: dns;mx.example.org
Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000

Final-Recipient: rfc822;bob@example.com
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup

--b
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: base64

TWVzc2FnZS1JRDogPDFAZXhhbXBsZS5vcmc+DQo=
--b--
"""
EXIM = b"""\
From: Mail Delivery System <Mailer-Daemon@mx.example.net>
X-Failed-Recipients: bob@example.net, carl@example.net
Auto-Submitted: auto-replied
Subject: Mail delivery failed: returning message to sender

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  bob@example.net
    host mx.example.net [192.0.2.1]
    SMTP error from remote mail server after RCPT TO:<bob@example.net>:
    550 5.1.1 <bob@example.net>: User unknown

  carl@example.net
    mailbox is full:
    retry timeout exceeded

------ This is a copy of the message, including all the headers. ------

From: ann@example.org
Message-ID: <1@example.org>

text
"""
QMAIL = b"""\
From: MAILER-DAEMON@mx.example.net
Subject: failure notice

Hi. This is the qmail-send program at mx.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<bob@example.net>:
192.0.2.1 does not like recipient.
Remote host said: 550 No such user here
Giving up on 192.0.2.1.

--- Below this line is a copy of the message.

Return-Path: <ann@example.org>
Message-ID: <1@example.org>

text
"""


def test_postfix() -> None:
    report = read_delivery_report(POSTFIX)
    assert (report.reporter, report.message_id, report.arrival) == ("mx.example.net", "1@example.org", 1_700_000_000.0)
    (each,) = report.recipients
    assert (each.recipient, each.original) == ("bob@example.com", "bob@example.net")
    assert (each.action, each.status, each.remote) == (Action.FAILED, "5.2.2", "mx.example.com")
    assert each.diagnostic.endswith("Mailbox is full (over quota)")


def test_crlf_makes_no_difference() -> None:
    for octets in (POSTFIX, EXCHANGE, EXIM, QMAIL):
        assert read_delivery_report(octets.replace(b"\n", b"\r\n")) == read_delivery_report(octets)


def test_exchange() -> None:
    report = read_delivery_report(EXCHANGE)
    assert report.message_id == "1@example.org"
    assert report.recipients[0].status == "5.1.10"
    assert "RecipientNotFound" in report.recipients[0].diagnostic


def test_exim() -> None:
    report = read_delivery_report(EXIM)
    assert not report.standard and report.message_id == "1@example.org"
    assert [(each.recipient, each.status) for each in report.recipients] == [
        ("bob@example.net", "5.1.1"), ("carl@example.net", "5.2.2"),
    ]  # fmt: skip


def test_qmail() -> None:
    report = read_delivery_report(QMAIL)
    assert not report.standard and report.message_id == "1@example.org"
    assert [(each.recipient, each.status) for each in report.recipients] == [("bob@example.net", "5.1.1")]


@pytest.mark.parametrize(
    ("change", "by", "status"),
    [
        (b"Status: 5.2.2", b"Status: 5.2.2 (full)", "5.2.2"),
        (b"Status: 5.2.2\n", b"", "5.2.2"),
        (b"Status: 5.2.2", b"Status: nonsense", "5.2.2"),
        (b"Reporting-MTA: dns; mx.example.net\n", b"", "5.2.2"),
        (b"Original-Recipient: rfc822;bob@example.net\n", b"", "5.2.2"),
        (b"+0000 (UTC)\n\nFinal", b"+0000 (UTC)\nFinal", "5.2.2"),
        (b"+0000 (UTC)\n\nFinal", b"+0000 (UTC)\n \n\n\nFinal", "5.2.2"),
    ],
)
def test_what_is_slightly_wrong_is_read(change: bytes, by: bytes, status: str) -> None:
    assert change in POSTFIX
    (each,) = read_delivery_report(POSTFIX.replace(change, by)).recipients
    assert each.status == status and each.recipient == "bob@example.com"


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"Subject: hello\n\nhow are you?\n", POSTFIX.replace(b"Action: failed\n", b""),
        POSTFIX.replace(b"Action: failed", b"Action: lost"), POSTFIX.replace(b"Recipient: ", b"Person: "),
        b"Content-Type: message/delivery-status\n\n", b"X-Failed-Recipients: nobody\n\ntext\n",
        b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: rot13\n\nAction: failed\n",
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused(octets: bytes) -> None:
    with pytest.raises(NotAReport):
        read_delivery_report(octets)


def test_a_delivery_status_inside_what_was_returned_is_not_taken_for_the_report() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\n" + POSTFIX + b"--x--\n"
    with pytest.raises(NotAReport):
        read_delivery_report(inner)


def test_large_reports_cost_little() -> None:
    group = b"\nFinal-Recipient: rfc822; x@example.net\nAction: failed\nStatus: 5.0.0\n"
    head = b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n"
    for octets in (
        head + group * 50_000, head + b"\n \n" * 500_000, b"X-Failed-Recipients: " + b"a@b," * 20_000 + b"\n\n" + b"a@b " * 200_000,
        QMAIL + b"<a@b.example>:\nno\n" * 60_000, b"X-Failed-Recipients: a@b\n\n" + b"---:\n" * 200_000,
    ):  # fmt: skip
        before = time.process_time()
        try:
            report = read_delivery_report(octets + b"x" * READ_BYTES)
            assert len(report.recipients) <= 200
        except NotAReport:
            pass
        assert time.process_time() - before < 2.0


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("550 5.1.1 no", "5.1.1"), ("550 #5.1.0 Address rejected", "5.1.0"), ("550-5.7.26 policy", "5.7.26"),
        ("550 User unknown", "5.1.1"), ("450 mailbox full", "4.2.2"), ("554 go away", "5.0.0"), ("hello", ""),
        ("delivery to 10.5.1.1 failed", ""), ("Status 4.4.7", "4.4.7"), ("the account is disabled", "5.2.1"),
        ("host not found", "5.1.2"), ("blocked by a blocklist", "5.7.1"),
    ],
)  # fmt: skip
def test_a_code_is_guessed(text: str, status: str) -> None:
    assert guess_status(text) == status
