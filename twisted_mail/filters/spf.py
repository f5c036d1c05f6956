"""`check_host` (RFC 7208 section 4): may this address send for that domain?"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime

from twisted_mail.dns.cache import Cache
from twisted_mail.dns.names import BadName, a_labels
from twisted_mail.dns.values import DNS, Answer, DNSFailure, NoSuchName
from twisted_mail.filters.origins import SPF
from twisted_mail.filters.spf_macros import BadMacro, MacroString, Values, parse_macros
from twisted_mail.filters.spf_record import BadRecord, Mechanism, SPFRecord, parse_record, select_record
from twisted_mail.queueing.limits import TooSlow, within

__all__ = ["CheckHost", "Checked", "SPFLimits"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

T = TypeVar("T")

_LABEL: Final = 63
_NAME: Final = 253
_EXPLANATION: Final = 400
_DENIED_SECONDS: Final = 60.0
"""For so long it is remembered that a name is not there."""
_PERSONAL: Final = frozenset("slht")


@dataclass(frozen=True, slots=True)
class SPFLimits:
    """What one check may cost (section 4.6.4)."""

    lookups: int = 10
    """Terms that ask the DNS, those of included records with them; more: permerror."""
    void: int = 2
    """Of them, such as find nothing; more: permerror."""
    hosts: int = 10
    """Mail exchangers of an ``mx`` (more: permerror), names of a ``ptr`` (more are left out)."""
    seconds: float = 20.0
    """For the whole; then: temperror."""
    remembered: int = 10_000
    """Outcomes by address and domain, such as hold for all senders of the domain."""
    remembered_seconds: float = 300.0
    """So long at most, and not longer than the records that were asked for."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it."""

    result: SPF
    reason: str = ""
    """The mechanism that matched, or what is wrong."""
    explanation: str = ""
    """Of a fail whose record has ``exp=``."""
    lookups: int = 0


class _Ended(Exception):
    """The check is over before a mechanism matched."""

    def __init__(self, result: SPF, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class CheckHost:
    """Checks; one for a process."""

    def __init__(
        self,
        dns: DNS,
        clock: IReactorTime,
        *,
        receiver: str = "unknown",
        limits: SPFLimits | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*receiver* is our host name, for explanations (``%{r}``)."""
        self._dns = dns
        self._clock = clock
        self._receiver = receiver
        self._limits = limits or SPFLimits()
        self._wall = wall
        self._known: Cache[Checked] = Cache(clock, self._limits.remembered)

    def known(self, address: str, domain: str) -> Checked | None:
        """What `check` has found lately, of a *domain* as `domain_of` gives it, if that does not depend on the sender."""
        found = self._known.get(domain, address)
        return found[0] if found is not None else None

    async def check(self, address: str, domain: str, sender: str, helo: str = "") -> Checked:
        """Whether *address* (an IP address as text) may send for *domain*; never raises.

        *sender* is the reverse-path, or, where HELO is checked, just its domain: the local part is "postmaster" then.
        """
        try:
            name = domain_of(domain)
            client = _client(address)
        except ValueError:
            return Checked(SPF.NONE, "no domain that could have a record")
        if (known := self.known(address, name)) is not None:
            return known
        local, at, host = sender.rpartition("@")
        try:
            host = a_labels(host)
        except BadName:
            host = host or name
        whole = f"{local if at and local else 'postmaster'}@{host}"
        values = Values(client, whole, name, helo or name, self._receiver, int(self._wall()))
        run = _Run(self._dns, self._limits, values, ttl=self._limits.remembered_seconds)
        try:
            found = await within(self._clock, self._limits.seconds, run.check(name))
            if not run.personal and found.result is not SPF.TEMPERROR:
                self._known.put(name, address, found, run.ttl)
            return found
        except TooSlow:
            return Checked(SPF.TEMPERROR, "the DNS takes too long", lookups=run.lookups)


def domain_of(text: str) -> str:
    """*text* as A-labels in lower case, if mail could come from a domain of that name (section 4.3). Raises: ValueError."""
    name = a_labels(text)  # BadName is a ValueError
    if "." not in name or name.rpartition(".")[2].isdigit():
        raise BadName("not a fully qualified name")
    return name


def _client(address: str) -> Address:
    """An IPv4 address that stands in an IPv6 one is that (section 5)."""
    client = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(client, ipaddress.IPv6Address) and client.ipv4_mapped is not None:
        return client.ipv4_mapped
    return client


@dataclass(slots=True)
class _Run:
    """One check with the records that it comes to."""

    dns: DNS
    limits: SPFLimits
    values: Values
    lookups: int = 0
    void: int = 0
    ttl: float = 0.0
    """Seconds for which all answers hold."""
    personal: bool = False
    """The outcome depends on who exactly sends, or on the moment."""
    _names: list[str] | None = field(default=None)
    """The client's names that lead back to it."""

    async def check(self, domain: str) -> Checked:
        try:
            result, reason, explained = await self._host(domain, SPF.NONE)
        except _Ended as ended:
            return Checked(ended.result, ended.reason, lookups=self.lookups)
        explanation = ""
        if result is SPF.FAIL and explained is not None:
            explanation = await self._explain(*explained)
        return Checked(result, reason, explanation, self.lookups)

    async def _host(self, domain: str, without: SPF) -> tuple[SPF, str, tuple[MacroString, str] | None]:
        """Outcome, reason, and the ``exp=`` that goes with it and its domain. *without*: what it is if there is no record.

        A redirected record takes the place of the first: so this is a loop, and only ``include`` goes down. Raises: _Ended.
        """
        while True:
            record = await self._record(domain)
            if record is None:
                return without, f"{domain} has no SPF record", None
            for mechanism in record.mechanisms:
                if await self._matches(mechanism, domain):
                    explained = (record.explanation, domain) if record.explanation is not None else None
                    return mechanism.qualifier, mechanism.text, explained
            if record.redirect is None:
                return SPF.NEUTRAL, "nothing in the record matches", None
            self._count("redirect")
            target = self._name(await self._expand(record.redirect, domain))
            if target is None:
                raise _Ended(SPF.PERMERROR, "redirect= to what is no domain")
            domain, without = target, SPF.PERMERROR

    async def _record(self, domain: str) -> SPFRecord | None:
        records = await self._asked(self.dns.txt, domain, counted=False)
        try:
            octets = select_record(records)
            return parse_record(octets) if octets is not None else None
        except BadRecord as error:
            raise _Ended(SPF.PERMERROR, f"{domain}: {error}") from error

    # --- limits

    def _count(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > self.limits.lookups:
            raise _Ended(SPF.PERMERROR, f"more than {self.limits.lookups} terms that ask the DNS")

    def _found_nothing(self) -> None:
        """A term's own question came to nothing. Those behind it (addresses of an exchanger) do not count: a host without
        IPv6 is no error of a record."""
        self.void += 1
        if self.void > self.limits.void:
            raise _Ended(SPF.PERMERROR, f"more than {self.limits.void} lookups that find nothing")

    # --- mechanisms (section 5)

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        match mechanism.name:
            case "all":
                return True
            case "ip4" | "ip6":
                network = mechanism.network
                return network is not None and network.version == self.values.address.version and (
                    self.values.address in network
                )
        self._count(mechanism.name)
        target: str | None = domain
        if mechanism.domain is not None:
            target = self._name(await self._expand(mechanism.domain, domain))
        match mechanism.name:
            case "include":
                return await self._includes(target)
            case "ptr":
                return target is not None and await self._has_name(target)
        if target is None:
            return False  # section 4.8: what cannot be a name matches nothing
        match mechanism.name:
            case "a":
                return self._among(await self._addresses(target), mechanism)
            case "mx":
                return await self._exchanges(target, mechanism)
            case _:
                return bool(await self._asked(self.dns.a, target))

    async def _includes(self, target: str | None) -> bool:
        """Section 5.2."""
        if target is None:
            raise _Ended(SPF.PERMERROR, "include of what is no domain")
        result, reason, _ = await self._host(target, SPF.NONE)
        if result is SPF.NONE:
            raise _Ended(SPF.PERMERROR, f"include: {reason}")
        return result is SPF.PASS

    async def _exchanges(self, target: str, mechanism: Mechanism) -> bool:
        """Section 5.4."""
        hosts = await self._asked(self.dns.mx, target)
        if len(hosts) > self.limits.hosts:
            raise _Ended(SPF.PERMERROR, f"{target} has more than {self.limits.hosts} mail exchangers")
        for exchanger in hosts:
            name = self._name(exchanger.host)
            if name is not None and self._among(await self._addresses(name, counted=False), mechanism):
                return True
        return False

    async def _has_name(self, target: str) -> bool:
        """Section 5.5."""
        below = "." + target
        return any(name == target or name.endswith(below) for name in await self._validated(counted=True))

    async def _validated(self, *, counted: bool = False) -> list[str]:
        """The client's names that have its address (section 5.5). What the DNS does not answer is left out."""
        if self._names is None:
            self._names = []
            try:
                names = await self._asked(self.dns.ptr, str(self.values.address), counted=False)
            except _Ended:
                self.personal = True  # the DNS may answer the next time
                return self._names
            if not names and counted:
                self._found_nothing()
            for each in names[: self.limits.hosts]:
                name = self._name(each)
                if name is None:
                    continue
                try:
                    addresses = await self._addresses(name, counted=False)
                except _Ended:
                    self.personal = True
                    continue
                if self.values.address in addresses:
                    self._names.append(name)
        return self._names

    async def _asked(
        self, ask: Callable[[str], Awaitable[Answer[T]]], name: str, *, counted: bool = True
    ) -> tuple[T, ...]:
        try:
            answer = await ask(name)
            records = answer.records
            self.ttl = min(self.ttl, answer.ttl)
        except NoSuchName:
            records = ()
            self.ttl = min(self.ttl, _DENIED_SECONDS)
        except DNSFailure as error:
            raise _Ended(SPF.TEMPERROR, f"the DNS does not answer for {name}") from error
        if not records and counted:
            self._found_nothing()
        return records

    async def _addresses(self, name: str, *, counted: bool = True) -> list[Address]:
        """Those of the client's kind."""
        ask = self.dns.a if self.values.address.version == 4 else self.dns.aaaa
        return [ipaddress.ip_address(each) for each in await self._asked(ask, name, counted=counted)]

    def _among(self, addresses: Sequence[Address], mechanism: Mechanism) -> bool:
        client = self.values.address
        left = 32 - mechanism.prefix4 if client.version == 4 else 128 - mechanism.prefix6
        return any(int(each) >> left == int(client) >> left for each in addresses)

    # --- macros (section 7)

    async def _expand(self, macros: MacroString, domain: str) -> str:
        self.values.domain = domain
        if not _PERSONAL.isdisjoint(macros.letters):
            self.personal = True
        if "p" in macros.letters:
            self.values.validated = self._best(await self._validated(), domain)
        return macros.expand(self.values)

    def _best(self, names: Sequence[str], domain: str) -> str:
        """Section 7.2: the domain itself, one below it, any other."""
        if domain in names:
            return domain
        below = [name for name in names if name.endswith("." + domain)]
        return next(iter([*below, *names]), "unknown")

    def _name(self, text: str) -> str | None:
        """What was expanded, as a name to ask for: shortened from the left until it fits (section 7.3); None: it is none."""
        name = text.removesuffix(".").lower()
        while len(name) > _NAME:
            _, dot, name = name.partition(".")
            if not dot:
                return None
        labels = name.split(".")
        if not name.isascii() or not all(0 < len(label) <= _LABEL for label in labels):
            return None
        return name

    async def _explain(self, macros: MacroString, domain: str) -> str:
        """Section 6.2: whatever is wrong with it, there is none."""
        try:
            target = self._name(await self._expand(macros, domain))
            if target is None:
                return ""
            records = await self._asked(self.dns.txt, target, counted=False)
            if len(records) != 1:
                return ""
            text = await self._expand(parse_macros(records[0].decode("ascii"), explanation=True), domain)
        except (_Ended, UnicodeDecodeError, BadMacro):
            return ""
        return text[:_EXPLANATION] if text.isascii() and text.isprintable() else ""
