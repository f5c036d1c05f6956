"""What a filter implements: a `Stage`, and one or more of the abilities below. Nothing here knows SMTP's sockets.

Each method may take as long as the configuration allows and is cancelled then; it raises `FilterDown` when what it asks
does not answer. Any other exception is a defect, logged with its traceback, and counts as down too.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from twisted_mail.filters.values import Arrived, Client, Mail, Verdict
from twisted_mail.services import Recipient

__all__ = [
    "AtConnect",
    "AtData",
    "AtEnd",
    "AtHelo",
    "AtMail",
    "AtMessage",
    "AtRcpt",
    "AtStrange",
    "AtUnknown",
    "Reader",
    "Stage",
    "Transactions",
    "Visits",
]


class Stage(Protocol):
    """A filter."""

    @property
    def name(self) -> str:
        """In the configuration, the trace and the metrics: ``spf``, ``clamav``, …"""

    @property
    def needs(self) -> frozenset[str]:
        """Names of the filters whose notes it reads: at each moment they are asked first (those that exist)."""

    @property
    def outbound(self) -> bool:
        """Whether mail of users who have logged in is shown to it too."""


@runtime_checkable
class AtConnect(Protocol):
    async def connect(self, client: Client) -> Verdict:
        """Before the greeting."""


@runtime_checkable
class AtHelo(Protocol):
    async def helo(self, client: Client) -> Verdict:
        """`client.helo` was just said (again, perhaps)."""


@runtime_checkable
class AtMail(Protocol):
    async def mail(self, mail: Mail) -> Verdict: ...


@runtime_checkable
class AtRcpt(Protocol):
    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        """*recipient* exists, and is not among `mail.recipients` yet."""


@runtime_checkable
class AtUnknown(Protocol):
    async def unknown(self, client: Client, address: str) -> Verdict:
        """RCPT for somebody who does not exist, and was refused: DEFER ends the connection, a delay holds it up."""


@runtime_checkable
class AtStrange(Protocol):
    async def strange(self, client: Client, line: str) -> Verdict:
        """A command that nobody knows, and that is refused in any case: DEFER and REJECT say in which words."""


@runtime_checkable
class AtData(Protocol):
    async def data(self, mail: Mail) -> Verdict:
        """All recipients are there, and the message is about to come."""


@runtime_checkable
class AtEnd(Protocol):
    async def end(self, message: Arrived) -> Verdict:
        """The whole message is here."""


class Reader(Protocol):
    """One message, read while it comes."""

    async def write(self, chunk: bytes) -> None:
        """The next octets. Raises: FilterDown (it is not given more)."""

    async def finish(self, message: Arrived) -> Verdict:
        """All has come."""

    async def abort(self) -> None:
        """The message does not come to its end, or the time is over."""


@runtime_checkable
class AtMessage(Protocol):
    def read(self, mail: Mail) -> Reader:
        """DATA (or the first BDAT) was accepted. Must not block; it may connect at the first `write`."""


@runtime_checkable
class Transactions(Protocol):
    async def ended(self, mail: Mail) -> None:
        """The transaction is over, with a message or without (RSET, QUIT, refusal)."""


@runtime_checkable
class Visits(Protocol):
    async def closed(self, client: Client) -> None:
        """The connection is gone."""
