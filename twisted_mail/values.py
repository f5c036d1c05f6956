"""What every room may name: identifiers and numbers that cannot be wrong once they exist."""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self
from uuid import UUID, uuid4

__all__ = [
    "MAX_UID",
    "AccountId",
    "BlobRef",
    "DeliveryId",
    "EntryId",
    "MailboxId",
    "MessageId",
    "MessageKey",
    "ModSeq",
    "UID",
    "UIDValidity",
    "canonical_address",
    "canonical_domain",
]

MAX_UID: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, order=True)
class _Identifier:
    """Sixteen octets, printed as 32 hexadecimal digits."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 16:
            raise ValueError(f"{type(self).__name__}: 16 octets wanted, got {len(self.octets)}")

    @classmethod
    def new(cls) -> Self:
        """A fresh random identifier."""
        return cls(uuid4().bytes)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str()`` printed. Raises ValueError for anything else."""
        return cls(UUID(hex=text).bytes)

    def __str__(self) -> str:
        return self.octets.hex()


class AccountId(_Identifier):
    """All that one user has: the unit of sharding and of agreement."""

    __slots__ = ()


class MailboxId(_Identifier):
    """A mailbox for its whole life, whatever its name (RFC 8474 section 4)."""

    __slots__ = ()


class EntryId(_Identifier):
    """One log entry; settles whose entry stands at a number after an unknown outcome."""

    __slots__ = ()


class DeliveryId(_Identifier):
    """One delivery of one message to one recipient, minted once when its last octet has come. Ascending in time: what is
    queued together lies together, so that a long queue costs a database no more pages for each item than a short one."""

    __slots__ = ()

    @classmethod
    def new(cls) -> Self:
        return cls(_time_ordered())

    def caused(self, action: str) -> DeliveryId:
        """The id of what this delivery causes (a bounce, a forward, an answer): the same however often it is caused."""
        return DeliveryId(blake2b(self.octets + action.encode(), digest_size=16, person=b"caused-by").digest())


_last_ordered = 0
_ordered_lock = threading.Lock()


def _time_ordered() -> bytes:
    """48 bits of milliseconds, then random bits; strictly ascending within this process (RFC 9562 section 6.2)."""
    global _last_ordered
    with _ordered_lock:
        number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(7), "big") << 24
        if number <= _last_ordered:
            number = _last_ordered + (1 << 24)
        _last_ordered = number
    return (number | int.from_bytes(os.urandom(3), "big")).to_bytes(16, "big")


class MessageId(_Identifier):
    """The immutable row of one message in one account. Ascending in time, so that rows which arrived
    together lie together. Not the Message-ID header field."""

    __slots__ = ()

    @classmethod
    def new(cls) -> Self:
        return cls(_time_ordered())


@dataclass(frozen=True, slots=True, order=True)
class MessageKey:
    """Where a message's row lies: rows are grouped in buckets (0, 1, …) that close at a size."""

    bucket: int
    id: MessageId

    def __post_init__(self) -> None:
        if not 0 <= self.bucket <= 0x7FFF_FFFF:
            raise ValueError(f"bucket out of range: {self.bucket}")


class ModSeq(int):
    """Number of an entry in an account's log, from 1 on; 0 is the empty log (RFC 7162: below 2**63)."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 2**63:
            raise ValueError(f"mod-sequence out of range: {value}")
        return super().__new__(cls, value)


class UID(int):
    """Unique identifier of a message in one mailbox, 1..2**32-1 (RFC 9051 section 2.3.1.1)."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 1 <= value <= MAX_UID:
            raise ValueError(f"UID out of range: {value}")
        return super().__new__(cls, value)


class UIDValidity(int):
    """Validity number of a mailbox's UIDs, 1..2**32-1; only ascends in an account."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 1 <= value <= MAX_UID:
            raise ValueError(f"UIDVALIDITY out of range: {value}")
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True, order=True)
class BlobRef:
    """A stored run of octets, named by its content: SHA-256 in hexadecimal, and its size in octets.

    The same content may be stored again under the next `generation` while the one before is being swept away.
    """

    hash: str
    size: int
    generation: int = 0

    def __post_init__(self) -> None:
        if len(self.hash) != 64 or not set(self.hash) <= set("0123456789abcdef"):
            raise ValueError(f"not a SHA-256 in lower-case hexadecimal: {self.hash!r}")
        if self.size < 0:
            raise ValueError(f"negative size: {self.size}")
        if self.generation < 0:
            raise ValueError(f"negative generation: {self.generation}")


def canonical_address(text: str) -> str:
    """*text* as the directory's key: local part case-folded in NFC, domain in lower-case A-labels (RFC 5890).

    ``@domain`` (a catch-all) and a bare local part are kept in that form. A domain that IDNA refuses is only
    lower-cased. Raises ValueError when empty or when it holds control characters.
    """
    if not text or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("not an address")
    local, at, domain = text.rpartition("@")
    if not at:
        return unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", local).casefold() + "@" + canonical_domain(domain)


def canonical_domain(text: str) -> str:
    """*text* in lower-case A-labels, without a final dot; only lower-cased where IDNA refuses it."""
    name = text.rstrip(".").lower()
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return name
