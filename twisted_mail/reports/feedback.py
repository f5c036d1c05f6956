"""Abuse reports written and read (RFC 5965): what a provider sends when somebody pressed "this is spam"."""

from __future__ import annotations

from typing import Final

from twisted_mail.reports.fields import Group, date_of, field, groups, text_of, when, without_type
from twisted_mail.reports.parts import Letter, Returned, report_message
from twisted_mail.reports.reading import Opened
from twisted_mail.reports.values import FeedbackReport, NotAReport

__all__ = ["read_feedback_report", "write_feedback_report"]

_MOST: Final = 100
_ADDRESS: Final = 320


def write_feedback_report(report: FeedbackReport, letter: Letter, text: str) -> bytes:
    """The message; *text* is for people, with LF line ends. Its header is returned if there is one."""
    lines = [
        field("Feedback-Type", report.type),
        field("User-Agent", report.reporter or "twisted-mail-suite"),
        "Version: 1\r\n",
    ]
    if report.sender:
        lines.append(field("Original-Mail-From", f"<{report.sender}>", ascii_only=False))
    lines += [field("Original-Rcpt-To", f"<{recipient}>", ascii_only=False) for recipient in report.recipients]
    if report.arrival is not None:
        lines.append(field("Arrival-Date", when(report.arrival)))
    if report.source:
        lines.append(field("Source-IP", report.source))
    lines += [field("Reported-Domain", domain) for domain in report.domains]
    if report.incidents != 1:
        lines.append(field("Incidents", str(report.incidents)))
    returned = Returned(report.header, full=False) if report.header else None
    return report_message(letter, "feedback-report", text, "message/feedback-report", "".join(lines), returned)


def read_feedback_report(octets: bytes | Opened) -> FeedbackReport:
    """What a message reports. Raises: NotAReport."""
    opened = octets if isinstance(octets, Opened) else Opened(octets)
    for part in opened.parts():
        if part.content_type == "message/feedback-report":
            found = groups(opened.content(part), 1)
            if not found:
                raise NotAReport("the feedback report is empty")
            return _read(found[0], opened.returned_header())
    raise NotAReport("no feedback report in it")


def _read(group: Group, header: bytes) -> FeedbackReport:
    types = group.get("feedback-type")
    if not types:
        raise NotAReport("no type of feedback")
    incidents = group.get("incidents", ["1"])[0]
    return FeedbackReport(
        text_of(types[0]).lower()[:40],
        reporter=_text(group, "user-agent"),
        sender=_text(group, "original-mail-from").strip("<>"),
        recipients=tuple(
            address for value in group.get("original-rcpt-to", ())[:_MOST] if (address := value.strip("<> ")[:_ADDRESS])
        ),
        source=_text(group, "source-ip"),
        incidents=int(incidents) if incidents.isascii() and incidents.isdigit() and len(incidents) < 9 else 1,
        arrival=date_of(group.get("arrival-date") or group.get("received-date") or ()),
        domains=tuple(without_type(value)[:255].lower() for value in group.get("reported-domain", ())[:_MOST]),
        header=header,
    )


def _text(group: Group, name: str) -> str:
    values = group.get(name)
    return values[0][:_ADDRESS] if values else ""
