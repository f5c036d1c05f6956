"""What every room may name: identifiers and numbers that cannot be wrong once they exist."""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self
from uuid import UUID

import msgspec

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
    "random_octets",
]

MAX_UID: Final = 0xFFFF_FFFF


# Identifiers are keys of nearly every mapping: structs are hashed and compared without a line of Python.


class _Identifier(msgspec.Struct, frozen=True, order=True):
    """Sixteen octets, printed as 32 hexadecimal digits."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 16:
            raise ValueError(f"{type(self).__name__}: 16 octets wanted, got {len(self.octets)}")

    @classmethod
    def new(cls) -> Self:
        """A fresh random identifier."""
        return cls(random_octets(16))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str()`` printed. Raises ValueError for anything else."""
        return cls(UUID(hex=text).bytes)

    def __str__(self) -> str:
        return self.octets.hex()


class AccountId(_Identifier, frozen=True):
    """All that one user has: the unit of sharding and of agreement."""


class MailboxId(_Identifier, frozen=True):
    """A mailbox for its whole life, whatever its name (RFC 8474 section 4)."""


class EntryId(_Identifier, frozen=True):
    """One log entry; settles whose entry stands at a number after an unknown outcome."""


_TIME: Final = 6
"""Octets of time that an ascending id begins with."""


class DeliveryId(_Identifier, frozen=True):
    """One delivery of one message to one recipient, minted once when its last octet has come. Ascending in time: what is
    queued together lies together, so that a long queue costs a database no more pages for each item than a short one."""

    @classmethod
    def new(cls) -> Self:
        return cls(_time_ordered())

    def caused(self, action: str) -> DeliveryId:
        """The id of what this delivery causes (a bounce, a forward, an answer): the same however often it is caused. It has
        its cause's time, so that it lies beside it."""
        rest = blake2b(self.octets + action.encode(), digest_size=16 - _TIME, person=b"caused-by").digest()
        return DeliveryId(self.octets[:_TIME] + rest)


_last_ordered = 0
_ordered_lock = threading.Lock()


def _time_ordered() -> bytes:
    """48 bits of milliseconds, then random bits; strictly ascending within this process (RFC 9562 section 6.2)."""
    global _last_ordered
    with _ordered_lock:
        number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(_some_random(7), "big") << 24
        if number <= _last_ordered:
            number = _last_ordered + (1 << 24)
        _last_ordered = number
        return (number | int.from_bytes(_some_random(3), "big")).to_bytes(16, "big")


_AT_A_TIME: Final = 4096
_reservoir = bytearray()


def random_octets(number: int) -> bytes:
    """*number* octets that nobody can guess. They come from the system some thousand at a time: each request is a system call."""
    with _ordered_lock:
        return _some_random(number)


def _some_random(number: int) -> bytes:
    """The same, under the lock."""
    if len(_reservoir) < number:
        _reservoir.extend(os.urandom(max(number, _AT_A_TIME)))
    taken = bytes(_reservoir[-number:])
    del _reservoir[-number:]
    return taken


def _in_child() -> None:
    """A process that was forked must not give out what its parent gives out too."""
    global _ordered_lock
    _ordered_lock = threading.Lock()
    _reservoir.clear()


os.register_at_fork(after_in_child=_in_child)


class MessageId(_Identifier, frozen=True):
    """The immutable row of one message in one account. Ascending in time, so that rows which arrived
    together lie together. Not the Message-ID header field."""

    @classmethod
    def new(cls) -> Self:
        return cls(_time_ordered())


class MessageKey(msgspec.Struct, frozen=True, order=True):
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
