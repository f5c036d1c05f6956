"""Sample mail: varied, deterministic, and as real mail is: many languages and charsets, attachments, threads, lists.

`samples` gives the same messages for the same arguments; a date is all that differs between two runs with other ends.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage, Message
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime
from typing import Final, TypeVar

from twisted_mail.admin.sample_texts import (
    CHARSET_TEXTS,
    LISTS,
    PARAGRAPHS,
    PEOPLE,
    RUNNING,
    SUBJECTS,
    WORDS,
)

__all__ = ["Sample", "samples"]

T = TypeVar("T")
DAY: Final = 86_400
_SMTP: Final = policy.SMTP.clone(max_line_length=78)


@dataclass(frozen=True, slots=True)
class Sample:
    """A message, where it lies, and how; also a source message for an import."""

    mailbox: str
    received: int
    flags: tuple[str, ...]
    data: bytes

    @property
    def name(self) -> str:
        return "sample"

    @property
    def end(self) -> int:
        return len(self.data)

    def octets(self) -> Iterator[bytes]:
        """Itself, with CRLF."""
        yield self.data


class _Author:
    """Makes messages for one address; everything random comes from one seeded source."""

    def __init__(self, address: str, others: Sequence[str], seed: int) -> None:
        self.random = random.Random(seed)
        self.address = address
        self.domain = address.rpartition("@")[2]
        self.name = address.partition("@")[0].capitalize()
        self.others = [(other.partition("@")[0].capitalize(), other) for other in others]
        self.number = 0
        self.turns: dict[int, int] = {}
        self.threads: list[tuple[str, str, list[str]]] = []

    def next_of(self, texts: Sequence[T]) -> T:
        """One after the other, so that each occurs."""
        turn = self.turns.get(id(texts), 0)
        self.turns[id(texts)] = turn + 1
        return texts[turn % len(texts)]

    def words(self, count: int) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(count))

    def paragraphs(self, least: int = 1, most: int = 4) -> str:
        wanted = self.random.randint(least, most)
        return "\n\n".join(self.random.choice(PARAGRAPHS) for _ in range(wanted)) + "\n"

    def someone(self) -> tuple[str, str]:
        """Name and address."""
        if self.others and self.random.random() < 0.3:
            return self.random.choice(self.others)
        return self.random.choice(PEOPLE)

    def message_id(self, domain: str = "") -> str:
        self.number += 1
        return f"<{self.random.getrandbits(64):016x}.{self.number}@{domain or self.domain}>"

    def boundaries(self, message: Message) -> None:
        """Fixed ones: the generator would draw them from chance."""
        for part in message.walk():
            if part.is_multipart() and part.get_content_maintype() == "multipart":
                self.number += 1
                part.set_boundary(f"=_part_{self.number:05d}_{self.random.getrandbits(32):08x}")

    def png(self, side: int) -> bytes:
        """A picture of coloured noise, which compresses as badly as photographs do."""

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        rows = b"".join(b"\x00" + self.random.randbytes(side * 3) for _ in range(side))
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    def pdf(self) -> bytes:
        body = "BT /F1 12 Tf 72 720 Td (" + self.words(20).replace("(", "").replace(")", "") + ") Tj ET"
        return f"%PDF-1.4\n1 0 obj<</Length {len(body)}>>stream\n{body}\nendstream endobj\n%%EOF\n".encode("ascii", "replace")


def _headed(author: _Author, message: Message, subject: str) -> Message:
    name, sender = author.someone()
    message["From"] = f"{name} <{sender}>" if name.isascii() else _encoded(name, sender)
    message["To"] = f"{author.name} <{author.address}>"
    message["Subject"] = subject
    message["Message-ID"] = author.message_id(sender.rpartition("@")[2])
    return message


def _encoded(name: str, address: str) -> str:
    from email.header import Header

    return f"{Header(name, 'utf-8').encode()} <{address}>"


def _plain(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    message.set_content(author.paragraphs())
    return _headed(author, message, author.random.choice(SUBJECTS))


def _alternative(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    text = author.paragraphs(2, 4)
    message.set_content(text)
    paragraphs = "".join(f"<p>{each}</p>" for each in text.split("\n\n"))
    message.add_alternative(
        f"<html><head><style>p {{ color: #333 }}</style></head><body><h1>{author.words(3)}</h1>{paragraphs}"
        f'<p><a href="https://www.example.com/{author.number}">Read more</a></p></body></html>',
        subtype="html",
    )
    return _headed(author, message, author.words(4).capitalize())


def _picture(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    message.set_content("See the picture below.\n")
    message.add_alternative('<p>See the picture:</p><img src="cid:picture">', subtype="html")
    html = message.get_payload()[1]  # type: ignore[index]  # a list, after add_alternative
    html.add_related(author.png(24), "image", "png", cid="<picture>")  # type: ignore[union-attr]  # an EmailMessage
    return _headed(author, message, "Pictures from " + author.random.choice(["Lisbon", "Kraków", "Ōsaka", "Zürich"]))


def _attachments(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    message.set_content(author.paragraphs(1, 2))
    for name in author.random.sample(["report.pdf", "Übersicht 2026.pdf", "notes.txt", "図面.png", "data.csv", "archive.zip"], 2):
        if name.endswith(".pdf"):
            message.add_attachment(author.pdf(), "application", "pdf", filename=name)
        elif name.endswith(".png"):
            message.add_attachment(author.png(40), "image", "png", filename=name)
        elif name.endswith(".zip"):
            message.add_attachment(author.random.randbytes(6000), "application", "zip", filename=name)
        else:
            lines = "".join(f"{n},{author.words(2).replace(' ', ',')}\n" for n in range(60))
            message.add_attachment(lines, filename=name)
    return _headed(author, message, "Documents: " + author.words(2))


def _large(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    message.set_content("The recording is attached.\n")
    message.add_attachment(author.random.randbytes(300_000), "application", "octet-stream", filename="recording.ogg")
    return _headed(author, message, "Recording of the meeting")


def _charset(author: _Author) -> Message:
    charset, subject, text = author.next_of(CHARSET_TEXTS)
    message = MIMEText(text, "plain", charset, policy=policy.compat32)
    from email.header import Header

    del message["MIME-Version"]
    message["MIME-Version"] = "1.0"
    headed = _headed(author, message, Header(subject, charset).encode())
    return headed


def _eight_bit(author: _Author) -> Message:
    """UTF-8 in the header as in the body, declared nowhere but in the body (RFC 6532)."""
    name, sender = author.random.choice(PEOPLE)
    text = author.random.choice(CHARSET_TEXTS)[2]
    lines = (
        f"From: {name} <{sender}>\r\nTo: {author.address}\r\nSubject: Grüße aus Köln ☀\r\n"
        f"Message-ID: {author.message_id('example.net')}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text.replace("\n", "\r\n")
    )
    return _Raw(lines.encode())


class _Raw(Message):
    """Octets that are a message already."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


def _forwarded(author: _Author) -> Message:
    message = MIMEMultipart("mixed", policy=policy.compat32)
    message.attach(MIMEText("For your information.\n", "plain", "us-ascii"))
    inner = _alternative(author)
    inner["Date"] = "Mon, 05 Oct 2026 09:30:00 +0200"
    message.attach(MIMEMessage(inner))
    return _headed(author, message, "Fwd: " + str(inner["Subject"]))


def _nested(author: _Author) -> Message:
    inner: Message = MIMEText(author.paragraphs(), "plain", "utf-8")
    for depth in range(author.random.randint(3, 8)):
        outer = MIMEMultipart("mixed" if depth % 2 else "alternative", policy=policy.compat32)
        outer.attach(inner)
        outer.attach(MIMEText(f"<p>level {depth}</p>\n", "html", "us-ascii"))
        inner = outer
    return _headed(author, inner, "Parts within parts")


def _invitation(author: _Author) -> Message:
    message = EmailMessage(policy=_SMTP)
    message.set_content("You are invited to the weekly meeting.\n")
    calendar = (
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//example//EN\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\n"
        f"UID:{author.number}@{author.domain}\r\nDTSTART:20261201T090000Z\r\nDTEND:20261201T093000Z\r\n"
        f"SUMMARY:Weekly meeting\r\nORGANIZER:mailto:{author.address}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    message.add_alternative(calendar, subtype="calendar", params={"method": "REQUEST"})
    return _headed(author, message, "Invitation: weekly meeting")


def _bounce(author: _Author) -> Message:
    message = MIMEMultipart("report", policy=policy.compat32)
    message.set_param("report-type", "delivery-status")
    message.attach(MIMEText("Your message could not be delivered.\n", "plain", "us-ascii"))
    status = MIMEBase("message", "delivery-status")
    status.set_payload(
        [
            _fields({"Reporting-MTA": "dns; mx.example.net"}),
            _fields({"Final-Recipient": "rfc822; nobody@example.net", "Action": "failed", "Status": "5.1.1"}),
        ]
    )
    message.attach(status)
    original = MIMEText(author.paragraphs(), "plain", "utf-8")
    message.attach(MIMEMessage(_headed(author, original, "Are you there?")))
    message["From"] = "Mail Delivery System <mailer-daemon@example.net>"
    message["To"] = author.address
    message["Subject"] = "Undelivered mail returned to sender"
    message["Message-ID"] = author.message_id("mx.example.net")
    message["Auto-Submitted"] = "auto-replied"
    return message


def _fields(fields: dict[str, str]) -> Message:
    block = Message()
    for name, value in fields.items():
        block[name] = value
    return block


def _sparse(author: _Author) -> Message:
    """No subject and no body, as phones send it."""
    message = EmailMessage(policy=_SMTP)
    message["From"] = author.random.choice(PEOPLE)[1]
    message["To"] = author.address
    message["Message-ID"] = author.message_id("phone.example.com")
    return message


def _thread(author: _Author) -> Message:
    """A conversation's next message."""
    if not author.threads or author.random.random() < 0.25:
        author.threads.append((author.random.choice(SUBJECTS), author.someone()[1], []))
    subject, _, references = author.random.choice(author.threads[-4:])
    message = EmailMessage(policy=_SMTP)
    quoted = "".join(f"> {author.words(9)}\n" for _ in range(3)) if references else ""
    message.set_content(f"{author.paragraphs(1, 2)}\n{quoted}")
    _headed(author, message, ("Re: " if references else "") + subject)
    if references:
        message["In-Reply-To"] = references[-1]
        message["References"] = " ".join(references[-8:])
    references.append(str(message["Message-ID"]))
    return message


def _list_post(author: _Author) -> Message:
    message = _thread(author)
    name, address = author.random.choice(LISTS)
    message.replace_header("Subject", f"[{name}] {message['Subject']}")
    message.replace_header("To", f"{name} <{address}>")
    message["List-Id"] = f"{name} discussion <{address.replace('@', '.')}>"
    message["List-Post"] = f"<mailto:{address}>"
    message["List-Unsubscribe"] = f"<https://lists.example.org/{name}/leave>, <mailto:{name}-leave@lists.example.org>"
    message["Precedence"] = "list"
    return message


def _running(author: _Author) -> Message:
    """Right to left, emoji, long words."""
    subject, text = author.next_of(RUNNING)
    message = EmailMessage(policy=_SMTP)
    message.set_content(text)
    return _headed(author, message, subject)


def _own(author: _Author) -> Message:
    """Something that the user has written."""
    message = EmailMessage(policy=_SMTP)
    message.set_content(author.paragraphs(1, 3))
    message["From"] = f"{author.name} <{author.address}>"
    name, to = author.someone()
    message["To"] = f"{name} <{to}>" if name.isascii() else to
    message["Subject"] = author.random.choice(SUBJECTS)
    message["Message-ID"] = author.message_id()
    return message


_SHAPES: Final[Sequence[tuple[Callable[[_Author], Message], int]]] = (
    (_plain, 14), (_thread, 20), (_alternative, 14), (_list_post, 14), (_attachments, 8), (_charset, 12),
    (_picture, 4), (_eight_bit, 4), (_forwarded, 4), (_running, 5), (_invitation, 3), (_nested, 3), (_bounce, 2),
    (_sparse, 2), (_large, 1),
)  # fmt: skip
_FOLDERS: Final[Sequence[tuple[str, int]]] = (
    ("INBOX", 40), ("Archive", 8), ("Archive/2025", 8), ("Projects/Apollo", 8), ("Projects/Apollo/Plans", 4),
    ("Lists/twisted-python", 12), ("Räksmörgås", 3), ("日本語", 3), ("Junk", 5), ("Trash", 4), ("Sent", 8), ("Drafts", 2),
)  # fmt: skip


def samples(address: str, others: Sequence[str] = (), *, end: int, count: int = 150, seed: int = 1) -> list[Sample]:
    """*count* messages for *address*, oldest first, over the year before *end* (seconds since 1970)."""
    author = _Author(address, others, zlib.crc32(address.encode()) ^ seed)
    chance = author.random
    times = sorted(end - int(chance.expovariate(1.0) * 60 * DAY) - chance.randrange(3600) for _ in range(count))
    found: list[Sample] = []
    for place, received in enumerate(times):
        mailbox = chance.choices([name for name, _ in _FOLDERS], [weight for _, weight in _FOLDERS])[0]
        if mailbox in ("Sent", "Drafts"):
            message = _own(author)
        elif mailbox.startswith("Lists/"):
            message = _list_post(author)
        else:
            # every shape once, then by weight
            shape = _SHAPES[place][0] if place < len(_SHAPES) else chance.choices(
                [shape for shape, _ in _SHAPES], [weight for _, weight in _SHAPES]
            )[0]  # fmt: skip
            message = shape(author)
        found.append(Sample(mailbox, received, _flags(chance, mailbox, place / count), _rendered(author, message, received)))
    return found


def _flags(chance: random.Random, mailbox: str, age: float) -> tuple[str, ...]:
    if mailbox == "Drafts":
        return ("\\Seen", "\\Draft")
    if mailbox == "Sent":
        return ("\\Seen",)
    if mailbox == "Junk":
        return ("$Junk",)
    flags = []
    if chance.random() < (0.95 if mailbox != "INBOX" or age < 0.7 else 0.4):
        flags.append("\\Seen")
        if chance.random() < 0.2:
            flags.append("\\Answered")
        if chance.random() < 0.08:
            flags.append("$Forwarded")
    if chance.random() < 0.08:
        flags.append("\\Flagged")
    if chance.random() < 0.1:
        flags.append(chance.choice(["$Label1", "$Label2", "work", "travel"]))
    if mailbox == "Trash" and chance.random() < 0.3:
        flags.append("\\Deleted")
    return tuple(flags)


def _rendered(author: _Author, message: Message, received: int) -> bytes:
    """The octets, as they would have come: with trace fields in front and the date in them."""
    date = format_datetime(datetime.fromtimestamp(received - author.random.randrange(2, 90), UTC))
    trace = (
        f"Return-Path: <{author.random.choice(PEOPLE)[1]}>\r\n"
        f"Received: from mx.example.net (mx.example.net [192.0.2.{author.random.randrange(1, 250)}])\r\n"
        f"\tby mail.{author.domain} with ESMTPS id {author.random.getrandbits(40):010x}\r\n"
        f"\tfor <{author.address}>; {format_datetime(datetime.fromtimestamp(received, UTC))}\r\n"
        f"Date: {date}\r\n"
    ).encode()
    if isinstance(message, _Raw):
        return trace + message.data
    author.boundaries(message)
    rendered = message.as_bytes(policy=message.policy.clone(linesep="\r\n", max_line_length=78))
    return trace + rendered
