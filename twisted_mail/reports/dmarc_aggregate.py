"""DMARC aggregate reports (RFC 9990, before it RFC 7489): what they say, the XML, and the message that brings it."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final
from xml.sax.saxutils import escape

from twisted_mail.reports.packed import clean

__all__ = [
    "AggregateReport",
    "DKIMRow",
    "NAMESPACE",
    "PublishedPolicy",
    "Row",
    "SPFRow",
    "file_name",
    "packed",
    "report_message",
    "write_report",
]

NAMESPACE: Final = "urn:ietf:params:xml:ns:dmarc-2.0"
_SIGNATURES: Final = 100
"""Most of a row (RFC 9990 section 3.1.3)."""


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """What stood in the DNS; empty: nothing was said."""

    domain: str
    p: str = "none"
    sp: str = ""
    np: str = ""
    adkim: str = "r"
    aspf: str = "r"
    fo: str = ""
    testing: str = "n"
    discovery: str = ""
    """``treewalk`` or ``psl``."""


@dataclass(frozen=True, slots=True)
class DKIMRow:
    """Of one signature."""

    domain: str
    selector: str
    result: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class SPFRow:
    """Of the reverse-path."""

    domain: str
    result: str
    scope: str = "mfrom"
    why: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Messages of one client that fared alike."""

    source: str
    """The client's IP address."""
    count: int
    disposition: str
    """``none``, ``pass``, ``quarantine`` or ``reject``."""
    dkim: str
    """Whether an aligned signature passes: ``pass`` or ``fail``."""
    spf: str
    header_from: str
    envelope_from: str = ""
    envelope_to: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    """Why the disposition is not what the policy says: type and comment."""
    dkim_results: tuple[DKIMRow, ...] = ()
    spf_results: tuple[SPFRow, ...] = ()

    @property
    def passed(self) -> bool:
        return "pass" in (self.dkim, self.spf)


@dataclass(frozen=True, slots=True)
class AggregateReport:
    """What one receiver saw in a while of mail in the name of one policy domain."""

    organization: str
    contact: str
    id: str
    begin: datetime
    end: datetime
    policy: PublishedPolicy
    rows: tuple[Row, ...]
    extra: str = ""
    """More on whom to ask."""
    errors: tuple[str, ...] = ()


# --- the XML


def write_report(report: AggregateReport) -> bytes:
    """In UTF-8, in the order of RFC 9990 section 3.1.1."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<feedback xmlns="{NAMESPACE}">', _leaf("version", "1.0")]
    lines.append("<report_metadata>")
    lines += [_leaf("org_name", report.organization), _leaf("email", report.contact)]
    lines += [_leaf("extra_contact_info", report.extra)] if report.extra else []
    lines.append(_leaf("report_id", report.id))
    begin, end = (str(int(each.timestamp())) for each in (report.begin, report.end))
    lines.append(f"<date_range>{_leaf('begin', begin)}{_leaf('end', end)}</date_range>")
    lines += [_leaf("error", error) for error in report.errors]
    lines.append("</report_metadata>")
    policy = report.policy
    lines.append("<policy_published>")
    published = (
        ("domain", policy.domain), ("discovery_method", policy.discovery), ("p", policy.p), ("sp", policy.sp), ("np", policy.np),
        ("fo", policy.fo), ("adkim", policy.adkim), ("aspf", policy.aspf), ("testing", policy.testing),
    )  # fmt: skip
    lines += [_leaf(name, value) for name, value in published if value]
    lines.append("</policy_published>")
    for row in report.rows:
        lines += _record(row)
    lines += ["</feedback>", ""]
    return "\n".join(lines).encode()


def _leaf(name: str, text: str) -> str:
    return f"<{name}>{escape(clean(text))}</{name}>"


def _record(row: Row) -> list[str]:
    lines = ["<record>", "<row>", _leaf("source_ip", row.source), _leaf("count", str(row.count)), "<policy_evaluated>"]
    lines += [_leaf("disposition", row.disposition), _leaf("dkim", row.dkim), _leaf("spf", row.spf)]
    for kind, comment in row.reasons:
        lines.append("<reason>" + _leaf("type", kind) + (_leaf("comment", comment) if comment else "") + "</reason>")
    lines += ["</policy_evaluated>", "</row>", "<identifiers>", _leaf("header_from", row.header_from)]
    lines.append(_leaf("envelope_from", row.envelope_from))
    lines += [_leaf("envelope_to", row.envelope_to)] if row.envelope_to else []
    lines += ["</identifiers>", "<auth_results>"]
    for each in row.dkim_results[:_SIGNATURES]:
        why = _leaf("human_result", each.why) if each.why else ""
        named = _leaf("domain", each.domain) + _leaf("selector", each.selector)
        lines.append(f"<dkim>{named}{_leaf('result', each.result)}{why}</dkim>")
    for spf in row.spf_results:
        why = _leaf("human_result", spf.why) if spf.why else ""
        lines.append(f"<spf>{_leaf('domain', spf.domain)}{_leaf('scope', spf.scope)}{_leaf('result', spf.result)}{why}</spf>")
    lines += ["</auth_results>", "</record>"]
    return lines


def packed(report: AggregateReport) -> bytes:
    """The XML by gzip; the same octets for the same report."""
    return gzip.compress(write_report(report), mtime=0)


# --- the message


def file_name(report: AggregateReport, submitter: str) -> str:
    """As RFC 9990 section 3.5.2 builds it."""
    return f"{submitter}!{report.policy.domain}!{int(report.begin.timestamp())}!{int(report.end.timestamp())}.xml.gz"


def report_message(
    report: AggregateReport, attachment: bytes, recipient: str, *, submitter: str, sender: str, message_id: str, now: float
) -> bytes:
    """The message (CRLF, 7bit) that brings *report*, `packed` in *attachment*, to *recipient* (section 3.5.2).

    It is not signed yet. *sender* is the address in From.
    """
    text = base64.b64encode(attachment).decode("ascii")
    boundary = f"=_dmarc-report-{message_id.partition('@')[0]}"
    count = sum(row.count for row in report.rows)
    failed = sum(row.count for row in report.rows if not row.passed)
    lines = [
        f"From: {sender}",
        f"To: {recipient}",
        f"Subject: Report Domain: {report.policy.domain}",
        f" Submitter: {submitter}",
        f" Report-ID: <{report.id}>",
        f"Date: {formatdate(now)}",
        f"Message-ID: <{message_id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed;",
        f' boundary="{boundary}"',
        "",
        "This is a DMARC aggregate report (RFC 9990).",
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "",
        f"Mail in the name of {report.policy.domain}, as {submitter} saw it,",
        f"{_iso(report.begin)} to {_iso(report.end)}.",
        f"Messages: {count}. Not shown to be from there: {failed}.",
        "The attached file tells more.",
        "",
        f"--{boundary}",
        "Content-Type: application/gzip",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f' filename="{file_name(report, submitter)}"',
        "",
        *(text[at : at + 76] for at in range(0, len(text), 76)),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
