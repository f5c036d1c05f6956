"""What delivery asks of the queue for other domains. Without one, such mail is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted_mail.services import Envelope, Recipient
from twisted_mail.values import DeliveryId

__all__ = ["OutboundMessage", "OutboundQueue"]


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
