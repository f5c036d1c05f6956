"""What the Twisted ends of all protocols share: counting connections, TLS, pausing a peer that is too fast, the timer.

A protocol's `server.py` says what its protocol does with these; nothing here knows a command or a reply.
"""

from __future__ import annotations

import socket
import types
import typing
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mail.proxy_protocol import ProxiedAddress
from twisted_mail.services import Peer
from twisted_mail.tls_info import channel_bindings, describe

__all__ = ["Connection", "Drainable", "ServerFactory", "Session", "flushing", "peer_at", "secured"]


@types.coroutine
def flushing(
    work: Coroutine[Any, Any, None], flush: Callable[[], None], resumes: Callable[[], None] = lambda: None
) -> Generator[Any, Any, None]:
    """Drive *work*; call *flush* whenever it has to wait (replies that are ready do not wait with it), and *resumes*
    before it goes on."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        try:
            awaited = step(value)
        except StopIteration:
            return
        flush()
        try:
            value = yield awaited
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step, value = work.throw, error
        resumes()


def peer_at(address: IAddress | None, service: str) -> Peer:
    """Who has connected from *address* to *service*; a UNIX socket's peer has no address."""
    if isinstance(address, ProxiedAddress):
        described = address.tls_description
        return Peer(address.host, address.port, secure=address.secure, tls_description=described, service=service)
    if isinstance(address, (IPv4Address, IPv6Address)):
        return Peer(address.host, address.port, service=service)
    return Peer("", 0, service=service)


def secured(peer: Peer, connection: SSL.Connection) -> Peer:
    """*peer* after the TLS handshake of *connection*."""
    return replace(
        peer, secure=True, channel_bindings=channel_bindings(connection), tls_description=describe(connection)
    )


class Drainable(typing.Protocol):
    """A connection, as far as its factory needs it."""

    def drain(self) -> None:
        """The server is to end: leave when the protocol allows it."""


class ServerFactory(Factory):
    """Counts the connections of one listener, all and by address; a protocol's own adds how they are built."""

    noisy = False

    def __init__(
        self, tls_options: Any, clock: IReactorTime, hostname: str, connections_per_address: int, *, implicit_tls: bool
    ) -> None:
        # tls_options: what `transport.startTLS` takes (a context factory or an IOpenSSLServerConnectionCreator), or
        # None: no TLS; Any, since Twisted's two interfaces have no common type.
        # connections_per_address: 0 for as many as there come
        if implicit_tls and tls_options is None:
            raise ValueError("TLS from the start needs TLS options")
        self.tls_options = tls_options
        self.clock = clock
        self.hostname = hostname
        self.implicit_tls = implicit_tls
        self.draining = False
        """New connections are turned away."""
        self._connections_per_address = connections_per_address
        self._connections: set[Drainable] = set()
        self._by_address: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def by_address(self) -> Mapping[str, int]:
        """Connections by IP address."""
        return self._by_address

    def admit(self, connection: Drainable, address: str) -> bool:
        """Count *connection*; False if its address has too many."""
        most = self._connections_per_address
        allowed = not (most and address and self._by_address[address] >= most)
        self._connections.add(connection)
        self._by_address[address] += 1
        return allowed

    def forget(self, connection: Drainable, address: str) -> None:
        """*connection* has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]

    def drain(self) -> None:
        """Take nobody new, and let each connection leave when its protocol allows it."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()


class Session(typing.Protocol):
    """What a `Connection` needs of its session: octets in, octets out, and to be told what has become of the peer."""

    tls_requested: bool
    """After the output is sent, the TLS handshake comes."""

    @property
    def waiting(self) -> int:
        """Octets that were received and not used yet."""

    def greet(self) -> None: ...
    def receive(self, data: bytes) -> None: ...
    def take_output(self) -> bytes: ...
    def tls_started(self, peer: Peer) -> None: ...
    def leave(self) -> None: ...
    async def abandon(self) -> None: ...


S = TypeVar("S", bound=Session)


@implementer(IHandshakeListener, IPushProducer)
class Connection(Protocol, ABC, Generic[S]):
    """A connection whose session takes octets and works on them in batches, one after the other.

    As a producer it is paused by its own transport when the peer does not read.
    """

    _too_many: ClassVar[bytes]
    """Said to one connection too many from its address."""
    _shutting_down: ClassVar[bytes]
    """Said to one that comes while the server drains."""
    _log: Logger
    _session: S

    def __init__(self, factory: ServerFactory, peer: Peer, buffer_bytes: int) -> None:
        # buffer_bytes: with more waiting than this, while there is work, nothing more is read
        self._factory = factory
        self._clock = factory.clock
        self._peer = peer
        self._buffer_bytes = buffer_bytes
        self._running: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._began = 0.0
        self._last_moved = 0.0
        self._paused_for_input = False
        self._paused_by_transport = False
        self._ended = False
        self._straight: socket.socket | None = None
        """The connection's own socket, while no TLS is on it and nothing waits in the transport."""

    def _failed(self, error: BaseException) -> None:
        self._failed_with(Failure(error))

    def _failed_with(self, failure: Failure) -> None:
        self._log.failure(
            "{service} from {address}: something failed",
            failure,
            service=self._peer.service,
            address=self._peer.address,
        )

    # --- connection

    def connectionMade(self) -> None:
        """Greet, or begin with TLS."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay") and self._peer.address:
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        self._straight = handle if isinstance(handle, socket.socket) else None
        self._began = self._last_moved = self._clock.seconds()
        self._arm()
        if not self._factory.admit(self, self._peer.address):
            transport.write(self._too_many)
            self._lose()
        elif self._factory.draining:
            transport.write(self._shutting_down)
            self._lose()
        elif INegotiated.providedBy(transport):
            pass  # a wrapper does TLS already: `handshakeCompleted` follows
        elif self._factory.implicit_tls:
            self._start_tls()
        else:
            self._greet()

    def _start_tls(self) -> None:
        transport: Any = self.transport
        self._straight = None
        transport.startTLS(self._factory.tls_options)

    def handshakeCompleted(self) -> None:
        """TLS is active: if the client has asked for it, it speaks first, else we do."""
        starting = self._session.tls_requested
        self._peer = secured(self._peer, self.transport.getHandle())  # type: ignore[union-attr]  # a TLS transport's
        self._session.tls_started(self._peer)
        self._last_moved = self._clock.seconds()
        if not starting and not self._ended:
            self._greet()

    def _greet(self) -> None:
        self._session.greet()
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Everything that the session holds is given back, when what it is doing has come to an end."""
        self._ended = True
        self._factory.forget(self, self._peer.address)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._session.leave()
        if self._running is None:
            self._abandon()
        else:
            self._lost_at_work(self._running)

    @abstractmethod
    def _lost_at_work(self, running: Deferred[None]) -> None:
        """The connection has gone while there is work: interrupt it, or let it run."""

    def _abandon(self) -> None:
        Deferred.fromCoroutine(self._session.abandon()).addErrback(self._failed_with)

    # --- octets

    def dataReceived(self, data: bytes) -> None:
        """Take octets; what is whole is carried out, one batch at a time."""
        if self._ended:
            return
        self._last_moved = self._clock.seconds()
        self._session.receive(data)
        if self._running is None:
            self._run()
        elif not self._paused_for_input and self._session.waiting > self._buffer_bytes:
            self._paused_for_input = True
            self._update_reading()

    @abstractmethod
    def _run(self) -> None:
        """Begin with what has come; `_running` until that is done, if it is not done at once."""

    def _flush(self) -> None:
        if not self._ended:
            output = self._session.take_output()
            if output:
                self._write(output)

    def _write(self, data: bytes) -> None:
        """Send octets.

        They are given to the kernel at once, where that is possible: a reply mostly fits whole, and through the transport it
        costs two more system calls and a turn of the reactor. Once something did not fit, the transport has the rest of the
        connection, so that nothing overtakes what waits there.
        """
        if self._straight is not None:
            try:
                sent = self._straight.send(data)
            except OSError:  # full, or gone: the transport knows what to do about either
                sent = 0
            if sent == len(data):
                return
            self._straight = None
            data = data[sent:]
        self.transport.write(data)  # type: ignore[union-attr]  # connected

    def _lose(self) -> None:
        """End the connection when everything is written."""
        if self._ended:
            return
        self._ended = True
        transport: Any = self.transport
        transport.unregisterProducer()
        if self._paused_for_input or self._paused_by_transport:
            transport.resumeProducing()  # a paused transport does not learn that its peer is gone
        transport.loseConnection()

    @abstractmethod
    def drain(self) -> None:
        """See `Drainable`."""

    # --- back-pressure

    def pauseProducing(self) -> None:
        """The peer does not read: listen no more until it does."""
        self._paused_by_transport = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """What was written is through."""
        self._paused_by_transport = False
        self._update_reading()

    def stopProducing(self) -> None:
        """The transport ends; `connectionLost` follows."""

    def _read_on(self) -> None:
        """The input that waited is used up."""
        if self._paused_for_input:
            self._paused_for_input = False
            self._update_reading()

    def _update_reading(self) -> None:
        if self._ended:
            return
        transport: Any = self.transport
        if self._paused_for_input or self._paused_by_transport:
            transport.pauseProducing()
        else:
            transport.resumeProducing()

    # --- time

    def _arm(self) -> None:
        """One timer per connection: it looks when something last moved, and comes again when that was lately."""
        self._timer = self._clock.callLater(max(self._due() - self._clock.seconds(), 0.001), self._look)

    @abstractmethod
    def _due(self) -> float:
        """When the connection is given up, if nothing happens."""

    @abstractmethod
    def _look(self) -> None:
        """The timer has run: give the connection up if it is due, else arm it again."""
