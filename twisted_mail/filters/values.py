"""What filters are asked about, and what they answer.

A connection is a `Client`, one transaction of it a `Mail`, its message an `Arrived`. Whatever a filter finds out that
others can use is noted there by type: ``mail.note(SPFResult(...))``, ``mail.noted(SPFResult)``.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from twisted_mail.services import Identity, Recipient

__all__ = [
    "ACCEPTED",
    "Action",
    "Answer",
    "Arrived",
    "AuthenticationResult",
    "Changes",
    "Client",
    "FieldChange",
    "FilterDown",
    "Mail",
    "Moment",
    "Notes",
    "Verdict",
    "WhenDown",
    "by_name",
]

N = TypeVar("N")


class Moment(enum.IntEnum):
    """When a filter is asked; in the order of SMTP."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    UNKNOWN = 4
    """RCPT for somebody who is not here."""
    STRANGE = 5
    """A command that is none of SMTP's."""
    DATA = 6
    """DATA or the first BDAT, before the peer is told to go on."""
    MESSAGE = 7


class Action(enum.IntEnum):
    """What is to become of mail; of several answers the highest counts."""

    ACCEPT = 0
    MARK = 1
    """Deliver it, and say in its header and trace what was found (or could not be found out)."""
    JUNK = 2
    """Deliver it to the recipient's Junk mailbox."""
    QUARANTINE = 3
    """Keep it where only an operator gets at it."""
    DEFER = 4
    """The peer is to come back (4yz)."""
    REJECT = 5
    """The peer is told no (5yz)."""


class WhenDown(enum.Enum):
    """What is done while a filter does not answer."""

    ACCEPT_AND_MARK = "accept-and-mark"
    DEFER = "defer"
    QUEUE = "queue"
    """Take the message, and ask again before it is delivered."""


class FilterDown(Exception):
    """A filter cannot answer now: its daemon does not, or answers nonsense. What comes of it says `WhenDown`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What SMTP says (RFC 5321, RFC 3463)."""

    code: int
    """Of DEFER 4yz, of REJECT 5yz; 421 ends the connection, 521 and 554 at connect do too."""
    enhanced: str
    text: str
    """For the peer to read: no names of ours, no secrets."""


# Of these some dozens are made for each message: structs, which take a tenth of the time that frozen dataclasses do.


class AuthenticationResult(msgspec.Struct, frozen=True):
    """One ``resinfo`` of an Authentication-Results field (RFC 8601 section 2.2)."""

    method: str
    """``spf``, ``dkim``, ``dmarc``, ``arc``, ``iprev``, ``auth``, …"""
    value: str
    """``pass``, ``fail``, ``none``, …"""
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    """``("smtp.mailfrom", "example.org")``, …"""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """The *nth* (from 1) field of that name gets another value; None: it is removed."""

    name: str
    nth: int
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a filter makes of a message (milters do that)."""

    inserted: tuple[tuple[int, str, str], ...] = ()
    """(position among the fields, 0: in front; name, value)."""
    added: tuple[tuple[str, str], ...] = ()
    """At the end of the header."""
    changed: tuple[FieldChange, ...] = ()
    body: bytes | None = None
    """All behind the blank line."""
    chained: bool = field(default=False, compare=False)
    """Numbers and positions are those of the message as the filters of the chain before this one have left it; else those of
    the message as it came."""
    sender: str | None = None
    recipients_added: tuple[str, ...] = ()
    recipients_removed: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one filter says."""

    action: Action = Action.ACCEPT
    reason: str = ""
    """A sentence for the trace, which the message's owner reads: "192.0.2.1 may send for example.org (SPF)". Empty:
    nothing worth a line."""
    answer: Answer | None = None
    """For DEFER and REJECT; None: a general one."""
    score: float = 0.0
    """Points of spam, added up over all filters; below 0 they speak for the mail."""
    results: tuple[AuthenticationResult, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    """Header fields (name, value without line ends but for folding) that are put in front."""
    changes: Changes | None = None
    delay_seconds: float = 0.0
    """The peer's answer is held back so long (tarpit)."""
    facts: Mapping[str, str] = {}
    """Details for the trace: ``{"virus": "Eicar-Test-Signature"}``."""


ACCEPTED = Verdict()


class Notes:
    """What filters found out, one value for each type."""

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: dict[type, object] = {}

    def note(self, value: object) -> None:
        """Keep *value*; it takes the place of one of the same type."""
        self._notes[type(value)] = value

    def noted(self, kind: type[N]) -> N | None:
        """What was noted of that type."""
        value = self._notes.get(kind)
        return value if isinstance(value, kind) else None


class Client(Notes):
    """The peer of one connection."""

    def __init__(self, address: str, *, port: int = 0, service: str = "smtp", secure: bool = False) -> None:
        super().__init__()
        self.address = address
        """IP address as text; empty for a UNIX socket."""
        self.port = port
        self.service = service
        """``smtp``, ``submission`` or ``lmtp``."""
        self.secure = secure
        self.tls_description = ""
        self.helo = ""
        self.extended = False
        """It said EHLO."""
        self.identity: Identity | None = None
        """Who has logged in."""
        self.early = False
        """It spoke before the greeting was sent."""
        self.trusted = False
        """It comes from a network of ours (`filters.trusted`, loopback by LMTP, …): only filters that look at content are asked."""

    @property
    def outbound(self) -> bool:
        """Mail of our own users, on its way out (or to each other)."""
        return self.identity is not None


class Mail(Notes):
    """One transaction."""

    def __init__(self, client: Client, sender: str) -> None:
        super().__init__()
        self.client = client
        self.sender = sender
        """The reverse-path; empty for the null one."""
        self.recipients: list[Recipient] = []
        """Accepted so far."""
        self.size: int | None = None
        """As announced."""
        self.body = "7BIT"
        self.smtputf8 = False
        self.id = ""
        """As in the Received field: names the message in logs and towards daemons."""


def by_name(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """See `Arrived.named`."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        name = name.lower()
        if name in found:
            found[name].append(value)
        else:
            found[name] = [value]
    return found


class Arrived(Protocol):
    """A whole message. The header begins with the peer's own first field: ours are not in front yet."""

    @property
    def mail(self) -> Mail: ...

    @property
    def size(self) -> int:
        """Octets."""

    @property
    def header(self) -> bytes:
        """Up to and with the line end before the blank line; at most 1 MiB of it."""

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """The header cut into (name as spelled, raw value with its folding and without the last CRLF); octets that are
        no fields are left out."""

    @property
    def named(self) -> Mapping[bytes, Sequence[bytes]]:
        """The values of `fields` by name in lower case, of each name from the top."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The message's octets from the beginning. Raises: OSError."""

    async def octets(self, most: int) -> bytes:
        """The first *most* of them."""
