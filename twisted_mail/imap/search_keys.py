"""What SEARCH can be asked for, as a tree (RFC 9051 section 6.4.4, RFC 5032, 7162, 8474, 8514)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from twisted_mail.imap.sequence import NumberSet

__all__ = [
    "All",
    "And",
    "BodyKey",
    "DateKey",
    "EmailIdKey",
    "FlagKey",
    "HeaderKey",
    "ModSeqKey",
    "Not",
    "OlderKey",
    "Or",
    "SaveDateSupported",
    "SearchKey",
    "SequenceKey",
    "SizeKey",
    "TextKey",
    "ThreadIdKey",
    "UidKey",
    "YoungerKey",
]


@dataclass(frozen=True, slots=True)
class SearchKey:
    """Base of all search keys."""


@dataclass(frozen=True, slots=True)
class All(SearchKey):
    """ALL: every message."""


@dataclass(frozen=True, slots=True)
class And(SearchKey):
    """Two or more keys that must all hold."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or(SearchKey):
    """OR."""

    left: SearchKey
    right: SearchKey


@dataclass(frozen=True, slots=True)
class Not(SearchKey):
    """NOT."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class SequenceKey(SearchKey):
    """``sequence-set``: message numbers, or ``$``, which needs no translation."""

    numbers: NumberSet


@dataclass(frozen=True, slots=True)
class UidKey(SearchKey):
    """UID."""

    uids: NumberSet


@dataclass(frozen=True, slots=True)
class FlagKey(SearchKey):
    """ANSWERED, UNANSWERED, …, RECENT, KEYWORD and UNKEYWORD: the flag is there (`present`) or not.

    NEW is RECENT and UNSEEN; OLD is not RECENT. System flags are spelt as in the RFC, keywords as the client did.
    """

    flag: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class DateKey(SearchKey):
    """BEFORE, ON, SINCE of the internal date, the Date header field (SENT…), the saving (SAVED…, RFC 8514).

    Dates compare without time and zone (RFC 9051 section 6.4.4).
    """

    field: Literal["internal", "sent", "saved"]
    relation: Literal["before", "on", "since"]
    day: date


@dataclass(frozen=True, slots=True)
class SaveDateSupported(SearchKey):
    """SAVEDATESUPPORTED (RFC 8514 section 4.3)."""


@dataclass(frozen=True, slots=True)
class SizeKey(SearchKey):
    """LARGER and SMALLER than `size` octets."""

    relation: Literal["larger", "smaller"]
    size: int


@dataclass(frozen=True, slots=True)
class HeaderKey(SearchKey):
    """HEADER, and BCC, CC, FROM, SUBJECT, TO: `field` in lower case; empty `text`: the field is there at all."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class BodyKey(SearchKey):
    """BODY."""

    text: str


@dataclass(frozen=True, slots=True)
class TextKey(SearchKey):
    """TEXT: header or body."""

    text: str


@dataclass(frozen=True, slots=True)
class OlderKey(SearchKey):
    """OLDER than `seconds` (RFC 5032 section 3)."""

    seconds: int


@dataclass(frozen=True, slots=True)
class YoungerKey(SearchKey):
    """YOUNGER than `seconds` (RFC 5032 section 3)."""

    seconds: int


@dataclass(frozen=True, slots=True)
class ModSeqKey(SearchKey):
    """MODSEQ: changed at or after `modseq`; `entry` is (``/flags/\\Seen``, ``priv``, ``shared`` or ``all``) if
    given (RFC 7162 section 3.1.5)."""

    modseq: int
    entry: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class EmailIdKey(SearchKey):
    """EMAILID (RFC 8474 section 5.4)."""

    id: str


@dataclass(frozen=True, slots=True)
class ThreadIdKey(SearchKey):
    """THREADID (RFC 8474 section 5.4)."""

    id: str
