"""Abuse reports (RFC 5965): the RFC's example, providers' own, and what we write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.reports.feedback import read_feedback_report, write_feedback_report
from twisted_mail.reports.parts import Letter
from twisted_mail.reports.values import FeedbackReport, NotAReport

LETTER = Letter("reports@example.net", "fbl@example.org", "Complaint", "1@example.net", 1_700_000_000.0, automatic="auto-generated")
RFC = b"""\
From: <abusedesk@example.com>
Date: Thu, 8 Mar 2005 17:40:36 EDT
Subject: FW: Earn money
To: <abuse@example.net>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
     boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

This is an email abuse report for an email message received from IP
192.0.2.1 on Thu, 8 Mar 2005 14:00:00 EDT.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <somespammer@example.net>
Original-Rcpt-To: <user@example.com>
Arrival-Date: Thu, 8 Mar 2005 14:00:00 EDT
Reporting-MTA: dns; mail.example.com
Source-IP: 192.0.2.1
Authentication-Results: mail.example.com;
               spf=fail smtp.mail=somespammer@example.com
Reported-Domain: example.net
Reported-Uri: http://example.net/earn_money.html
Reported-Uri: mailto:user@example.com
Removal-Recipient: user@example.com

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822
Content-Disposition: inline

Received: from mailserver.example.net
     (mailserver.example.net [192.0.2.1])
     by example.com with ESMTP id M63d4137594e46;
     Tue, 08 Mar 2005 14:00:00 -0400
From: <somespammer@example.net>
To: <Undisclosed Recipients>
Subject: Earn money
MIME-Version: 1.0
Content-type: text/plain
Message-ID: 8787KJKJ3K4J3K4J3K4J3.mail@example.net
Date: Thu, 02 Sep 2004 12:31:03 -0500

Spam Spam Spam
--part1_13d.2e68ed54_boundary--
"""


def test_the_example_of_the_rfc() -> None:
    report = read_feedback_report(RFC)
    assert (report.type, report.reporter, report.sender) == ("abuse", "SomeGenerator/1.0", "somespammer@example.net")
    assert (report.recipients, report.source, report.domains) == (("user@example.com",), "192.0.2.1", ("example.net",))
    assert report.incidents == 1 and report.arrival is not None
    assert report.header.startswith(b"Received: from") and b"Subject: Earn money" in report.header


def test_a_report_without_a_recipient_is_read() -> None:
    report = read_feedback_report(RFC.replace(b"Original-Rcpt-To: <user@example.com>\n", b"Incidents: 7\n"))
    assert (report.recipients, report.incidents) == ((), 7)


@pytest.mark.parametrize(
    "octets",
    [b"", b"Subject: x\n\nspam!\n", RFC.replace(b"Feedback-Type: abuse\n", b""), b"Content-Type: message/feedback-report\n\n"],
)
def test_what_is_no_report_is_refused(octets: bytes) -> None:
    with pytest.raises(NotAReport):
        read_feedback_report(octets)


_WORD = st.text("abcxyz019.-", min_size=1, max_size=20).filter(lambda text: text.strip("-.") != "")
_ADDRESS = st.builds("{}@{}".format, _WORD, _WORD)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        FeedbackReport,
        type=st.sampled_from(["abuse", "fraud", "not-spam", "opt-out"]),
        reporter=_WORD,
        sender=st.just("") | _ADDRESS,
        recipients=st.lists(_ADDRESS, max_size=3).map(tuple),
        source=st.just("") | st.just("192.0.2.1") | st.just("2001:db8::1"),
        incidents=st.integers(1, 10**6),
        arrival=st.none() | st.integers(0, 2**32).map(float),
        domains=st.lists(_WORD, max_size=2).map(tuple),
        header=st.just(b"") | st.just(b"From: ann@example.org\r\nSubject: x\r\n"),
    )
)
def test_what_is_written_is_read(report: FeedbackReport) -> None:
    assert read_feedback_report(write_feedback_report(report, LETTER, "Somebody complained.\n")) == report


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_a_typed_error(octets: bytes) -> None:
    for head in (b"", b"Content-Type: message/feedback-report\r\n\r\n", RFC[:900]):
        try:
            read_feedback_report(head + octets)
        except NotAReport:
            pass
