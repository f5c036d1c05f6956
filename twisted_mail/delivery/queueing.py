"""The way into the inbound queue: a body that is durable, then an item for each copy of the message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.delivery.bodies import Bodies, Body
from twisted_mail.delivery.counts import DeliveryCounts
from twisted_mail.delivery.items import Copy, queue_item
from twisted_mail.queueing.limits import some_at_a_time
from twisted_mail.queueing.putting import put_item
from twisted_mail.queueing.spool import Spool, SpoolFolder
from twisted_mail.services import MailRefused, Refusal
from twisted_mail.storage.interfaces import Queue, Refused, StorageError
from twisted_mail.values import DeliveryId

__all__ = ["InboundQueue", "Waiting"]



@dataclass(frozen=True, slots=True)
class Waiting:
    """A copy that goes into the queue."""

    copy: Copy
    repeated: bool
    """It may stand in the account already, or come to stand there."""


class InboundQueue:
    """Puts messages into the queue. Until an item is durable nobody is told that its mail was taken."""

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        bodies: Bodies,
        spools: SpoolFolder,
        clock: IReactorTime,
        *,
        counts: DeliveryCounts | None = None,
        wall: Callable[[], float] = time.time,
        woken: Callable[[], None] = lambda: None,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        """*woken* is called after each item, for a worker in this process. *trouble* says, without waiting, what is the
        matter with the queue; None: nothing that is known."""
        self.queue = queue
        self.bodies = bodies
        self.spools = spools
        self.counts = counts or DeliveryCounts()
        self._clock = clock
        self._wall = wall
        self._woken = woken
        self._trouble = trouble

    def wake(self, woken: Callable[[], None]) -> None:
        """Call *woken* after each item from now on."""
        self._woken = woken

    async def put(
        self, spool: Spool, copies: Sequence[Waiting], *, sender: str, received: int, delay: float = 0.0
    ) -> Mapping[DeliveryId, MailRefused]:
        """Make each of *copies* durable, due in *delay* seconds; those that could not be, with what to tell the peer."""
        ids = [waiting.copy.delivery for waiting in copies]
        trouble = self._trouble()
        if trouble is not None:  # a body that no item names would only lie there
            self._log.warn("the queue takes nothing: {why}", why=trouble)
            return {id: MailRefused(Refusal.UNAVAILABLE) for id in ids}
        try:
            kept = await self.bodies.keep(spool.chunks, ids, spool.size)
        except (StorageError, OSError) as error:
            self._log.warn("no body for {n} queued deliveries: {why}", n=len(ids), why=error)
            return dict.fromkeys(ids, _refusal(error))
        failures: dict[DeliveryId, MailRefused] = {}

        async def one(waiting: Waiting) -> None:
            failure = await self._put(waiting, kept[waiting.copy.delivery], sender, received, delay)
            if failure is None:
                self.counts.queued += 1
                self._woken()
            else:
                failures[waiting.copy.delivery] = failure

        await some_at_a_time([one(waiting) for waiting in copies])
        return failures

    async def _put(
        self, waiting: Waiting, body: Body, sender: str, received: int, delay: float
    ) -> MailRefused | None:
        """One item. After an unknown outcome it is put again: an id is put once, however often it is tried."""
        id = waiting.copy.delivery
        try:
            item = queue_item(
                waiting.copy,
                body.ref,
                sender=sender,
                received=received,
                repeated=waiting.repeated,
                place=body.place,
                created=self._wall(),
            )
        except ValueError as error:
            self._log.error("delivery {id} cannot be queued: {why}", id=id, why=error)
            await self.bodies.forget(body, id)
            return MailRefused(Refusal.UNAVAILABLE)
        failed = await put_item(self.queue, self._clock, item, delay)
        if failed is None:
            return None
        self._log.warn("delivery {id} cannot be queued: {why!r}", id=id, why=failed.error)
        if failed.certain:  # else the item may be there all the same, and its body must be too
            await self.bodies.forget(body, id)
        return _refusal(failed.error)


def _refusal(error: Exception) -> MailRefused:
    return MailRefused(Refusal.NO_ROOM if isinstance(error, Refused) else Refusal.UNAVAILABLE)
