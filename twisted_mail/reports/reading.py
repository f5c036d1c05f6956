"""Reports read: delivery status as RFC 3464 has it, and the commonest bounces of servers that have forms of their own.

What is read comes from strangers: no more than `READ_BYTES` of it is looked at, texts are cut and have no control
characters, and whatever is not a report raises `NotAReport` and nothing else. A report proves nothing: who acts on one
must know from elsewhere that it is an answer to a message of ours (a VERP address, a Message-ID).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from twisted_mail.mime import (
    Limits,
    MessageParser,
    Part,
    UnknownEncoding,
    decode_transfer,
    first_value,
    message_ids,
)
from twisted_mail.reports.fields import Group, address_of, date_of, groups, text_of, without_type
from twisted_mail.reports.values import Action, DeliveryReport, NotAReport, RecipientStatus

__all__ = ["READ_BYTES", "Opened", "guess_status", "open_report", "read_delivery_report"]

READ_BYTES: Final = 1024 * 1024
_LIMITS: Final = Limits(depth=10, parts=50, header_bytes=64 * 1024, text_bytes=64 * 1024)
_MOST_RECIPIENTS: Final = 200
_PART_BYTES: Final = 256 * 1024
_ADDRESS: Final = 320
_STATUS: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
_REPLY: Final = re.compile(r"\b([45])\d\d(?:[ -]|[ -]#)(?:(\d\.\d{1,3}\.\d{1,3})\b)?")
_LOOSE: Final = re.compile(r"(?<![\d.])([45]\.\d{1,3}\.\d{1,3})(?![\d.])")
_QMAIL: Final = re.compile(r"^<([^<>\s@]{1,64}@[^<>\s]{1,255})>:[ \t]*\n((?:[^\n]+\n){1,20})", re.MULTILINE)
_QMAIL_SIGN: Final = re.compile(r"This is the (?:qmail-send|\S+) program|I wasn't able to deliver your message", re.IGNORECASE)
_WORDS: Final = (
    (re.compile(r"(?:user|recipient|mailbox|address)\b.{0,40}\b(?:unknown|not found|does ?n[o']t exist|not exist)"
                r"|no such (?:user|recipient|mailbox)|no mailbox here|unknown (?:user|recipient)", re.IGNORECASE), "5.1.1"),
    (re.compile(r"(?:mailbox|quota|inbox).{0,40}(?:full|exceeded)|over quota", re.IGNORECASE), "5.2.2"),
    (re.compile(r"(?:account|mailbox).{0,40}(?:disabled|inactive|suspended)", re.IGNORECASE), "5.2.1"),
    (re.compile(r"(?:spam|blocked|blacklist|blocklist|policy|rejected for)", re.IGNORECASE), "5.7.1"),
    (re.compile(r"(?:host|domain).{0,30}(?:not found|unknown)|no such domain|unrouteable", re.IGNORECASE), "5.1.2"),
)  # fmt: skip


class Opened:
    """A message with its parts, for readers of reports."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets[:READ_BYTES]
        parser = MessageParser(_LIMITS)
        parser.feed(self._octets)
        self.message = parser.close()
        self.root = self.message.root
        self.header = self.message.header

    def parts(self) -> Iterator[Part]:
        """The leaves of the report itself, in order: not those of what it returns."""
        waiting = [self.root]
        while waiting:
            part = waiting.pop(0)
            if part.parts:
                waiting[:0] = part.parts
            else:
                yield part

    def content(self, part: Part) -> bytes:
        """A leaf's octets, decoded. Raises: NotAReport (an encoding that is not known)."""
        try:
            return decode_transfer(part.encoding, self._octets[part.body : min(part.end, part.body + _PART_BYTES)])
        except UnknownEncoding as error:
            raise NotAReport("a part in an encoding that is not known") from error

    def returned_header(self) -> bytes:
        """The header of the message that came back, or nothing."""
        for part in list(self.parts())[1:]:
            if part.message is not None:
                return self._octets[part.message.start : part.message.body]
            if part.content_type in ("text/rfc822-headers", "message/global-headers", "message/rfc822", "message/global"):
                return self.content(part)
        return b""

    def text(self) -> str:
        """What is there for people, as far as it is plain."""
        for part in self.parts():
            if part.type == "text" and part.subtype != "rfc822-headers":
                return self.content(part).decode("utf-8", "replace").replace("\r\n", "\n")
        return ""


def open_report(octets: bytes) -> Opened:
    """Parse a message that may be a report; nothing raises yet."""
    return Opened(octets)


def read_delivery_report(octets: bytes | Opened) -> DeliveryReport:
    """What a message says of deliveries. Raises: NotAReport."""
    opened = octets if isinstance(octets, Opened) else Opened(octets)
    for part in opened.parts():
        if part.content_type in ("message/delivery-status", "message/global-delivery-status"):
            return _standard(opened, part)
    return _of_its_own_form(opened)


def _standard(opened: Opened, part: Part) -> DeliveryReport:
    found = groups(opened.content(part), _MOST_RECIPIENTS + 1)
    if not found:
        raise NotAReport("the delivery status is empty")
    # Some leave the blank line out, some the group of the message.
    about: Group = {} if "final-recipient" in found[0] and "reporting-mta" not in found[0] else found[0]
    recipients = tuple(
        status for group in found if "final-recipient" in group or "original-recipient" in group for status in [_recipient(group)]
    )
    if not recipients:
        raise NotAReport("no recipient in the delivery status")
    return DeliveryReport(
        recipients,
        reporter=without_type(_first(about, "reporting-mta"))[:255],
        envelope_id=_first(about, "original-envelope-id")[:100],
        arrival=date_of(about.get("arrival-date", ())),
        message_id=_message_id(opened.returned_header()),
    )


def _recipient(group: Group) -> RecipientStatus:
    try:
        action = Action(_first(group, "action").lower())
    except ValueError as error:
        raise NotAReport("no action that is known") from error
    diagnostic = without_comment(_first(group, "diagnostic-code"))
    status = _STATUS.search(_first(group, "status"))
    original = address_of(_first(group, "original-recipient"))[:_ADDRESS]
    return RecipientStatus(
        (address_of(_first(group, "final-recipient")) or original)[:_ADDRESS],
        action,
        status[0] if status is not None else guess_status(diagnostic) or _DEFAULT[action],
        original=original,
        remote=without_type(_first(group, "remote-mta"))[:255],
        diagnostic=diagnostic,
        last_attempt=date_of(group.get("last-attempt-date", ())),
        retry_until=date_of(group.get("will-retry-until", ())),
    )


_DEFAULT: Final = {
    Action.FAILED: "5.0.0",
    Action.DELAYED: "4.0.0",
    Action.DELIVERED: "2.0.0",
    Action.RELAYED: "2.0.0",
    Action.EXPANDED: "2.0.0",
}


def without_comment(value: str) -> str:
    """A Diagnostic-Code without its type; parentheses belong to what was said."""
    kind, semicolon, rest = value.partition(";")
    return (rest if semicolon and re.fullmatch(r"\s*[\w-]+\s*", kind) else value).strip()


def _first(group: Group, name: str) -> str:
    values = group.get(name)
    return values[0] if values else ""


def _message_id(header: bytes) -> str:
    raw = first_value(header, b"message-id") if header else None
    ids: Sequence[str] = message_ids(raw) if raw else ()
    return text_of(ids[0], ascii_only=False, most=250) if ids else ""


def _of_its_own_form(opened: Opened) -> DeliveryReport:
    """Exim (X-Failed-Recipients), qmail and those like it. What else there is nobody can tell from a letter."""
    text = opened.text()
    failed = first_value(opened.header, b"x-failed-recipients")
    if failed:
        addresses = [each.strip(" <>") for each in failed.decode("utf-8", "replace").split(",", _MOST_RECIPIENTS)]
        blocks = [(address, _paragraph_with(text, address)) for address in addresses[:_MOST_RECIPIENTS] if "@" in address]
    elif _QMAIL_SIGN.search(text[:2000]):
        blocks = [(match[1], match[2]) for match in _QMAIL.finditer(text)]
    else:
        raise NotAReport("neither a delivery status nor a bounce that is known")
    if not blocks:
        raise NotAReport("a bounce without a recipient")
    header = opened.returned_header() or _embedded_header(text)
    return DeliveryReport(
        tuple(
            RecipientStatus(
                text_of(address, ascii_only=False, most=_ADDRESS),
                Action.FAILED,
                guess_status(said) or "5.0.0",
                diagnostic=text_of(said, ascii_only=False),
            )
            for address, said in blocks[:_MOST_RECIPIENTS]
        ),
        message_id=_message_id(header),
        standard=False,
    )


def _paragraph_with(text: str, address: str) -> str:
    at = text.find(address)
    if at < 0:
        return ""
    end = text.find("\n\n", at + len(address) + 2)
    return text[at + len(address) : end if end >= 0 else len(text)][:2000]


def _embedded_header(text: str) -> bytes:
    """Of the copy that stands in the text itself, behind a line of hyphens."""
    match = re.search(r"^-{3,}[^\n]*\n(?:\n)?((?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*)+)", text[:_PART_BYTES], re.MULTILINE)
    return match[1].encode("utf-8", "replace") if match is not None else b""


def guess_status(text: str) -> str:
    """An enhanced code out of what a server said; empty if nothing can be told."""
    text = text[:4000]
    reply = _REPLY.search(text)
    if reply is not None and reply[2]:
        return reply[2]
    if loose := _LOOSE.search(text):
        return loose[1]
    for words, status in _WORDS:
        if words.search(text):
            return status if reply is None else reply[1] + status[1:]
    return f"{reply[1]}.0.0" if reply is not None else ""
