"""Connections behind a proxy: whose they are is known when the PROXY header has come, and only who is trusted may say it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.proxy_protocol import BadHeader, Origin, ProxiedAddress, ProxyHeader

__all__ = ["PREFIX", "Introduction", "Proxying", "Trusted", "bare"]

PREFIX: Final = "haproxy:"
"""In front of an endpoint: who connects there speaks the PROXY protocol first. (Twisted's own word for it; its wrapper believes
everybody, waits for ever, and shows the counters the proxy's address.)"""
HEADER_SECONDS: Final = 5.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def bare(endpoint: str) -> str:
    """*endpoint* without the prefix."""
    return endpoint.removeprefix(PREFIX)


@dataclass(frozen=True, slots=True)
class Trusted:
    """Networks of our own proxies and relays (`smtp.trusted`)."""

    networks: tuple[Network, ...] = ()

    def __call__(self, address: str) -> bool:
        """Whether the peer at *address* is believed; a UNIX socket's (empty) always is: the file's mode says who may."""
        if not address:
            return True
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip.version == network.version and ip in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Proxying:
    """What a listener behind a proxy needs."""

    clock: Any
    """IReactorTime."""
    trusted: Callable[[str], bool]
    seconds: float = HEADER_SECONDS
    """For the header to come whole."""


class Introduction(Protocol):
    """A connection until its header has come; then its protocol takes its place at the transport, with nothing in between.

    A header that does not come, is none, or comes too late ends the connection.
    """

    _log = Logger()

    def __init__(
        self,
        proxying: Proxying,
        listener: str,
        proxy: IAddress | None,
        introduced: Callable[[Introduction, IAddress | None], Any],
    ) -> None:
        """*introduced* gives the protocol for an address, or None: the connection is ended."""
        self._proxying = proxying
        self._listener = listener
        self._proxy = proxy
        self._introduced = introduced
        self._header = ProxyHeader()
        self._timer: Any = None
        self._over = False

    def connectionMade(self) -> None:
        """The header has its time."""
        self._timer = self._proxying.clock.callLater(self._proxying.seconds, self._give_up, "no PROXY header came in time")

    def dataReceived(self, data: bytes) -> None:
        """Octets of the header, and what comes behind it."""
        if self._over:
            return
        try:
            origin = self._header.feed(data)
        except BadHeader as error:
            self._give_up(str(error))
            return
        if origin is not None:
            self._over = True
            self._timer.cancel()
            self._hand_over(origin)

    def _hand_over(self, origin: Origin) -> None:
        transport: Any = self.transport
        address = self._proxy
        if origin.address:
            address = ProxiedAddress("TCP", origin.address, origin.port, origin.secure, origin.tls_description)
        protocol = self._introduced(self, address)
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if self._header.rest:
            transport.protocol.dataReceived(self._header.rest)  # TLS, if it has begun, has taken the protocol's place

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The proxy has thought better of it."""
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _give_up(self, why: str) -> None:
        self._over = True
        if self._timer.active():
            self._timer.cancel()
        host = getattr(self._proxy, "host", "a UNIX socket")
        self._log.info("{listener}: {host} is hung up on: {why}", listener=self._listener, host=host, why=why)
        self.transport.abortConnection()  # type: ignore[union-attr]  # connected
