"""Destinations: how much at a time each is given, and which of them do not answer.

A destination is what shares its servers (`Route.destination`). It begins with few conversations at a time; each success
allows a little more, each word of too much halves it and makes it wait (RFC 5321 section 4.5.4.1 leaves the strategy to us;
the shape is that of TCP's). One that cannot be reached is left alone for a while, and what is for it hears so without being
tried, so that a thousand dead destinations cost the others nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred

from twisted_mail.relay.items import Outbound
from twisted_mail.relay.streams import NORMAL
from twisted_mail.relay.values import Result, Route, Stage, Verdict

__all__ = ["Destination", "DestinationSettings", "Destinations", "Job", "PutOff", "slows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """How destinations are treated."""

    connections: int = 20
    """Conversations at a time with one, at most."""
    first: int = 3
    """The same at the beginning."""
    waiting: int = 200
    """Items that may wait for one in this process; further ones are put off without being tried."""
    strangers: int = 100
    """Items that may wait for all those together of which it is not known whether they answer: dead ones among them must not
    hold on to everything."""
    recipients: int = 100
    """Recipients of one transaction (RFC 5321 section 4.5.3.1.8)."""
    down_seconds: float = 60.0
    """How long one that could not be reached is left alone at first; each time twice as long."""
    most_down_seconds: float = 1800.0
    failures: int = 2
    """Conversations in a row that did not come to be, before one that has been reached before is taken for down."""
    pause_seconds: float = 2.0
    """How long one that says that it is too much is given nothing at first; each time twice as long."""
    most_pause_seconds: float = 120.0
    remembered: int = 20_000
    """Destinations with nothing going on that are remembered; those not heard of for longest go first. As many again are
    remembered of those that are down."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """It was not tried: again in `seconds`."""

    seconds: float
    why: str


class Job:
    """An item that wants to go somewhere. `done` fires once, with its verdict or with when to come again."""

    __slots__ = ("done", "gone", "held", "key", "outbound", "payload", "priority", "route")

    def __init__(
        self, outbound: Outbound, route: Route, key: Hashable, held: Callable[[], bool], payload: Any = None
    ) -> None:
        """*key*: those that have the same can go in one transaction. *held* says whether the lease still is. *payload* is the
        caller's own business, hence Any."""
        self.outbound = outbound
        self.route = route
        self.key = key
        self.held = held
        self.payload = payload
        self.priority = -(outbound.priority or 0)
        self.gone = False
        self.done: Deferred[Verdict | PutOff] = Deferred(self._cancelled)

    def _cancelled(self, done: Deferred[Verdict | PutOff]) -> None:
        self.gone = True

    def end(self, outcome: Verdict | PutOff) -> None:
        """Tell whoever waits; nobody may."""
        if not self.gone and not self.done.called:
            self.done.callback(outcome)

    def fail(self, error: Exception) -> None:
        """The same with what went wrong on our side."""
        if not self.gone and not self.done.called:
            self.done.errback(error)


STRANGE_SECONDS: Final = 20.0
"""For which an item is put off while it is being found out whether its destination answers."""
FULL_SECONDS: Final = 5.0
"""For which it is put off at least when enough wait."""
SLOWING: Final = ("421", "4.7.", "4.3.2", "4.4.5", "4.5.3", "rate", "too many", "throttl")
GREYLISTING: Final = ("greylist", "graylist", "greylisted")


def slows(verdict: Verdict) -> bool:
    """Whether *verdict* is a server's word of too much."""
    if verdict.result is not Result.TEMPORARY or verdict.stage in (Stage.ROUTE, Stage.CONNECT):
        return False
    text = verdict.reply.lower()
    return any(word in text for word in SLOWING) and not any(word in text for word in GREYLISTING)


class Strangers:
    """How many items wait for destinations that were never reached."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Destination:
    """One of them, and what waits for it here."""

    __slots__ = (
        "_clock",
        "_failures",
        "_pauses",
        "_send",
        "_settings",
        "_strangers",
        "_timer",
        "_waiting",
        "down_reply",
        "down_until",
        "known",
        "limit",
        "name",
        "not_before",
        "running",
        "slot",
        "speed",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        settings: DestinationSettings,
        clock: Any,
        send: Callable[[Destination, Sequence[Job]], Deferred[None]],
        strangers: Strangers,
    ) -> None:
        # clock provides IReactorTime
        self.name = name
        self._settings = settings
        self._clock = clock
        self._send = send
        self._strangers = strangers
        self._waiting: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self.waiting = 0
        self.running = 0
        self.limit = float(min(settings.first, settings.connections))
        """Conversations at a time; its whole part counts."""
        self.known = False
        """It was reached before."""
        self.down_until = 0.0
        """Seconds on the clock."""
        self.down_reply = ""
        self.not_before = 0.0
        self.slot = 0.0
        """When the next item that is put off may come."""
        self.speed = 0.5
        """Items a second that it has taken of late, at least."""
        self._failures = 0
        self._pauses = 0
        self._timer: Any = None

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def troubled(self) -> bool:
        """It was down not long ago: what is known of that is worth keeping."""
        return self._failures > 0 and self._clock.seconds() < self.down_until + self._settings.most_down_seconds

    def enter(self, job: Job) -> None:
        """Take *job*; its `done` fires at once if it cannot be tried now."""
        now = self._clock.seconds()
        if now < self.down_until:
            job.end(Verdict(Result.TEMPORARY, self.down_reply, Stage.CONNECT, about_connection=True, remote=False))
            return
        crowded = not self.known and self.waiting >= 2 and self._strangers.waiting >= self._settings.strangers
        if crowded or self.waiting >= self._settings.waiting:
            if crowded:
                seconds = STRANGE_SECONDS
            else:
                self.slot = max(self.slot, now + FULL_SECONDS) + 1.0 / self.speed
                seconds = self.slot - now
            job.end(PutOff(seconds, f"{self.waiting} wait for {self.name} already"))
            return
        self._waiting.setdefault(job.key, deque()).append(job)
        self._count(1)
        # not at once: others of the same message may come in the same moment, and go along
        self._pump_in(0.0)

    def _count(self, more: int) -> None:
        self.waiting += more
        if not self.known:
            self._strangers.waiting += more

    def _pump_in(self, seconds: float) -> None:
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(seconds, self.pump)

    def pump(self) -> None:
        """Begin as many conversations as may be."""
        now = self._clock.seconds()
        if now < self.not_before:
            if self.waiting:
                self._pump_in(self.not_before - now)
            return
        # one that was never reached is asked by one conversation first, if it had failures
        most = int(self.limit) if self.known or not self._failures else 1
        while self.waiting and self.running < most:
            jobs = self._next()
            if not jobs:
                continue
            self.running += 1
            self._send(self, jobs).addBoth(self._ended)

    def _next(self) -> list[Job]:
        """The jobs of the next transaction: of the highest priority, then those that have waited longest."""
        key = (
            min(self._waiting, key=lambda key: self._waiting[key][0].priority)
            if len(self._waiting) > 1
            else next(iter(self._waiting))
        )
        line = self._waiting[key]
        jobs: list[Job] = []
        while line and len(jobs) < self._settings.recipients:
            job = line.popleft()
            self._count(-1)
            if not job.gone:
                jobs.append(job)
        if not line:
            del self._waiting[key]
        return jobs

    def back(self, jobs: Sequence[Job]) -> None:
        """They were taken out, and could not go along: first in line again."""
        for job in reversed(jobs):
            self._waiting.setdefault(job.key, deque()).appendleft(job)
            self._count(1)

    def _ended(self, result: Any) -> None:
        self.running -= 1
        self.pump()

    # --- what was heard

    def heard(self, verdicts: Sequence[Verdict]) -> None:
        """Learn from a conversation."""
        now = self._clock.seconds()
        settings = self._settings
        last = verdicts[-1]
        if all(verdict.about_connection for verdict in verdicts) and not slows(last):
            self._failures += 1
            self.limit = max(1.0, self.limit / 2)
            if not self.known or self._failures >= settings.failures:
                times = min(self._failures - 1, 10)
                self.down_until = now + min(settings.down_seconds * 2.0**times, settings.most_down_seconds)
                self.down_reply = f"{last.reply} (heard when it was last tried)"
                self._clear(last)
            return
        if not self.known:
            self._strangers.waiting -= self.waiting
            self.known = True
        self._failures = 0
        if any(slows(verdict) for verdict in verdicts):
            self._pauses += 1
            self.limit = max(1.0, self.limit / 2)
            pause = min(settings.pause_seconds * 2.0 ** min(self._pauses - 1, 10), settings.most_pause_seconds)
            self.not_before = now + pause
            return
        taken = sum(verdict.result is Result.DELIVERED for verdict in verdicts)
        if taken:
            self._pauses = 0
            self.limit = min(self.limit + 1.0 / self.limit, float(settings.connections))

    def took(self, items: int, seconds: float) -> None:
        """So many items took so long, with what else was going on."""
        rate = items * max(self.running, 1) / max(seconds, 0.001)
        self.speed = max(0.8 * self.speed + 0.2 * rate, 0.5)

    def _clear(self, verdict: Verdict) -> None:
        """It is down: who waits for it hears so."""
        waiting, self._waiting = self._waiting, OrderedDict()
        self._count(-self.waiting)
        for line in waiting.values():
            for job in line:
                job.end(verdict)

    def forget_trouble(self) -> None:
        """An operator says that it is worth trying."""
        self.down_until = self.not_before = self.slot = 0.0
        self._failures = self._pauses = 0
        self.pump()


class Destinations:
    """All that this process knows of; those without anything going on are forgotten in the end."""

    def __init__(
        self,
        settings: DestinationSettings,
        clock: Any,
        send: Callable[[Destination, Sequence[Job]], Deferred[None]],
    ) -> None:
        # clock provides IReactorTime
        self._settings = settings
        self._clock = clock
        self._send = send
        self._strangers: defaultdict[str, Strangers] = defaultdict(Strangers)
        self._known: OrderedDict[tuple[str, str], Destination] = OrderedDict()

    def of(self, name: str, stream: str = NORMAL) -> Destination:
        """The destination called *name*, as mail of *stream* finds it: that leaves by addresses of its own, which servers
        judge each for itself, and what waits of one stream is in no other's way."""
        found = self._known.get((name, stream))
        if found is None:
            found = Destination(name, self._settings, self._clock, self._send, self._strangers[stream])
            self._known[name, stream] = found
            if len(self._known) > self._settings.remembered:
                self._forget()
        self._known.move_to_end((name, stream))
        return found

    def _forget(self) -> None:
        full = len(self._known) > 2 * self._settings.remembered
        for key in list(islice(self._known, max(self._settings.remembered // 20, 1))):
            found = self._known[key]
            if found.idle and (full or not found.troubled):
                del self._known[key]
            else:
                # to forget that one is down costs its time-outs again
                self._known.move_to_end(key)

    def all(self) -> Sequence[Destination]:
        """For those who ask how things are."""
        return list(self._known.values())
