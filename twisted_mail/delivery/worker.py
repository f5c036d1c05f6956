"""Takes items from the inbound queue and puts them into accounts, exactly once in effect.

An item is acknowledged when its entry is durable. A second attempt looks the delivery id up first, so neither a crash nor a
lost lease doubles anything.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twisted_mail.account.errors import AccountError
from twisted_mail.delivery.bodies import Bodies, Body
from twisted_mail.delivery.counts import DeliveryCounts
from twisted_mail.delivery.failing import Again, Failure, Kind, RetrySettings, decide, failure_of
from twisted_mail.delivery.items import Copy, Inbound, NewerVersion, inbound_of
from twisted_mail.delivery.judgement import Judgement, Quarantined
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.rejudging import Rejudged
from twisted_mail.delivery.sorting import Arrival
from twisted_mail.delivery.versions import given_up
from twisted_mail.filters.values import Action, FilterDown
from twisted_mail.queueing.leasing import LeaseSettings, QueueWorker, Work, crashes
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.services import Accounts
from twisted_mail.storage.interfaces import Corrupt, Directory, Queue, QueueItem, StorageError
from twisted_mail.values import BlobRef

__all__ = ["DeliveryWorker", "Rejudge", "WorkerSettings"]

FRESH_SECONDS: Final = 60.0
"""A first attempt within so many seconds trusts that the account is still there, as the straight way does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works."""

    lease: LeaseSettings = field(default_factory=LeaseSettings)
    attempt_seconds: float = 300.0
    """The most that one attempt may take."""
    retry: RetrySettings = field(default_factory=RetrySettings)


class Rejudge(Protocol):
    """Asks the filters that did not answer when a message came (`judging.Judge.again`)."""

    async def again(
        self, judgement: Judgement, chunks: Callable[[], AsyncIterator[bytes]], sender: str, recipient: str
    ) -> Rejudged:
        """Raises: FilterDown (they still do not)."""


class DeliveryWorker:
    """One per process; `start`, then `stop`."""

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        bodies: Bodies,
        accounts: Accounts,
        directory: Directory,
        clock: Any,
        *,
        placer: Placer | None = None,
        rejudge: Rejudge | None = None,
        settings: WorkerSettings | None = None,
        counts: DeliveryCounts | None = None,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self.settings = settings or WorkerSettings()
        self.counts = counts or DeliveryCounts()
        self._bodies = bodies
        self._accounts = accounts
        self._placer = placer or Placer(accounts, wall=wall)
        self._rejudge = rejudge
        self._directory = directory
        self._clock = clock
        self._wall = wall
        self._random = random
        self._worker = QueueWorker(queue, "inbound", clock, self.settings.lease, self._work, changed=self._in_flight)

    def start(self) -> None:
        """Begin to take items."""
        self._worker.start()

    def wake(self) -> None:
        """Something was put into the queue."""
        self._worker.wake()

    async def stop(self, seconds: float) -> None:
        """Lease nothing more, give what is in flight *seconds* to end, and give the rest back."""
        await self._worker.stop(seconds)

    def _in_flight(self, number: int) -> None:
        self.counts.in_flight = number

    # --- one item

    async def _work(self, work: Work) -> None:
        item = work.item
        if crashes(item) >= self.settings.retry.crashes:
            await self._hold(work, Failure(Kind.BROKEN, f"451 4.3.0 {crashes(item)} attempts were never heard of again"))
            return
        try:
            inbound = inbound_of(item)
            copy = await self._present(item, inbound)
            if copy is None:
                await self._settle(work, Failure(Kind.GONE, "550 5.1.1 the account is gone"))
                return
            body = Body(inbound.place, _body_of(item))
            await within(self._clock, self.settings.attempt_seconds, self._deliver(item, inbound, copy, body))
        except (CancelledError, GeneratorExit):
            raise
        except (StorageError, AccountError, TooSlow, NewerVersion, FilterDown, Quarantined) as error:
            await self._settle(work, failure_of(error))
            return
        except Exception as error:
            self._log.failure("delivery {id} failed", id=item.id)
            await self._settle(work, failure_of(error))
            return
        self.counts.delivered += 1
        if await work.ack():
            await self._bodies.forget(body, item.id)

    async def _present(self, item: QueueItem, inbound: Inbound) -> Copy | None:
        """The copy, with what the directory says now if it has waited; None if the account was deleted meanwhile."""
        copy = inbound.copy(item.id)
        if item.attempts <= 1 and self._wall() - item.created < FRESH_SECONDS:
            return copy
        record = await self._directory.account(copy.account)
        return None if record is None else replace(copy, user=record.address)

    async def _deliver(self, item: QueueItem, inbound: Inbound, copy: Copy, body: Body) -> None:
        again = await self._judged(inbound, copy, body)
        sender = inbound.sender
        if again is not None:
            copy = replace(copy, judgement=again.judgement)
            sender = sender if again.sender is None else again.sender
        if copy.judgement is not None and copy.judgement.action >= Action.QUARANTINE:
            raise Quarantined(copy.judgement.trace[-1] if copy.judgement.trace else "")
        writer = self._accounts.writer(copy.account)
        try:
            octets = self._bodies.open(body)
            async for chunk in octets if again is None else again.octets(octets):
                await writer.write(chunk)
            arrival = Arrival(sender=sender, received=inbound.received, zone=inbound.zone)
            repeated = inbound.repeated or item.attempts > 1
            await self._placer.place(await writer.finish(), copy, arrival, repeated=repeated)
        finally:
            await given_up(writer)  # unless the account has taken it over

    async def _judged(self, inbound: Inbound, copy: Copy, body: Body) -> Rejudged | None:
        """The answers of filters that did not answer before; None: all have. Raises: FilterDown, StorageError."""
        judgement = copy.judgement
        if judgement is None or not judgement.pending or self._rejudge is None:
            return None

        def chunks() -> AsyncIterator[bytes]:
            return self._bodies.open(body)

        return await self._rejudge.again(judgement, chunks, inbound.sender, copy.address)

    async def _settle(self, work: Work, failure: Failure) -> None:
        """The attempt has failed: again later, or held."""
        match decide(work.item, failure, self._wall(), self.settings.retry, self._random):
            case Again(delay):
                self.counts.retried += 1
                self._log.info(
                    "delivery {id} waits {delay:.0f} s: {why}", id=work.item.id, delay=delay, why=failure.reply
                )
                await work.retry(delay, failure.reply)
            case _:
                await self._hold(work, failure)

    async def _hold(self, work: Work, failure: Failure) -> None:
        """A dead letter, with its reply."""
        self._log.error("delivery {id} is held: {why}", id=work.item.id, why=failure.reply)
        if await work.hold(failure.reply):
            self.counts.held += 1


def _body_of(item: QueueItem) -> BlobRef:
    """Raises: Corrupt."""
    if item.body is None:
        raise Corrupt("the item has no body")
    return item.body
