"""TLS reports (RFC 8460): sessions are counted by policy and day, and told to the domains that ask for it; and those that
others send us are kept in short."""

from __future__ import annotations

import gzip
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.relay.https import HTTPS, HTTPFailure
from twisted_mail.relay.tls_counts import DomainCounts
from twisted_mail.relay.values import Host, PolicyNote, Protection, TLSFailure
from twisted_mail.reports.daily import DailyReports, ReportSettings, day_of, limits_of
from twisted_mail.reports.tls import TLSReport, report_addresses, report_message, write_report
from twisted_mail.storage.interfaces import Leases, Records

__all__ = ["TLSReportSettings", "TLSReports", "day_of"]

_HTTPS_SECONDS: Final = 60.0

TLSReportSettings = ReportSettings


class TLSReports(DailyReports[DomainCounts, TLSReport]):
    """Counts, writes down, and reports."""

    prefix = "tls-rpt"
    title = "TLS report"

    def __init__(
        self,
        dns: DNS,
        records: Records,
        clock: IReactorTime,
        submit: Callable[[bytes, str], Awaitable[None]],
        settings: ReportSettings,
        *,
        node: str,
        https: HTTPS | None = None,
        leases: Leases | None = None,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """*submit* puts a message for one recipient into the outbound queue, signed; it raises when it could not. *node* is
        this process's own name among all. *https* None: only ``mailto:`` is served. *leases* None: this process is alone."""
        super().__init__(records, clock, settings, node=node, leases=leases, wall=wall, rng=rng)
        self._dns = dns
        self._submit = submit
        self._https = https

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
        counts = self.counts_of(policy.recipients or policy.domain)
        if counts is not None:
            counts.add(policy, failure, source, host, remote, detail)

    def empty(self) -> DomainCounts:
        return DomainCounts()

    def read(self, octets: bytes) -> DomainCounts:
        return DomainCounts.read(octets)

    # --- telling

    async def wanted(self, domain: str) -> tuple[str, ...] | None:
        try:
            return report_addresses((await self._dns.txt(f"_smtp._tls.{domain}")).records)
        except NoSuchName:
            return ()
        except DNSFailure:
            return None

    def build(self, day: str, domain: str, counts: DomainCounts) -> TLSReport:
        settings, (begin, end) = self._settings, limits_of(day)
        return TLSReport(settings.organization, settings.contact, self.report_id(day, domain), begin, end, counts.results())

    async def tell(self, report: TLSReport, domain: str, where: str) -> bool:
        if where[:6].lower() == "https:":
            return await self._post(report, domain, where)
        made = report_message(
            report,
            domain,
            where,
            submitter=self._settings.submitter,
            sender=self._settings.contact,
            message_id=self.message_id(report.id),
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
