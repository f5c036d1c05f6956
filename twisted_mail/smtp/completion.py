"""What a submission server may do to a message (RFC 6409 section 8), and an MX never: it adds Date, Message-ID, From or
Sender, and takes Bcc and Resent-Bcc out (RFC 5322 section 3.6.3: those named there are not to be known to the others).

What is added goes in front; nothing else is changed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from uuid import uuid4

from twisted_mail.services import Identity, MailRefused, Refusal

__all__ = ["Author", "HeaderCompletion", "author_of"]

_field = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.MULTILINE)
_blind = re.compile(rb"^(?:resent-)?bcc[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*\n?", re.MULTILINE | re.IGNORECASE)
_from = re.compile(rb"^from[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.MULTILINE | re.IGNORECASE)
# Enough to see who is named; the full grammar is not needed to decide whether Sender is missing.
_address = re.compile(r'(?:"(?:[^"\\]|\\.)*"|(?<![^\s<>(),;:"@])[^\s<>(),;:"@]+)@[^\s<>(),;:"@]+')
_quoted_name = re.compile(r'"(?:[^"\\]|\\.)*"(?=[ \t\r\n]*<)')
MAX_AUTHORS: Final = 50
MAX_FROM_CHARACTERS: Final = 4096
"""So much of From is looked at: who would write more does not get away without a Sender."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who sends, and how to find out whether an address is theirs."""

    login: str
    """The address of the account."""
    sender: str
    """The reverse-path; empty for the null one."""
    may_use: Callable[[str], Awaitable[bool]]


def author_of(may_send_as: Callable[[Identity, str], Awaitable[bool]], identity: Identity, sender: str) -> Author:
    """Who *identity* is to `HeaderCompletion`."""

    def may_use(address: str) -> Awaitable[bool]:
        return may_send_as(identity, address)

    return Author(identity.login, sender, may_use)


class HeaderCompletion:
    """Holds back the header of one message until it is known what is missing, then lets everything through."""

    def __init__(self, author: Author, hostname: str, now: Callable[[], float], limit: int) -> None:
        self._author = author
        self._hostname = hostname
        self._now = now
        self._limit = limit
        self._held: bytearray | None = bytearray()

    async def feed(self, data: bytes) -> bytes:
        """The octets that can go on now. Raises: MailRefused for a header that is too long to take blind copies out of."""
        if self._held is None:
            return data
        held = self._held
        start = max(len(held) - 3, 0)
        held += data
        if held.startswith(b"\r\n"):
            header, separated = b"", True
        elif (end := held.find(b"\r\n\r\n", start)) >= 0:
            header, separated = bytes(held[: end + 2]), True
        elif len(held) > self._limit:
            if _blind.search(held):
                raise MailRefused(Refusal.TOO_LARGE, "the header is too long")
            header, separated = None, True
        else:
            return b""
        self._held = None
        if header is None:
            return bytes(held)
        return await self._missing(header, separated) + _blind.sub(b"", header) + bytes(held[len(header) :])

    async def close(self) -> bytes:
        """What was held back although the message ended: a header without a body."""
        if self._held is None:
            return b""
        held, self._held = bytes(self._held), None
        return await self._missing(held, False) + _blind.sub(b"", held)

    async def _missing(self, header: bytes, separated: bool) -> bytes:
        names = {match[1].lower() for match in _field.finditer(header)}
        fields: list[str] = []
        if b"date" not in names:
            fields.append(f"Date: {formatdate(self._now(), localtime=True)}\r\n")  # section 8.2
        if b"message-id" not in names:
            fields.append(f"Message-ID: <{uuid4().hex}@{self._hostname}>\r\n")  # section 8.3
        if b"from" not in names:
            fields.append(f"From: {self._author.sender or self._author.login}\r\n")
        elif b"sender" not in names and not await self._is_an_author(header):
            fields.append(f"Sender: {self._author.login}\r\n")  # section 8.1
        # Text without any field is a body: it must not become part of the header.
        if header and not names:
            fields.append("\r\n")
        elif not separated and not header:
            fields.append("\r\n")
        return "".join(fields).encode()

    async def _is_an_author(self, header: bytes) -> bool:
        """Whether some address of From is one that the sender may use."""
        match = _from.search(header)
        if match is None:
            return False
        text = _quoted_name.sub("", match[1][:MAX_FROM_CHARACTERS].decode("utf-8", "replace"))
        for address in _address.findall(text)[:MAX_AUTHORS]:
            if await self._author.may_use(address):
                return True
        return False
