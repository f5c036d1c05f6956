"""Delivery status notifications written (RFC 3464, RFC 6533): a failure, a delay, a success."""

from __future__ import annotations

import textwrap
from typing import Final

from twisted_mail.reports.explanations import explain
from twisted_mail.reports.fields import field, rfc822, text_of, when
from twisted_mail.reports.parts import Letter, Returned, report_message
from twisted_mail.reports.values import Action, DeliveryReport, RecipientStatus

__all__ = ["decode_xtext", "status_part", "subject_of", "text_for_people", "write_delivery_report"]

_SUBJECTS: Final = {
    Action.FAILED: "Not delivered",
    Action.DELAYED: "Not delivered yet",
    Action.DELIVERED: "Delivered",
    Action.RELAYED: "Handed on",
    Action.EXPANDED: "Sent to a list",
}
_WORST_FIRST: Final = (Action.FAILED, Action.DELAYED, Action.EXPANDED, Action.RELAYED, Action.DELIVERED)
_MOST_SHOWN: Final = 50
_WIDTH: Final = 76
_MOST_SUBJECT: Final = 100


def write_delivery_report(
    report: DeliveryReport, letter: Letter, returned: Returned | None, *, subject: str = "", international: bool = False
) -> bytes:
    """The message, to be sent with the null reverse-path. *subject*: of the original. *international*: the original was
    in need of SMTPUTF8, so whoever gets this can read UTF-8 (RFC 6533 section 3)."""
    part_type = "message/global-delivery-status" if international else "message/delivery-status"
    return report_message(
        letter,
        "delivery-status",
        text_for_people(report, subject=subject),
        part_type,
        status_part(report, international=international),
        returned,
    )


def status_part(report: DeliveryReport, *, international: bool = False) -> str:
    """message/delivery-status: a group of fields for the message, and one for each recipient."""
    plain = not international
    lines = [field("Reporting-MTA", f"dns; {report.reporter}", ascii_only=plain)]
    if report.envelope_id:
        lines.append(field("Original-Envelope-Id", report.envelope_id, ascii_only=plain))
    if report.arrival is not None:
        lines.append(field("Arrival-Date", when(report.arrival)))
    for each in report.recipients:
        lines.append("\r\n")
        if each.original:
            lines.append(field("Original-Recipient", rfc822(each.original, international), ascii_only=plain))
        lines.append(field("Final-Recipient", rfc822(each.recipient, international), ascii_only=plain))
        lines.append(field("Action", each.action.value))
        lines.append(field("Status", each.status))
        if each.remote:
            lines.append(field("Remote-MTA", f"dns; {each.remote}", ascii_only=plain))
        if each.diagnostic:
            # RFC 3464 section 2.3.6: its type is that of what the words are, and ours are nobody else's.
            kind = "smtp" if each.remote else "x-local"
            lines.append(field("Diagnostic-Code", f"{kind}; {each.diagnostic}", ascii_only=plain))
        if each.last_attempt is not None:
            lines.append(field("Last-Attempt-Date", when(each.last_attempt)))
        if each.retry_until is not None and each.action is Action.DELAYED:
            lines.append(field("Will-Retry-Until", when(each.retry_until)))
    return "".join(lines)


def subject_of(report: DeliveryReport, subject: str = "") -> str:
    """For the report: what happened, and to which message."""
    actions = {each.action for each in report.recipients}
    word = next((_SUBJECTS[action] for action in _WORST_FIRST if action in actions), "Delivery report")
    about = text_of(subject, ascii_only=False, most=_MOST_SUBJECT)
    return f"{word}: {about}" if about else word


def text_for_people(report: DeliveryReport, *, subject: str = "") -> str:
    """Who did not get what, why, and what can be done; LF line ends."""
    about = text_of(subject, ascii_only=False, most=_MOST_SUBJECT)
    named = f' "{about}"' if about else ""
    by = text_of(report.reporter) or "the mail server"
    lines = [f"This is the mail server {by}." if report.reporter else "This is the mail server.", ""]
    for action in _WORST_FIRST:
        those = [each for each in report.recipients if each.action is action]
        if those:
            lines += [*textwrap.wrap(_first_line(action, named, len(those)), _WIDTH), ""]
            for each in those[:_MOST_SHOWN]:
                lines += _about(each)
            if len(those) > _MOST_SHOWN:
                lines += [f"  … and {len(those) - _MOST_SHOWN} more.", ""]
    lines.append("This message was made by a program; nobody reads answers to it.")
    return "\n".join(lines) + "\n"


def _first_line(action: Action, named: str, count: int) -> str:
    whom = "the recipient below" if count == 1 else "the recipients below"
    match action:
        case Action.FAILED:
            return f"Your message{named} could not be delivered to {whom}. It is not tried again."
        case Action.DELAYED:
            return f"Your message{named} has not reached {whom} yet. It is tried again; you need not do anything."
        case Action.DELIVERED:
            return f"Your message{named} was delivered to {whom}, as you asked to be told."
        case Action.RELAYED:
            return (
                f"Your message{named} for {whom} was handed to a server that does not tell what becomes of it. "
                "You will hear nothing more of it but if it cannot be delivered."
            )
        case Action.EXPANDED:
            return f"Your message{named} was sent to the members of {whom}."


def _about(each: RecipientStatus) -> list[str]:
    lines = [f"  {text_of(each.original or each.recipient, ascii_only=False)}"]
    if each.original and each.original.lower() != each.recipient.lower():
        lines.append(f"      (forwarded to {text_of(each.recipient, ascii_only=False)})")
    if each.action in (Action.FAILED, Action.DELAYED):
        what, remedy = explain(each.status)
        lines += _wrapped(f"{what} {remedy}" if each.action is Action.FAILED else what)
        if each.diagnostic:
            who = f"The server {text_of(each.remote)} said" if each.remote else "Our server says"
            lines += [f"      {who}:", *_wrapped(text_of(each.diagnostic, ascii_only=False, most=500))]
        if each.retry_until is not None and each.action is Action.DELAYED:
            lines.append(f"      It is tried until {when(each.retry_until)}.")
    return [*lines, ""]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 6, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def decode_xtext(text: str) -> str:
    """What ENVID and ORCPT stand for (RFC 3461 section 4): they are shown decoded (RFC 3464 section 2.2.1)."""
    octets, at, raw = bytearray(), 0, text.encode("utf-8", "replace")
    while at < len(raw):
        if raw[at] == 0x2B and len(pair := raw[at + 1 : at + 3]) == 2:
            try:
                octets.append(int(pair, 16))
                at += 3
                continue
            except ValueError:
                pass
        octets.append(raw[at])
        at += 1
    return octets.decode("utf-8", "replace")
