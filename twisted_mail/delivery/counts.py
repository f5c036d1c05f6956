"""What the delivery room counts, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeliveryCounts"]


@dataclass(slots=True)
class DeliveryCounts:
    """Copies since the process started; `in_flight` is now."""

    straight: int = 0
    """Put into an account while the peer waited."""
    queued: int = 0
    """Put into the queue."""
    refused: int = 0
    """Neither; the peer keeps them."""
    delivered: int = 0
    """From the queue into an account."""
    retried: int = 0
    """Attempts from the queue that failed and will be made again."""
    held: int = 0
    """Items that nothing but an operator moves any more."""
    in_flight: int = 0
    """Items that this process has leased."""
