"""A part, or all of a message, put into another's place, and a message enclosed in a new one (RFC 5703 sections 5 and 6).

Everything that stays is the same octets as before: a signature of a part that is not touched stays good.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from hashlib import blake2b
from typing import Final

from twisted_mail.mime import Field, Mailbox, iterate_fields, parse_addresses
from twisted_mail.sieve.editing import front_of, header_field
from twisted_mail.sieve.entity import Entity
from twisted_mail.sieve.message import Message

__all__ = ["address_field", "enclosed", "mime_entity", "replaced", "text_entity"]

_BREAKS: Final = re.compile(r"\r\n|\r|\n")
_BLANK: Final = re.compile(rb"(?:\A|\r\n)\r\n")
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_MOST_LINE: Final = 900
"""Octets of a line of text that is sent as it is (RFC 5322 section 2.1.1: 998)."""
_FIRST_DAY: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _octets(text: str) -> bytes:
    return "\r\n".join(_BREAKS.split(text)).encode("utf-8", "replace")


def text_entity(text: str) -> bytes:
    """*text* as a text/plain part in UTF-8, with its header."""
    octets = _octets(text)
    encoding = b"7bit"
    if not octets.isascii() or b"\0" in octets or any(len(line) > _MOST_LINE for line in octets.split(b"\r\n")):
        octets = quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
        encoding = b"quoted-printable"
    fields = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + encoding + b"\r\n"
    return fields + b"\r\n" + octets


def mime_entity(text: str) -> bytes:
    """*text* as the MIME entity that it is (RFC 2045 section 2.4), with a header in any case."""
    octets = _octets(text)
    if _BLANK.match(octets) is None and _FIELD.match(octets) is None:
        octets = b"\r\n" + octets
    blank = _BLANK.search(octets)
    if blank is None:
        octets = octets.removesuffix(b"\r\n") + b"\r\n\r\n"
        return octets
    head, body = octets[: blank.start()], octets[blank.end() :]
    if not body.isascii() and all(field.name != b"content-transfer-encoding" for field in iterate_fields(head)):
        head += (b"\r\n" if head else b"") + b"Content-Transfer-Encoding: 8bit"
    return head + (b"\r\n" if head else b"") + b"\r\n" + body


def replaced(message: Message, entity: bytes, subject: str | None, sender: str | None) -> Message:
    """*message* with *entity* for its body, under its own header, as far as that says nothing of the old body.

    A *subject* or a *sender* (a ``mailbox-list``) takes the place of the field there, which is kept under another name.
    """
    blank = _BLANK.search(entity)
    end = blank.end() if blank is not None else len(entity)
    new = {b"subject": None if subject is None else header_field("Subject", subject)}
    new[b"from"] = None if sender is None else address_field("From", sender)
    header = message.header.octets
    front = front_of(header)
    kept: list[bytes] = []
    for field in _fields(header):
        if field.start < front or _of_mime(field.name):
            continue
        octets = header[field.start : field.end]
        if new.get(field.name) is not None:
            octets = b"Original-" + octets
        kept.append(octets)
    described = [entity[field.start : field.end] for field in iterate_fields(entity[:end]) if _of_mime(field.name)]
    octets = b"".join(
        (header[:front], *[field for field in new.values() if field], *map(_ended, kept), b"MIME-Version: 1.0\r\n")
    )
    octets += b"".join(_ended(field) for field in described if not field.lower().startswith(b"mime-version")) + b"\r\n"
    body = entity[end:]
    return message.made(octets + body + (b"" if body.endswith(b"\r\n") or not body else b"\r\n"))


def enclosed(
    message: Message, text: str, *, subject: str | None, copied: Collection[str], author: str, now: float, zone: int
) -> Message:
    """A new message with *text*, in which *message* is enclosed; the field that delivery has put in front stays in front.

    *copied*: names of fields (lower case) that it has of *message*. *author*: the address of From, where that is not
    copied; *now* seconds since 1970, *zone* minutes east of UTC: its Date, where that is not.
    """
    header = message.header.octets
    front = front_of(header)
    boundary = b"=_" + blake2b(header + text.encode("utf-8", "replace"), digest_size=15).hexdigest().encode()
    fields = [
        _ended(header[field.start : field.end])
        for field in _fields(header)
        if field.start >= front and _is_copied(field.name, subject, copied)
    ]
    there = {field.partition(b":")[0].strip().lower() for field in fields}
    if b"from" not in there:
        fields.insert(0, address_field("From", author))
    if b"date" not in there:
        moment = _FIRST_DAY + timedelta(seconds=int(now))
        fields.append(header_field("Date", format_datetime(moment.astimezone(timezone(timedelta(minutes=zone))))))
    if subject is not None:
        fields.append(header_field("Subject", subject))
    frame = (
        header[:front]
        + b"".join(fields)
        + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="' + boundary + b'"\r\n'
        + b"Content-Transfer-Encoding: 8bit\r\n\r\n--" + boundary + b"\r\n"
        + text_entity(text) + b"\r\n--" + boundary + b"\r\n"
        + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + b"X: x\r\n\r\n"
        + b"\r\n--" + boundary + b"--\r\n"
    )  # fmt: skip
    made = message.made(frame)
    inner = message.with_header(header[front:]).entity if front else message.entity
    made.put(_place(made), inner)
    return made


def _place(made: Message) -> Entity:
    """Where the message goes that is enclosed."""
    return made.entity.children[1].children[0]


def address_field(name: str, value: str) -> bytes:
    """A field of addresses: of what is not ASCII only names are encoded (RFC 2047 section 5)."""
    if value.isascii():
        return header_field(name, value)
    words = [
        f"{_phrase(each.display)}<{each.address}>" if each.display else each.address
        for each in parse_addresses(value.encode("utf-8", "replace"))
        if isinstance(each, Mailbox)
    ]
    return f"{name}: ".encode() + ",\r\n ".join(words).encode("utf-8", "replace") + b"\r\n"


def _phrase(text: str) -> str:
    octets = header_field("X", text if not text.isascii() else f'"{text}"')
    return octets.removeprefix(b"X: ").removesuffix(b"\r\n").decode() + " "


def _is_copied(name: bytes, subject: str | None, copied: Collection[str]) -> bool:
    if _of_mime(name):
        return False
    if name == b"subject":
        return subject is None
    return name.decode("ascii", "replace") in copied


def _of_mime(name: bytes) -> bool:
    """Whether the field *name* speaks of the body (RFC 2045 section 9)."""
    return name.startswith(b"content-") or name == b"mime-version"


def _fields(header: bytes) -> list[Field]:
    return list(iterate_fields(header))


def _ended(field: bytes) -> bytes:
    return field if field.endswith(b"\n") else field + b"\r\n"
