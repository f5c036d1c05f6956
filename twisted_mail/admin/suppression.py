"""``mailctl suppression``: addresses that are not written to, for each sender domain."""

from __future__ import annotations

import datetime
from typing import Any

import click

from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_address, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.relay.suppression import ALLOWED, OPERATOR, Suppressed, Suppressions
from twisted_mail.relay.tables import seconds_of
from twisted_mail.tap.relaying import leaving_of

__all__ = ["suppression"]

COLUMNS = ("address", "source", "stream", "since", "until", "reason")


@click.group(cls=Group)
def suppression() -> None:
    """Addresses that are not written to, for each sender DOMAIN.

    An address comes there when mail to it bounced for good, when its owner unsubscribed or complained, or by `add`.
    Mail of the stream `normal` is stopped by `add` only.
    """


def _lists(store: Store) -> Suppressions:
    return Suppressions(store.backend.records)


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _facts(entry: Suppressed) -> dict[str, Any]:
    return {
        "address": entry.address,
        "source": entry.source,
        "stream": entry.stream or None,
        "since": _time(entry.at),
        "until": _time(entry.until),
        "reason": entry.reason or None,
    }


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < seconds < 100 * 366 * 86_400:
        raise click.BadParameter("between a second and a hundred years are wanted")
    return seconds


_for = click.option("--for", "ttl", callback=_seconds, metavar="DURATION", help="For how long, e.g. 90d; default: for good.")
_reason = click.option("--reason", default="", help="Kept with it.")


@suppression.command("list")
@click.argument("domain", required=False)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@on_store()
async def list_entries(store: Store, domain: str | None, limit: int | None) -> None:
    """The entries of DOMAIN, in no special order; without one, the domains that have a list."""
    lists, out = _lists(store), the_invocation().out
    if domain is None:
        out.rows([{"domain": each} async for each in lists.domains()])
        return
    name = check_domain(domain)
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None and (limit is None or len(found) < limit):
        page, after = await lists.page(name, after, 1000 if limit is None else min(limit - len(found), 1000))
        found += map(_facts, page)
    out.rows(found, COLUMNS)


@suppression.command("add")
@click.argument("domain")
@click.argument("address")
@click.option("--stream", default="", help="Only for this stream.")
@_for
@_reason
@on_store()
async def add(store: Store, domain: str, address: str, stream: str, ttl: float | None, reason: str) -> None:
    """Send nothing more from DOMAIN to ADDRESS."""
    if stream and leaving_of(store.configuration).streams.named(stream) is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no stream {stream}")
    name, wanted = check_domain(domain), check_address(address)
    entry = await _lists(store).add(name, wanted, reason, OPERATOR, ttl, stream)
    the_invocation().out.done(f"{wanted} gets nothing more from {name}", domain=name, **_facts(entry))


@suppression.command("allow")
@click.argument("domain")
@click.argument("address")
@_for
@_reason
@on_store()
async def allow(store: Store, domain: str, address: str, ttl: float | None, reason: str) -> None:
    """Send from DOMAIN to ADDRESS whatever its entries say, now and later; `remove` ends it."""
    name, wanted = check_domain(domain), check_address(address)
    entry = await _lists(store).allow(name, wanted, reason, ttl)
    the_invocation().out.done(f"{wanted} is written to from {name}", domain=name, **_facts(entry))


@suppression.command("remove")
@click.argument("domain")
@click.argument("address")
@on_store()
async def remove(store: Store, domain: str, address: str) -> None:
    """Forget all entries of ADDRESS for DOMAIN, an `allow` too."""
    name, wanted = check_domain(domain), check_address(address)
    found = await _lists(store).remove(name, wanted)
    if not found:
        raise Problem(Status.NOT_FOUND, "not-found", f"nothing is written of {wanted} for {name}")
    sources = [entry.source for entry in found]
    the_invocation().out.done(f"{wanted}: {', '.join(sources)} forgotten", domain=name, address=wanted, removed=sources)


@suppression.command("check")
@click.argument("domain")
@click.argument("address")
@on_store()
async def check(store: Store, domain: str, address: str) -> None:
    """Which streams of DOMAIN may write to ADDRESS, and why others may not."""
    name, wanted = check_domain(domain), check_address(address)
    entries = await _lists(store).entries(name, wanted)
    allowed = any(entry.source == ALLOWED for entry in entries)
    streams = leaving_of(store.configuration).streams.all()
    rows = []
    for stream in streams:
        stopping = None if allowed else next((entry for entry in entries if entry.stops(stream)), None)
        rows.append({
            "stream": stream.name,
            "may_send": stopping is None,
            "why": stopping.text if stopping is not None else "an operator allows it" if allowed else None,
        })  # fmt: skip
    out = the_invocation().out
    if out.as_json:
        facts = {"domain": name, "address": wanted, "streams": rows, "entries": [_facts(each) for each in entries]}
        out.one(facts)
        return
    out.rows(rows)
