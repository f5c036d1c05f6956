"""Takes items from a queue and holds on to them while they are worked on.

An item is leased; while somebody works on it its lease is extended, and whoever could not extend it in time lets go before
another may begin (by the monotonic clock, with a margin). What becomes of the item is told to the queue with a token that
is good once, so a lease that was lost changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.storage.interfaces import LeasedItem, Queue, QueueItem, StorageError, Use

__all__ = ["LeaseSettings", "QueueWorker", "Work", "crashes", "reply_text"]

BATCH: Final = 64
"""Items leased at a time."""
HELD_DELAY: Final = 3600.0
"""When an item comes back that was to be held, but the worker died in between."""
LEASING_SECONDS: Final = 30.0
"""A queue that takes longer to say what is due is asked anew: nothing may stand still for good."""
TOGETHER_SECONDS: Final = 0.02
"""While so many are worked on as may be: so long, at most, is waited for others to end too, so that more than one is leased."""
PATIENCE: Final = (0.0, 0.1, 0.5, 2.0)
"""Seconds to wait before the queue is told (again) what became of an item."""

_ATTEMPT: Final = re.compile(r"attempt (\d+): ")


def reply_text(item: QueueItem, text: str) -> str:
    """What is written down of an attempt; it says which attempt that was."""
    return f"attempt {item.attempts}: {text}"[:1000]


def crashes(item: QueueItem) -> int:
    """Attempts before this one, after the last that something was written down of: their workers died, or lost their
    leases."""
    found = _ATTEMPT.match(item.last_reply)
    return max(item.attempts - 1 - (int(found[1]) if found else 0), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """How a worker holds on to items."""

    concurrent: int = 16
    """Items at a time."""
    slow: int = 0
    """Further ones, as many as have been worked on for `slow_seconds`: those that nobody answers for must not keep the others
    out."""
    slow_seconds: float = 5.0
    lease_seconds: float = 60.0
    margin_seconds: float = 10.0
    """So long before its lease ends an item is let go."""
    poll_seconds: float = 1.0
    """How often an empty queue is asked; what this process puts in itself is seen at once."""
    most_poll_seconds: float = 15.0
    """The same while the queue does not answer."""


class Work:
    """An item that is being worked on."""

    __slots__ = ("_worker", "began", "done", "fence", "leased", "lost", "settled", "slow", "until")

    def __init__(self, worker: QueueWorker, leased: LeasedItem) -> None:
        self._worker = worker
        self.leased = leased
        self.began = worker.seconds()
        self.slow = False
        """It is one of those that do not count."""
        self.lost = False
        """The item is, or will soon be, somebody else's."""
        self.settled = False
        """The queue is being told what became of it: the token alone says whether that still counts."""
        self.until = 0.0
        """Seconds on the worker's clock: nobody else has it before."""
        self.fence: Any = None
        self.done: Deferred[None] = Deferred()

    @property
    def item(self) -> QueueItem:
        return self.leased.item

    def held(self) -> bool:
        """Asked on the monotonic clock just before something that cannot be taken back."""
        return not self.lost and self._worker.seconds() < self.until

    async def ack(self, how: Callable[[str], Awaitable[bool]] | None = None) -> bool:
        """It is done. False: it was not ours any more, or the queue does not answer: then it comes back. *how*: the same as the
        queue's `ack`, and more."""
        acknowledge = how or self._worker.queue.ack
        return await self._worker.tell(self, lambda: acknowledge(self.leased.token))

    async def retry(self, delay: float, reply: str, *, envelope: bytes | None = None, attempted: bool = True) -> bool:
        """It is due again in *delay* seconds. False: as `ack`."""
        words = reply_text(self.item, reply) if attempted else self.item.last_reply
        return await self._worker.tell(
            self,
            lambda: self._worker.queue.retry(self.leased.token, delay, words, envelope=envelope, attempted=attempted),
        )

    async def hold(self, reply: str, *, envelope: bytes | None = None) -> bool:
        """It waits for an operator, with its reply. Cut off in between it comes back later, and is held then."""
        if not await self.retry(HELD_DELAY, reply, envelope=envelope):
            return False
        return await self._worker.tell(self, lambda: self._worker.queue.hold(self.item.id))


class QueueWorker:
    """One per process and use; `start`, then `stop`."""

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        use: Use,
        clock: Any,
        settings: LeaseSettings,
        work: Callable[[Work], Awaitable[None]],
        *,
        changed: Callable[[int], None] = lambda in_flight: None,
    ) -> None:
        """*work* does what is to be done with an item and tells the queue through `Work`; it is cancelled when the lease is
        lost. *changed* is told how many are in flight."""
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self.settings = settings
        self.queue = queue
        self._use: Use = use
        self._clock = clock
        self._work = work
        self._changed = changed
        self._works: dict[str, Work] = {}
        self._fresh: dict[str, Work] = {}
        """Those that count, in the order in which they began."""
        self._slow = 0
        self._full = False
        """It waits for room."""
        self._together: Any = None
        self._woken = False
        self._pause: Deferred[None] | None = None
        self._stopping = False
        self._loop: Deferred[None] | None = None
        self._extending: Any = None

    def seconds(self) -> float:
        """On the monotonic clock."""
        return float(self._clock.seconds())

    @property
    def in_flight(self) -> int:
        return len(self._works)

    def start(self) -> None:
        """Begin to take items."""
        self._loop = Deferred.fromCoroutine(self._run())
        self._loop.addErrback(self._broken)
        self._extending = self._clock.callLater(self.settings.lease_seconds / 3, self._extend_all)

    def _broken(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the worker of the {use} queue has ended", failure, use=self._use)

    def wake(self) -> None:
        """Something was put into the queue, or there is room again."""
        self._woken, self._full = True, False
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
        for call in (self._extending, self._together):
            if call is not None and call.active():
                call.cancel()
        for work in list(self._works.values()):
            self._end(work)
            await self._give_back(work.leased)

    async def _leased_last(self, loop: Deferred[None]) -> None:
        await loop

    async def _all(self, works: list[Work]) -> None:
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
            room = min(self._room(), BATCH)
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
                self._full = room <= 0
                await self._sleep(pause)

    def _room(self) -> int:
        """How many more may be leased."""
        now, settings = self.seconds(), self.settings
        while self._slow < settings.slow and self._fresh:
            token, work = next(iter(self._fresh.items()))
            if now - work.began < settings.slow_seconds:
                break
            del self._fresh[token]
            work.slow = True
            self._slow += 1
        return settings.concurrent - len(self._fresh)

    async def _lease(self, room: int) -> Sequence[LeasedItem]:
        return await self.queue.lease(self._use, room, self.settings.lease_seconds)

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
        work = self._works[leased.token] = self._fresh[leased.token] = Work(self, leased)
        self._changed(len(self._works))
        work.until = asked + self.settings.lease_seconds - self.settings.margin_seconds
        work.fence = self._clock.callLater(max(work.until - self._clock.seconds(), 0), self._lose, work)
        work.done = Deferred.fromCoroutine(self._carry_out(work))
        work.done.addErrback(self._unexpected, work)
        work.done.addBoth(self._ended, work)

    async def _carry_out(self, work: Work) -> None:
        await self._work(work)

    def _unexpected(self, failure: Any, work: Work) -> None:
        if not failure.check(CancelledError):
            self._log.failure("item {id} was left where it is", failure, id=work.item.id)

    def _ended(self, result: None, work: Work) -> None:
        self._end(work)
        if not self._full:
            return
        most = self.settings.concurrent
        if most - len(self._fresh) >= max(min(most // 4, BATCH // 4), 1):
            self.wake()
        elif self._together is None or not self._together.active():
            self._together = self._clock.callLater(TOGETHER_SECONDS, self.wake)

    def _end(self, work: Work) -> None:
        if self._works.pop(work.leased.token, None) is not None:
            self._slow -= work.slow
            self._fresh.pop(work.leased.token, None)
        self._changed(len(self._works))
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

    async def _extend(self, work: Work) -> None:
        asked = self._clock.seconds()
        try:
            held = await self.queue.extend(work.leased.token, self.settings.lease_seconds)
        except StorageError:
            return  # the fence stands where it stood
        if work.leased.token not in self._works or work.settled:
            return
        if not held:
            self._lose(work)
        elif work.fence.active():
            work.until = asked + self.settings.lease_seconds - self.settings.margin_seconds
            work.fence.reset(max(work.until - self._clock.seconds(), 0))

    def _lose(self, work: Work) -> None:
        self._log.warn("item {id}: its lease is lost, another attempt follows", id=work.item.id)
        work.lost = True
        self._end(work)

    # --- the end of it

    async def tell(self, work: Work, tell: Callable[[], Any]) -> bool:
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
                self._log.warn("item {id}: the queue does not answer: {why}", id=work.item.id, why=error)
        return False

    async def _give_back(self, leased: LeasedItem) -> None:
        reply = reply_text(leased.item, leased.item.last_reply.partition(": ")[2] or "given back by a node that left")
        try:
            await self.queue.retry(leased.token, 0.0, reply)
        except StorageError as error:
            self._log.warn("item {id} comes back when its lease ends: {why}", id=leased.item.id, why=error)
