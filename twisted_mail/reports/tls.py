"""Reports on TLS (RFC 8460): the JSON, the message that carries it, both written and read; and who wants to have them.

What is read comes from strangers: sizes are bounded before anything is unpacked, and no text of theirs leaves here with
control characters in it.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from twisted_mail.mime.parser import MessageParser
from twisted_mail.mime.part import Limits, Part
from twisted_mail.mime.transfer import UnknownEncoding, decode_transfer
from twisted_mail.reports.packed import BadReport, clean, gunzip

__all__ = [
    "BadReport",
    "FailureDetail",
    "PolicyResult",
    "TLSReport",
    "file_name",
    "find_report",
    "read_report",
    "report_addresses",
    "report_message",
    "write_report",
]

_PACKED: Final = 4 * 1024 * 1024
_UNPACKED: Final = 8 * 1024 * 1024
"""Most octets of a report, before and after it is unpacked."""
_POLICIES: Final = 1000
_DETAILS: Final = 1000
"""Most of a report that are kept."""
_ADDRESSES: Final = 5
_MAILTO: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,200}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class FailureDetail:
    """Sessions that failed for one reason (section 4.4)."""

    type: str
    """One of section 4.3: ``starttls-not-supported``, ``certificate-expired`` and so on."""
    sending: str = ""
    """The sender's IP address."""
    host: str = ""
    """The receiver's host name."""
    receiving: str = ""
    """Its IP address."""
    count: int = 0
    information: str = ""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What came of one policy."""

    kind: str
    """``tlsa``, ``sts`` or ``no-policy-found``."""
    domain: str
    strings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    successes: int = 0
    failures: int = 0
    details: tuple[FailureDetail, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSReport:
    """What one organization saw in a while, as a rule of one day (UTC)."""

    organization: str
    contact: str
    id: str
    begin: datetime
    end: datetime
    policies: tuple[PolicyResult, ...]


# --- the JSON


class _Detail(msgspec.Struct, rename="kebab", omit_defaults=True):
    result_type: str
    sending_mta_ip: str | None = None
    receiving_mx_hostname: str | None = None
    receiving_mx_helo: str | None = None
    receiving_ip: str | None = None
    failed_session_count: int = 0
    additional_information: str | None = None
    failure_reason_code: str | None = None


class _Policy(msgspec.Struct, rename="kebab", omit_defaults=True):
    policy_type: str
    policy_domain: str = ""
    policy_string: str | list[str] | None = None
    mx_host: str | list[str] | None = None


class _Summary(msgspec.Struct, rename="kebab"):
    total_successful_session_count: int = 0
    total_failure_session_count: int = 0


class _Result(msgspec.Struct, rename="kebab", omit_defaults=True):
    policy: _Policy
    summary: _Summary
    failure_details: list[_Detail] | None = None


class _Range(msgspec.Struct, rename="kebab"):
    start_datetime: str
    end_datetime: str


class _Report(msgspec.Struct, rename="kebab"):
    date_range: _Range
    report_id: str
    policies: list[_Result]
    organization_name: str = ""
    contact_info: str | None = None


def write_report(report: TLSReport) -> bytes:
    """Its JSON in UTF-8 (section 4.4)."""
    results = [
        _Result(
            _Policy(policy.kind, policy.domain, list(policy.strings) or None, list(policy.mx) or None),
            _Summary(policy.successes, policy.failures),
            [
                _Detail(
                    detail.type,
                    detail.sending or None,
                    detail.host or None,
                    None,
                    detail.receiving or None,
                    detail.count,
                    detail.information or None,
                )
                for detail in policy.details
            ]
            or None,
        )
        for policy in report.policies
    ]
    dates = _Range(_iso(report.begin), _iso(report.end))
    return msgspec.json.encode(_Report(dates, report.id, results, report.organization, report.contact))


def read_report(octets: bytes) -> TLSReport:
    """Read JSON, packed by gzip or not. Raises BadReport."""
    if len(octets) > _PACKED:
        raise BadReport(f"a report of {len(octets)} octets")
    if octets[:2] == b"\x1f\x8b":
        octets = gunzip(octets, _UNPACKED)
    try:
        read = msgspec.json.decode(octets, type=_Report, strict=False)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadReport(clean(str(error))) from error
    return TLSReport(
        clean(read.organization_name),
        clean(read.contact_info or ""),
        clean(read.report_id),
        _moment(read.date_range.start_datetime),
        _moment(read.date_range.end_datetime),
        tuple(_result(result) for result in read.policies[:_POLICIES]),
    )


def _result(read: _Result) -> PolicyResult:
    details = tuple(
        FailureDetail(
            clean(detail.result_type),
            clean(detail.sending_mta_ip or ""),
            clean(detail.receiving_mx_hostname or ""),
            clean(detail.receiving_ip or ""),
            max(0, detail.failed_session_count),
            clean(detail.additional_information or detail.failure_reason_code or ""),
        )
        for detail in (read.failure_details or [])[:_DETAILS]
    )
    return PolicyResult(
        clean(read.policy.policy_type),
        clean(read.policy.policy_domain).lower(),
        _texts(read.policy.policy_string),
        _texts(read.policy.mx_host),
        max(0, read.summary.total_successful_session_count),
        max(0, read.summary.total_failure_session_count),
        details,
    )


def _texts(read: str | list[str] | None) -> tuple[str, ...]:
    """Some write one text where a list belongs."""
    if read is None:
        return ()
    return tuple(map(clean, [read] if isinstance(read, str) else read[:100]))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text[:40].strip().replace(" ", "T"))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadReport("its dates cannot be read") from None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- who wants reports


def report_addresses(records: Sequence[bytes]) -> tuple[str, ...]:
    """The ``mailto:`` and ``https:`` URIs in the TXT records of ``_smtp._tls.DOMAIN`` (section 3); none where there is no
    policy, or more than one."""
    ours = [record for record in records if record.startswith(b"v=TLSRPTv1;")]
    if len(ours) != 1 or not ours[0].isascii() or len(ours[0]) > 4000:
        return ()
    for field in ours[0].decode("ascii").split(";")[1:]:
        name, equals, value = field.partition("=")
        if equals and name.strip() == "rua":
            uris = [uri.strip() for uri in value.split(",")]
            return tuple(dict.fromkeys(uri for uri in uris if _mail_address(uri) or _is_https(uri)))[:_ADDRESSES]
    return ()


def _mail_address(uri: str) -> str | None:
    """The address of a ``mailto:`` URI (RFC 6068), or None."""
    if uri[:7].lower() != "mailto:":
        return None
    address = unquote(uri[7:].partition("?")[0])
    return address if _MAILTO.fullmatch(address) else None


def _is_https(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme.lower() == "https" and bool(parts.hostname) and uri.isprintable() and " " not in uri
    except ValueError:
        return False


# --- the message


def file_name(report: TLSReport, domain: str, submitter: str) -> str:
    """As section 5.1 builds it."""
    return f"{submitter}!{domain}!{int(report.begin.timestamp())}!{int(report.end.timestamp())}.json.gz"


def report_message(
    report: TLSReport, domain: str, uri: str, *, submitter: str, sender: str, message_id: str, now: float
) -> tuple[bytes, str] | None:
    """The message (CRLF, 7bit) that brings *report* on *domain* to a ``mailto:`` *uri*, and its recipient (section 5.3).

    It is not signed yet. *sender* is the address in From. None: *uri* has no address that could be written to.
    """
    recipient = _mail_address(uri)
    if recipient is None:
        return None
    packed = base64.b64encode(gzip.compress(write_report(report), mtime=0)).decode("ascii")
    boundary = f"=_tls-report-{message_id.partition('@')[0]}"
    total = sum(policy.failures for policy in report.policies)
    name = file_name(report, domain, submitter)
    lines = [
        f"From: {sender}",
        f"To: {recipient}",
        f"Subject: Report Domain: {domain}",
        f" Submitter: {submitter}",
        f" Report-ID: <{report.id}>",
        f"Date: {formatdate(now)}",
        f"Message-ID: <{message_id}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {submitter}",
        "TLS-Required: No",  # a report on broken TLS has to arrive (RFC 8689 section 5)
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type="tlsrpt";',
        f' boundary="{boundary}"',
        "",
        "This is an aggregate report on TLS for SMTP (RFC 8460).",
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "",
        f"Report on TLS for mail to {domain},",
        f"{_iso(report.begin)} to {_iso(report.end)}.",
        f"Sessions that failed: {total}. The attached file tells more.",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f' filename="{name}"',
        "",
        *(packed[at : at + 76] for at in range(0, len(packed), 76)),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii"), recipient


def find_report(message: bytes) -> TLSReport | None:
    """The report in a *message* that brings one; None: it brings none. Raises BadReport for one that cannot be read."""
    if len(message) > 2 * _PACKED:
        return None
    parser = MessageParser(Limits(depth=5, parts=20, header_bytes=65_536, text_bytes=0))
    parser.feed(message)
    part = _find_part(parser.close().root)
    if part is None:
        return None
    try:
        return read_report(decode_transfer(part.encoding, message[part.body : part.end]))
    except UnknownEncoding:
        raise BadReport("a transfer encoding that is not known") from None


def _find_part(part: Part) -> Part | None:
    if part.content_type in ("application/tlsrpt+gzip", "application/tlsrpt+json"):
        return part
    for child in part.parts:
        if (found := _find_part(child)) is not None:
            return found
    return None
