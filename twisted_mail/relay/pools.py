"""Pools: from which of our addresses a message leaves.

A pool is a set of source addresses with their HELO names and limits; an address is in one pool only. A message leaves by
the pools of its stream and by no others, whatever happens: if all of their addresses are used up it waits.

Among the addresses: first those that are being warmed up, as long as their plans allow, then those that are warm. Of
several, mail of one sender domain to one destination prefers one (rendezvous hashing, weighted by what each may send in the
day), so that receivers see a steady picture.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.lines import Lane, Lines
from twisted_mail.relay.plans import Plans, Standing, allowance_name
from twisted_mail.relay.reputation import Signal, signal_of
from twisted_mail.relay.streams import Stream, Streams
from twisted_mail.relay.tables import Table, Wrong
from twisted_mail.relay.values import Host, Source, Verdict
from twisted_mail.relay.warm_up import DAY, Curve, day_of
from twisted_mail.storage.interfaces import StorageError

__all__ = [
    "DEFAULT_PROVIDERS",
    "OTHERS",
    "Departure",
    "Grant",
    "Pool",
    "PoolAddress",
    "Pools",
    "Providers",
    "Wait",
    "check",
    "families_of",
    "read_pools",
    "read_providers",
]

DEFAULT_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "google": ("google.com", "googlemail.com", "gmail.com"),
        "microsoft": ("outlook.com", "hotmail.com", "office365.com", "live.com"),
        "yahoo": ("yahoodns.net", "yahoo.com", "aol.com"),
        "apple": ("icloud.com", "apple.com", "me.com"),
    }
)
"""Provider groups, and the domains of their mail servers. Everybody else together is `OTHERS`."""
OTHERS: Final = "others"
_UNCOUNTED: Final = 1_000_000
"""How an address without a limit weighs beside others."""
_RETRY: Final = 60.0
"""Seconds to wait when allowances cannot be counted, as the store does not answer."""
_LONG: Final = 3600.0
_MOST_DEFERRED: Final = 100_000


class Providers:
    """Which provider group a destination belongs to."""

    def __init__(self, groups: Mapping[str, Sequence[str]] = DEFAULT_PROVIDERS) -> None:
        self._groups = {suffix.lower(): name for name, suffixes in groups.items() for suffix in suffixes}
        self.names = (*groups, OTHERS)

    def of(self, destination: str) -> str:
        """The group of *destination*, a `Route`'s (``google.com``, ``mx1.example.org``)."""
        name = destination.lower().rstrip(".")
        while name:
            found = self._groups.get(name)
            if found is not None:
                return found
            name = name.partition(".")[2]
        return OTHERS


@dataclass(frozen=True, slots=True)
class PoolAddress:
    """One of our addresses."""

    address: str | None
    """In its shortest form; None: the system chooses."""
    helo: str
    """The name given in EHLO; empty: the server's own."""

    @property
    def family(self) -> int:
        """4, 6, or 0 for whatever the system chooses."""
        return _version(self.address) if self.address else 0

    @property
    def name(self) -> str:
        return self.address or "any"


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of addresses that mean the same to their streams."""

    name: str
    addresses: tuple[PoolAddress, ...]
    warm_up: int | None = None
    """The first day of their plans (days since 1970); None: they are warm."""
    daily: int | None = None
    """Messages that each may send in a UTC day, to all providers together; None: no limit."""
    curve: Curve | None = None
    """Its own plan; None: that of the settings."""


@dataclass(frozen=True, slots=True)
class Departure:
    """What of a message's way has to do with where it leaves from."""

    destination: str
    """`Route.destination`."""
    sender_domain: str = ""
    families: frozenset[int] = frozenset({4, 6})
    """IP versions of the addresses of its hosts (`families_of`)."""
    recipients: int = 1
    """Of this transaction: receivers count copies."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A message may leave."""

    source: Source
    recipients: int
    """For so many of the recipients (1..those that were asked for): the others ask again."""
    group: str
    """Provider group, under which what the receiver says is counted."""
    day: int
    taken: tuple[str, ...] = field(default=(), repr=False)
    """The allowances that it was taken of."""
    destination: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """A message may not leave now."""

    seconds: float
    why: str
    """For the trace and the operator."""
    own: bool = False
    """The time is this message's own: others that wait for the same were told another. It needs no jitter."""


@lru_cache(maxsize=10_000)
def _version(address: str) -> int:
    """Raises: ValueError."""
    return ipaddress.ip_address(address).version


def families_of(hosts: Sequence[Host]) -> frozenset[int]:
    """IP versions of the *hosts* of a route; both for what has no IP address (a UNIX socket)."""
    found = set()
    for host in hosts:
        for address in host.addresses:
            try:
                found.add(_version(address))
            except ValueError:
                found |= {4, 6}
    return frozenset(found)


class Pools:
    """Chooses; the only place where an address is chosen."""

    def __init__(
        self,
        pools: Sequence[Pool],
        streams: Streams,
        plans: Plans,
        blocks: Blocks,
        providers: Providers | None = None,
    ) -> None:
        """Raises: Wrong (two of a name; an address in two pools; a stream's pool is missing)."""
        self._pools = {pool.name: pool for pool in pools}
        self.streams = streams
        self.plans = plans
        self._blocks = blocks
        self._lines = Lines()
        self._deferred: set[tuple[str, str]] = set()
        """(Address, destination) of `OTHERS` that deferred or blocked on `_deferred_day`."""
        self._deferred_day = 0
        self.providers = providers if providers is not None else Providers()
        problems = check(pools, streams)
        if problems:
            raise Wrong(problems)

    def all(self) -> Sequence[Pool]:
        """In the order of the configuration."""
        return list(self._pools.values())

    def warming(self) -> Mapping[str, int | None]:
        """The first day of each address's plan, for `Plans.review`."""
        return {address.name: pool.warm_up for pool in self._pools.values() for address in pool.addresses}

    def pool_of(self, address: str) -> Pool | None:
        """The pool that *address* is in."""
        for pool in self._pools.values():
            if any(each.name == address for each in pool.addresses):
                return pool
        return None

    async def source(self, stream: str, departure: Departure, now: float) -> Grant | Wait:
        """From where a message of *stream* may leave at *now* (seconds since 1970). Never raises."""
        known = self.streams.named(stream)
        if known is None:
            return Wait(
                _LONG, f"the stream {stream} is no longer configured, and its mail may not leave by another's addresses"
            )
        group = self.providers.of(departure.destination)
        standings: list[tuple[Pool, PoolAddress, Standing]] = []
        lanes: list[Lane] = []
        waits: list[Wait] = []
        for pool in self._of(known):
            for address in pool.addresses:
                if address.family and address.family not in departure.families:
                    continue
                try:
                    standing = await self.plans.standing(address.name, group, pool.warm_up, now, pool.curve)
                except StorageError:
                    waits.append(Wait(_RETRY, f"the allowance of {address.name} cannot be counted now"))
                    continue
                lanes.append(self._lane(pool, group, standing))
                if standing.why:
                    waits.append(Wait(max(standing.more_at - now, 1.0), standing.why, True))
                else:
                    standings.append((pool, address, standing))
        for pool, address, standing in _preferred(standings, departure):
            found = await self._grant(pool, address, standing, group, departure.recipients, now)
            if isinstance(found, Grant):
                return replace(found, destination=departure.destination)
            waits.append(found)
        if not waits:
            return Wait(_LONG, f"no address of the stream {stream} is of the IP version of {departure.destination}")
        first = min(waits, key=lambda wait: wait.seconds)
        if first.own:
            seconds = self._lines.seconds((stream, group), lanes, departure.recipients, now)
            return Wait(max(seconds, 1.0), first.why, True)
        return first

    def _lane(self, pool: Pool, group: str, standing: Standing) -> Lane:
        curve = None
        if pool.warm_up is not None:
            curve = pool.curve or self.plans.settings.curve_of(group)
        from_ = standing.more_at if standing.why else 0.0
        return Lane(standing.day, curve, standing.step, self.plans.settings.hours, pool.daily, from_)

    def _of(self, stream: Stream) -> list[Pool]:
        return [self._pools[name] for name in stream.pools]

    async def _grant(
        self, pool: Pool, address: PoolAddress, standing: Standing, group: str, recipients: int, now: float
    ) -> Grant | Wait:
        limits = []
        if standing.limit is not None:
            spent = f"warm-up: {address.name} has sent its {standing.limit} of {standing.allowance} today to {group}"
            limits.append((allowance_name(address.name, group), standing.limit, standing.more_at, spent))
        if pool.daily is not None:
            spent = f"{address.name} has sent its {pool.daily} of today"
            limits.append((f"pool/{address.name}", pool.daily, (standing.day + 1) * DAY, spent))
        got = recipients
        taken: list[str] = []
        for name, limit, more_at, why in limits:
            counted = True
            try:
                here = await self._blocks.take(name, standing.day, got, limit)
            except StorageError:
                here, counted = 0, False
                more_at, why = now + _RETRY, f"the allowance of {address.name} cannot be counted now"
            for before in taken:
                self._blocks.give_back(before, standing.day, got - here)
            if not here:
                return Wait(max(more_at - now, 1.0), why, counted)
            got = here
            taken.append(name)
        source = Source(address=address.address, helo=address.helo, pool=pool.name)
        return Grant(source, got, group, standing.day, tuple(taken))

    def heard(self, grant: Grant, verdict: Verdict, now: float) -> None:
        """Count what a receiver said of the address of *grant*.

        Of `OTHERS` a destination that defers or blocks counts once a day: one that takes nothing from us, however often it is
        tried, is no sign that the many others think so too.
        """
        signal = signal_of(verdict)
        if signal is None:
            return
        address, day = grant.source.address or "any", day_of(now)
        if signal is Signal.DEFERRED and grant.group == OTHERS:
            if day != self._deferred_day or len(self._deferred) > _MOST_DEFERRED:
                self._deferred_day, self._deferred = day, set()
            if (address, grant.destination) in self._deferred:
                return
            self._deferred.add((address, grant.destination))
        self.plans.heard(address, grant.group, signal, now)

    def complained(self, address: str, domain: str, now: float) -> bool:
        """Count a complaint about mail that left by *address* (Source-IP of an ARF report, RFC 5965 section 3.2).

        *domain*: of the recipient or of who reports. False: the address is none of ours, and nothing is counted.
        """
        try:
            ours = _shortest(address)
        except ValueError:
            return False
        if self.pool_of(ours) is None:
            return False
        self.plans.heard(ours, self.providers.of(domain), Signal.COMPLAINED, now)
        return True

    def unused(self, grant: Grant, recipients: int | None = None) -> None:
        """Of what *grant* allowed, so many recipients (None: all) were not even tried: no server was reached."""
        for name in grant.taken:
            self._blocks.give_back(name, grant.day, grant.recipients if recipients is None else recipients)


def _preferred(
    standings: Sequence[tuple[Pool, PoolAddress, Standing]], departure: Departure
) -> list[tuple[Pool, PoolAddress, Standing]]:
    """Those that are being warmed up first; within each kind by weighted rendezvous hashing."""
    key = f"{departure.sender_domain.lower()} {departure.destination.lower()} ".encode()

    def score(pool: Pool, address: PoolAddress, standing: Standing) -> float:
        digest = blake2b(key + address.name.encode(), digest_size=8).digest()
        chance = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        weight = standing.allowance if standing.allowance is not None else pool.daily or _UNCOUNTED
        return -math.log(chance) / max(weight, 1)

    return sorted(standings, key=lambda each: (each[2].limit is None, score(*each)))


def check(pools: Sequence[Pool], streams: Streams) -> list[tuple[str, str]]:
    """What is wrong with *pools* and *streams* together: dotted keys, and sentences."""
    problems = []
    seen: dict[str, str] = {}
    names = [pool.name for pool in pools]
    for name in {name for name in names if names.count(name) > 1}:
        problems.append((f"relay.pools.{name}", "two pools have this name"))
    for pool in pools:
        for each in pool.addresses:
            if each.name in seen:
                problems.append((
                    f"relay.pools.{pool.name}.addresses",
                    f"{each.name} is in the pool {seen[each.name]!r} too: what one kind of mail does to an address must not "
                    "befall another",
                ))  # fmt: skip
            seen[each.name] = pool.name
    for stream in streams.all():
        for name in stream.pools:
            if name not in names:
                problems.append((f"relay.streams.{stream.name}.pools", f"there is no pool {name!r}"))
    return problems


def read_pools(tables: object) -> list[Pool]:
    """The pools of ``[relay.pools]``; none configured: one named ``default``, whose address the system chooses.

    Raises: Wrong.
    """
    problems: list[tuple[str, str]] = []
    table = Table(tables, "relay.pools", problems)
    found = [_read_pool(table.table(name), name) for name in table.names()]
    if not found and not problems:
        found = [Pool("default", (PoolAddress(None, ""),))]
    if problems:
        raise Wrong(problems)
    return found


def _read_pool(table: Table, name: str) -> Pool:
    addresses = []
    below = table.table("addresses")
    for text in below.names():
        helo = below.text(text)
        try:
            address = _shortest(text)
        except ValueError:
            below.wrong(text, "is not an IP address")
            continue
        if not helo or not all(c.isalnum() or c in ".-" for c in helo) or not helo.isascii():
            below.wrong(text, "the name that the address gives in EHLO is wanted, as in DNS")
        addresses.append(PoolAddress(address, helo))
    if not addresses:
        table.wrong("addresses", "at least one address with its HELO name is wanted")
    first = table.day("warm_up")
    daily = table.whole("daily", None, 1)
    curve = table.wholes("curve")
    if curve and min(curve) < 1:
        table.wrong("curve", "each day has at least one message")
        curve = ()
    table.end()
    days = (first - type(first)(1970, 1, 1)).days if first is not None else None
    return Pool(name, tuple(addresses), days, daily, Curve(curve) if curve else None)


def _shortest(text: str) -> str:
    """*text* as every pool would write it. Raises: ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def read_providers(tables: object) -> Providers:
    """The groups of ``[relay.providers]`` beside the built-in ones: name = domains of its mail servers. Raises: Wrong."""
    problems: list[tuple[str, str]] = []
    table = Table(tables, "relay.providers", problems)
    groups: dict[str, Collection[str]] = dict(DEFAULT_PROVIDERS)
    for name in table.names():
        groups[name] = table.texts(name)
        if name == OTHERS or "/" in name or name.startswith("!"):
            table.wrong(name, "cannot be the name of a group")
    if problems:
        raise Wrong(problems)
    return Providers({name: tuple(domains) for name, domains in groups.items()})
