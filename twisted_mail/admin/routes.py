"""``mailctl route`` and ``mailctl tls-report``: where mail for a domain goes and what protects it, and what others saw of ours."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Any

import click

from twisted_mail.admin.invocation import Command, Group, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.dns.resolver import Resolver
from twisted_mail.relay.dane import DANE
from twisted_mail.relay.https import HTTPS, load_authorities
from twisted_mail.relay.mta_sts import MTASTS, MTASTSSettings
from twisted_mail.relay.routing import Router, RoutingSettings
from twisted_mail.relay.static_routes import StaticRoutes, parse_static_route
from twisted_mail.relay.tls_policy import Level, TLSPolicy
from twisted_mail.relay.tls_received import ReceivedTLSReports, Summary
from twisted_mail.relay.values import Host, Protection, RouteFailure
from twisted_mail.tap.relaying import resolver_of

__all__ = ["route", "tls_report"]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_WORDS = {
    "off": "nothing",
    "opportunistic": "TLS if offered",
    "encrypted": "TLS",
    "verified": "TLS, verified certificate",
    "dane": "TLS, certificate by TLSA",
}


def _router(store: Store, dns: Resolver) -> Router:
    configuration = store.configuration
    relay = configuration.relay
    return Router(
        dns,
        StaticRoutes({name: parse_static_route(url) for name, url in relay.routes.items()}),
        own_names=frozenset({configuration.hostname.lower()}),
        settings=RoutingSettings(port=relay.port, ipv6=relay.ipv6, refused=relay.refused),
    )


def _policy(store: Store, dns: Resolver) -> TLSPolicy:
    configuration = store.configuration
    relay = configuration.relay
    named = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
    try:
        authorities = load_authorities(Path(named) if named else None)
    except (OSError, ValueError) as error:
        raise Problem(Status.FAILED, "authorities", str(error)) from error
    https = HTTPS(store.reactor, dns, authorities)
    settings = MTASTSSettings(port=relay.mta_sts_port)
    sts = MTASTS(dns, https, store.backend.records, store.reactor, settings)
    return TLSPolicy(DANE(dns) if configuration.dns.dnssec else None, sts, Level(relay.tls))


def _facts(host: Host, protection: Protection | RouteFailure) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "host": host.name,
        "preference": host.preference,
        "addresses": list(host.addresses),
        "port": host.port,
        "signed": host.secure,
    }
    if isinstance(protection, RouteFailure):
        return {**facts, "protection": "not used", "why": protection.reply}
    words = _WORDS[protection.mode.value] + (", REQUIRETLS" if protection.requiretls else "")
    return {**facts, "protection": words, "why": protection.why or None}


@click.command("route", cls=Command)
@click.argument("domain")
@click.option("--requiretls", is_flag=True, help="As for a message that was sent with REQUIRETLS.")
@on_store()
async def route(store: Store, domain: str, requiretls: bool) -> None:
    """Where mail for DOMAIN (or [ADDRESS]) would go now, in the order of trying, and how it would be protected."""
    dns = resolver_of(store.reactor, store.configuration)
    try:
        found = await _router(store, dns).route(domain.rpartition("@")[2])
    except RouteFailure as error:
        status = Status.FAILED if error.permanent else Status.TEMPORARY
        raise Problem(status, "no-route", error.reply) from error
    protections = await _policy(store, dns).protections(found, requiretls=requiretls)
    out = the_invocation().out
    kind = "a configured route" if found.smart_host else "signed MX records" if found.secure else "the DNS"
    out.note(f"{found.domain} by {kind}; limits are counted for {found.destination}")
    rows = [_facts(host, protections(host)) for host in found.hosts]
    out.rows(rows, ("preference", "host", "addresses", "port", "protection", "why"))


@click.group("tls-report", cls=Group)
def tls_report() -> None:
    """Reports of other servers about TLS towards ours (RFC 8460).

    They come in where `_smtp._tls.DOMAIN` names an address of ours (`relay.tls_reports`), and are kept for 90 days.
    """


def _summary(each: Summary) -> dict[str, Any]:
    return {
        "day": each.begin[:10],
        "organization": each.organization,
        "policy": each.kind,
        "of": each.domain,
        "sessions": each.successes + each.failures,
        "failed": each.failures,
        "reasons": list(each.reasons),
    }


@tls_report.command("list")
@click.argument("domain")
@click.option("--since", default="", metavar="DAY", help="Leave out what is older, e.g. 2026-11-24.")
@click.option("--failed", "only_failed", is_flag=True, help="Only where sessions failed.")
@on_store()
async def list_reports(store: Store, domain: str, since: str, only_failed: bool) -> None:
    """What was seen of DOMAIN, by day and by who saw it."""
    if since and not _DAY.fullmatch(since):
        raise Problem(Status.USAGE, "usage", f"{since!r} is not a day as in 2026-11-24")
    name = check_domain(domain)

    async def is_local(wanted: str) -> bool:
        return wanted == name

    reports = await ReceivedTLSReports(store.backend.records, is_local).list(name, since, 5000)
    rows = [_summary(each) for each in reports if each.failures or not only_failed]
    the_invocation().out.rows(rows, ("day", "organization", "policy", "of", "sessions", "failed", "reasons"))
