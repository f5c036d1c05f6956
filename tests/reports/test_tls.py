"""TLS reports, written and read."""

from __future__ import annotations

import base64
import email
import email.policy
import gzip
import json
import random
from datetime import UTC, datetime

import pytest

from twisted_mail.reports.tls import (
    BadReport,
    FailureDetail,
    PolicyResult,
    TLSReport,
    file_name,
    find_report,
    read_report,
    report_addresses,
    report_message,
    write_report,
)

REPORT = TLSReport(
    "Example Inc.",
    "tls@example.net",
    "2026-11-24.abc@mail.example.net",
    datetime(2026, 11, 24, tzinfo=UTC),
    datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC),
    (
        PolicyResult(
            "sts", "example.org", ("version: STSv1", "mode: testing"), ("*.mail.example.org",), 5326, 303,
            (FailureDetail("certificate-expired", "2001:db8::1", "mx1.mail.example.org", "192.0.2.1", 100), FailureDetail("starttls-not-supported", "", "mx2.mail.example.org", "", 203, "no STARTTLS")),
        ),
        PolicyResult("no-policy-found", "example.org", successes=1),
    ),
)  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert read_report(write_report(REPORT)) == REPORT
    assert read_report(gzip.compress(write_report(REPORT))) == REPORT


def test_the_names_are_those_of_the_rfc() -> None:
    written = json.loads(write_report(REPORT))
    assert set(written) == {"organization-name", "date-range", "contact-info", "report-id", "policies"}
    assert written["date-range"] == {"start-datetime": "2026-11-24T00:00:00Z", "end-datetime": "2026-11-24T23:59:59Z"}
    first = written["policies"][0]
    assert first["policy"] == {
        "policy-type": "sts", "policy-domain": "example.org", "policy-string": ["version: STSv1", "mode: testing"], "mx-host": ["*.mail.example.org"],
    }  # fmt: skip
    assert first["summary"] == {"total-successful-session-count": 5326, "total-failure-session-count": 303}
    assert first["failure-details"][0] == {
        "result-type": "certificate-expired", "sending-mta-ip": "2001:db8::1", "receiving-mx-hostname": "mx1.mail.example.org",
        "receiving-ip": "192.0.2.1", "failed-session-count": 100,
    }  # fmt: skip


def test_what_others_write_is_read_too() -> None:
    text = """{"organization-name":"Company-X","date-range":{"start-datetime":"2016-04-01T00:00:00+02:00","end-datetime":"2016-04-01 23:59:59"},
    "contact-info":null,"report-id":"5065427c-23d3","new":[1,{"x":2}],"policies":[{"policy":{"policy-type":"sts","policy-string":"version: STSv1",
    "policy-domain":"Company-Y.example","mx-host":"*.mail.company-y.example"},"summary":{"total-successful-session-count":"5326",
    "total-failure-session-count":-1},"failure-details":[{"result-type":"x\\u001b[31m","failure-reason-code":"why"}]}]}"""
    report = read_report(text.encode())
    policy = report.policies[0]
    assert report.begin == datetime(2016, 3, 31, 22, tzinfo=UTC)
    assert (policy.domain, policy.mx, policy.successes, policy.failures) == ("company-y.example", ("*.mail.company-y.example",), 5326, 0)
    assert policy.details == (FailureDetail("x [31m", information="why"),)


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"{}", b"[]", b"nonsense", b"\x1f\x8bnonsense", b"[" * 100_000, gzip.compress(b"x" * 9_000_000), gzip.compress(write_report(REPORT))[:-9], b"x" * 5_000_000,
        write_report(REPORT).replace(b"2026-11-24T00:00:00Z", b"yesterday"), write_report(REPORT).replace(b"2026-11-24T00:00:00Z", b"0001-01-01T00:00:00+23:00"),
        write_report(REPORT).replace(b'"policies":[', b'"policies":[1,'), b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(octets: bytes) -> None:
    with pytest.raises(BadReport):
        read_report(octets)


def test_spoiled_reports_end_in_one_way() -> None:
    rng = random.Random(3)
    for good in (write_report(REPORT), gzip.compress(write_report(REPORT))):
        for _ in range(300):
            spoiled = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
            try:
                read_report(bytes(spoiled))
            except BadReport:
                pass


@pytest.mark.parametrize(
    ("records", "addresses"),
    [
        ([b"v=TLSRPTv1; rua=mailto:tls@example.org"], ("mailto:tls@example.org",)),
        ([b"v=TLSRPTv1;rua=mailto:a@example.org,https://example.org/v1;x=y"], ("mailto:a@example.org", "https://example.org/v1")),
        ([b"v=spf1 -all", b"v=TLSRPTv1; rua=mailto:a%2Bb@example.org ;"], ("mailto:a%2Bb@example.org",)),
        ([b"v=TLSRPTv1; rua=http://example.org/, ftp://e.org, mailto:nobody, mailto:a@b%0d%0aBcc:x@y, https:///x"], ()),
        ([b"v=TLSRPTv1; rua=mailto:a@b.org", b"v=TLSRPTv1; rua=mailto:c@d.org"], ()),
        ([b"v=TLSRPTv2; rua=mailto:a@b.org"], ()),
        ([b"v=TLSRPTv1; nothing"], ()),
        ([b"v=TLSRPTv1; rua=" + b",".join(b"mailto:a%d@b.org" % n for n in range(50))], tuple(f"mailto:a{n}@b.org" for n in range(5))),
        ([], ()),
    ],
)
def test_who_wants_reports(records: list[bytes], addresses: tuple[str, ...]) -> None:
    assert report_addresses(records) == addresses


def made() -> bytes:
    message = report_message(
        REPORT, "example.org", "mailto:tls%2Brpt@example.org?subject=x", submitter="mail.example.net", sender="tls@example.net",
        message_id="2026-11-24.abc.1@mail.example.net", now=1_800_000_000,
    )  # fmt: skip
    assert message is not None
    octets, recipient = message
    assert recipient == "tls+rpt@example.org"
    return octets


def test_the_message() -> None:
    octets = made()
    assert all(len(line) <= 998 for line in octets.split(b"\r\n")) and b"\n" not in octets.replace(b"\r\n", b"")
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert not message.defects
    assert message["TLS-Report-Domain"] == "example.org" and message["TLS-Report-Submitter"] == "mail.example.net"
    assert message["Subject"] == f"Report Domain: example.org Submitter: mail.example.net Report-ID: <{REPORT.id}>"
    assert message["TLS-Required"] == "No"
    assert message.get_content_type() == "multipart/report" and message.get_param("report-type") == "tlsrpt"
    text, attached = message.iter_parts()
    assert text.get_content_type() == "text/plain" and attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == "mail.example.net!example.org!1795478400!1795564799.json.gz" == file_name(REPORT, "example.org", "mail.example.net")
    assert read_report(attached.get_payload(decode=True)) == REPORT  # type: ignore[arg-type]


def test_a_report_is_found_in_its_message() -> None:
    assert find_report(made()) == REPORT
    plain = b"Content-Type: application/tlsrpt+json\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(write_report(REPORT))
    assert find_report(plain) == REPORT
    assert find_report(b"Subject: hello\r\n\r\nno report\r\n") is None
    assert find_report(b"") is None
    for wrong in (plain.replace(b"base64", b"rot13"), plain[:-40], made().replace(b"H4sI", b"AAAA")):
        with pytest.raises(BadReport):
            find_report(wrong)


def test_nobody_to_write_to() -> None:
    assert report_message(REPORT, "e.org", "https://e.org/", submitter="m", sender="a@b", message_id="x@m", now=0) is None
