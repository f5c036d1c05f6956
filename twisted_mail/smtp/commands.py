"""The commands as values (RFC 5321 section 4.1.1 and the extensions named at each)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from twisted_mail.smtp.addresses import Mailbox

__all__ = [
    "DATA",
    "NOOP",
    "QUIT",
    "RSET",
    "STARTTLS",
    "Auth",
    "BadCommand",
    "Bdat",
    "Command",
    "Data",
    "Ehlo",
    "Expn",
    "Helo",
    "Help",
    "Lhlo",
    "Mail",
    "Noop",
    "Quit",
    "Rcpt",
    "Rset",
    "StartTLS",
    "Vrfy",
    "Xclient",
]


class Command:
    """Base of all commands."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Ehlo(Command):
    """EHLO (section 4.1.1.1): who the client says it is."""

    domain: str


@dataclass(frozen=True, slots=True)
class Helo(Command):
    """HELO (section 4.1.1.1)."""

    domain: str


@dataclass(frozen=True, slots=True)
class Lhlo(Command):
    """LHLO (RFC 2033 section 4.1)."""

    domain: str


@dataclass(frozen=True, slots=True)
class Mail(Command):
    """MAIL FROM (section 4.1.1.2) with its parameters."""

    sender: Mailbox | None
    """None: the null reverse-path."""
    size: int | None = None
    """SIZE (RFC 1870)."""
    body: str = "7BIT"
    """BODY (RFC 6152, RFC 3030): 7BIT, 8BITMIME, BINARYMIME."""
    smtputf8: bool = False
    """SMTPUTF8 (RFC 6531)."""
    dsn_return: str = ""
    """RET (RFC 3461 section 4.3): FULL or HDRS."""
    envelope_id: str = ""
    """ENVID (RFC 3461 section 4.4), as given."""
    hold_for: int | None = None
    """HOLDFOR (RFC 4865): seconds."""
    hold_until: float | None = None
    """HOLDUNTIL (RFC 4865): seconds since 1970."""
    deliver_by: tuple[int, str] | None = None
    """BY (RFC 2852): seconds from now, and the mode: ``N`` or ``R``, then ``T`` where a trace is wished."""
    priority: int | None = None
    """MT-PRIORITY (RFC 6710): -9 to 9."""
    requiretls: bool = False
    """REQUIRETLS (RFC 8689)."""
    auth: str = ""
    """AUTH (RFC 4954 section 5), decoded; ``<>`` or a mailbox. A claim, which nothing here believes."""


@dataclass(frozen=True, slots=True)
class Rcpt(Command):
    """RCPT TO (section 4.1.1.3) with its parameters."""

    recipient: Mailbox | None
    """None: ``<postmaster>`` without a domain."""
    text: str
    """The address as given, without angle brackets and source route."""
    notify: frozenset[str] = field(default=frozenset())
    """NOTIFY (RFC 3461 section 4.1)."""
    original: str = ""
    """ORCPT (RFC 3461 section 4.2), as given."""


@dataclass(frozen=True, slots=True)
class Data(Command):
    """DATA (section 4.1.1.4)."""


@dataclass(frozen=True, slots=True)
class Bdat(Command):
    """BDAT (RFC 3030 section 2): so many octets follow."""

    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Rset(Command):
    """RSET (section 4.1.1.5)."""


@dataclass(frozen=True, slots=True)
class Noop(Command):
    """NOOP (section 4.1.1.9)."""


@dataclass(frozen=True, slots=True)
class Quit(Command):
    """QUIT (section 4.1.1.10)."""


@dataclass(frozen=True, slots=True)
class Vrfy(Command):
    """VRFY (section 4.1.1.6)."""

    text: str


@dataclass(frozen=True, slots=True)
class Expn(Command):
    """EXPN (section 4.1.1.7)."""

    text: str


@dataclass(frozen=True, slots=True)
class Help(Command):
    """HELP (section 4.1.1.8)."""

    topic: str


@dataclass(frozen=True, slots=True)
class StartTLS(Command):
    """STARTTLS (RFC 3207)."""


@dataclass(frozen=True, slots=True)
class Auth(Command):
    """AUTH (RFC 4954 section 4)."""

    mechanism: str
    initial: str | None = None
    """The initial response as it came: base64, or ``=`` for an empty one; None: there was none."""


@dataclass(frozen=True, slots=True)
class Xclient(Command):
    """XCLIENT (Postfix's XCLIENT_README), as far as it is used."""

    address: str
    """The client's; empty: not known, or not said."""
    port: int
    login: str
    """Who has logged in at the server in front; empty: nobody."""


@dataclass(frozen=True, slots=True)
class BadCommand(Command):
    """Not a command, or not a well-formed one: what it is answered with."""

    code: int
    enhanced: str
    text: str
    loses_sync: bool = False
    """What follows cannot be told from commands any more (a BDAT without a size)."""


DATA: Final = Data()
RSET: Final = Rset()
NOOP: Final = Noop()
QUIT: Final = Quit()
STARTTLS: Final = StartTLS()
