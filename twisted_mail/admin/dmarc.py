"""``mailctl dmarc``: what others report of mail in our domains' names, and what a domain's policy is."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.filters.dmarc_received import ReceivedDMARCReports, ReportRow, ReportSummary

__all__ = ["dmarc"]

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
COLUMNS: Final = ("day", "organization", "domain", "policy", "messages", "failed", "quarantined", "rejected", "id")
ROWS: Final = ("count", "source", "from", "sender", "dkim", "spf", "disposition", "signed by", "spf says", "reasons")


@click.group(cls=Group)
def dmarc() -> None:
    """Reports of other servers about mail in our domains' names (RFC 9990).

    They come in where the DMARC record of a domain (`rua=mailto:…`) names `filters.dmarc_reports`, and are kept for 90 days.
    """


def _received(store: Store, name: str) -> ReceivedDMARCReports:
    async def is_local(wanted: str) -> bool:
        return wanted == name

    return ReceivedDMARCReports(store.backend.records, is_local)


def _summary(each: ReportSummary) -> dict[str, Any]:
    return {
        "day": each.begin[:10],
        "organization": each.organization,
        "domain": each.domain,
        "policy": each.policy,
        "messages": each.messages,
        "failed": each.failed,
        "quarantined": each.quarantined,
        "rejected": each.rejected,
        "id": each.id,
    }


@dmarc.command("reports")
@click.argument("domain")
@click.option("--since", default="", metavar="DAY", help="Leave out what is older, e.g. 2026-11-24.")
@click.option("--failed", "only_failed", is_flag=True, help="Only where mail was not shown to be from there.")
@on_store()
async def list_reports(store: Store, domain: str, since: str, only_failed: bool) -> None:
    """What was seen of mail in the name of DOMAIN, by day and by who saw it."""
    if since and not _DAY.fullmatch(since):
        raise Problem(Status.USAGE, "usage", f"{since!r} is not a day as in 2026-11-24")
    name = check_domain(domain)
    found = await _received(store, name).list(name, since, 5000)
    the_invocation().out.rows([_summary(each) for each in found if each.failed or not only_failed], COLUMNS)


def _row(each: ReportRow) -> dict[str, Any]:
    return {
        "count": each.count,
        "source": each.source,
        "from": each.header_from,
        "sender": each.envelope_from or None,
        "dkim": each.dkim,
        "spf": each.spf,
        "disposition": each.disposition,
        "signed by": list(each.signed_by),
        "spf says": each.spf_result or None,
        "reasons": list(each.reasons),
    }


@dmarc.command("show")
@click.argument("domain")
@click.argument("report")
@on_store()
async def show(store: Store, domain: str, report: str) -> None:
    """The rows of one REPORT (its id, as `reports` prints it) about DOMAIN, those of most messages first."""
    name = check_domain(domain)
    found = await _received(store, name).get(name, report)
    if found is None:
        raise Problem(Status.NOT_FOUND, "no-such-report", f"there is no report {report!r} on {name}")
    out = the_invocation().out
    out.note(f"{found.organization} on {found.domain} (p={found.policy}), {found.begin} to {found.end}")
    if found.rows_left_out:
        out.note(f"{found.rows_left_out} rows with fewer messages were not kept")
    out.rows([_row(each) for each in found.rows], ROWS)
