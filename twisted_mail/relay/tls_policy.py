"""How connections to the hosts of a route must be protected: what is configured, raised by what domains publish.

DANE before MTA-STS (RFC 8461 section 2), and neither is weakened by the other: a host whose TLSA records fail is not used
because its domain's MTA-STS policy would be content. REQUIRETLS (RFC 8689) asks for an authenticated way to the host and an
authenticated host.
"""

from __future__ import annotations

import enum
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address

from twisted_mail.dns.names import is_host_name
from twisted_mail.relay.dane import DANE, Found, Standing, presentation
from twisted_mail.relay.mta_sts import MTASTS, Policy
from twisted_mail.relay.routing import together
from twisted_mail.relay.values import Host, PolicyNote, Protection, Route, RouteFailure, TLSFailure, TLSMode

__all__ = ["Level", "TLSPolicy"]


class Level(enum.Enum):
    """What is configured (``relay.tls``); what a domain publishes can only raise it."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    """TLS or nothing, with any certificate: names that come from an unsigned MX record prove nothing."""


_FLOOR = {Level.OFF: TLSMode.OFF, Level.OPPORTUNISTIC: TLSMode.OPPORTUNISTIC, Level.REQUIRE: TLSMode.ENCRYPTED}

Noted = Callable[[Protection, Host, TLSFailure | None, str, str, str], None]
"""`TLSReports.noted`: what protects, the host, what failed (None: nothing), the local and the remote address, a detail."""


_KEPT = 10_000
"""Most routes whose protections are kept."""
_Key = tuple[str, str, bool, bool, bool]
"""A route's domain, destination and whether it is signed; REQUIRETLS, and TLS-Required: No."""
_Place = tuple[str, int, bool]
"""A host's name and port, and whether its addresses are signed."""


@dataclass(frozen=True, slots=True)
class _Around:
    """What is the same for all hosts of a route."""

    route: Route
    sts: Policy | None
    requiretls: bool
    relaxed: bool


class TLSPolicy:
    """Decides for each host of a route, and says why."""

    def __init__(
        self,
        dane: DANE | None,
        sts: MTASTS | None,
        level: Level = Level.OPPORTUNISTIC,
        *,
        noted: Noted = lambda protection, host, failure, source, remote, detail: None,
        keep_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """None for *dane* or *sts*: not looked at. *noted* counts what fails before any connection is made. What was decided
        holds for *keep_seconds*: the next message for a domain is not an occasion to ask everything again."""
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._kept: OrderedDict[_Key, tuple[float, dict[_Place, Protection | RouteFailure]]] = OrderedDict()
        self._dane = dane
        self._sts = sts
        self._level = level
        self._noted = noted

    async def protections(
        self, route: Route, *, requiretls: bool = False, relaxed: bool = False
    ) -> Callable[[Host], Protection | RouteFailure]:
        """What a connection to each host of *route* must have, or why it must not be made.

        *requiretls*: the message came with REQUIRETLS. *relaxed*: its header says ``TLS-Required: No`` (RFC 8689 section 5), so
        what domains publish is passed over; that counts for nothing beside REQUIRETLS.
        """
        relaxed = relaxed and not requiretls
        key = (route.domain, route.destination, route.secure, requiretls, relaxed)
        until, decided = self._kept.get(key, (0.0, {}))
        if until <= self._clock() or any((host.name, host.port, host.secure) not in decided for host in route.hosts):
            decided = await self._decide_all(route, requiretls, relaxed)
            self._kept.pop(key, None)
            self._kept[key] = (self._clock() + self._keep_seconds, decided)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return lambda host: decided[host.name, host.port, host.secure]

    async def _decide_all(
        self, route: Route, requiretls: bool, relaxed: bool
    ) -> dict[_Place, Protection | RouteFailure]:
        around = _Around(route, await self._policy(route, relaxed), requiretls, relaxed)
        found = await self._found(around)
        return {
            (host.name, host.port, host.secure): self._decide(around, host, each)
            for host, each in zip(route.hosts, found)
        }

    # --- what is published

    async def _policy(self, route: Route, relaxed: bool) -> Policy | None:
        """Only for what is routed by MX records (RFC 8461 section 2)."""
        if self._sts is None or relaxed or route.smart_host or not is_host_name(route.domain):
            return None
        policy = await self._sts.policy(route.domain)
        return None if policy is None or policy.mode == "none" else policy

    async def _found(self, around: _Around) -> list[Found]:
        dane = self._dane
        if dane is None or around.relaxed:
            return [Found(Standing.NONE)] * len(around.route.hosts)
        found: list[Found] = []
        for result in await together([dane.find(around.route, host) for host in around.route.hosts]):
            if isinstance(result, Exception):
                raise result
            found.append(result)
        return found

    # --- what follows

    def _decide(self, around: _Around, host: Host, found: Found) -> Protection | RouteFailure:
        if not host.port:
            return Protection(TLSMode.OFF, "local socket")
        route = around.route
        nobody = None if route.smart_host else PolicyNote("no-policy-found", route.domain, recipients=route.domain)
        if found.standing is not Standing.NONE:
            strings = tuple(presentation(record) for record in found.records)
            note = PolicyNote("tlsa", found.base, strings, (host.name,), recipients=route.domain)
            return self._by_dane(around, host, found, None if route.smart_host else note)
        policy = around.sts
        if policy is not None:
            if policy.mode == "enforce" or around.requiretls:
                return self._by_sts(around, host, policy)
            note, floor = _sts_note(route, policy), self._floor(route, host)
            if floor is TLSMode.OFF:
                return Protection(floor, "configuration", policy=note)
            testing = Protection(floor, "mta-sts testing", (host.name,), testing=True, policy=note)
            if not policy.allows(host.name):
                self._noted(testing, host, TLSFailure.VALIDATION_FAILURE, "", "", "the host is not in the policy")
                return replace(testing, testing=False, policy=None)  # counted already
            return testing
        if around.requiretls:
            return _authenticated(route, host, nobody)
        floor = self._floor(route, host)
        return Protection(floor, "" if floor is TLSMode.OPPORTUNISTIC else "configuration", policy=nobody)

    def _by_dane(self, around: _Around, host: Host, found: Found, note: PolicyNote | None) -> Protection | RouteFailure:
        if found.standing is Standing.FAILED:
            failed = Protection(TLSMode.DANE, "dane", policy=note)
            self._noted(failed, host, TLSFailure.DNSSEC_INVALID, "", "", "the TLSA records cannot be looked up")
            return RouteFailure("451 4.7.5 The TLSA records of the host cannot be looked up", permanent=False)
        if found.standing is Standing.USABLE:
            return Protection(
                TLSMode.DANE, "dane", found.names, found.records, requiretls=around.requiretls, policy=note
            )
        # TLS is a must, its certificate is not; unless something else vouches for the host.
        policy = around.sts
        if policy is not None and (policy.mode == "enforce" or around.requiretls):
            return self._by_sts(around, host, policy)
        if around.requiretls:
            return _authenticated(around.route, host, note)
        return Protection(TLSMode.ENCRYPTED, "dane, no usable record", policy=note)

    def _by_sts(self, around: _Around, host: Host, policy: Policy) -> Protection | RouteFailure:
        note = _sts_note(around.route, policy)
        wanted = Protection(TLSMode.VERIFIED, "mta-sts", (host.name,), requiretls=around.requiretls, policy=note)
        if policy.allows(host.name):
            return wanted
        self._noted(wanted, host, TLSFailure.VALIDATION_FAILURE, "", "", "the host is not in the policy")
        return RouteFailure("451 4.7.5 The host is not in the MTA-STS policy of the domain", permanent=False)

    def _floor(self, route: Route, host: Host) -> TLSMode:
        """What is configured; a password goes to another machine only under TLS."""
        floor = _FLOOR[self._level]
        if route.login is not None and self._level is not Level.OFF and not _on_this_machine(host):
            return TLSMode.ENCRYPTED
        return floor


def _sts_note(route: Route, policy: Policy) -> PolicyNote:
    return PolicyNote("sts", route.domain, policy.lines, policy.mx, recipients=route.domain)


def _authenticated(route: Route, host: Host, note: PolicyNote | None) -> Protection | RouteFailure:
    """REQUIRETLS where no published policy is in force: the way must lead to the right host, by signed MX records or by an
    operator's word, and the host must have a certificate of its name (RFC 8689 section 4.2.1)."""
    if not route.secure or not is_host_name(host.name):
        return RouteFailure("550 5.7.30 REQUIRETLS support required: nothing vouches for the host", permanent=True)
    return Protection(TLSMode.VERIFIED, "requiretls", (host.name,), requiretls=True, policy=note)


def _on_this_machine(host: Host) -> bool:
    return all(ip_address(address).is_loopback for address in host.addresses)
