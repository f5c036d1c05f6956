"""What one room offers another, as Protocols: who logs in, where mail goes in, and the accounts themselves.

A protocol engine is built with these and never learns what stands behind them. Awaitables are what a coroutine
driven by `twisted.internet.defer.Deferred.fromCoroutine` may await; with the in-memory engines they never suspend.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import msgspec

from twisted_mail.values import AccountId, DeliveryId, MessageKey, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.intents import Intent
    from twisted_mail.account.state import AccountState, Columns, Mailbox
    from twisted_mail.mime import Part

__all__ = [
    "Account",
    "Accounts",
    "Authentication",
    "AuthenticationFailed",
    "Challenge",
    "Envelope",
    "Exchange",
    "Exclusive",
    "Identity",
    "Incoming",
    "Intake",
    "MailRefused",
    "MessageWriter",
    "Outcome",
    "Peer",
    "PreparedMessage",
    "Reading",
    "Recipient",
    "Refusal",
    "ScriptFault",
    "ScriptRefused",
    "Scripts",
    "StoredMessage",
    "Submitters",
    "UnknownMechanism",
    "Visit",
    "Vouching",
]

R = TypeVar("R")


# --- who is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as far as rules about logging in and tracing need it."""

    address: str
    """IP address as text; empty for a UNIX socket."""
    port: int = 0
    secure: bool = False
    """TLS is active."""
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict)
    """Channel binding data by type: ``tls-exporter`` (RFC 9266), ``tls-server-end-point`` (RFC 5929)."""
    tls_description: str = ""
    """Version and cipher for the Received field, e.g. ``TLS1.3 with cipher TLS_AES_256_GCM_SHA384``."""
    service: str = ""
    """``imap``, ``pop3``, ``submission``, …: named in the log and in throttles."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has logged in."""

    account: AccountId
    login: str
    """The canonical address of the account, e.g. ``ann@example.org``."""
    quota_bytes: int | None = None
    """What the account may hold (as of the login); None: no limit."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the server sends next in a SASL exchange (RFC 4422), not yet in base64."""

    data: bytes


class AuthenticationFailed(Exception):
    """The login was refused. Says to the peer only what is safe to say."""

    def __init__(self, reason: str = "credentials", text: str = "authentication failed", *, temporary: bool = False):
        super().__init__(text)
        self.reason = reason
        """``credentials``, ``privacy`` (needs TLS), ``disabled``, ``throttled``, ``malformed``, ``cancelled``, ``unavailable``."""
        self.text = text
        self.temporary = temporary


class UnknownMechanism(Exception):
    """The SASL mechanism does not exist here or may not be used on this connection."""


class Exchange(Protocol):
    """One run of a SASL mechanism."""

    async def step(self, response: bytes | None) -> Challenge | Identity:
        """Take the client's *response* (None: no initial response was sent); say what to send, or who it is.

        Data that a mechanism has for the client with success (SCRAM's server-final) comes as a last Challenge,
        which the client answers with an empty response (RFC 4422 section 3.6).
        Raises: AuthenticationFailed.
        """


class Authentication(Protocol):
    """The rules about logging in: mechanisms, clear text, throttles (RFC 4422, RFC 8314)."""

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        """Names of the SASL mechanisms that *peer* may use now, best first; empty if none."""

    def cleartext_allowed(self, peer: Peer) -> bool:
        """Whether a password may come in the clear from *peer*: TLS is active, or its address is allowed."""

    def begin(self, mechanism: str, peer: Peer) -> Exchange:
        """Start an exchange. Raises: UnknownMechanism."""

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        """Check a name and a password as IMAP LOGIN and POP3 PASS give them. Raises: AuthenticationFailed."""

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        """Whether *identity* may use *address* (or ``""``, the null reverse-path) as sender (RFC 6409 section 6.1)."""


@runtime_checkable
class Vouching(Protocol):
    """What an `Authentication` may offer beside: logins that a trusted server in front has checked."""

    async def vouched(self, login: str, peer: Peer) -> Identity:
        """Who *login* is, without a proof. Raises: AuthenticationFailed."""


class Submitters(Protocol):
    """Networks that submit mail without logging in, each as an account of ours."""

    def login_of(self, peer: Peer) -> str | None:
        """The account of the network that *peer* is in; None: it is in none."""

    async def identity(self, peer: Peer) -> Identity | None:
        """Who *peer* is without a proof; None: nobody, or the account may not be used now."""

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        """See `Authentication.may_send_as`."""


# --- mail coming in -----------------------------------------------------------------------------------------------


class Refusal(enum.Enum):
    """Why mail is not taken; the protocol puts it into its own codes (SMTP: RFC 5321, RFC 3463)."""

    NO_SUCH_RECIPIENT = "no such recipient"
    RELAY_DENIED = "relaying denied"
    NO_QUEUE = "mail for other domains is not accepted yet"
    RECIPIENT_DISABLED = "recipient disabled"
    MAILBOX_FULL = "mailbox full"
    TOO_LARGE = "message too large"
    BAD_ADDRESS = "bad address"
    LOOP = "mail loop"
    SENDER_NOT_ALLOWED = "sender not allowed"
    UNAVAILABLE = "try again later"
    NO_ROOM = "no room for more mail now"
    POLICY = "refused by policy"


class MailRefused(Exception):
    """A recipient or a message was refused; the peer keeps the mail. `temporary` means: come back."""

    def __init__(
        self, reason: Refusal, text: str = "", *, temporary: bool = False, code: int = 0, enhanced: str = ""
    ):
        super().__init__(text or reason.value)
        self.reason = reason
        self.text = text or reason.value
        self.code = code
        """What SMTP says (421: and ends the connection); 0: what stands for *reason*."""
        self.enhanced = enhanced
        self.temporary = temporary or reason in (Refusal.UNAVAILABLE, Refusal.NO_ROOM, Refusal.MAILBOX_FULL)


class Recipient(msgspec.Struct, frozen=True):
    """A recipient that was accepted at RCPT: where its mail will go."""

    address: str
    """As the peer gave it, without angle brackets."""
    accounts: tuple[AccountId, ...]
    """The accounts it stands for (an alias may have several); empty for another domain's address, which is queued."""
    detail: str = ""
    """The sub-address: ``tag`` of ``user+tag`` (RFC 5233)."""
    original: str = ""
    """ORCPT as given (RFC 3461 section 4.2), or empty."""
    notify: frozenset[str] = frozenset()
    """NOTIFY as given: NEVER, or some of SUCCESS, FAILURE, DELAY."""


class Envelope(msgspec.Struct, frozen=True):
    """Who sends a message to whom, and how it came (RFC 5321 section 2.3.1)."""

    sender: str
    """The reverse-path without angle brackets; empty for the null reverse-path."""
    recipients: tuple[Recipient, ...]
    peer: Peer
    helo: str = ""
    protocol: str = "SMTP"
    """For the Received field: SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA, LMTP, UTF8SMTP… (RFC 3848, RFC 6531)."""
    identity: Identity | None = None
    """Whose mail it is: who has logged in, or the account of the peer's network (`Submitters`)."""
    size: int | None = None
    """SIZE= as announced, octets (RFC 1870)."""
    body: str = "7BIT"
    """7BIT, 8BITMIME or BINARYMIME."""
    smtputf8: bool = False
    envelope_id: str = ""
    """ENVID as given (RFC 3461 section 4.4)."""
    dsn_return: str = ""
    """RET: FULL or HDRS (RFC 3461 section 4.3)."""
    hold_until: float | None = None
    """Not to be delivered before (RFC 4865), seconds since 1970."""
    deliver_by: tuple[int, str] | None = None
    """BY (RFC 2852): seconds from now, and the mode."""
    priority: int | None = None
    """MT-PRIORITY (RFC 6710), -9 to 9."""
    requiretls: bool = False
    """REQUIRETLS (RFC 8689): on its way it is never in the clear."""
    visit: Visit | None = None
    """What was found out of the connection and the transaction before the message came."""
    verified: bool = False
    """It was found that the reverse-path is the sender's own: whoever it names may be written to."""
    results: str = ""
    """The value of the Authentication-Results field that was put in front of the message; empty: none was."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a message for one recipient: `refused` is None when it is durable here."""

    recipient: Recipient
    delivery: DeliveryId | None = None
    refused: MailRefused | None = None


class Incoming(Protocol):
    """One message on its way in."""

    async def write(self, chunk: bytes) -> None:
        """Take the next octets, already without dot-stuffing. Waits while what is behind it is slow."""

    async def finish(self) -> Sequence[Outcome]:
        """The last octet has come: make the message durable for each recipient, in the envelope's order.

        An Outcome without `refused` promises durability (the peer may be told 250). Raises MailRefused when
        nothing was taken at all.
        """

    async def abort(self) -> None:
        """The peer went away or broke the rules: nothing of the message stays."""


class Visit(Protocol):
    """One connection, as rules about who may send what see it. Each step may wait, and may raise MailRefused."""

    async def connected(self) -> None:
        """Before the greeting, which is held back until this returns. Refused, the connection ends."""

    def early(self) -> None:
        """The peer has spoken before the greeting."""

    async def greeted(self, helo: str, peer: Peer, *, extended: bool) -> None:
        """HELO, EHLO or LHLO; *peer* is who it is since TLS began, if it did."""

    async def sender(self, address: str, *, identity: Identity | None, size: int | None, body: str, smtputf8: bool) -> None:
        """MAIL."""

    async def recipient(self, recipient: Recipient) -> None:
        """RCPT, after the intake has accepted it."""

    async def unknown(self, address: str) -> None:
        """RCPT for somebody who is not here: the intake has refused it."""

    async def strange(self, line: str) -> None:
        """A command that is none, and is answered 500 or 502 in any case; refused, in other words."""

    async def ended(self) -> None:
        """The transaction is over, whatever became of it. Again is harmless."""

    async def closed(self) -> None:
        """The connection is gone."""


class Intake(Protocol):
    """Where SMTP, submission and LMTP put mail (the delivery room)."""

    def visit(self, peer: Peer) -> Visit | None:
        """A connection begins; None: nothing is asked of it."""

    async def recipient(
        self, address: str, *, identity: Identity | None, original: str = "", notify: frozenset[str] = frozenset()
    ) -> Recipient:
        """Say where mail for *address* goes: accounts of ours by user, alias, sub-address, catch-all, postmaster;
        or another domain, when *identity* may send there and a queue exists. Raises: MailRefused."""

    async def begin(self, envelope: Envelope) -> Incoming:
        """Start one message. Trace fields (Return-Path, Received) are put in front here. Raises: MailRefused."""


# --- accounts -----------------------------------------------------------------------------------------------------


class PreparedMessage(Protocol):
    """A whole message that was received, parsed and, where large, put into the blob store; not yet in an account."""

    @property
    def size(self) -> int:
        """Octets."""

    @property
    def header(self) -> bytes:
        """With its blank line; at most 1 MiB of it."""

    @property
    def root(self) -> Part:
        """The tree of its parts."""

    def octets(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Its octets ``[start:end)``, in chunks, as often as need be. Raises: StorageError."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message row that exists; what an `AddMessages` intent needs to know of it."""

    key: MessageKey
    size: int
    sent_days: int
    """The Date field's own calendar date in days since 1970-01-01 (RFC 9051 SENTON); the day of arrival where it has none."""


class MessageWriter(Protocol):
    """Takes the octets of one message as they come, in constant memory."""

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self) -> PreparedMessage: ...

    async def abort(self) -> None: ...


class Reading(Protocol):
    """The octets of messages that are read one after the other."""

    def octets(self, key: MessageKey, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """As `Account.octets`, for one of the keys that were named."""


class Account(Protocol):
    """One account, open on this node: its state, and the one way to change it."""

    @property
    def id(self) -> AccountId: ...

    @property
    def state(self) -> AccountState:
        """The newest state this node has applied. Changed in place, only between awaits; never by callers."""

    async def commit(self, intent: Intent[R]) -> R:
        """Run *intent* on the newest state and make its entry durable.

        Returns what the intent says of what was applied (UIDs given, and so on). An intent that finds nothing to do
        writes nothing. Raises: a `Refused` of `account.errors` (nothing was written); Unavailable (nothing was
        written); OutcomeUnknown when the time limit passes before a proposed entry could be settled.
        """

    async def refresh(self) -> ModSeq:
        """Read what other nodes have appended and apply it; returns the modseq reached."""

    async def columns(self, mailbox: Mailbox) -> Columns:
        """The per-message columns of *mailbox*, loaded if only the head chunk was so far."""

    def watch(self, changed: Callable[[ModSeq], None]) -> Callable[[], None]:
        """Call *changed* after each applied batch of entries, in order; returns the function that ends it."""

    def rows(self, keys: Sequence[MessageKey], columns: Sequence[str]) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        """Message rows in the order of *keys*, in batches; each a tuple in the order of *columns* (names of
        `storage.interfaces.COLUMNS`), None where the row is gone. One range read where the keys lie together."""

    def octets(self, key: MessageKey, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The message's own octets ``[start:end)`` as received, in chunks of at most 64 KiB."""

    def reading(self, keys: Sequence[MessageKey]) -> Reading:
        """The same for many messages that are read in about the order of *keys*: some of them are read ahead."""

    async def store(self, message: PreparedMessage) -> StoredMessage:
        """Put the row of a prepared message into this account. Until an entry names it, nobody sees it.

        It is good for one `commit`: after a refusal it must be stored again.
        """


class Exclusive(Protocol):
    """A lease that is held: POP3's exclusive session."""

    async def release(self) -> None: ...

    def still_held(self) -> bool:
        """False once it ran out or was taken over; asked before what it protects is written."""


class Accounts(Protocol):
    """Opens accounts. One state per account and node; who opens again gets the same."""

    async def open(self, account: AccountId) -> Account:
        """Raises: Unavailable."""

    def release(self, account: Account) -> None:
        """The opener is done with it (the state may be evicted when nobody has it open)."""

    def writer(self, account: AccountId | None = None) -> MessageWriter:
        """A place for the octets of a message that is coming in. For *account*, if it is known who (first) gets it: its
        row then holds the blobs from the moment they are stored."""

    async def lock(self, account: AccountId, purpose: str) -> Exclusive | None:
        """Take the account for *purpose* alone (POP3, RFC 1939 section 8), over all nodes; None if another has it."""


# --- Sieve scripts ------------------------------------------------------------------------------------------------


class ScriptFault(enum.Enum):
    """Why something is not done with a script."""

    INVALID = "not a valid script"
    NO_SUCH = "there is no such script"
    EXISTS = "there is a script of that name already"
    ACTIVE = "the script is active"
    BAD_NAME = "not a name for a script"
    TOO_LARGE = "the script is too long"
    TOO_MANY = "there are too many scripts"
    UNAVAILABLE = "try again later"


class ScriptRefused(Exception):
    """*text* is for the user. `line` and `column`, from 1, say where an INVALID script is wrong."""

    def __init__(self, fault: ScriptFault, text: str = "", line: int = 0, column: int = 0):
        super().__init__(text or fault.value)
        self.fault = fault
        self.text = text or fault.value
        self.line = line
        self.column = column


class Scripts(Protocol):
    """The Sieve scripts of users, within their limits (RFC 5804). Every method raises ScriptRefused."""

    @property
    def extensions(self) -> Sequence[str]:
        """What scripts may require."""

    @property
    def max_bytes(self) -> int:
        """The longest script, octets of UTF-8."""

    @property
    def max_redirects(self) -> int:
        """Redirects of one message."""

    async def names(self, account: AccountId) -> Mapping[str, bool]:
        """The name of each script, and whether it is the active one."""

    async def get(self, account: AccountId, name: str) -> str: ...

    async def space(self, account: AccountId, name: str, size: int) -> None:
        """Refuses what `put` would refuse of a script of *size* octets."""

    async def check(self, account: AccountId, text: str) -> Sequence[str]:
        """Whether *text* is a script; returns warnings. Not against the limits of the account."""

    async def put(self, account: AccountId, name: str, text: str) -> Sequence[str]:
        """Check and store, over what is there; returns warnings."""

    async def activate(self, account: AccountId, name: str | None) -> None:
        """Make *name* the active script; None: none is."""

    async def rename(self, account: AccountId, name: str, new: str) -> None: ...

    async def delete(self, account: AccountId, name: str) -> None:
        """Refuses the active one."""
