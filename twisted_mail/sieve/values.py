"""What a script is given and what it asks for. A run has no effects: whoever runs it carries out its actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "Action",
    "CompileLimits",
    "Discard",
    "Edit",
    "FileInto",
    "Include",
    "Keep",
    "Mailboxes",
    "Notify",
    "Outcome",
    "Piece",
    "Redirect",
    "Reject",
    "Rewritten",
    "RunEnvironment",
    "RunLimits",
    "SieveError",
    "Span",
    "Vacation",
]


class SieveError(Exception):
    """A script is wrong (`line` and `column` from 1 say where), or failed while it ran."""

    def __init__(self, text: str, line: int = 0, column: int = 0):
        super().__init__(f"line {line}, column {column}: {text}" if line else text)
        self.text = text
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Keep:
    """Into INBOX, or where the recipient's mail goes without a script (RFC 5228 section 4.3)."""

    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileInto:
    """Into a mailbox (section 4.1); names as users write them, ``/`` between levels, UTF-8."""

    mailbox: str
    flags: tuple[str, ...] = ()
    create: bool = False
    """``:create`` (RFC 5490): it is made if it is not there. Without, what is not there means INBOX."""
    special_use: str = ""
    """``:specialuse`` (RFC 8579): a mailbox with this use goes before the one of that name."""
    mailbox_id: str = ""
    """``:mailboxid`` (RFC 9042)."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """To another address (section 4.2), perhaps with more of an envelope (RFC 6009)."""

    address: str
    notify: tuple[str, ...] = ()
    """``NEVER``, or some of ``SUCCESS``, ``FAILURE``, ``DELAY`` (RFC 3461); empty: nothing is said."""
    ret: str = ""
    """``FULL`` or ``HDRS``."""
    deliver_by: tuple[float, str] | None = None
    """Seconds since 1970, and the mode ``N`` or ``R``, with ``T`` behind it where it is to be traced (RFC 2852)."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Cancels the implicit keep (section 4.4)."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The sender is told (RFC 5429): at SMTP time by a reply where that is still possible, else by a bounce."""

    reason: str
    ereject: bool = False
    """Only by a reply if at all possible; never a bounce for mail whose sender was not verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacation:
    """The sender gets an answer, once in `seconds` (RFC 5230, RFC 6131). Whom that must never be is decided by who
    carries it out: lists, bounces, the user itself, mail that was not addressed to the user."""

    reason: str
    handle: str
    """Names this response: answers are counted by handle and sender (section 4.2: of the script's own, else of the
    arguments)."""
    seconds: int
    subject: str = ""
    sender: str = ""
    """``:from``."""
    addresses: tuple[str, ...] = ()
    """The user's others, which the message may have been addressed to."""
    mime: bool = False
    """`reason` is a MIME entity with its header."""
    fcc: FileInto | None = None
    """A copy of the answer goes there (RFC 8580)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """A notification (RFC 5435) by ``mailto:`` (RFC 5436)."""

    method: str
    """The URI."""
    message: str = ""
    sender: str = ""
    importance: str = "2"
    options: tuple[str, ...] = ()
    fcc: FileInto | None = None


Action = Keep | FileInto | Redirect | Discard | Reject | Vacation | Notify


@dataclass(frozen=True, slots=True)
class Edit:
    """One step of editheader (RFC 5293), in the order they are to be carried out on the message that is stored."""

    name: str
    value: str | None
    """None: delete."""
    last: bool = False
    """Add at the end of the header; delete counts from there."""
    nth: int = 0
    """Delete only the nth of that name (among those left); 0: each that `matching` names."""
    matching: tuple[str, ...] = ()
    """Raw values that are deleted, when only some are."""


@dataclass(frozen=True, slots=True)
class Span:
    """Octets ``[start:end)`` of the message that came."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


Piece = bytes | Span


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A message as a script has changed it: octets of the script's, and ranges of the message that came."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Octets."""
        return sum(map(len, self.pieces))


class Mailboxes(Protocol):
    """The account's mailboxes, as tests see them (RFC 5490, RFC 8579, RFC 9042)."""

    def exists(self, name: str) -> bool:
        """Whether there is one that the user may deliver into."""

    def id_exists(self, mailbox_id: str) -> bool: ...

    def special_use_exists(self, use: str, name: str | None = None) -> bool: ...

    def metadata(self, name: str | None, entry: str) -> str | None:
        """An annotation of a mailbox (None: of the server); None where there is none."""


@dataclass(kw_only=True)
class RunEnvironment:
    """Everything that a run may ask for besides the message."""

    mailboxes: Mailboxes
    envelope_from: str = ""
    envelope_to: str = ""
    """The recipient as the sender gave it."""
    user: str = ""
    """The account's own address."""
    envelope_auth: str = ""
    now: float = 0.0
    """Seconds since 1970; `zone` minutes east of UTC."""
    zone: int = 0
    separator: str = "+"
    """Between user and detail in the local part of an address (RFC 5233)."""
    items: Mapping[str, str] = field(default_factory=dict)
    """RFC 5183: ``domain``, ``host``, ``location``, ``name``, ``phase``, ``remote-host``, ``remote-ip``, ``version``."""
    spam_percent: float | None = None
    """0 to 100 for spamtest (RFC 5235); None: not tested."""
    virus: int = 0
    """0 to 5 for virustest."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """duplicate (RFC 7352): when each id that is still remembered was seen, by the key `Outcome.tracked` used."""
    envelope_extra: Mapping[str, str] = field(default_factory=dict)
    """``notify``, ``orcpt``, ``ret``, ``envid`` where they were given (RFC 6009)."""
    deliver_by: tuple[float, str] | None = None
    """Until when the message was to be delivered, as in `Redirect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileLimits:
    """Of one script with all that it includes."""

    script_bytes: int = 1 << 20
    nesting: int = 32
    """Blocks in one another, and tests in one another (RFC 5228 section 2.10.5: at least 15)."""
    includes: int = 64
    """Places that include another script, all scripts together."""
    regexes: int = 500
    """Keys of ``:regex`` tests: a compiled one may take half a megabyte."""
    include_depth: int = 10
    """Scripts in one another, the main one counted (RFC 6609 section 3.1: at least 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Of one run."""

    steps: int = 100_000
    """Commands and tests, comparisons weighed by number and length: at worst some half a second."""
    redirects: int = 4
    actions: int = 32
    variable_bytes: int = 4096
    """Of one variable's value."""
    memory_bytes: int = 1 << 20
    """Of all variables."""
    rewritten_bytes: int = 4 << 20
    """That a script puts into messages: headers that it edited, parts that it replaced."""
    vacation_min_seconds: int = 86_400
    vacation_max_seconds: int = 90 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run asks for. The implicit keep stands among the actions where it was not cancelled."""

    actions: tuple[Action, ...]
    edits: tuple[Edit, ...] = ()
    """All steps of editheader, for whoever explains; `rewritten` has what came of them."""
    rewritten: Mapping[int, Rewritten] = field(default_factory=dict)
    """What the actions of these numbers store or send instead of the message that came: the message as it stood when they
    were asked for (RFC 5293 section 6)."""
    tracked: Mapping[str, int] = field(default_factory=dict)
    """Ids that duplicate is to remember once the message is delivered: key, seconds."""
    trace: tuple[str, ...] = ()
    """What happened, a sentence each with the line: ``line 12: fileinto "lists"``."""
    error: SieveError | None = None
    """It failed at run time: actions is the implicit keep alone (RFC 5228 section 2.10.6)."""


class Include(Protocol):
    """Where scripts that are included come from (RFC 6609), when a script is compiled."""

    def __call__(self, location: str, name: str) -> str | None:
        """*location* is ``personal`` or ``global``; None: there is no such script."""


