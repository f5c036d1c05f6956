"""Putting DMARC's aggregate reports together: counted where mail is judged, told where mail leaves, read where others' come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted_mail.dns.resolver import Resolver
from twisted_mail.filters.dmarc_received import ReceivedDMARCReports
from twisted_mail.filters.dmarc_reports import DMARCReports
from twisted_mail.filters.dmarc_stage import Judged
from twisted_mail.relay.intake import Outgoing
from twisted_mail.reports.daily import ReportSettings
from twisted_mail.storage.backend import Backend
from twisted_mail.tap.settings import Configuration
from twisted_mail.values import DeliveryId

__all__ = ["Reporting", "report_readers"]


class Reporting:
    """What a process does about them: nothing, if `filters.dmarc_reports` names no address."""

    def __init__(self, reactor: Any, configuration: Configuration, backend: Backend, dns: Resolver, node: str) -> None:
        self._contact = configuration.filters.dmarc_reports
        self._outgoing: Outgoing | None = None
        self._reports: DMARCReports | None = None
        if not self._contact or not configuration.filters.enabled or not configuration.filters.origin:
            return
        sends = configuration.relay.enabled and "relay" in configuration.roles
        self._reports = DMARCReports(
            dns,
            backend.records,
            reactor,
            ReportSettings(
                organization=configuration.hostname, submitter=configuration.hostname, contact=self._contact
            ),
            node=node,
            submit=self._submit if sends else None,
            discovery=configuration.filters.dmarc_discovery,
            leases=backend.leases,
        )

    @property
    def judged(self) -> Callable[[Judged], None] | None:
        """To be told of each message that has a policy."""
        return self._reports.judged if self._reports is not None else None

    def open(self, outgoing: Outgoing | None) -> None:
        """Write and tell from now on. *outgoing*: how mail leaves, if it does."""
        self._outgoing = outgoing
        if self._reports is not None:
            self._reports.start()

    async def stop(self) -> None:
        """Write what was counted."""
        if self._reports is not None:
            await self._reports.stop()

    async def _submit(self, message: bytes, recipient: str) -> None:
        # with a sender of ours, so that it is signed and passes DMARC itself (RFC 9990 section 3.5.2)
        if self._outgoing is None:
            raise RuntimeError("no mail leaves here")
        await self._outgoing.submit(DeliveryId.new(), "report", recipient, message, sender=self._contact)


def report_readers(
    configuration: Configuration,
    backend: Backend,
    is_local: Callable[[str], Awaitable[bool]],
    in_thread: Callable[..., Awaitable[Any]],
) -> list[tuple[str, Callable[[bytes], Awaitable[object]]]]:
    """Who reads what comes to `filters.dmarc_reports`."""
    address = configuration.filters.dmarc_reports
    if not address:
        return []
    return [(address, ReceivedDMARCReports(backend.records, is_local, in_thread=in_thread).take)]
