"""Mail on its way."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["USES", "ItemState", "LeasedItem", "Queue", "QueueFilter", "QueueItem", "QueueStatus", "Use"]

Use = Literal["inbound", "outbound", "bulk"]
"""What an item is for: mail that came, mail that leaves, and mail that leaves in such numbers that other mail must not stand
behind it. Each is leased by itself, so that a flood of one delays none of the others."""
USES: Final[tuple[Use, ...]] = get_args(Use)


class ItemState(enum.Enum):
    """Where an item of the queue stands."""

    DUE = "due"
    WAITING = "waiting"
    LEASED = "leased"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class QueueItem:
    """Mail on its way: small; its body is a blob."""

    id: DeliveryId
    use: Use
    envelope: bytes
    """Opaque to an engine, at most 8 KiB."""
    body: BlobRef | None
    domain: str = ""
    """The destination's domain, for filters and limits."""
    sender: str = ""
    attempts: int = 0
    last_reply: str = ""
    created: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class LeasedItem:
    """An item that its holder alone may work on, until `expires` (by the engine's clock)."""

    item: QueueItem
    token: str
    expires: float


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """What `Queue.list` shows; None: any."""

    use: str | None = None
    state: ItemState | None = None
    domain: str | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """An item with its state."""

    item: QueueItem
    state: ItemState
    due: float


class Queue(Protocol):
    """Mail that waits for a worker. Exactly one holder at a time; what is not acknowledged comes back.

    A lease is lost when another took the item, or `hold` or `delete` came between; one that ran out while nobody else
    took the item is still its holder's, who fences itself by its own clock.
    """

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        """Put *item*, due in *delay* seconds. False when an item of that id is there already (nothing is changed)."""

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        """Take at most *limit* due items, oldest due first, for *seconds*; each with `attempts` counted up by one.

        An item whose lease ran out is due again."""

    async def extend(self, token: str, seconds: float) -> bool:
        """Hold on for *seconds* from now. False: the lease was lost."""

    async def ack(self, token: str) -> bool:
        """Done: the item is gone. False: the lease was lost, and the item belongs to somebody else."""

    async def retry(
        self, token: str, delay: float, last_reply: str, *, envelope: bytes | None = None, attempted: bool = True
    ) -> bool:
        """Give it back, due in *delay* seconds. False: the lease was lost.

        *envelope* replaces the item's own. Not *attempted*: it was put off without being tried, so `attempts` is what it was
        before the lease.
        """

    async def hold(self, item: DeliveryId) -> bool:
        """Take it out of the run until `release`; a lease of it is revoked. False: no such item."""

    async def release(self, item: DeliveryId) -> bool:
        """A held item becomes due now. False: no such item, or not held."""

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        """Items that match, by id, those after *after*."""

    async def delete(self, item: DeliveryId) -> bool:
        """Forget it whatever its state. False: no such item."""
