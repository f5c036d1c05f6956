"""multipart/report (RFC 6522) put together: a text for people, a part for programs, and what it is about."""

from __future__ import annotations

import quopri
import re
from dataclasses import dataclass
from email.header import Header
from email.utils import formatdate
from typing import Final

from twisted_mail.mime import iterate_fields
from twisted_mail.reports.fields import text_of

__all__ = ["Letter", "Returned", "bounded_header", "report_message"]

HEADER_BYTES: Final = 16 * 1024
"""So much of a header is returned: fields that no longer fit are left out."""


@dataclass(frozen=True, slots=True)
class Letter:
    """The header of a report."""

    author: str
    """The value of From."""
    recipient: str
    subject: str
    message_id: str
    """Without angle brackets; it makes the boundary too."""
    now: float
    about: str = ""
    """The Message-ID of what it is about, without angle brackets: mail programs show it in that conversation."""
    automatic: str = "auto-replied"
    """Auto-Submitted (RFC 3834 section 5)."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What comes back of a message."""

    octets: bytes
    full: bool
    """All of it; else its header."""
    international: bool = False
    """Its header is in UTF-8 (RFC 6532)."""


def bounded_header(header: bytes, most: int = HEADER_BYTES) -> bytes:
    """The first fields of a header block, whole, that fit into *most* octets; with CRLFs, without the blank line."""
    end = 0
    for each in iterate_fields(header):
        if each.end > most:
            break
        end = each.end
    return _crlf(header[:end]).rstrip(b"\r\n") + b"\r\n" if end else b""


def report_message(
    letter: Letter, report_type: str, text: str, part_type: str, part: str, returned: Returned | None
) -> bytes:
    """The message. *text* has LF line ends."""
    boundary = "report-" + re.sub(r"[^A-Za-z0-9]", "", letter.message_id)[:40]
    body = [
        _part(boundary, "text/plain; charset=utf-8", text.replace("\n", "\r\n").encode("utf-8", "replace")),
        _part(boundary, part_type, part.encode()),
    ]
    if returned is not None:
        body.append(_returned(boundary, returned))
    whole = b"".join(body)
    header = [
        f"From: {letter.author}",
        f"To: {_address(letter.recipient)}",
        f"Subject: {Header(letter.subject, 'utf-8' if not letter.subject.isascii() else 'us-ascii').encode()}",
        f"Date: {formatdate(letter.now)}",
        f"Message-ID: <{letter.message_id}>",
    ]
    if letter.about:
        header += [f"In-Reply-To: <{text_of(letter.about)}>", f"References: <{text_of(letter.about)}>"]
    header += [
        f"Auto-Submitted: {letter.automatic}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={report_type};\r\n\tboundary="{boundary}"',
    ]
    if not whole.isascii():
        header.append("Content-Transfer-Encoding: 8bit")
    return "\r\n".join(header).encode() + b"\r\n\r\n" + whole + f"--{boundary}--\r\n".encode()


def _address(address: str) -> str:
    return text_of(address, ascii_only=False, most=1000)


def _part(boundary: str, type: str, octets: bytes) -> bytes:
    encoding, body = "7bit", octets
    if not octets.isascii() or any(len(line) > 990 for line in octets.split(b"\r\n")):
        encoding, body = "quoted-printable", _quoted(octets)
    head = f"--{boundary}\r\nContent-Type: {type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body + b"\r\n"


def _returned(boundary: str, returned: Returned) -> bytes:
    if not returned.full:
        # RFC 6533 section 6.3.  Any header may have octets that it should not have.
        type = "message/global-headers" if returned.international else "text/rfc822-headers"
        return _part(boundary, type, returned.octets)
    octets = _crlf(returned.octets)
    type = "message/global" if returned.international else "message/rfc822"
    encoding = "7bit" if octets.isascii() else "8bit"
    head = f"--{boundary}\r\nContent-Type: {type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + octets + b"\r\n"


def _quoted(octets: bytes) -> bytes:
    return quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


def _crlf(octets: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
