"""TLS reports (RFC 8460): sessions are counted by policy and day, and told to the domains that ask for it; and those that
others send us are kept in short.

Counts live in memory for a minute and then in `Records`, each process under a name of its own, so nothing is counted twice
and nobody waits; a crash loses that minute. The day (UTC) is told once, by whichever process gets to it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.relay.https import HTTPS, HTTPFailure
from twisted_mail.relay.tls_counts import DomainCounts
from twisted_mail.relay.values import Host, PolicyNote, Protection, TLSFailure
from twisted_mail.reports.tls import TLSReport, report_addresses, report_message, write_report
from twisted_mail.storage.interfaces import Leases, Record, Records, StorageError

__all__ = ["TLSReportSettings", "TLSReports", "day_of", "space_of"]

_SHARDS: Final = 16
_SENT: Final = "!"
"""The key beside a domain's counts that says to whom its report has gone."""
_KEEP_SECONDS: Final = 7 * 86_400.0
_LEASE_SECONDS: Final = 900.0
_HTTPS_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSReportSettings:
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
    """Reports on a day go out within so much of the next (section 4.1)."""
    settle_seconds: float = 600.0
    """From midnight until every process has surely written its counts."""
    again_seconds: float = 1800.0
    """Until the next try, where one could not be sent."""


def day_of(moment: float) -> str:
    """``2026-11-24``: the UTC day of *moment* (seconds since 1970)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def space_of(day: str, domain: str) -> str:
    """The space of `Records` in which *domain*'s counts of *day* are."""
    return f"tls-rpt/{day}/{hashlib.sha256(domain.encode()).digest()[0] % _SHARDS:x}"


class TLSReports:
    """Counts, writes down, and reports."""

    _log = Logger()

    def __init__(
        self,
        dns: DNS,
        records: Records,
        clock: IReactorTime,
        submit: Callable[[bytes, str], Awaitable[None]],
        settings: TLSReportSettings,
        *,
        node: str,
        https: HTTPS | None = None,
        leases: Leases | None = None,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """*submit* puts a message for one recipient into the outbound queue, signed; it raises when it could not. *node* is
        this process's own name among all. *https* None: only ``mailto:`` is served. *leases* None: this process is alone."""
        self._dns = dns
        self._records = records
        self._clock = clock
        self._submit = submit
        self._settings = settings
        self._node = node
        self._https = https
        self._leases = leases
        self._wall = wall
        self._rng = rng or random.Random()
        self._counts: dict[tuple[str, str], DomainCounts] = {}
        self._writing = DeferredLock()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._done = ""
        """The last day that was reported on wholly."""
        self._not_before = 0.0
        self._offset = self._rng.random() * settings.spread_seconds

    # --- counting

    def noted(
        self, protection: Protection, host: Host, failure: TLSFailure | None, source: str, remote: str, detail: str
    ) -> None:
        """One session with *host* was protected, or was not for *failure*; addresses of both ends as far as known."""
        if protection.policy is not None:
            self.count(protection.policy, failure, source, host.name, remote, detail)

    def no_policy(self, domain: str, failure: TLSFailure, detail: str) -> None:
        """A policy of *domain* could not be had (`MTASTS`'s *failed*)."""
        self.count(PolicyNote("sts", domain, recipients=domain), failure, "", "", "", detail)

    def count(
        self, policy: PolicyNote, failure: TLSFailure | None, source: str, host: str, remote: str, detail: str
    ) -> None:
        """The same for any policy."""
        domain = policy.recipients or policy.domain
        key = (day_of(self._wall()), domain)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= self._settings.domains:
                return
            counts = self._counts[key] = DomainCounts()
        counts.add(policy, failure, source, host, remote, detail)

    # --- writing down

    async def flush(self) -> None:
        """Write what was counted since the last time; only of domains that want to know. Never raises StorageError."""
        await self._writing.acquire()
        counted, self._counts = self._counts, {}
        try:
            for (day, domain), counts in counted.items():
                await self._write(day, domain, counts)
        finally:
            self._writing.release()

    async def _write(self, day: str, domain: str, counts: DomainCounts) -> None:
        wanted = await self._wanted(domain)
        if wanted == ():
            return
        space, key = space_of(day, domain), f"{domain}/{self._node}"
        try:
            stored = await self._records.get(space, key)
            merged = DomainCounts.read(stored) if stored is not None else DomainCounts()
            merged.merge(counts)
            await self._records.put(space, key, merged.write(), ttl=_KEEP_SECONDS)
        except StorageError as error:
            self._log.warn("TLS counts of {domain} are kept for later: {error}", domain=domain, error=error)
            again = self._counts.setdefault((day, domain), DomainCounts())
            again.merge(counts)

    async def _wanted(self, domain: str) -> tuple[str, ...] | None:
        """Where reports on *domain* go; None: the DNS does not say now."""
        try:
            return report_addresses((await self._dns.txt(f"_smtp._tls.{domain}")).records)
        except NoSuchName:
            return ()
        except DNSFailure:
            return None

    # --- reporting

    def start(self) -> None:
        """Write and report from now on."""
        self._loop.start(self._settings.flush_seconds, now=False).addErrback(
            lambda failure: self._log.failure("TLS reports stopped", failure)
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
            if yesterday == self._done or into < self._settings.settle_seconds + self._offset:
                return
            if now < self._not_before:
                return
            if await self.send(yesterday):
                self._done = yesterday
            else:
                self._not_before = now + self._settings.again_seconds
        except Exception:
            self._log.failure("reporting on TLS")

    async def send(self, day: str) -> bool:
        """Report on *day*; what was reported already is not again. False: some report is still to be sent."""
        done = True
        for shard in range(_SHARDS):
            name = f"tls-rpt/{day}/{shard:x}"
            number = None
            try:
                if self._leases is not None:
                    number = await self._leases.acquire(name, _LEASE_SECONDS)
                    if number is None:
                        done = False  # another process is at it; whether it came to the end is seen later
                        continue
                done = await self._send_space(name, day) and done
            except StorageError as error:
                self._log.warn("TLS reports of {day} wait: {error}", day=day, error=error)
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
                    sent = _uris(record.value)
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
        uris = await self._wanted(domain)
        if uris is None:
            return False
        if all(uri in sent for uri in uris):
            return True
        counts = DomainCounts()
        for part in parts:
            counts.merge(DomainCounts.read(part))
        report = self._build(day, domain, counts)
        reached = list(sent)
        for uri in uris:
            if uri not in sent and await self._tell(report, domain, uri):
                reached.append(uri)
        if len(reached) > len(sent):
            await self._records.put(space, f"{domain}/{_SENT}", json.dumps(reached).encode(), ttl=_KEEP_SECONDS)
        return all(uri in reached for uri in uris)

    def _build(self, day: str, domain: str, counts: DomainCounts) -> TLSReport:
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        end = begin + timedelta(days=1) - timedelta(seconds=1)
        digest = hashlib.sha256(f"{day} {domain} {self._settings.submitter}".encode()).hexdigest()[:24]
        settings = self._settings
        return TLSReport(
            settings.organization, settings.contact, f"{day}.{digest}@{settings.submitter}", begin, end, counts.results()
        )

    async def _tell(self, report: TLSReport, domain: str, uri: str) -> bool:
        settings = self._settings
        if uri[:6].lower() == "https:":
            return await self._post(report, domain, uri)
        made = report_message(
            report,
            domain,
            uri,
            submitter=settings.submitter,
            sender=settings.contact,
            message_id=f"{report.id.partition('@')[0]}.{self._rng.getrandbits(48):012x}@{settings.submitter}",
            now=self._wall(),
        )
        if made is None:
            return True  # nobody could ever be written to
        try:
            await self._submit(*made)
        except Exception as error:
            self._log.warn("the TLS report on {domain} waits: {error}", domain=domain, error=error)
            return False
        return True

    async def _post(self, report: TLSReport, domain: str, uri: str) -> bool:
        if self._https is None:
            return True
        body = gzip.compress(write_report(report), mtime=0)
        headers: Mapping[str, str] = {"Content-Type": "application/tlsrpt+gzip"}
        try:
            response = await self._https.post(uri, body, headers, seconds=_HTTPS_SECONDS)
        except HTTPFailure as error:
            self._log.info("the TLS report on {domain} waits: {error}", domain=domain, error=error)
            return False
        if 200 <= response.status < 300:
            return True
        self._log.info("the TLS report on {domain} was answered {status}", domain=domain, status=response.status)
        return 400 <= response.status < 500 and response.status not in (408, 425, 429)  # nothing is gained by asking again


def _uris(stored: bytes) -> list[str]:
    try:
        read: Any = json.loads(stored)
        return [str(uri) for uri in read]
    except (ValueError, TypeError):
        return []


