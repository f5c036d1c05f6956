"""DMARC aggregate reports sent (RFC 9990): what `DMARCStage` finds is counted, and told daily to the domains that ask for it."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime

from twisted_mail.dns.names import BadName, a_labels
from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.filters.dmarc import Discovery, PolicyFinder
from twisted_mail.filters.dmarc_counts import PolicyCounts
from twisted_mail.filters.dmarc_record import BadPolicy, ReportAddress, select_policy
from twisted_mail.filters.dmarc_stage import Judged
from twisted_mail.reports.daily import DailyReports, ReportSettings, limits_of
from twisted_mail.reports.dmarc_aggregate import AggregateReport, packed, report_message
from twisted_mail.storage.interfaces import Leases, Records

__all__ = ["DMARCReports", "destinations"]

_MOST_OCTETS: Final = 10 * 1024 * 1024
"""Of a message with a report: more is taken by nobody."""
_NAME: Final = 253


@dataclass(frozen=True, slots=True)
class _Packed:
    report: AggregateReport
    octets: bytes


class DMARCReports(DailyReports[PolicyCounts, _Packed]):
    """Counts, writes down, and reports. Processes that receive only count (`sends` False); those that send tell."""

    prefix = "dmarc-rua"
    title = "DMARC report"

    def __init__(
        self,
        dns: DNS,
        records: Records,
        clock: IReactorTime,
        settings: ReportSettings,
        *,
        node: str,
        submit: Callable[[bytes, str], Awaitable[None]] | None = None,
        discovery: Discovery = "treewalk",
        leases: Leases | None = None,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """*submit* puts a message for one recipient into the outbound queue, with the contact's address as sender and signed
        (a report must pass DMARC itself, section 3.5.2); it raises when it could not. None: this process only counts."""
        sends = submit is not None
        super().__init__(records, clock, settings, node=node, leases=leases, sends=sends, wall=wall, rng=rng)
        self._dns = dns
        self._submit = submit
        self._finder = PolicyFinder(dns, discovery=discovery)

    def judged(self, judged: Judged) -> None:
        """One message: counted if its policy domain asks for reports."""
        if judged.found.record.reports:
            counts = self.counts_of(judged.found.policy_domain)
            if counts is not None:
                counts.add(judged)

    # --- what a kind of report is

    def empty(self) -> PolicyCounts:
        return PolicyCounts()

    def read(self, octets: bytes) -> PolicyCounts:
        return PolicyCounts.read(octets)

    def parts(self, counts: PolicyCounts) -> Iterable[tuple[str, PolicyCounts]]:
        return counts.parts()

    async def asked_for(self, domain: str) -> bool:
        """What is counted is (`judged`); where its reports may go is looked up when they do."""
        return True

    async def wanted(self, domain: str) -> tuple[str, ...] | None:
        try:
            record = select_policy((await self._dns.txt(f"_dmarc.{domain}")).records)
            if record is None:
                return ()
            found = await destinations(self._dns, self._finder, domain, record.reports)
        except (NoSuchName, BadPolicy):
            return ()
        except DNSFailure:
            return None
        return tuple(dict.fromkeys(f"{each.address}!{each.most_octets or _MOST_OCTETS}" for each in found))

    def build(self, day: str, domain: str, counts: PolicyCounts) -> _Packed:
        settings, (begin, end) = self._settings, limits_of(day)
        report = AggregateReport(
            settings.organization,
            settings.contact,
            self.report_id(day, domain),
            begin,
            end,
            counts.policy,
            counts.rows(),
        )
        return _Packed(report, packed(report))

    async def tell(self, report: _Packed, domain: str, where: str) -> bool:
        address, _, most = where.rpartition("!")
        message = report_message(
            report.report,
            report.octets,
            address,
            submitter=self._settings.submitter,
            sender=self._settings.contact,
            message_id=self.message_id(report.report.id),
            now=self._wall(),
        )
        if len(message) > min(int(most), _MOST_OCTETS):
            self._log.info("the DMARC report on {domain} is too large for {to}", domain=domain, to=address)
            return True
        assert self._submit is not None
        try:
            await self._submit(message, address)
        except Exception as error:
            self._log.warn("the DMARC report on {domain} waits: {error}", domain=domain, error=error)
            return False
        return True


async def destinations(
    dns: DNS, finder: PolicyFinder, domain: str, wanted: Iterable[ReportAddress]
) -> list[ReportAddress]:
    """Of the addresses that *domain*'s policy names, those of its own organization and those that have agreed (section 4).

    Raises: DNSFailure.
    """
    found: list[ReportAddress] = []
    organization = ""
    for each in wanted:
        try:
            host = a_labels(each.address.rpartition("@")[2])
        except BadName:
            continue
        organization = organization or await finder.organization(domain)
        if await finder.organization(host) == organization:
            found.append(each)
        else:
            found += await _agreed(dns, domain, host, each)
    return found


async def _agreed(dns: DNS, domain: str, host: str, wanted: ReportAddress) -> list[ReportAddress]:
    """Where reports on *domain* go at *host*: there may be another address of that host in its stead (step 9)."""
    name = f"{domain}._report._dmarc.{host}"
    if len(name) > _NAME:
        return []
    try:
        records = (await dns.txt(name)).records
    except NoSuchName:
        return []
    for octets in records:
        try:
            record = select_policy([octets])
        except BadPolicy:
            continue
        if record is None:
            continue
        if record.reports:
            same = [each for each in record.reports if each.address.rpartition("@")[2].lower() == host]
            return same if len(same) == len(record.reports) else []
        return [wanted]
    return []
