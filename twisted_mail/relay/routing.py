"""From a recipient's domain to the servers that take its mail (RFC 5321 section 5.1)."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import zip_longest
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from twisted_mail.dns.names import BadName, a_labels, is_host_name
from twisted_mail.dns.values import DNS, MX, Answer, DNSFailure, NoSuchName
from twisted_mail.relay.providers import provider_of
from twisted_mail.relay.static_routes import StaticRoute, StaticRoutes
from twisted_mail.relay.values import Host, Route, RouteFailure

__all__ = ["Router", "RoutingSettings", "together"]

T = TypeVar("T")

_NOBODYS: Final = tuple(map(ip_network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8", "::ffff:0:0/96")))
"""No host has such an address (RFC 6890); Linux takes 0.0.0.0 for itself."""

_AFTER_FAILURE_SECONDS: Final = 60.0
"""A route that lacks what the DNS did not say is not used longer."""


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """How much is looked at."""

    port: int = 25
    """Where exchangers listen."""
    hosts: int = 10
    """Most exchangers of a route (RFC 5321 section 5.1: at least two are tried)."""
    looked_up: int = 16
    """Most exchangers whose addresses are asked for."""
    addresses: int = 8
    """Most addresses of one exchanger."""
    ipv4: bool = True
    ipv6: bool = True
    """Whether this machine can reach such addresses."""
    refused: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks to which an MX record must not lead, e.g. 127.0.0.0/8 and a site's own (operators' routes may)."""
    longest_seconds: float = 3600.0
    """A route is not used longer, whatever the TTL."""
    routes: int = 20_000
    """Most routes kept."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of looking up one exchanger."""

    host: Host | None
    ttl: float = 3600.0
    failed: bool = False
    """The DNS did not answer: it may have an address."""
    own: bool = False


async def together(questions: Sequence[Coroutine[Any, Any, T]]) -> list[T | Exception]:
    """All at once; what each of them gave or raised, in order."""
    waiting = [Deferred.fromCoroutine(question) for question in questions]
    results: list[T | Exception] = []
    for each in waiting:
        try:
            results.append(await each)
        except CancelledError:
            for other in waiting:
                other.addErrback(lambda _: None)
                other.cancel()
            raise
        except Exception as error:
            results.append(error)
    return results


class Router:
    """Finds routes, and keeps those that it found for as long as their records hold."""

    def __init__(
        self,
        dns: DNS,
        static: StaticRoutes | None = None,
        *,
        own_names: frozenset[str] = frozenset(),
        is_own: Callable[[str], bool] = lambda address: False,
        settings: RoutingSettings | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*own_names* are this server's host names (A-labels, lower case); *is_own* says whether it listens at an address."""
        self._clock = clock
        self._kept: OrderedDict[str, tuple[Route, float]] = OrderedDict()
        self._dns = dns
        self._static = static or StaticRoutes({})
        self._own_names = own_names
        self._is_own = is_own
        self._settings = settings or RoutingSettings()
        self._rng = rng or random.Random()

    async def route(self, domain: str) -> Route:
        """The way to *domain* (any spelling, or an address literal) as of now. Raises RouteFailure."""
        kept = self._kept.get(domain)
        if kept is not None:
            route, until = kept
            left = until - self._clock()
            if left > 0:
                self._kept.move_to_end(domain)
                return replace(route, hosts=self._shuffled(route.hosts), ttl=left)
            del self._kept[domain]
        route = await self._find(domain)
        if self._settings.routes > 0:
            self._kept[domain] = (route, self._clock() + route.ttl)
            while len(self._kept) > self._settings.routes:
                self._kept.popitem(last=False)
        return route

    def flush(self, domain: str | None = None) -> None:
        """Forget the route of *domain*, or all; the resolver forgets its answers by itself."""
        if domain is None:
            self._kept.clear()
        else:
            self._kept.pop(domain, None)

    def _shuffled(self, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
        """Equal ones in another order each time: the load is spread over messages, not over TTLs."""
        if len(hosts) < 2:
            return hosts
        mixed = list(hosts)
        self._rng.shuffle(mixed)
        mixed.sort(key=lambda host: host.preference)
        return tuple(mixed)

    async def _find(self, domain: str) -> Route:
        if domain.startswith("["):
            static = self._static.find(domain)
            return await self._configured(domain, static) if static else self._literal(domain)
        try:
            domain = a_labels(domain)
        except BadName:
            raise RouteFailure("550 5.1.2 The recipient's domain cannot exist", permanent=True) from None
        static = self._static.find(domain)
        if static is not None:
            return await self._configured(domain, static)
        return await self._by_mx(domain)

    # --- the three kinds

    async def _configured(self, domain: str, static: StaticRoute) -> Route:
        """An operator's route. What is wrong with it is the operator's to mend: mail waits meanwhile, and does not bounce."""
        ttl = self._settings.longest_seconds
        if static.unix:
            host = Host(static.host, (static.host,), 0, secure=True)
        elif static.is_address:
            host = Host(static.host, (static.host,), static.port, secure=True)
        else:
            found = await self._look_up(static.host, 0, static.port, own_counts=False, refused=())
            if found.host is None:
                why = "does not answer for" if found.failed else "has no address of"
                raise RouteFailure(f"451 4.4.3 The DNS {why} the configured relay", permanent=False)
            host, ttl = found.host, found.ttl
        return Route(
            domain,
            str(static),
            (host,),
            lmtp=static.lmtp,
            login=static.login,
            implicit_tls=static.implicit_tls,
            smart_host=True,
            secure=True,
            ttl=max(ttl, 1.0),
        )

    def _literal(self, domain: str) -> Route:
        """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 section 4.1.3)."""
        inner = domain[1:-1] if domain.endswith("]") and "%" not in domain else ""
        try:
            address: IPv4Address | IPv6Address = (
                IPv6Address(inner[5:]) if inner[:5].lower() == "ipv6:" else IPv4Address(inner)
            )
        except ValueError:
            raise RouteFailure("550 5.1.3 The address literal cannot be read", permanent=True) from None
        text = str(address)
        if not self._usable(text, self._settings.refused):
            raise RouteFailure("550 5.1.2 No mail is sent to that address literal", permanent=True)
        if self._is_own(text):
            raise _loop()
        host = Host(text, (text,), self._settings.port)
        return Route(domain, text, (host,), ttl=self._settings.longest_seconds)

    async def _by_mx(self, domain: str) -> Route:
        try:
            answer = await self._dns.mx(domain)
        except NoSuchName:
            raise RouteFailure("550 5.1.2 There is no such domain", permanent=True) from None
        except DNSFailure:
            raise RouteFailure("451 4.4.3 The DNS does not answer for the recipient's domain", permanent=False) from None
        if not answer.records:
            return await self._implicit(domain, answer)
        named = [record for record in answer.records if record.host]
        if not named:
            raise RouteFailure("556 5.1.10 The recipient's domain takes no mail (null MX)", permanent=True)
        candidates = self._candidates(named)
        if not candidates:
            raise RouteFailure("550 5.4.4 The mail exchangers of the recipient's domain are not host names", permanent=True)
        return await self._reached(domain, answer, candidates)

    async def _implicit(self, domain: str, answer: Answer[MX]) -> Route:
        """The domain itself, at preference 0, where it has no MX record."""
        found = await self._look_up(domain, 0, self._settings.port)
        if found.own:
            raise _loop()
        if found.host is None:
            if found.failed:
                raise RouteFailure("451 4.4.3 The DNS does not answer for the recipient's domain", permanent=False)
            raise RouteFailure("550 5.1.2 The recipient's domain has neither exchanger nor address", permanent=True)
        return self._route(domain, provider_of([domain]), (found.host,), answer, found.ttl)

    def _candidates(self, records: Sequence[MX]) -> list[MX]:
        """By preference, equal ones in random order; each host once, at its best preference."""
        best: dict[str, MX] = {}
        for record in records:
            if is_host_name(record.host) and (record.host not in best or record < best[record.host]):
                best[record.host] = record
        shuffled = list(best.values())
        self._rng.shuffle(shuffled)
        return sorted(shuffled, key=lambda record: record.preference)[: self._settings.looked_up]

    async def _reached(self, domain: str, answer: Answer[MX], candidates: list[MX]) -> Route:
        port = self._settings.port
        results = await together([self._look_up(record.host, record.preference, port) for record in candidates])
        found: list[_Found] = []
        for result in results:
            if isinstance(result, Exception):
                raise result
            found.append(result)
        # Loop avoidance: we are in the list, so only what is nearer than we are may be tried.
        own = min(
            (record.preference for record, each in zip(candidates, found) if each.own or record.host in self._own_names),
            default=None,
        )
        near = [each for record, each in zip(candidates, found) if own is None or record.preference < own]
        if not near:
            raise _loop()
        hosts = [each.host for each in near if each.host is not None][: self._settings.hosts]
        if not hosts:
            if any(each.failed for each in near):
                raise RouteFailure("451 4.4.3 The DNS does not answer for the mail exchangers", permanent=False)
            raise RouteFailure("550 5.4.4 No mail exchanger of the recipient's domain has an address", permanent=True)
        nearest = candidates[0].preference
        group = provider_of(record.host for record in candidates if record.preference == nearest)
        return self._route(domain, group, tuple(hosts), answer, min(each.ttl for each in near))

    def _route(self, domain: str, group: str, hosts: tuple[Host, ...], answer: Answer[MX], ttl: float) -> Route:
        seconds = min(ttl, answer.ttl, self._settings.longest_seconds)
        return Route(domain, group, hosts, secure=answer.secure, ttl=max(seconds, 1.0))

    # --- addresses

    async def _look_up(
        self,
        name: str,
        preference: int,
        port: int,
        *,
        own_counts: bool = True,
        refused: tuple[IPv4Network | IPv6Network, ...] | None = None,
    ) -> _Found:
        """The addresses of one host, those of IPv6 first, the families in turn (RFC 8305 section 4)."""
        questions = []
        if self._settings.ipv6:
            questions.append(self._dns.aaaa(name))
        if self._settings.ipv4:
            questions.append(self._dns.a(name))
        families: list[list[str]] = []
        failed, secure, alias, ttl = False, True, "", self._settings.longest_seconds
        for result in await together(questions):
            if isinstance(result, NoSuchName):
                continue
            if isinstance(result, DNSFailure):
                failed, ttl = True, min(ttl, _AFTER_FAILURE_SECONDS)
                continue
            if isinstance(result, Exception):
                raise result
            ttl = min(ttl, result.ttl)
            if result.records:
                secure = secure and result.secure
                alias = result.name if result.name and result.name != name else alias
                families.append(list(result.records))
        if own_counts and any(self._is_own(address) for family in families for address in family):
            return _Found(None, ttl, own=True)
        networks = self._settings.refused if refused is None else refused
        for family in families:
            family[:] = [address for address in family if self._usable(address, networks)]
            self._rng.shuffle(family)
        addresses = [address for pair in zip_longest(*families) for address in pair if address is not None]
        if not addresses:
            return _Found(None, ttl, failed=failed)
        kept = tuple(addresses[: self._settings.addresses])
        return _Found(Host(name, kept, port, preference, secure, alias), ttl)

    def _usable(self, address: str, refused: Sequence[IPv4Network | IPv6Network]) -> bool:
        parsed = ip_address(address)
        return not any(parsed in network for network in (*_NOBODYS, *refused) if network.version == parsed.version)


def _loop() -> RouteFailure:
    return RouteFailure("554 5.4.6 The mail would come back to this server", permanent=True)
