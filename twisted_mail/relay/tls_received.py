"""TLS reports that others send about our domains (RFC 8460), kept in short for ``mailctl``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.mime.headers import first_value
from twisted_mail.reports.tls import BadReport, PolicyResult, TLSReport, find_report
from twisted_mail.storage.interfaces import Records

__all__ = ["ReceivedTLSReports", "Summary"]

_KEEP_SECONDS: Final = 90 * 86_400.0
_MOST: Final = 5_000
"""Most summaries of a domain: whoever floods us with reports fills no more."""
_REASONS: Final = 10
_POLICIES: Final = 50
_LABELS: Final = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """What one organization saw of one of our policies in a day."""

    organization: str
    begin: str
    """``2026-11-24T00:00:00+00:00``."""
    end: str
    kind: str
    """``sts``, ``tlsa`` or ``no-policy-found``."""
    domain: str
    """The policy's: for ``tlsa`` the host's name."""
    successes: int
    failures: int
    reasons: tuple[str, ...] = ()
    """``certificate-expired mx1.example.org 12``: the most frequent ones."""


class ReceivedTLSReports:
    """Reads them out of messages and keeps what they say."""

    _log = Logger()

    def __init__(
        self,
        records: Records,
        is_local: Callable[[str], Awaitable[bool]],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*is_local* says whether a domain is ours: what is said of others is not kept."""
        self._records = records
        self._is_local = is_local
        self._wall = wall

    async def take(self, message: bytes) -> TLSReport | None:
        """Keep the report in *message*; None: there is none in it, or none that can be read. Raises StorageError."""
        try:
            report = find_report(message)
        except BadReport as error:
            self._log.info("a TLS report that cannot be read: {why}", why=str(error))
            return None
        if report is None or report.begin.timestamp() > self._wall() + 2 * 86_400:
            return None
        named = first_value(message.partition(b"\r\n\r\n")[0] + b"\r\n", b"tls-report-domain") or b""
        about = named.decode("ascii", "replace").strip().lower()
        for policy in report.policies[:_POLICIES]:
            domain = await self._whose(policy.domain, about)
            if domain is not None:
                await self._keep(report, policy, domain)
        return report

    async def _whose(self, *names: str) -> str | None:
        """The domain of ours that a policy is about: itself or one above it, as DANE's are those of hosts; else what the
        message says."""
        for name in names:
            labels = name.split(".")[-_LABELS:]
            for start in range(len(labels) - 1):
                domain = ".".join(labels[start:])
                if await self._is_local(domain):
                    return domain
        return None

    async def _keep(self, report: TLSReport, policy: PolicyResult, domain: str) -> None:
        space = f"tls-rpt-received/{domain}"
        digest = hashlib.sha256("\0".join((report.organization, report.id, policy.kind, policy.domain)).encode()).hexdigest()[:24]
        key = f"{report.begin:%Y-%m-%d}/{digest}"  # one report that comes twice is one
        if await self._records.get(space, key) is None and len(await self._records.list(space, limit=_MOST)) >= _MOST:
            self._log.warn("{domain}: more TLS reports than are kept", domain=domain)
            return
        frequent = sorted(policy.details, key=lambda detail: -detail.count)[:_REASONS]
        summary = Summary(
            report.organization,
            report.begin.isoformat(),
            report.end.isoformat(),
            policy.kind,
            policy.domain,
            policy.successes,
            policy.failures,
            tuple(" ".join(filter(None, (detail.type, detail.host, str(detail.count)))) for detail in frequent),
        )
        await self._records.put(space, key, json.dumps(asdict(summary)).encode(), ttl=_KEEP_SECONDS)

    async def list(self, domain: str, after: str = "", limit: int = 1000) -> Sequence[Summary]:
        """By day; *after* as in ``2026-11-24`` leaves out what is older."""
        found = []
        for record in await self._records.list(f"tls-rpt-received/{domain}", after, limit):
            try:
                read: dict[str, Any] = json.loads(record.value)
                found.append(Summary(**{**read, "reasons": tuple(read["reasons"])}))
            except (ValueError, TypeError, KeyError):
                continue
        return found
