"""The doctor's look at lists in the DNS: do they answer, and do they answer *us*."""

from __future__ import annotations

from typing import Any, Final

from twisted_mail.admin.findings import Finding
from twisted_mail.dns.values import DNS
from twisted_mail.filters.dnsbl import DNSBL, Zone
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.tap.relaying import resolver_of
from twisted_mail.tap.settings import Configuration

__all__ = ["asked", "look"]

_SECONDS: Final = 10.0


def asked(configuration: Configuration) -> tuple[Zone, ...]:
    """The lists of addresses that are configured."""
    return tuple(configuration.filters.dnsbl) if configuration.filters.enabled else ()


async def look(reactor: Any, configuration: Configuration, dns: DNS | None = None) -> list[Finding]:
    """By the test entries of each list of `filters.dnsbl` (RFC 5782 section 5). *dns*: by default the configuration's."""
    zones = asked(configuration)
    lists = DNSBL(dns or resolver_of(reactor, configuration), reactor, zones)
    found = []
    for zone in zones:
        try:
            wrong = await within(reactor, _SECONDS, lists.examine(zone))
        except TooSlow:
            wrong = f"{zone.name} does not answer"
        if not wrong:
            found.append(Finding("lists.answering", "ok", f"{zone.name} answers"))
            continue
        remedy = "take it out of filters.dnsbl"
        if "127.255.255." in wrong or "does not answer" in wrong:
            remedy = "name a resolver of your own in dns.servers: many lists serve no public ones"
        found.append(Finding("lists.useless", "warning", wrong, remedy))
    return found
