"""Reports to other domains, once for each day: counted by every process, added up and told by whichever gets to it.

Counts live in memory for a minute and then in `Records`, each process under a name of its own, so nothing is counted twice
and nobody waits; a crash loses that minute. A day is one of UTC.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Leases, Record, Records, StorageError

__all__ = ["Counts", "DailyReports", "ReportSettings", "day_of", "limits_of"]

_SHARDS: Final = 16
_SENT: Final = "!"
"""The key beside a domain's counts that says to whom its report has gone."""
_KEEP_SECONDS: Final = 7 * 86_400.0
_LEASE_SECONDS: Final = 900.0


class Counts(Protocol):
    """What was seen of one domain in a while; bounded, so that a record (64 KiB) holds what `write` makes."""

    def merge(self, other: Any, /) -> None:
        """Add what another of the same kind has."""

    def write(self) -> bytes:
        """For `Records`."""


C = TypeVar("C", bound=Counts)
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """Who reports, and how much is kept."""

    organization: str
    submitter: str
    """Our host name."""
    contact: str
    """An address of ours, for questions and in From."""
    flush_seconds: float = 60.0
    domains: int = 20_000
    """Most domains counted between two flushes; what is beyond is not counted."""
    spread_seconds: float = 4 * 3600.0
    """Reports on a day go out within so much of the next (RFC 8460 section 4.1)."""
    settle_seconds: float = 600.0
    """From midnight until every process has surely written its counts."""
    again_seconds: float = 1800.0
    """Until the next try, where one could not be sent."""


def day_of(moment: float) -> str:
    """``2026-11-24``: the UTC day of *moment* (seconds since 1970)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def limits_of(day: str) -> tuple[datetime, datetime]:
    """Its first second and its last."""
    begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    return begin, begin + timedelta(days=1) - timedelta(seconds=1)


class DailyReports(ABC, Generic[C, R]):
    """Counts (C), writes down, makes a report (R) of a domain's day, and tells it to who wants it."""

    _log = Logger()
    prefix: str
    """Of the spaces in `Records`: ``tls-rpt``."""
    title: str
    """For the log: "TLS report"."""

    def __init__(
        self,
        records: Records,
        clock: IReactorTime,
        settings: ReportSettings,
        *,
        node: str,
        leases: Leases | None = None,
        sends: bool = True,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """*node* is this process's own name among all. *leases* None: this process is alone. Without *sends* it only counts:
        another process tells."""
        self._records = records
        self._clock = clock
        self._settings = settings
        self._node = node
        self._leases = leases
        self._sends = sends
        self._wall = wall
        self._rng = rng or random.Random()
        self._counts: dict[tuple[str, str], C] = {}
        self._writing = DeferredLock()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._done = ""
        """The last day that was reported on wholly."""
        self._not_before = 0.0
        self._offset = self._rng.random() * settings.spread_seconds

    # --- what a kind of report is

    @abstractmethod
    def empty(self) -> C:
        """Nothing counted."""

    @abstractmethod
    def read(self, octets: bytes) -> C:
        """What `Counts.write` made; nothing of what cannot be read."""

    def parts(self, counts: C) -> Iterable[tuple[str, C]]:
        """*counts* cut into such as fit into one record each, by a name without ``/`` (empty: just one)."""
        return [("", counts)]

    async def asked_for(self, domain: str) -> bool:
        """Whether counts of *domain* are worth a record."""
        return await self.wanted(domain) != ()

    @abstractmethod
    async def wanted(self, domain: str) -> tuple[str, ...] | None:
        """Where reports on *domain* go; None: the DNS does not say now."""

    @abstractmethod
    def build(self, day: str, domain: str, counts: C) -> R:
        """The report."""

    @abstractmethod
    async def tell(self, report: R, domain: str, where: str) -> bool:
        """Send it to one of `wanted`; False: try again later."""

    # --- counting

    def counts_of(self, domain: str) -> C | None:
        """Those of today, to be added to; None: there are too many already."""
        key = (day_of(self._wall()), domain)
        counts = self._counts.get(key)
        if counts is None and len(self._counts) < self._settings.domains:
            counts = self._counts[key] = self.empty()
        return counts

    def space_of(self, day: str, domain: str) -> str:
        """The space of `Records` in which *domain*'s counts of *day* are."""
        return f"{self.prefix}/{day}/{hashlib.sha256(domain.encode()).digest()[0] % _SHARDS:x}"

    async def flush(self) -> None:
        """Write what was counted since the last time; only of domains that want to know. Never raises StorageError."""
        await self._writing.acquire()
        counted, self._counts = self._counts, {}
        try:
            for (day, domain), counts in counted.items():
                if await self.asked_for(domain):
                    for part, some in self.parts(counts):
                        await self._write(day, domain, part, some)
        finally:
            self._writing.release()

    async def _write(self, day: str, domain: str, part: str, counts: C) -> None:
        space, key = self.space_of(day, domain), f"{domain}/{self._node}" + (f"/{part}" if part else "")
        try:
            stored = await self._records.get(space, key)
            merged = self.read(stored) if stored is not None else self.empty()
            merged.merge(counts)
            await self._records.put(space, key, merged.write(), ttl=_KEEP_SECONDS)
        except StorageError as error:
            self._log.warn("{what}: counts of {domain} are kept for later: {error}", what=self.title, domain=domain, error=error)
            self._counts.setdefault((day, domain), self.empty()).merge(counts)

    # --- reporting

    def start(self) -> None:
        """Write and report from now on."""
        self._loop.start(self._settings.flush_seconds, now=False).addErrback(
            lambda failure: self._log.failure("{what}: they stopped", failure, what=self.title)
        )

    async def stop(self) -> None:
        """Write what was counted, and end."""
        if self._loop.running:
            self._loop.stop()
        await self.flush()

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._due())

    async def _due(self) -> None:
        try:
            await self.flush()
            now = self._wall()
            yesterday = day_of(now - 86_400)
            into = now % 86_400
            if not self._sends or yesterday == self._done or into < self._settings.settle_seconds + self._offset:
                return
            if now < self._not_before:
                return
            if await self.send(yesterday):
                self._done = yesterday
            else:
                self._not_before = now + self._settings.again_seconds
        except Exception:
            self._log.failure("{what}: reporting failed", what=self.title)

    async def send(self, day: str) -> bool:
        """Report on *day*; what was reported already is not again. False: some report is still to be sent."""
        done = True
        for shard in range(_SHARDS):
            name = f"{self.prefix}/{day}/{shard:x}"
            number = None
            try:
                if self._leases is not None:
                    number = await self._leases.acquire(name, _LEASE_SECONDS)
                    if number is None:
                        done = False  # another process is at it; whether it came to the end is seen later
                        continue
                done = await self._send_space(name, day) and done
            except StorageError as error:
                self._log.warn("{what}s of {day} wait: {error}", what=self.title, day=day, error=error)
                done = False
            finally:
                if self._leases is not None and number is not None:
                    await self._leases.release(name, number)
        return done

    async def _send_space(self, space: str, day: str) -> bool:
        until = self._clock.seconds() + 0.7 * _LEASE_SECONDS
        done, domain, parts, sent = True, "", list[bytes](), list[str]()
        after = ""
        while True:
            page: Sequence[Record] = await self._records.list(space, after, 200)
            for record in page:
                owner, _, node = record.key.partition("/")
                if owner != domain:
                    if parts:
                        done = await self._report(space, day, domain, parts, sent) and done
                    domain, parts, sent = owner, [], []
                    if self._clock.seconds() > until:
                        return False  # the lease runs out: the rest is for the next time
                if node == _SENT:
                    sent = _words(record.value)
                else:
                    parts.append(record.value)
            if len(page) < 200:
                break
            after = page[-1].key
        if parts:
            done = await self._report(space, day, domain, parts, sent) and done
        return done

    async def _report(self, space: str, day: str, domain: str, parts: Sequence[bytes], sent: Sequence[str]) -> bool:
        """Tell *domain* what all processes have counted. False: not all who want it have it."""
        wanted = await self.wanted(domain)
        if wanted is None:
            return False
        if all(where in sent for where in wanted):
            return True
        counts = self.empty()
        for part in parts:
            counts.merge(self.read(part))
        report = self.build(day, domain, counts)
        reached = list(sent)
        for where in wanted:
            if where not in sent and await self.tell(report, domain, where):
                reached.append(where)
        if len(reached) > len(sent):
            await self._records.put(space, f"{domain}/{_SENT}", json.dumps(reached).encode(), ttl=_KEEP_SECONDS)
        return all(where in reached for where in wanted)

    def report_id(self, day: str, domain: str) -> str:
        """The same whichever process makes it, and however often."""
        digest = hashlib.sha256(f"{day} {domain} {self._settings.submitter}".encode()).hexdigest()[:24]
        return f"{day}.{digest}@{self._settings.submitter}"

    def message_id(self, report_id: str) -> str:
        """Of a message that brings it."""
        return f"{report_id.partition('@')[0]}.{self._rng.getrandbits(48):012x}@{self._settings.submitter}"


def _words(stored: bytes) -> list[str]:
    try:
        read: Any = json.loads(stored)
        return [str(word) for word in read]
    except (ValueError, TypeError):
        return []
