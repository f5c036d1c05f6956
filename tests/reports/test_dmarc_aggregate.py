"""DMARC aggregate reports: what we write others can read, what others write is read, and bombs do not go off."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.reports.dmarc_aggregate import (
    NAMESPACE,
    AggregateReport,
    DKIMRow,
    PublishedPolicy,
    Row,
    SPFRow,
    packed,
    report_message,
    write_report,
)
from twisted_mail.reports.dmarc_reading import find_report, read_report
from twisted_mail.reports.packed import BadReport, gunzip, unzip

REPORT = AggregateReport(
    "Example Inc.",
    "dmarc@example.net",
    "2026-11-24.abc@mail.example.net",
    datetime(2026, 11, 24, tzinfo=UTC),
    datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC),
    PublishedPolicy("example.org", "reject", "quarantine", "", "s", "r", "1", "y", "treewalk"),
    (
        Row(
            "192.0.2.7", 3, "none", "fail", "fail", "mail.example.org", "bounce.example.net",
            reasons=(("trusted_forwarder", "ARC pass of list.example"),),
            dkim_results=(DKIMRow("example.org", "s1", "fail", "body hash did not verify"), DKIMRow("list.example", "s", "pass")),
            spf_results=(SPFRow("bounce.example.net", "pass"),),
        ),
        Row("2001:db8::7", 41, "pass", "pass", "fail", "example.org"),
    ),
)  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert read_report(write_report(REPORT)) == REPORT
    assert read_report(packed(REPORT)) == REPORT
    assert packed(REPORT) == packed(REPORT)


def test_the_xml_has_the_namespace_and_the_order_of_the_rfc() -> None:
    root = ElementTree.fromstring(write_report(REPORT))
    assert root.tag == f"{{{NAMESPACE}}}feedback"
    assert [child.tag.rpartition("}")[2] for child in root] == ["version", "report_metadata", "policy_published", "record", "record"]
    record = root.find(f"{{{NAMESPACE}}}record")
    assert record is not None
    assert [child.tag.rpartition("}")[2] for child in record] == ["row", "identifiers", "auth_results"]
    assert [child.tag.rpartition("}")[2] for child in record[0]] == ["source_ip", "count", "policy_evaluated"]
    assert [child.tag.rpartition("}")[2] for child in record[0][2]] == ["disposition", "dkim", "spf", "reason"]


def test_words_of_strangers_are_escaped() -> None:
    row = Row("192.0.2.7", 1, "none", "fail", "fail", "a.example", dkim_results=(DKIMRow("d.example", "</selector>&\x00\x0b<x>", "fail", "]]>"),))
    report = AggregateReport(REPORT.organization, REPORT.contact, REPORT.id, REPORT.begin, REPORT.end, REPORT.policy, (row,))
    read = read_report(write_report(report))
    assert read.rows[0].dkim_results == (DKIMRow("d.example", "</selector>&  <x>", "fail", "]]>"),)


def test_the_message_is_one_that_receivers_know() -> None:
    octets = report_message(
        REPORT, packed(REPORT), "reports@example.org", submitter="mail.example.net", sender="dmarc@example.net", message_id="1@mail.example.net", now=0
    )
    message = message_from_bytes(octets, policy=default)
    assert message["Subject"] == "Report Domain: example.org Submitter: mail.example.net Report-ID: <2026-11-24.abc@mail.example.net>"
    assert message["From"] == "dmarc@example.net"
    text, attachment = message.iter_parts()
    assert attachment.get_content_type() == "application/gzip"
    assert attachment.get_filename() == "mail.example.net!example.org!1795478400!1795564799.xml.gz"
    assert gzip.decompress(attachment.get_content()) == write_report(REPORT)
    assert "Messages: 44. Not shown to be from there: 3." in text.get_content()
    assert find_report(octets) == REPORT
    assert max(map(len, octets.split(b"\r\n"))) < 100


def zipped(name: str, octets: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", b"read me")
        archive.writestr(name, octets)
    return buffer.getvalue()


# What RFC 7489's appendix C has, as large providers write it: no namespace, percent, a report in an archive.
OLD = b"""<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <report_metadata>
    <org_name>acme.com</org_name><email>noreply-dmarc-support@acme.com</email>
    <extra_contact_info>http://acme.com/dmarc/support</extra_contact_info>
    <report_id>9391651994964116463</report_id>
    <date_range><begin>1335571200</begin><end>1335657599</end></date_range>
  </report_metadata>
  <policy_published><domain>Example.com</domain><adkim>r</adkim><aspf>r</aspf><p>none</p><sp>none</sp><pct>100</pct></policy_published>
  <record>
    <row><source_ip>72.150.241.94</source_ip><count>2</count>
      <policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>pass</spf></policy_evaluated></row>
    <identifiers><header_from>example.com</header_from></identifiers>
    <auth_results>
      <dkim><domain>example.com</domain><result>fail</result><human_result></human_result></dkim>
      <spf><domain>example.com</domain><result>pass</result></spf>
    </auth_results>
  </record>
</feedback>
"""


@pytest.mark.parametrize(
    ("kind", "name", "octets"),
    [
        ("application/zip", "acme.com!example.com!1335571200!1335657599.zip", zipped("acme.com!example.com!1335571200!1335657599.xml", OLD)),
        ("application/x-zip-compressed", "a.zip", zipped("A.XML", OLD)),
        ("application/octet-stream", "a.xml.gz", gzip.compress(OLD)),
        ("application/x-gzip", "", gzip.compress(OLD)),
        ("text/xml", "a.xml", OLD),
        ("image/png", "a.XML.GZ", gzip.compress(OLD)),
    ],
)
def test_reports_come_packed_in_many_ways(kind: str, name: str, octets: bytes) -> None:
    text = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    disposition = f'Content-Disposition: attachment; filename="{name}"\r\n' if name else ""
    alone = f"Subject: Report domain: example.com\r\nContent-Type: {kind}\r\n{disposition}Content-Transfer-Encoding: base64\r\n\r\n".encode() + text
    beside = (
        b'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n' + alone + b"\r\n--b--\r\n"
    )
    for message in (alone, beside):
        report = find_report(message)
        assert report is not None
        assert (report.organization, report.policy.domain, report.policy.p) == ("acme.com", "example.com", "none")
        [row] = report.rows
        assert (row.source, row.count, row.passed, row.spf_results) == ("72.150.241.94", 2, True, (SPFRow("example.com", "pass"),))


def test_a_message_without_one_has_none() -> None:
    assert find_report(b"Subject: hi\r\n\r\nhello\r\n") is None
    assert find_report(b"Content-Type: application/zip\r\n\r\nhello\r\n") is None
    assert find_report(b"") is None


BILLION = b"""<?xml version="1.0"?><!DOCTYPE feedback [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><feedback>&b;</feedback>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE feedback SYSTEM "file:///etc/passwd"><feedback/>"""


@pytest.mark.parametrize("octets", [BILLION, OUTSIDE, BILLION.decode().encode("utf-16")])
def test_a_document_type_is_refused(octets: bytes) -> None:
    with pytest.raises(BadReport, match="document type"):
        read_report(octets)


def test_bombs_do_not_go_off() -> None:
    with pytest.raises(BadReport, match="too large"):
        read_report(gzip.compress(b" " * (17 << 20), mtime=0))
    with pytest.raises(BadReport, match="too large"):
        read_report(zipped("a.xml", b" " * (17 << 20)))
    with pytest.raises(BadReport, match="too many elements"):
        read_report(b"<feedback>" + b"<a/>" * 300_001 + b"</feedback>")
    with pytest.raises(BadReport, match="too many elements"):
        read_report(b"<a>" * 100_000)
    with pytest.raises(BadReport, match="octets"):
        read_report(b"<" * (5 << 20))
    with pytest.raises(BadReport, match="too many files"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number in range(11):
                archive.writestr(f"{number}.txt", b"")
        unzip(buffer.getvalue(), 1000, ".xml")


def test_an_archive_that_lies_about_sizes_is_bounded_all_the_same() -> None:
    octets = bytearray(zipped("a.xml", b"<feedback>" + b" " * 3_000_000))
    central = octets.find(b"PK\x01\x02", octets.find(b"PK\x01\x02") + 1)
    octets[central + 24 : central + 28] = (100).to_bytes(4, "little")
    with pytest.raises(BadReport):
        read_report(bytes(octets))


def test_an_encrypted_archive_is_refused() -> None:
    octets = bytearray(zipped("a.xml", OLD))
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = octets.rfind(mark)
        octets[at + offset] |= 1
    with pytest.raises(BadReport, match="encrypted"):
        read_report(bytes(octets))


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"hello", b"<feedback>", b"<html></html>", b"<feedback/>", b"\x1f\x8b", b"PK\x03\x04", b"PK\x03\x04" + b"x" * 100,
        b"<feedback><policy_published><domain>a.b</domain></policy_published></feedback>",
        OLD.replace(b"1335571200", b"99999999999999999999"), OLD.replace(b"1335571200", "١".encode()), OLD.replace(b"UTF-8", b"utf-99"),
        gzip.compress(OLD)[:-20],
    ],
)  # fmt: skip
def test_what_is_no_report_says_why(octets: bytes) -> None:
    with pytest.raises(BadReport):
        read_report(octets)


def test_values_that_make_no_sense_are_empty() -> None:
    report = read_report(OLD.replace(b"72.150.241.94", b"nowhere").replace(b"<count>2<", b"<count>-2<"))
    assert (report.rows[0].source, report.rows[0].count) == ("", 0)
    report = read_report(OLD.replace(b"<record>", b"<extension><record><row/></record></extension><record>"))
    assert len(report.rows) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["<feedback>", "</feedback>", "<record>", "</record>", "<row>", "</row>", "<count>9", "</count>", "&lt;", "&x;", "<!--", "-->", "<![CDATA[", "]]>"]), max_size=20))
def test_any_xml_is_read_or_refused(pieces: list[str]) -> None:
    try:
        read_report("".join(pieces).encode())
    except BadReport:
        pass


def test_ten_thousand_rows_are_kept() -> None:
    record = OLD[OLD.index(b"<record>") : OLD.index(b"</feedback>")].replace(b"\n", b"")
    report = read_report(gzip.compress(OLD.replace(b"</feedback>", record * 10_500 + b"</feedback>")))
    assert len(report.rows) == 10_000


def test_gunzip_takes_no_half() -> None:
    assert gunzip(gzip.compress(b"x" * 100), 100) == b"x" * 100
    with pytest.raises(BadReport):
        gunzip(gzip.compress(b"x" * 101), 100)
