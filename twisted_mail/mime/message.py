"""A message as it was read: the tree, and everything that is rendered of it once."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.mime.addresses import mailboxes_of, parse_addresses
from twisted_mail.mime.block import Block
from twisted_mail.mime.dates import parse_date
from twisted_mail.mime.node import Node
from twisted_mail.mime.part import Part
from twisted_mail.mime.texts import Texts
from twisted_mail.mime.threads import base_subject, message_ids
from twisted_mail.mime.words import decode_header

__all__ = ["ParsedMessage"]


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """What delivery keeps of a message."""

    root: Part
    size: int
    """Octets."""
    header: bytes
    """The raw header with its blank line, at most `Limits.header_bytes`."""
    envelope: bytes
    bodystructure: bytes
    body: bytes
    """BODYSTRUCTURE without extension data."""
    preview: str
    search_header: bytes
    search_text: bytes
    search_cut: bool
    """There was more text than `Limits.text_bytes`: what lies behind cannot be found."""
    sent_days: int | None
    """The Date field's own calendar date in days since 1970-01-01 (RFC 9051 SENTON)."""
    sent: int | None
    """The Date field in seconds since 1970-01-01 UTC."""
    message_id: str | None
    """Without angle brackets, as all ids here."""
    references: tuple[str, ...]
    in_reply_to: tuple[str, ...]
    subject: str
    """Decoded."""
    base_subject: str
    """RFC 5256 section 2.1."""
    sender: str
    """For lists: the display name of the first From (else Sender) mailbox, or its address."""

    @classmethod
    def of(cls, root: Node, size: int, texts: Texts) -> ParsedMessage:
        """Put together what a parser collected."""
        block = root.block if root.block is not None else Block(b"")
        get = block.first.get
        moment = parse_date(raw) if (raw := get(b"date")) else None
        ids = message_ids(raw) if (raw := get(b"message-id")) else ()
        subject = decode_header(get(b"subject", b""))
        return cls(
            root=root.part,
            size=size,
            header=root.header,
            envelope=root.part.envelope,
            bodystructure=root.bodystructure,
            body=root.body,
            preview=texts.preview,
            search_header=block.search_lines(),
            search_text=texts.search_text(),
            search_cut=texts.cut,
            sent_days=None if moment is None else moment.days,
            sent=None if moment is None else moment.epoch,
            message_id=ids[0] if ids else None,
            references=message_ids(raw) if (raw := get(b"references")) else (),
            in_reply_to=message_ids(raw) if (raw := get(b"in-reply-to")) else (),
            subject=subject,
            base_subject=base_subject(subject),
            sender=_sender(get(b"from") or get(b"sender") or b""),
        )


def _sender(raw: bytes) -> str:
    for mailbox in mailboxes_of(parse_addresses(raw[:4096])):
        return mailbox.display or mailbox.address
    return ""
