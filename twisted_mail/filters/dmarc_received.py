"""DMARC aggregate reports that others send about our domains, kept in short for ``mailctl``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.reports.dmarc_aggregate import AggregateReport, Row
from twisted_mail.reports.dmarc_reading import find_report
from twisted_mail.reports.packed import BadReport
from twisted_mail.storage.interfaces import Records

__all__ = ["ReceivedDMARCReports", "ReportRow", "ReportSummary"]

_KEEP_SECONDS: Final = 90 * 86_400.0
_MOST: Final = 5_000
"""Most summaries of a domain: whoever floods us with reports fills no more."""
_ROWS: Final = 100
"""Most rows of a summary, those of most messages."""
_OCTETS: Final = 60_000
_LABELS: Final = 8


@dataclass(frozen=True, slots=True)
class ReportRow:
    """Messages of one client that fared alike."""

    source: str
    count: int
    disposition: str
    dkim: str
    spf: str
    header_from: str
    envelope_from: str
    signed_by: tuple[str, ...] = ()
    """``example.org/s1=pass``."""
    spf_result: str = ""
    """``example.org=pass``."""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What one receiver saw of mail in a domain's name."""

    id: str
    """For ``mailctl dmarc show``."""
    organization: str
    begin: str
    """``2026-11-24T00:00:00+00:00``."""
    end: str
    domain: str
    """The policy's."""
    policy: str
    messages: int
    failed: int
    """Neither DKIM nor SPF showed them to be from there."""
    quarantined: int
    rejected: int
    rows_left_out: int = 0
    rows: tuple[ReportRow, ...] = ()


class ReceivedDMARCReports:
    """Reads them out of messages and keeps what they say."""

    _log = Logger()

    def __init__(
        self,
        records: Records,
        is_local: Callable[[str], Awaitable[bool]],
        *,
        in_thread: Callable[..., Awaitable[Any]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*is_local* says whether a domain is ours: what is said of others is not kept. *in_thread* runs a function with its
        arguments elsewhere: a large report takes half a second to read."""
        self._records = records
        self._is_local = is_local
        self._in_thread = in_thread
        self._wall = wall

    async def take(self, message: bytes) -> AggregateReport | None:
        """Keep the report in *message*; None: there is none in it, none that can be read, or none about us. Raises:
        StorageError."""
        try:
            if self._in_thread is None:
                report = find_report(message)
            else:
                report = await self._in_thread(find_report, message)
        except BadReport as error:
            self._log.info("a DMARC report that cannot be read: {why}", why=str(error))
            return None
        if report is None or not 0 < report.begin.timestamp() < self._wall() + 2 * 86_400:
            return None
        domain = await self._whose(report.policy.domain)
        if domain is None:
            self._log.info("a DMARC report on {domain}, which is not ours", domain=report.policy.domain)
            return None
        await self._keep(report, domain)
        return report

    async def _whose(self, name: str) -> str | None:
        """The domain of ours that a report is about: itself or one above it."""
        labels = name.split(".")[-_LABELS:]
        for start in range(len(labels) - 1):
            domain = ".".join(labels[start:])
            if await self._is_local(domain):
                return domain
        return None

    async def _keep(self, report: AggregateReport, domain: str) -> None:
        space = f"dmarc-received/{domain}"
        digest = hashlib.sha256("\0".join((report.organization, report.id, report.policy.domain)).encode()).hexdigest()[:12]
        day = f"{report.begin:%Y-%m-%d}"
        key = f"{day}/{digest}"  # one report that comes twice is one
        if await self._records.get(space, key) is None and await self._full(space):
            self._log.warn("{domain}: more DMARC reports than are kept", domain=domain)
            return
        await self._records.put(space, key, _written(_summary(report, key)), ttl=_KEEP_SECONDS)

    async def _full(self, space: str) -> bool:
        count, after = 0, ""
        while True:
            page = await self._records.list(space, after, 500)
            count += len(page)
            if count >= _MOST or len(page) < 500:
                return count >= _MOST
            after = page[-1].key

    async def list(self, domain: str, after: str = "", limit: int = 1000) -> Sequence[ReportSummary]:
        """By day; *after* as in ``2026-11-24`` leaves out what is older."""
        found: list[ReportSummary] = []
        while len(found) < limit:
            page = await self._records.list(f"dmarc-received/{domain}", after, min(limit - len(found), 200))
            found += [summary for record in page if (summary := _read(record.value)) is not None]
            if len(page) < min(limit, 200):
                break
            after = page[-1].key
        return found

    async def get(self, domain: str, id: str) -> ReportSummary | None:
        """One of them."""
        stored = await self._records.get(f"dmarc-received/{domain}", id)
        return _read(stored) if stored is not None else None


def _summary(report: AggregateReport, id: str) -> ReportSummary:
    rows = sorted(report.rows, key=lambda row: -row.count)
    kept = rows[:_ROWS]
    return ReportSummary(
        id,
        report.organization,
        report.begin.isoformat(),
        report.end.isoformat(),
        report.policy.domain,
        report.policy.p,
        sum(row.count for row in rows),
        sum(row.count for row in rows if not row.passed),
        sum(row.count for row in rows if row.disposition == "quarantine"),
        sum(row.count for row in rows if row.disposition == "reject"),
        len(rows) - len(kept),
        tuple(_row(row) for row in kept),
    )


def _row(row: Row) -> ReportRow:
    return ReportRow(
        row.source,
        row.count,
        row.disposition,
        row.dkim,
        row.spf,
        row.header_from,
        row.envelope_from,
        tuple(f"{each.domain}/{each.selector}={each.result}"[:200] for each in row.dkim_results[:4]),
        next((f"{each.domain}={each.result}"[:200] for each in row.spf_results), ""),
        tuple(": ".join(filter(None, reason))[:200] for reason in row.reasons[:4]),
    )


def _written(summary: ReportSummary) -> bytes:
    read = asdict(summary)
    while True:
        octets = json.dumps(read, ensure_ascii=False).encode()
        if len(octets) <= _OCTETS or not read["rows"]:
            return octets
        half = len(read["rows"]) // 2
        read["rows_left_out"] += len(read["rows"]) - half
        read["rows"] = read["rows"][:half]


def _read(octets: bytes) -> ReportSummary | None:
    try:
        read: dict[str, Any] = json.loads(octets)
        rows = tuple(
            ReportRow(**{**row, "signed_by": tuple(row["signed_by"]), "reasons": tuple(row["reasons"])}) for row in read["rows"]
        )
        return ReportSummary(**{**read, "rows": rows})
    except (ValueError, TypeError, KeyError):
        return None
