"""An item goes into a queue that may not answer: again and again, as an id is put once however often it is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.task import deferLater

from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.storage.interfaces import QueueItem, Refused, StorageError

__all__ = ["PUT_SECONDS", "NotPut", "Puts", "put_item"]

PUT_SECONDS: Final = 10.0
"""How long the queue has for one item, each time."""
PUT_PAUSES: Final = (0.0, 0.2, 1.0)
"""Seconds before each time."""


@dataclass(frozen=True, slots=True)
class NotPut:
    """The queue did not say that it has the item."""

    error: Exception
    """The last that was heard: StorageError or TooSlow."""
    certain: bool
    """It does not have it; else it may all the same."""


class Puts(Protocol):
    """A queue, as far as items go in."""

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool: ...


async def put_item(queue: Puts, clock: Any, item: QueueItem, delay: float = 0.0) -> NotPut | None:
    """Put *item*, due in *delay* seconds; None: it is durable. *clock* provides IReactorTime."""

    async def once() -> None:
        await queue.put(item, delay=delay)

    failure: Exception = TooSlow()
    certain = True
    for pause in PUT_PAUSES:
        if pause:
            await deferLater(clock, pause)
        try:
            await within(clock, PUT_SECONDS, once())
            return None
        except Refused as error:
            return NotPut(error, certain)
        except (StorageError, TooSlow) as error:
            failure, certain = error, False
    return NotPut(failure, certain)
