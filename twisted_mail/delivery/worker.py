"""Takes items from the inbound queue and puts them into accounts, exactly once in effect.

An item is leased; while it is worked on its lease is extended, and whoever could not extend it in time stops before
another may begin (by the monotonic clock, with a margin). It is acknowledged when its entry is durable. A second attempt
looks the delivery id up first, so neither a crash nor a lost lease doubles anything.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.account.errors import AccountError
from twisted_mail.delivery.bodies import Bodies, Body
from twisted_mail.delivery.counts import DeliveryCounts
from twisted_mail.delivery.failing import (
    Again,
    Failure,
    Kind,
    RetrySettings,
    crashes,
    decide,
    failure_of,
    reply_text,
)
from twisted_mail.delivery.items import USE, Copy, Inbound, NewerVersion, inbound_of
from twisted_mail.delivery.placing import place
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.services import Accounts
from twisted_mail.storage.interfaces import Corrupt, Directory, LeasedItem, Queue, QueueItem, StorageError
from twisted_mail.values import BlobRef

__all__ = ["DeliveryWorker", "WorkerSettings"]

BATCH: Final = 32
"""Items leased at a time."""
FRESH_SECONDS: Final = 60.0
"""A first attempt within so many seconds trusts that the account is still there, as the straight way does."""
HELD_DELAY: Final = 3600.0
"""When an item comes back that was to be held, but the worker died in between."""
LEASING_SECONDS: Final = 30.0
"""A queue that takes longer to say what is due is asked anew: nothing may stand still for good."""
PATIENCE: Final = (0.0, 0.1, 0.5, 2.0)
"""Seconds to wait before the queue is told (again) what became of an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works."""

    concurrent: int = 16
    """Items at a time."""
    lease_seconds: float = 60.0
    margin_seconds: float = 10.0
    """So long before its lease ends an item is let go."""
    attempt_seconds: float = 300.0
    """The most that one attempt may take."""
    poll_seconds: float = 1.0
    """How often an empty queue is asked; what this process puts in itself is seen at once."""
    most_poll_seconds: float = 15.0
    """The same while the queue does not answer."""
    retry: RetrySettings = field(default_factory=RetrySettings)


class _Work:
    """An item that is being worked on."""

    __slots__ = ("done", "fence", "leased", "lost", "settled")

    def __init__(self, leased: LeasedItem) -> None:
        self.leased = leased
        self.lost = False
        self.settled = False
        """The queue is being told what became of it: the token alone says whether that still counts."""
        self.fence: Any = None
        self.done: Deferred[None] = Deferred()

    @property
    def item(self) -> QueueItem:
        return self.leased.item


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
        settings: WorkerSettings | None = None,
        counts: DeliveryCounts | None = None,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self.settings = settings or WorkerSettings()
        self.counts = counts or DeliveryCounts()
        self._queue = queue
        self._bodies = bodies
        self._accounts = accounts
        self._directory = directory
        self._clock = clock
        self._wall = wall
        self._random = random
        self._works: dict[str, _Work] = {}
        self._woken = False
        self._pause: Deferred[None] | None = None
        self._stopping = False
        self._loop: Deferred[None] | None = None
        self._extending: Any = None

    def start(self) -> None:
        """Begin to take items."""
        self._loop = Deferred.fromCoroutine(self._run())
        self._loop.addErrback(self._broken)
        self._extending = self._clock.callLater(self.settings.lease_seconds / 3, self._extend_all)

    def _broken(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the delivery worker has ended", failure)

    def wake(self) -> None:
        """Something was put into the queue."""
        self._woken = True
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.callback(None)

    async def stop(self, seconds: float) -> None:
        """Lease nothing more, give what is in flight *seconds* to end, and give the rest back."""
        self._stopping = True
        self.wake()
        if self._loop is not None:
            try:
                await within(self._clock, seconds, self._leased_last(self._loop))
            except TooSlow:
                pass  # a queue that does not answer; what it leased comes back when the lease ends
        works = list(self._works.values())
        try:
            await within(self._clock, seconds, self._all(works))
        except TooSlow:
            pass
        if self._extending is not None and self._extending.active():
            self._extending.cancel()
        for work in list(self._works.values()):
            self._end(work)
            await self._give_back(work.leased)

    async def _leased_last(self, loop: Deferred[None]) -> None:
        await loop

    async def _all(self, works: list[_Work]) -> None:
        for work in works:
            waiting: Deferred[None] = Deferred()

            def over(result: None, waiting: Deferred[None] = waiting) -> None:
                if not waiting.called:
                    waiting.callback(None)

            work.done.addCallback(over)
            await waiting

    # --- taking items

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._woken = False
            room = min(self.settings.concurrent - len(self._works), BATCH)
            pause = self.settings.poll_seconds
            if room > 0:
                asked = self._clock.seconds()
                try:
                    leased = await within(self._clock, LEASING_SECONDS, self._lease(room))
                    failures = 0
                except (StorageError, TooSlow) as error:
                    if not failures:
                        self._log.warn("the queue does not answer: {why}", why=error)
                    leased = ()
                    failures += 1
                    pause = min(pause * 2.0**failures, self.settings.most_poll_seconds)
                for each in leased:
                    await self._give_back(each) if self._stopping else self._begin(each, asked)
                if leased:
                    continue
            if not self._woken and not self._stopping:
                await self._sleep(pause)

    async def _lease(self, room: int) -> Sequence[LeasedItem]:
        return await self._queue.lease(USE, room, self.settings.lease_seconds)

    async def _sleep(self, seconds: float) -> None:
        """Until `wake`, or for *seconds*."""
        pause = self._pause = Deferred()
        call = self._clock.callLater(seconds, self.wake)
        try:
            await pause
        finally:
            if call.active():
                call.cancel()

    def _begin(self, leased: LeasedItem, asked: float) -> None:
        work = self._works[leased.token] = _Work(leased)
        self.counts.in_flight = len(self._works)
        allowed = self.settings.lease_seconds - self.settings.margin_seconds
        work.fence = self._clock.callLater(max(asked + allowed - self._clock.seconds(), 0), self._lose, work)
        work.done = Deferred.fromCoroutine(self._work(work))
        work.done.addErrback(self._unexpected, work)
        work.done.addBoth(self._ended, work)

    def _unexpected(self, failure: Any, work: _Work) -> None:
        if not failure.check(CancelledError):
            self._log.failure("delivery {id} was left where it is", failure, id=work.item.id)

    def _ended(self, result: None, work: _Work) -> None:
        full = len(self._works) >= self.settings.concurrent
        self._end(work)
        if full:
            self.wake()

    def _end(self, work: _Work) -> None:
        self._works.pop(work.leased.token, None)
        self.counts.in_flight = len(self._works)
        if work.fence.active():
            work.fence.cancel()
        if not work.done.called:
            work.done.cancel()

    # --- the lease

    def _extend_all(self) -> None:
        self._extending = self._clock.callLater(self.settings.lease_seconds / 3, self._extend_all)
        for work in [work for work in self._works.values() if not work.settled]:
            Deferred.fromCoroutine(self._extend(work)).addErrback(
                lambda failure: self._log.failure("extending a lease failed", failure)
            )

    async def _extend(self, work: _Work) -> None:
        asked = self._clock.seconds()
        try:
            held = await self._queue.extend(work.leased.token, self.settings.lease_seconds)
        except StorageError:
            return  # the fence stands where it stood
        if work.leased.token not in self._works or work.settled:
            return
        if not held:
            self._lose(work)
        elif work.fence.active():
            allowed = self.settings.lease_seconds - self.settings.margin_seconds
            work.fence.reset(max(asked + allowed - self._clock.seconds(), 0))

    def _lose(self, work: _Work) -> None:
        """The item is, or will soon be, somebody else's."""
        self._log.warn("delivery {id}: its lease is lost, another attempt follows", id=work.item.id)
        work.lost = True
        self._end(work)

    # --- one item

    async def _work(self, work: _Work) -> None:
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
        except (StorageError, AccountError, TooSlow, NewerVersion) as error:
            await self._settle(work, failure_of(error))
            return
        except Exception as error:
            self._log.failure("delivery {id} failed", id=item.id)
            await self._settle(work, failure_of(error))
            return
        self.counts.delivered += 1
        if await self._tell(work, lambda: self._queue.ack(work.leased.token)):
            await self._bodies.forget(body, item.id)

    async def _present(self, item: QueueItem, inbound: Inbound) -> Copy | None:
        """The copy, with what the directory says now if it has waited; None if the account was deleted meanwhile."""
        copy = inbound.copy(item.id)
        if item.attempts <= 1 and self._wall() - item.created < FRESH_SECONDS:
            return copy
        record = await self._directory.account(copy.account)
        return None if record is None else replace(copy, quota=record.quota_bytes)

    async def _deliver(self, item: QueueItem, inbound: Inbound, copy: Copy, body: Body) -> None:
        writer = self._accounts.writer(copy.account)
        try:
            async for chunk in self._bodies.open(body):
                await writer.write(chunk)
            prepared = await writer.finish()
        except BaseException:
            await writer.abort()
            raise
        repeated = inbound.repeated or item.attempts > 1
        await place(self._accounts, prepared, copy, inbound.received, inbound.zone, repeated=repeated)

    async def _settle(self, work: _Work, failure: Failure) -> None:
        """The attempt has failed: again later, or held."""
        match decide(work.item, failure, self._wall(), self.settings.retry, self._random):
            case Again(delay):
                self.counts.retried += 1
                reply = reply_text(work.item, failure.reply)
                self._log.info("delivery {id} waits {delay:.0f} s: {why}", id=work.item.id, delay=delay, why=reply)
                await self._tell(work, lambda: self._queue.retry(work.leased.token, delay, reply))
            case _:
                await self._hold(work, failure)

    async def _hold(self, work: _Work, failure: Failure) -> None:
        """A dead letter, with its reply. Cut off in between it comes back later, and is held then."""
        reply = reply_text(work.item, failure.reply)
        self._log.error("delivery {id} is held: {why}", id=work.item.id, why=reply)
        if await self._tell(work, lambda: self._queue.retry(work.leased.token, HELD_DELAY, reply)):
            self.counts.held += 1
            await self._tell(work, lambda: self._queue.hold(work.item.id))

    async def _tell(self, work: _Work, tell: Callable[[], Any]) -> bool:
        """Say to the queue what became of an item (*tell* is a coroutine function of its, hence Any); False: it was not
        ours any more, or the queue does not answer: then the item comes back."""
        work.settled = True
        if work.fence.active():
            work.fence.cancel()
        for wait in PATIENCE:
            if wait:
                await deferLater(self._clock, wait)
            try:
                return bool(await tell())
            except StorageError as error:
                self._log.warn("delivery {id}: the queue does not answer: {why}", id=work.item.id, why=error)
        return False

    async def _give_back(self, leased: LeasedItem) -> None:
        reply = reply_text(leased.item, leased.item.last_reply.partition(": ")[2] or "given back by a node that left")
        try:
            await self._queue.retry(leased.token, 0.0, reply)
        except StorageError as error:
            self._log.warn("delivery {id} comes back when its lease ends: {why}", id=leased.item.id, why=error)


def _body_of(item: QueueItem) -> BlobRef:
    """Raises: Corrupt."""
    if item.body is None:
        raise Corrupt("the item has no body")
    return item.body
