"""Connections to daemons: TCP or a UNIX socket, with a time limit on every wait and a bound on every buffer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mail.filters.values import FilterDown

__all__ = ["Dial", "HungUp", "Place", "Wire", "dial"]

_READ_AHEAD: Final = 1 << 18
"""Octets that lie here before nothing more is read."""


class HungUp(FilterDown):
    """The daemon has closed the connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a daemon listens: a host and a port, or a UNIX socket's path."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """``127.0.0.1:8891``, ``[::1]:8891``, ``unix:/run/x.sock``; also as milters' own configuration says it:
        ``inet:8891@127.0.0.1``, ``inet6:8891@::1``, ``local:/run/x.sock``; and as Postfix does: ``inet:127.0.0.1:8891``.

        Raises: ValueError for anything else.
        """
        if found := re.fullmatch(r"(?:unix|local):(/.+)", text):
            return cls(path=found[1])
        rest = re.sub(r"\A(inet6?|tcp):", "", text)
        if found := re.fullmatch(r"(\d+)@\[?([^\s@\[\]]+)\]?", rest):
            host, port = found[2], int(found[1])
        elif found := re.fullmatch(r"(?:\[([^\s\[\]]+)\]|([^\s:@\[\]]+)):(\d+)", rest):
            host, port = found[1] or found[2], int(found[3])
        else:
            raise ValueError(f"{text!r} is no address: write host:port or unix:/path")
        if not 1 <= port <= 65_535:
            raise ValueError(f"{text!r}: there is no port {port}")
        return cls(host, port)


class Wire:
    """One connection. Every wait raises FilterDown when the time is over or the connection ends; cancelled, it hangs up:
    nobody knows then how far the daemon has come."""

    def __init__(self, protocol: _Stream, clock: Any) -> None:
        # clock: IReactorTime
        self._protocol = protocol
        self._clock = clock

    @property
    def ended(self) -> bool:
        """It can be used no more."""
        return self._protocol.lost

    @property
    def waiting(self) -> bool:
        """Something has come that nobody has received."""
        return bool(self._protocol.waiting)

    def write(self, data: bytes) -> None:
        """Send *data* some time."""
        if not self._protocol.lost:
            self._protocol.transport.write(data)  # type: ignore[union-attr]  # connected

    async def send(self, data: bytes, seconds: float) -> None:
        """Send *data*, and wait until the daemon has taken most of what was sent."""
        self.write(data)
        while self._protocol.full and not self._protocol.lost:
            await self._wait(seconds)
        if self._protocol.lost:
            raise HungUp("it has closed the connection")

    def end(self) -> None:
        """Nothing more is sent: the daemon sees an end behind what was. Its answer can still be received."""
        if not self._protocol.lost:
            transport: Any = self._protocol.transport
            transport.unregisterProducer()
            transport.loseWriteConnection()

    async def receive(self, seconds: float) -> bytes:
        """The next octets, at least one."""
        while not self._protocol.waiting:
            if self._protocol.lost:
                raise HungUp("it has closed the connection")
            await self._wait(seconds)
        return self._protocol.take()

    async def _wait(self, seconds: float) -> None:
        waiter = self._protocol.moved()
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            waiter.cancel()

        timer = self._clock.callLater(seconds, give_up)
        try:
            await waiter
        except CancelledError:
            self.abort()
            if late:
                raise FilterDown(f"no answer in {seconds:g} s") from None
            raise
        finally:
            if timer.active():
                timer.cancel()

    def close(self) -> None:
        """End it when everything is sent."""
        self._protocol.leave()

    def abort(self) -> None:
        """End it now."""
        self._protocol.abort()


@implementer(IPushProducer)
class _Stream(StreamProtocol):
    def __init__(self) -> None:
        self.lost = False
        self.full = False
        self._received: list[bytes] = []
        self.waiting = 0
        """Octets received and not taken."""
        self._paused = False
        self._waiter: Deferred[None] | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self.lost:
            return
        self._received.append(data)
        self.waiting += len(data)
        if self.waiting > _READ_AHEAD and not self._paused:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]  # connected
        self._wake()

    def take(self) -> bytes:
        data = b"".join(self._received)
        self._received.clear()
        self.waiting = 0
        if self._paused and not self.lost:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]  # connected
        return data

    def moved(self) -> Deferred[None]:
        """Fires when something came, or went, or the connection has ended."""
        self._waiter = Deferred()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._wake()

    def leave(self) -> None:
        if self.full:
            self.abort()  # what it has not taken so far it may never take
        elif not self.lost:
            self.lost = True
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseConnection()
            self._wake()

    def abort(self) -> None:
        if not self.lost:
            self.lost = True
            transport: Any = self.transport
            transport.abortConnection()
            self._wake()

    # --- back-pressure

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        self._wake()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""


Dial = Callable[[Place, float], Any]
"""Place and seconds to an awaitable `Wire`; raises FilterDown."""


def dial(reactor: Any) -> Dial:
    """How connections are made with *reactor* (IReactorTCP, IReactorUNIX, IReactorTime)."""

    async def connect(place: Place, seconds: float) -> Wire:
        endpoint: Any
        if place.path:
            endpoint = UNIXClientEndpoint(reactor, place.path, timeout=seconds)
        elif isIPAddress(place.host):  # a name's endpoint costs twice the CPU of all the rest
            endpoint = TCP4ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
        elif isIPv6Address(place.host):
            endpoint = TCP6ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
        elif isIPAddress(place.host):  # no thread that resolves it
            endpoint = TCP4ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
        elif isIPv6Address(place.host):
            endpoint = TCP6ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
        else:
            endpoint = HostnameEndpoint(reactor, place.host, place.port, timeout=seconds)
        try:
            protocol: _Stream = await endpoint.connect(Factory.forProtocol(_Stream))
        except (ConnectError, ConnectingCancelledError, DNSLookupError, OSError) as error:
            raise FilterDown(f"no connection: {error}") from None
        return Wire(protocol, reactor)

    return connect
