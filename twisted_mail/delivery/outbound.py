"""What delivery asks of the queue for other domains. Without one, such mail is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted_mail.services import Envelope, Recipient
from twisted_mail.values import DeliveryId

__all__ = ["OutboundMessage", "OutboundQueue", "Returns"]


class OutboundMessage(Protocol):
    """One message on its way into the queue."""

    async def write(self, chunk: bytes) -> None:
        """The next octets, trace field included."""

    async def finish(self, targets: Sequence[tuple[DeliveryId, str, Recipient]]) -> None:
        """Put it into the queue, durably, for each (id, address, the recipient that led there): all or none.

        Raises: StorageError or MailRefused (nothing was queued).
        """

    async def abort(self) -> None:
        """Nothing of it stays."""


class OutboundQueue(Protocol):
    """Takes mail for other domains."""

    def begin(self, envelope: Envelope) -> OutboundMessage: ...


class Returns(Protocol):
    """Addresses that nobody has a mailbox for: what was made of senders of mail that left, and where reports come to."""

    def ours(self, address: str) -> bool:
        """Asked of every recipient before the directory is."""

    def bounces_only(self, address: str) -> bool:
        """Whether only the null sender may write to *address*: it stands for somebody elsewhere, and others would have a
        relay in it."""

    async def leads_to(self, address: str) -> str | None:
        """Whom *address*, one of `ours`, stands for; None: `take` reads what comes. Raises: MailRefused, StorageError."""

    async def take(self, address: str, sender: str, octets: bytes) -> None:
        """Read a message: its first megabyte. Raises: StorageError."""
