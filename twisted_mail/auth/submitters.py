"""Networks that submit mail without logging in, each as an account of ours (`smtp.submitters`): printers, monitoring, programs
on this machine.

What they may do is what that account may do: its sender addresses, its limits, its stream. A peer that speaks for others
(`smtp.trusted`: a proxy, a server in front) is never meant itself, however wide the network is that it stands in: without the
address of its client nobody knows whose mail it brings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from twisted.logger import Logger

from twisted_mail.auth.throttle import plain_address
from twisted_mail.services import Identity, Peer

__all__ = ["Submitters", "too_wide"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WIDEST: Final = {4: 8, 6: 32}
"""Bits that a network must fix at least: 10.0.0.0/8, and what one provider has of IPv6."""
MOST_REMEMBERED: Final = 1000
"""Addresses."""
_LOCAL_IPV6: Final = (ipaddress.IPv6Network("fc00::/7"), ipaddress.IPv6Network("fe80::/10"))
"""RFC 4193, RFC 4291 section 2.5.6: nobody comes from there over the internet."""


def too_wide(network: Network) -> bool:
    """Whether it holds so much of the internet that a server which trusts it is an open relay."""
    if isinstance(network, ipaddress.IPv6Network) and any(network.subnet_of(each) for each in _LOCAL_IPV6):
        return False
    return network.prefixlen < WIDEST[network.version]


class People(Protocol):
    """Accounts, and what they may send (`AuthenticationService`)."""

    async def identity_of(self, login: str) -> Identity | None: ...

    async def may_send_as(self, identity: Identity, address: str) -> bool: ...


class Submitters:
    """Implements `services.Submitters`."""

    _log = Logger()

    def __init__(
        self,
        networks: Mapping[Network, str],
        people: People,
        now: Callable[[], float],
        *,
        fronts: Callable[[str], bool] = lambda address: False,
        remember_seconds: float = 1.0,
    ) -> None:
        """*networks* with the login of each; of several that hold an address the narrowest counts. *fronts*: whether an
        address is a proxy's or a front server's. *remember_seconds* by *now*: how long what an account is need not be asked
        again; who opens a connection for each message would ask for each."""
        self._networks = tuple(sorted(networks.items(), key=lambda each: -each[0].prefixlen))
        self._people = people
        self._now = now
        self._fronts = fronts
        self._remember_seconds = remember_seconds
        self._logins: dict[str, str | None] = {}
        """What was found for addresses."""
        self._recent: dict[str, tuple[float, Identity]] = {}

    def login_of(self, peer: Peer) -> str | None:
        """See `services.Submitters`. A UNIX socket has no network."""
        if peer.address not in self._logins:
            if len(self._logins) >= MOST_REMEMBERED:
                self._logins.clear()
            self._logins[peer.address] = self._login_of(peer.address)
        return self._logins[peer.address]

    def _login_of(self, text: str) -> str | None:
        if not text or self._fronts(text):
            return None
        address = plain_address(text)
        if address is None:
            return None
        for network, login in self._networks:
            if network.version == address.version and address in network:
                return login
        return None

    async def identity(self, peer: Peer) -> Identity | None:
        """See `services.Submitters`. Raises: StorageError."""
        login = self.login_of(peer)
        if login is None:
            return None
        recent, now = self._recent.get(login), self._now()
        if recent is not None and now < recent[0] + self._remember_seconds:
            return recent[1]
        identity = await self._people.identity_of(login)
        if identity is None:
            self._log.warn(
                "{service}: {address} cannot submit as {login}: there is no such account, or it is disabled (smtp.submitters)",
                service=peer.service, address=peer.address, login=login,
            )  # fmt: skip
            return None
        self._recent[login] = (now, identity)
        return identity

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        """See `services.Authentication.may_send_as`."""
        return await self._people.may_send_as(identity, address)
