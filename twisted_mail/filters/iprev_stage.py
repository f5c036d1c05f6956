"""The filter ``iprev``: the client's address has a name, and the name has the address (RFC 8601 section 3)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.values import AuthenticationResult, Client, Mail, Verdict
from twisted_mail.queueing.limits import side_by_side

__all__ = ["IPRevStage", "reverse_name"]

_NAMES: Final = 10
"""Most names of an address that are looked up, as with SPF's ``ptr``."""


class IPRevStage:
    """Notes `ReverseName` at the `Client`. It refuses nothing: many a house's connection has no name of its own."""

    name = "iprev"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(self, dns: DNS) -> None:
        self._dns = dns

    async def connect(self, client: Client) -> Verdict:
        """Looked up once for a connection."""
        if not client.address:
            return Verdict()
        client.note(await reverse_name(self._dns, client.address))
        return Verdict()

    async def mail(self, mail: Mail) -> Verdict:
        """The result is part of each message's story."""
        client = mail.client
        found = client.noted(ReverseName)
        if found is None:
            return Verdict()
        result = AuthenticationResult("iprev", found.result, "", (("policy.iprev", client.address),), found.name)
        return Verdict(reason=_sentence(client.address, found), results=(result,))


def _sentence(address: str, found: ReverseName) -> str:
    match found.result:
        case "pass":
            return f"{address} is {found.name}"
        case "fail":
            return f"{address} calls itself {found.claimed[0]}, which has another address"
        case "permerror":
            return f"{address} has no name"
        case _:
            return f"the name of {address} cannot be found out now"


async def reverse_name(dns: DNS, address: str) -> ReverseName:
    """Ask for the names of *address*, then for their addresses, side by side."""
    try:
        client = ipaddress.ip_address(address.partition("%")[0])
        names = (await dns.ptr(str(client))).records[:_NAMES]
    except (NoSuchName, ValueError):
        names = ()
    except DNSFailure:
        return ReverseName("temperror")
    if not names:
        return ReverseName("permerror")
    found = await side_by_side([_has(dns, name, client) for name in names])
    confirmed: Sequence[str] = [name for name, has in zip(names, found) if has]
    if confirmed:
        return ReverseName("pass", confirmed[0], tuple(names))
    return ReverseName("temperror" if None in found else "fail", "", tuple(names))


async def _has(dns: DNS, name: str, client: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool | None:
    """Whether *name* has that address; None: the DNS does not say."""
    try:
        answer = await (dns.a(name) if client.version == 4 else dns.aaaa(name))
        return client in [ipaddress.ip_address(each) for each in answer.records]
    except NoSuchName:
        return False
    except DNSFailure:
        return None
