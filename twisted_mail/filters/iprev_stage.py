"""The filter ``iprev``: the client's address has a name, and the name has the address (RFC 8601 section 3)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.dns.cache import Cache
from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.values import ACCEPTED, AuthenticationResult, Client, Mail, Verdict
from twisted_mail.queueing.limits import TooSlow, side_by_side, within

__all__ = ["IPRevStage", "reverse_name"]

_log = Logger()

_NAMES: Final = 10
"""Most names of an address that are looked up, as with SPF's ``ptr``."""
_SECONDS: Final = 300.0
_DENIED_SECONDS: Final = 60.0
"""For so long a name is remembered, and that there is none."""


class IPRevStage:
    """Notes `ReverseName` at the `Client`. It refuses nothing: many a house's connection has no name of its own."""

    name = "iprev"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(
        self,
        dns: DNS,
        clock: IReactorTime,
        *,
        greeting_seconds: float = 1.0,
        helo_seconds: float = 2.0,
        remembered: int = 10_000,
    ) -> None:
        """So long a name is waited for before the greeting, and at HELO; it is noted whenever it comes. The names of
        *remembered* addresses are remembered for a few minutes."""
        self._dns = dns
        self._clock = clock
        self._greeting_seconds = greeting_seconds
        self._helo_seconds = helo_seconds
        self._known: Cache[ReverseName] = Cache(clock, remembered)

    async def connect(self, client: Client) -> Verdict:
        """It begins to look. A greeting does not wait for a DNS that is down."""
        if client.address:
            known = self._known.get(client.address, "")
            if known is not None:
                client.note(known[0])
            else:
                client.note(_Looking(Deferred.fromCoroutine(self._look(client))))
                await self._wait(client, self._greeting_seconds)
        return ACCEPTED

    async def helo(self, client: Client) -> Verdict:
        """Who judges by HELO wants to know the name."""
        if client.noted(ReverseName) is None and not await self._wait(client, self._helo_seconds):
            client.note(ReverseName("temperror"))
        return ACCEPTED

    async def _wait(self, client: Client, seconds: float) -> bool:
        """Whether the look-up has come to its end by then."""
        looking = client.noted(_Looking)
        if looking is not None:
            try:
                await within(self._clock, seconds, looking.over())
            except TooSlow:
                return False
        return True

    async def _look(self, client: Client) -> None:
        found, seconds = await _reverse_name(self._dns, client.address)
        client.note(found)
        if found.result != "temperror":
            self._known.put(client.address, "", found, seconds)

    async def closed(self, client: Client) -> None:
        """Nobody asks any more."""
        looking = client.noted(_Looking)
        if looking is not None:
            looking.end()

    async def mail(self, mail: Mail) -> Verdict:
        """The result is part of each message's story."""
        client = mail.client
        found = client.noted(ReverseName)
        if found is None:
            return ACCEPTED
        result = AuthenticationResult("iprev", found.result, "", (("policy.iprev", client.address),), found.name)
        return Verdict(reason=_sentence(client.address, found), results=(result,))


class _Looking:
    """A look-up that runs, noted at the `Client`."""

    def __init__(self, running: Deferred[None]) -> None:
        self._running = running
        self._waiting: list[Deferred[None]] = []
        running.addBoth(self._done)

    def _done(self, result: object) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("looking for a client's name", result)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def over(self) -> None:
        """Wait for its end; who is cancelled takes nothing away from it."""
        if not self._running.called:
            mine: Deferred[None] = Deferred(lambda gone: self._waiting.remove(gone))
            self._waiting.append(mine)
            await mine

    def end(self) -> None:
        self._running.cancel()


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
    return (await _reverse_name(dns, address))[0]


async def _reverse_name(dns: DNS, address: str) -> tuple[ReverseName, float]:
    """With the seconds for which it holds, as far as its names do."""
    seconds = _SECONDS
    try:
        client = ipaddress.ip_address(address.partition("%")[0])
        answer = await dns.ptr(str(client))
        names, seconds = answer.records[:_NAMES], min(seconds, answer.ttl)
    except (NoSuchName, ValueError):
        names = ()
    except DNSFailure:
        return ReverseName("temperror"), 0.0
    if not names:
        return ReverseName("permerror"), min(seconds, _DENIED_SECONDS)
    found = await side_by_side([_has(dns, name, client) for name in names])
    confirmed: Sequence[str] = [name for name, has in zip(names, found) if has]
    if confirmed:
        return ReverseName("pass", confirmed[0], tuple(names)), seconds
    return ReverseName("temperror" if None in found else "fail", "", tuple(names)), min(seconds, _DENIED_SECONDS)


async def _has(dns: DNS, name: str, client: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool | None:
    """Whether *name* has that address; None: the DNS does not say."""
    try:
        answer = await (dns.a(name) if client.version == 4 else dns.aaaa(name))
        return client in [ipaddress.ip_address(each) for each in answer.records]
    except NoSuchName:
        return False
    except DNSFailure:
        return None
