"""Takes items of the queue that leave and sends them: one per process of the role `relay`.

An item is leased, its route is found, it waits its turn at its destination, goes out in a transaction with others of the same
message, and what the server said decides what becomes of it. It is acknowledged when the server has it, or when its sender
was told that it never will. Nothing is sent unless the lease is held, asked just before the final dot (the server may then
have it twice only if its answer was lost: RFC 1047).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from twisted_mail.queueing.leasing import LeaseSettings, QueueWorker, Work, crashes
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.relay.counts import RelayCounts
from twisted_mail.relay.destinations import Destination, Destinations, DestinationSettings, Job, PutOff
from twisted_mail.relay.intake import Bodies, Body
from twisted_mail.relay.items import NewerVersion, Outbound, Place, encoded, outbound_of
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.relay.pools import Departure, Grant, Pools, Wait, families_of
from twisted_mail.relay.schedule import Schedule, next_delay
from twisted_mail.relay.values import (
    Host,
    Parcel,
    Protection,
    Result,
    Route,
    RouteFailure,
    Sending,
    Stage,
    Verdict,
)
from twisted_mail.storage.interfaces import Corrupt, NotFound, Queue, QueueItem, StorageError, Use
from twisted_mail.values import BlobRef

__all__ = ["Departures", "RelayWorker", "Reports", "Routing", "WorkerSettings", "WrittenBody", "body_of"]

USES: Final[tuple[Use, ...]] = ("outbound", "bulk")
"""Each has its own share of what is worked on at a time."""
SMALL: Final = 128 * 1024
"""Octets of a message up to which it is read once and kept while it is sent."""
BROKEN_DELAY: Final = 300.0
STORE_DELAY: Final = 60.0
"""Before an item is looked at again whose body or whose report the store could not give or take."""
TRAIL: Final = 20
"""Replies that stay with an item."""
JOURNAL_SECONDS: Final = 5.0
"""For the last steps to be written down before the process ends."""
REPLY: Final = 250
"""Characters of each."""


class Routing(Protocol):
    async def route(self, domain: str) -> Route:
        """Raises: RouteFailure."""


class Policies(Protocol):
    async def protections(
        self, route: Route, *, requiretls: bool = False, relaxed: bool = False
    ) -> Callable[[Host], Protection | RouteFailure]: ...


class Departures(Protocol):
    """What is done to a message on its way out, and what is noted of it."""

    async def refused(self, outbound: Outbound, now: float) -> str | None:
        """Why it must not be sent (its recipient is suppressed); None: it may."""

    async def fields(self, outbound: Outbound, header: bytes, now: float) -> bytes:
        """What stands in front of *header* as it leaves: signatures, seals, fields that are added."""

    def reverse_path(self, outbound: Outbound) -> str:
        """The sender that it leaves with."""

    def apart(self, outbound: Outbound) -> bool:
        """It is not to share a transaction: what it leaves with is for its recipient alone."""

    async def heard(self, grant: Grant | None, outbound: Outbound, verdict: Verdict, now: float) -> None:
        """Note what was heard, by an address of ours that it was sent from (None: no server was reached)."""


class Reports(Protocol):
    """Tells senders, or knows why not. Each raises StorageError or MailRefused if the report cannot be queued now."""

    async def failed(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> object: ...

    async def delayed(self, item: QueueItem, outbound: Outbound, verdict: Verdict, until: float) -> object: ...

    async def delivered(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works."""

    lease: LeaseSettings = field(
        default_factory=lambda: LeaseSettings(concurrent=500, slow=1000, lease_seconds=120, margin_seconds=20)
    )
    schedule: Schedule = field(default_factory=Schedule)
    destinations: DestinationSettings = field(default_factory=DestinationSettings)
    bulk: float = 0.25
    """So large a part of `lease.concurrent` is there for bulk mail, besides: where the processor is what there is too little of,
    other mail waits for about a turn of everything that is in flight."""
    crashes: int = 5
    """Attempts of which nothing was heard again, or that found the item broken, before it is held."""

    def lease_of(self, use: Use) -> LeaseSettings:
        if use != "bulk":
            return self.lease
        return replace(self.lease, concurrent=max(int(self.lease.concurrent * self.bulk), 1))


@dataclass(frozen=True, slots=True)
class WrittenBody:
    """A body as an item names it."""

    place: Place
    ref: BlobRef


@dataclass(frozen=True, slots=True)
class _Task:
    """What a job carries."""

    work: Work
    body: Body


class RelayWorker:
    """`start`, then `stop`; `wake` when something was put in."""

    _log = Logger()

    def __init__(
        self,
        queue: Queue,
        bodies: Bodies,
        routing: Routing,
        policies: Policies,
        pools: Pools,
        sending: Sending,
        departures: Departures,
        reports: Reports,
        journal: Journal,
        clock: Any,
        *,
        settings: WorkerSettings | None = None,
        counts: RelayCounts | None = None,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self.settings = settings or WorkerSettings()
        self.counts = counts or RelayCounts()
        self._queue = queue
        self._bodies = bodies
        self._routing = routing
        self._policies = policies
        self._pools = pools
        self._sending = sending
        self._departures = departures
        self._reports = reports
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._random = random
        self.destinations = Destinations(self.settings.destinations, clock, self._begin)
        self._workers: dict[Use, QueueWorker] = {
            use: QueueWorker(queue, use, clock, self.settings.lease_of(use), self._work, changed=self._in_flight)
            for use in USES
        }

    def start(self) -> None:
        for worker in self._workers.values():
            worker.start()

    def wake(self, uses: Collection[Use] = USES) -> None:
        """Of *uses* something was put in."""
        for use in uses:
            self._workers[use].wake()

    async def stop(self, seconds: float) -> None:
        """Lease nothing more, give conversations *seconds* to end, and give the rest back."""
        stopping = [Deferred.fromCoroutine(worker.stop(seconds)) for worker in self._workers.values()]
        await gatherResults(stopping)
        with contextlib.suppress(TooSlow):
            await within(self._clock, JOURNAL_SECONDS, self._journal.written())

    def _in_flight(self, number: int) -> None:
        self.counts.in_flight = sum(worker.in_flight for worker in self._workers.values())

    # --- one item

    async def _work(self, work: Work) -> None:
        item = work.item
        if crashes(item) >= self.settings.crashes:
            await self._hold(work, None, f"451 4.3.0 {crashes(item)} attempts were never heard of again")
            return
        try:
            outbound = outbound_of(item)
            body = body_of(item, outbound)
        except NewerVersion as error:
            await work.retry(BROKEN_DELAY, f"451 4.3.0 {error}", attempted=False)
            return
        except Corrupt as error:
            await self._hold(work, None, f"451 4.3.0 {error}")
            return
        try:
            outcome = await self._try(work, outbound, body)
        except (CancelledError, GeneratorExit):
            raise
        except (Corrupt, NotFound) as error:
            await self._broken(work, outbound, f"451 4.3.0 the message cannot be read: {error}")
            return
        except StorageError as error:
            await work.retry(STORE_DELAY, f"451 4.3.0 {error}", attempted=False)
            return
        except Exception as error:
            self._log.failure("item {id} could not be sent", id=item.id)
            await self._broken(work, outbound, f"451 4.3.0 {type(error).__name__}: {error}")
            return
        await self._settle(work, outbound, body, outcome)

    async def _try(self, work: Work, outbound: Outbound, body: Body) -> Verdict | PutOff:
        """The verdict of this attempt. Raises: StorageError."""
        now = self._wall()
        if outbound.deliver_by is not None and outbound.deliver_by_mode.startswith("R") and now >= outbound.deliver_by:
            return _ours(Result.PERMANENT, "554 5.4.7 it could not be delivered by the time that was asked for")
        why = await self._departures.refused(outbound, now)
        if why is not None:
            self.counts.suppressed += 1
            return _ours(Result.PERMANENT, f"550 5.7.1 {why}")
        try:
            route = await self._routing.route(work.item.domain)
        except RouteFailure as failure:
            verdict = _ours(Result.PERMANENT if failure.permanent else Result.TEMPORARY, failure.reply)
            await self._departures.heard(None, outbound, verdict, now)
            return verdict
        key: Any = work.item.id if self._departures.apart(outbound) else _key(outbound, body)
        job = Job(outbound, route, key, work.held, _Task(work, body))
        self.destinations.of(route.destination, outbound.stream).enter(job)
        return await job.done

    # --- one transaction

    def _begin(self, destination: Destination, jobs: Sequence[Job]) -> Deferred[None]:
        done = Deferred.fromCoroutine(self._send(destination, jobs))
        done.addErrback(self._failed, jobs)
        return done

    def _failed(self, failure: Any, jobs: Sequence[Job]) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a transaction failed", failure)
        for job in jobs:
            job.end(_ours(Result.TEMPORARY, f"451 4.3.0 {failure.type.__name__}"))

    async def _send(self, destination: Destination, jobs: Sequence[Job]) -> None:
        first = jobs[0]
        outbound, route, now = first.outbound, first.route, self._wall()
        departure = Departure(route.destination, outbound.sender_domain, families_of(route.hosts), recipients=len(jobs))
        grant = await self._pools.source(outbound.stream, departure, now)
        if isinstance(grant, Wait):
            for job in jobs:
                job.end(PutOff(grant.seconds, grant.why))
            return
        if grant.recipients < len(jobs):
            destination.back(jobs[grant.recipients :])
            jobs = jobs[: grant.recipients]
        try:
            parcel = await self._parcel(jobs, now)
            protections = await self._policies.protections(
                route, requiretls=outbound.requiretls, relaxed=outbound.tls_optional
            )
        except (StorageError, OSError) as error:
            self._pools.unused(grant)
            for job in jobs:
                job.fail(error)
            return
        began = self._clock.seconds()
        verdicts = await self._sending.send(
            route, parcel, grant.source, protections, lambda: all(job.held() and not job.gone for job in jobs)
        )
        destination.heard(verdicts)
        destination.took(len(jobs), self._clock.seconds() - began)
        if all(verdict.stage in (Stage.ROUTE, Stage.CONNECT) for verdict in verdicts):
            self._pools.unused(grant)
        # first what decides over the items: nothing that fails below may make a server's answer forgotten
        for job, verdict in zip(jobs, verdicts, strict=True):
            job.end(verdict)
        for job, verdict in zip(jobs, verdicts, strict=True):
            self.counts.heard(route.destination, grant.source.pool, verdict.result)
            await self._departures.heard(grant, job.outbound, verdict, now)

    async def _parcel(self, jobs: Sequence[Job], now: float) -> Parcel:
        """What is sent for *jobs*. Raises: StorageError."""
        outbound, body = jobs[0].outbound, jobs[0].payload.body
        size = body.ref.size if body.place == "blobs" else body.ref.size - 16
        whole: bytes | None = None
        if size <= SMALL:
            whole = b"".join([chunk async for chunk in self._bodies.open(body)])
            header = whole[: outbound.header]
        else:
            header = await self._start(body, outbound.header)
        front = await self._departures.fields(outbound, header, now)

        async def octets() -> AsyncIterator[bytes]:
            if whole is not None:
                yield front + whole
                return
            if front:
                yield front
            async for chunk in self._bodies.open(body):
                yield chunk

        return Parcel(
            sender=self._departures.reverse_path(outbound),
            addressees=tuple(job.outbound.addressee() for job in jobs),
            octets=octets,
            size=size + len(front),
            eight_bit=outbound.eight_bit,
            smtputf8=outbound.smtputf8,
            envelope_id=outbound.envelope_id,
            dsn_return=outbound.dsn_return,
            deliver_by=(
                None if outbound.deliver_by is None else (outbound.deliver_by - now, outbound.deliver_by_mode or "N")
            ),
            priority=outbound.priority,
            requiretls=outbound.requiretls,
        )

    async def _start(self, body: Body, size: int) -> bytes:
        """The first *size* octets of a large message."""
        found = bytearray()
        chunks = self._bodies.open(body)
        async for chunk in chunks:
            found += chunk
            if len(found) >= size:
                break
        await chunks.aclose()  # type: ignore[attr-defined]  # an async generator
        return bytes(found[:size])

    # --- what becomes of it

    async def _settle(self, work: Work, outbound: Outbound, body: Body, verdict: Verdict | PutOff) -> None:
        try:
            if isinstance(verdict, PutOff):
                await self._put_off(work, outbound, body, verdict)
            elif verdict.result is Result.DELIVERED:
                await self._delivered(work, outbound, body, verdict)
            elif verdict.result is Result.PERMANENT:
                await self._given_up(work, outbound, body, verdict, "bounced")
            else:
                await self._deferred(work, outbound, body, verdict)
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            # its sender could not be told: that is no reason to lose it
            self._log.failure("what became of item {id} could not be settled", id=work.item.id)
            await work.retry(STORE_DELAY, f"451 4.3.0 {type(error).__name__}: {error}", attempted=False)

    async def _delivered(self, work: Work, outbound: Outbound, body: Body, verdict: Verdict) -> None:
        if "SUCCESS" in outbound.notify and not verdict.dsn:
            # the server has it: a report that cannot be queued now must not make it be sent again
            try:
                await self._reports.delivered(work.item, outbound, verdict)
            except Exception as error:
                self._log.warn("no report of success for {id}: {why!r}", id=work.item.id, why=error)
        self.counts.delivered += 1
        await self._done(work, body)
        self._note(work, outbound, "delivered", verdict)

    async def _done(self, work: Work, body: Body) -> None:
        """Out of the queue, and its body with it."""
        await work.ack(lambda token: self._bodies.acknowledge(self._queue, token, body, work.item.id))

    async def _given_up(self, work: Work, outbound: Outbound, body: Body, verdict: Verdict, what: str) -> None:
        told = await self._reports.failed(work.item, self._with(outbound, verdict), verdict)
        self.counts.bounced += 1
        await self._done(work, body)
        self._note(work, outbound, what, verdict, told=str(getattr(told, "value", "")))

    async def _put_off(self, work: Work, outbound: Outbound, body: Body, put_off: PutOff) -> None:
        """It was not tried; but its sender hears of the time that goes by as of any other."""
        waits = _ours(Result.TEMPORARY, f"450 4.7.0 {put_off.why}")
        later = await self._late(work, outbound, body, waits)
        if later is None:
            return
        self.counts.put_off += 1
        envelope = _fitting(later) if later is not outbound else None
        await work.retry(put_off.seconds * (1 + self._random() / 100), "", envelope=envelope, attempted=False)

    async def _deferred(self, work: Work, outbound: Outbound, body: Body, verdict: Verdict) -> None:
        now, item, schedule = self._wall(), work.item, self.settings.schedule
        later = await self._late(work, self._with(outbound, verdict), body, verdict)
        if later is None:
            return
        left = max(outbound.due, item.created) + schedule.expire - now
        deadlines = [outbound.deliver_by - now] if outbound.deliver_by is not None else []
        delay = next_delay(schedule, item.attempts, verdict.reply, left, self._random, deadlines)
        self.counts.deferred += 1
        await work.retry(delay, verdict.reply[:REPLY], envelope=_fitting(later))
        self._note(work, outbound, "deferred", verdict, now + delay)

    async def _late(self, work: Work, outbound: Outbound, body: Body, verdict: Verdict) -> Outbound | None:
        """Give it up if its time is over (None), tell its sender if it takes long; what is to be written down."""
        now, item, schedule = self._wall(), work.item, self.settings.schedule
        began = max(outbound.due, item.created)
        expires = began + schedule.expire
        if now >= expires:
            await self._given_up(work, outbound, body, verdict, "expired")
            return None
        late = schedule.warn and now - began >= schedule.warn
        if outbound.deliver_by is not None and outbound.deliver_by_mode.startswith("N"):
            late = late or now >= outbound.deliver_by
        if not late or outbound.warned:
            return outbound
        await self._reports.delayed(item, outbound, verdict, expires)
        self._note(work, outbound, "warned", verdict)
        return msgspec.structs.replace(outbound, warned=True)

    def _with(self, outbound: Outbound, verdict: Verdict) -> Outbound:
        """*outbound* with what was heard at the end of its trail."""
        trail = (*outbound.trail, (round(self._wall(), 3), _line(verdict)))[-TRAIL:]
        return msgspec.structs.replace(outbound, trail=trail)

    async def _broken(self, work: Work, outbound: Outbound, reply: str) -> None:
        if work.item.attempts >= self.settings.crashes:
            await self._hold(work, outbound, reply)
        else:
            self.counts.deferred += 1
            await work.retry(BROKEN_DELAY, reply)

    async def _hold(self, work: Work, outbound: Outbound | None, reply: str) -> None:
        self._log.error("item {id} is held: {why}", id=work.item.id, why=reply)
        if await work.hold(reply):
            self.counts.held += 1
        if outbound is not None:
            self._note(work, outbound, "held", _ours(Result.TEMPORARY, reply))

    def _note(
        self, work: Work, outbound: Outbound, what: str, verdict: Verdict, next: float = 0.0, told: str = ""
    ) -> None:
        step = Step(
            at=self._wall(),
            what=what,
            id=str(work.item.id),
            address=outbound.address,
            sender=outbound.sender,
            attempt=work.item.attempts,
            reply=verdict.reply[:1000],
            host=verdict.host,
            source=verdict.source,
            tls=verdict.tls,
            stage=verdict.stage.value,
            stream=outbound.stream,
            next=next,
            told=told,
        )
        self._journal.soon(outbound.message_id, step)


def body_of(item: QueueItem, outbound: Outbound) -> WrittenBody:
    """Where the octets of *item* are. Raises: Corrupt."""
    if item.body is None:
        raise Corrupt("the item has no body")
    return WrittenBody(outbound.place, item.body)


def _key(outbound: Outbound, body: Body) -> Any:
    """What is the same for all recipients of a transaction."""
    return (
        body.place,
        body.ref,
        outbound.sender,
        outbound.stream,
        outbound.requiretls,
        outbound.smtputf8,
        outbound.envelope_id,
        outbound.dsn_return,
        outbound.deliver_by,
        outbound.priority,
        outbound.cause,
    )


def _ours(result: Result, reply: str) -> Verdict:
    """A verdict without a conversation."""
    return Verdict(result, reply, Stage.ROUTE, remote=False)


def _line(verdict: Verdict) -> str:
    return f"{verdict.host}: {verdict.reply}"[:REPLY] if verdict.host else verdict.reply[:REPLY]


def _fitting(outbound: Outbound) -> bytes:
    """Written down; the oldest replies go if it is too large."""
    while True:
        try:
            return encoded(outbound)
        except ValueError:
            if not outbound.trail:
                raise
            outbound = msgspec.structs.replace(outbound, trail=outbound.trail[len(outbound.trail) // 2 + 1 :])
