"""Listening sockets: bound early and silent, opened once there is something behind them, counted, and drained.

A `Gate` stands in every port as its factory. Until `open` it accepts nothing (the kernel's backlog holds who comes
early); from then on it lets connections through to the protocol's own factory, as far as the limits allow.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.proxy_protocol import ProxiedAddress
from twisted_mail.tap.kinds import show
from twisted_mail.tap.proxied import PREFIX, Introduction, Proxying, Trusted, bare
from twisted_mail.tap.settings import Configuration, listeners_of

__all__ = ["AdoptedSocket", "ConnectionCounts", "Gate", "Listener", "StartError", "adopt_all", "bind_all"]


class StartError(Exception):
    """The server cannot start. The text is for the operator: which setting, and what is the matter with it."""


class ConnectionCounts:
    """How many connections there are, altogether and by address; 0 as a limit means none."""

    def __init__(self, *, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._by_address: Counter[str] = Counter()
        self.now = 0

    def admit(self, address: str) -> bool:
        """Count a connection from *address* (empty: a UNIX socket, which only the total holds for), or refuse it."""
        if self._total and self.now >= self._total:
            return False
        if address and self._per_address and self._by_address[address] >= self._per_address:
            return False
        self.now += 1
        if address:
            self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection that was admitted has ended."""
        self.now -= 1
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


PROBES: Final = 100
"""Connections at a time to one port for probes."""

_REFUSALS: Final[Mapping[str, bytes]] = {
    "smtp": b"421 4.7.0 Too many connections, try again later\r\n",
    "submission": b"421 4.7.0 Too many connections, try again later\r\n",
    "lmtp": b"421 4.7.0 Too many connections, try again later\r\n",
    "imap": b"* BYE [LIMIT] Too many connections\r\n",
    "pop3": b"-ERR [SYS/TEMP] Too many connections\r\n",
    "managesieve": b'BYE (TRYLATER) "Too many connections"\r\n',
}
"""What a refused connection is told, by listener (RFC 5321 section 3.8, RFC 9051 section 7.1.5, RFC 3206, RFC 5804); one that is
encrypted from the start is only closed: a handshake costs more than it is worth."""


class _Refused(StreamProtocol):
    def __init__(self, text: bytes) -> None:
        self._text = text

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.write(self._text)
            self.transport.loseConnection()


class Gate(Factory):
    """The factory of one port: refuses what is over a limit, passes on the rest, knows who is there."""

    noisy = False
    _log = Logger()

    def __init__(self, name: str, counts: ConnectionCounts, proxying: Proxying | None = None) -> None:
        """*proxying*: connections come by proxies, which say for whom (PROXY protocol)."""
        self.name = name
        self._counts = counts
        self._proxying = proxying
        self._inner: Factory | None = None
        self._here: set[Any] = set()
        self._waiting: list[Deferred[None]] = []

    @property
    def connections(self) -> int:
        """Connections that came in here and are still there."""
        return len(self._here)

    def logPrefix(self) -> str:
        """Names the port in Twisted's own lines ("imap starting on 8143")."""
        return self.name

    def fill(self, inner: Factory) -> None:
        """What stands behind from now on."""
        self._inner = inner

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol of the inner factory's; one that says no; or None, which closes the connection."""
        if self._inner is None:
            return None
        if self._proxying is None:
            return self._admitted(addr)
        if not self._proxying.trusted(_host(addr)):
            self._log.info("{listener}: {address} is no trusted proxy", listener=self.name, address=_host(addr))
            return None
        if not self._counts.admit(""):  # by address it is counted when that is known
            return self._refused(_host(addr))
        introduction = Introduction(self._proxying, self.name, addr, self._introduced)
        self._watch(introduction, "")
        return introduction

    def _introduced(self, introduction: Introduction, addr: IAddress | None) -> Any:
        self._counts.leave("")
        protocol = self._admitted(addr)
        self._here.discard(introduction)
        self._tell_if_empty()
        return protocol

    def _admitted(self, addr: IAddress | None) -> Any:
        address = _host(addr)
        if not self._counts.admit(address):
            return self._refused(address)
        assert self._inner is not None  # nothing is accepted before
        protocol = self._inner.buildProtocol(addr)
        if protocol is None:
            self._counts.leave(address)
            return None
        self._watch(protocol, address)
        return protocol

    def _refused(self, address: str) -> Any:
        self._log.info("{listener}: too many connections, {address} is refused", listener=self.name, address=address)
        refusal = _REFUSALS.get(self.name)
        return _Refused(refusal) if refusal is not None else None

    def _watch(self, protocol: Any, address: str) -> None:
        """Learn when *protocol* ends, without a layer around its transport that every octet would go through."""
        lost: Callable[[Failure], object] = protocol.connectionLost

        def connection_lost(reason: Failure = connectionDone) -> None:
            if protocol in self._here:
                self._here.discard(protocol)
                self._counts.leave(address)
            try:
                lost(reason)
            finally:
                self._tell_if_empty()

        self._here.add(protocol)
        protocol.connectionLost = connection_lost

    def _tell_if_empty(self) -> None:
        if not self._here:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def empty(self) -> Deferred[None]:
        """Fires when no connection is left."""
        waiting: Deferred[None] = Deferred()
        if self._here:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def abort(self) -> int:
        """End what is left at once; says how many connections that were."""
        left = list(self._here)
        for protocol in left:
            if (transport := protocol.transport) is not None:
                transport.abortConnection()
        return len(left)


def _host(addr: IAddress | None) -> str:
    """The IP address, as text; empty: it has none."""
    return addr.host if isinstance(addr, (IPv4Address, IPv6Address, ProxiedAddress)) else ""


class _Port(Protocol):
    """What Twisted's TCP and UNIX ports have."""

    addressFamily: int

    def fileno(self) -> int: ...
    def stopReading(self) -> None: ...
    def startReading(self) -> None: ...
    def stopListening(self) -> Deferred[None] | None: ...
    def getHost(self) -> IAddress: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound port with its gate."""

    name: str
    """The listener's name in the configuration, e.g. ``imaps``."""
    endpoint: str
    port: _Port
    gate: Gate

    def open(self, inner: Factory) -> None:
        """Begin to accept, for *inner*."""
        self.gate.fill(inner)
        self.port.startReading()

    async def close(self) -> None:
        """Accept nothing any more; connections that are there stay."""
        ended = self.port.stopListening()
        if ended is not None:
            await ended


@dataclass(frozen=True, slots=True)
class AdoptedSocket:
    """A listening socket that a master has bound, as it is named on a worker's command line."""

    name: str
    descriptor: int
    family: int
    proxied: bool = False
    """Who connects there speaks the PROXY protocol first."""

    def __str__(self) -> str:
        return f"{self.name}={self.descriptor}:{self.family}{':proxied' if self.proxied else ''}"

    @classmethod
    def parse(cls, text: str) -> AdoptedSocket:
        """Read what ``str()`` wrote. Raises ValueError for anything else."""
        name, _, rest = text.partition("=")
        descriptor, _, rest = rest.partition(":")
        family, _, proxied = rest.partition(":")
        if proxied not in ("", "proxied"):
            raise ValueError(text)
        return cls(name, int(descriptor), int(family), bool(proxied))


def bind_all(reactor: Any, configuration: Configuration, counts: ConnectionCounts) -> list[Listener]:
    """Bind every listener of *configuration*; none accepts yet. Raises: StartError (then nothing stays bound)."""
    bound: list[Listener] = []
    try:
        for name in listeners_of(configuration):
            for endpoint in getattr(configuration.listen, name):
                bound.append(_bind(reactor, name, endpoint, _counts_for(name, counts), configuration))
    except StartError:
        for listener in bound:
            listener.port.stopListening()
        raise
    return bound


def _counts_for(name: str, counts: ConnectionCounts) -> ConnectionCounts:
    """A server that is full of mail connections must still answer a probe: else it is taken for dead."""
    return ConnectionCounts(total=PROBES, per_address=0) if name == "metrics" else counts


def _proxying(reactor: Any, configuration: Configuration) -> Proxying:
    return Proxying(reactor, Trusted(configuration.smtp.trusted))


def adopt_all(
    reactor: Any, sockets: list[AdoptedSocket], counts: ConnectionCounts, configuration: Configuration
) -> list[Listener]:
    """The listeners of a worker, from the sockets that its master has bound; none accepts yet."""
    adopted = []
    for each in sockets:
        proxying = _proxying(reactor, configuration) if each.proxied else None
        gate = Gate(each.name, _counts_for(each.name, counts), proxying)
        port = reactor.adoptStreamPort(each.descriptor, socket.AddressFamily(each.family), gate)
        port.stopReading()
        adopted.append(Listener(each.name, "", port, gate))
    return adopted


def _bind(reactor: Any, name: str, endpoint: str, counts: ConnectionCounts, configuration: Configuration) -> Listener:
    gate = Gate(name, counts, _proxying(reactor, configuration) if endpoint.startswith(PREFIX) else None)
    done: list[Any] = []
    try:
        serverFromString(reactor, bare(endpoint)).listen(gate).addBoth(done.append)
    except Exception as error:  # an endpoint of a plugin raises whatever it likes
        done.append(Failure(error))
    if done and isinstance(done[0], Failure):
        raise StartError(f"listen.{name}: {show(endpoint)} {_why(done[0].value)}")
    port: Any = done[0] if done else None
    if not hasattr(port, "stopReading") or not hasattr(port, "fileno"):
        raise StartError(f"listen.{name}: {show(endpoint)} is not a listening socket, which is what is needed here")
    port.stopReading()
    return Listener(name, endpoint, port, gate)


def _why(error: BaseException | None) -> str:
    cause: object = error.socketError if isinstance(error, CannotListenError) else error
    match getattr(cause, "errno", None):
        case errno.EADDRINUSE:
            return "is in use: another program, or another server of ours, listens there"
        case errno.EACCES | errno.EPERM:
            return (
                "may not be bound: below port 1024 (or in that folder) it takes root; "
                "start as root with twistd's --uid, or give the socket by systemd"
            )
        case errno.EADDRNOTAVAIL:
            return "cannot be bound: this machine has no such address"
    if isinstance(cause, str) and "lock" in cause.lower():
        return "is in use: another process holds its lock"
    return f"cannot be bound: {cause}"
