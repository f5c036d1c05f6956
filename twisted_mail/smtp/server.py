"""The Twisted end of a session: moves octets, owns the clock, pauses a peer that is too fast, does TLS."""

from __future__ import annotations

import time
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
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

from twisted_mail import tls_info
from twisted_mail.services import Authentication, Intake, Peer
from twisted_mail.smtp.profiles import Limits, Profile
from twisted_mail.smtp.session import Session

__all__ = ["SMTPServer", "SMTPServerFactory"]


@types.coroutine
def _flushing(work: Coroutine[Any, Any, None], flush: Callable[[], None]) -> Generator[Any, Any, None]:
    """Drive *work*, and call *flush* whenever it has to wait: replies that are ready do not wait with it."""
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


@implementer(IHandshakeListener, IPushProducer)
class SMTPServer(Protocol):
    """One connection. As a producer it is paused by its own transport when the peer does not read its replies."""

    _log = Logger()

    def __init__(self, factory: SMTPServerFactory, address: str, port: int) -> None:
        self._factory = factory
        self._limits = factory.limits
        self._clock = factory.clock
        self._peer = Peer(address, port, service=factory.profile.name)
        self._session = self._new_session()
        self._running: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._last_heard = 0.0
        self._began = 0.0
        self._paused_for_input = False
        self._paused_by_transport = False
        self._ended = False

    def _new_session(self) -> Session:
        factory = self._factory
        return Session(
            factory.profile,
            factory.limits,
            factory.intake,
            factory.authentication,
            self._peer,
            factory.hostname,
            tls_available=factory.tls_options is not None,
            now=factory.wall,
            log=self._failed,
        )

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
        self._began = self._last_heard = self._clock.seconds()
        self._arm()
        if not self._factory.admit(self, self._peer.address):
            transport.write(b"421 4.7.0 Too many connections from your address\r\n")
            self._lose()
        elif self._factory.draining:
            transport.write(b"421 4.3.2 The server is shutting down, try again later\r\n")
            self._lose()
        elif INegotiated.providedBy(transport):
            pass  # a wrapper does TLS already: `handshakeCompleted` follows
        elif self._factory.implicit_tls:
            transport.startTLS(self._factory.tls_options)
        else:
            self._greet()

    def handshakeCompleted(self) -> None:
        """TLS is active: after STARTTLS the client speaks first, else we do."""
        connection: Any = self.transport.getHandle()  # type: ignore[union-attr]  # a TLS transport has it
        starting = self._session.tls_requested
        self._peer = Peer(
            self._peer.address,
            self._peer.port,
            secure=True,
            channel_bindings=tls_info.channel_bindings(connection),
            tls_description=tls_info.describe(connection),
            service=self._peer.service,
        )
        self._session.tls_started(self._peer)
        self._last_heard = self._clock.seconds()
        if not starting:
            self._greet()

    def _greet(self) -> None:
        self._session.greet()
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing of a message that had not come whole stays; one that had is finished."""
        self._ended = True
        self._factory.forget(self, self._peer.address)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._session.leave()
        if self._running is None:
            self._abandon()
        elif not self._session.finishing:
            self._running.cancel()

    def _abandon(self) -> None:
        Deferred.fromCoroutine(self._session.abandon()).addErrback(self._failed_with)

    # --- octets

    def dataReceived(self, data: bytes) -> None:
        """Take octets; what is whole is carried out, one batch at a time."""
        if self._ended:
            return
        self._last_heard = self._clock.seconds()
        self._session.receive(data)
        if self._running is None:
            self._run()
        elif not self._paused_for_input and self._session.waiting > self._limits.buffer_bytes:
            self._paused_for_input = True
            self._update_reading()

    def _run(self) -> None:
        work = self._session.advance()
        done = Deferred.fromCoroutine(self._advance(work))
        if done.called:
            done.addCallbacks(self._advanced, self._broken)
            return
        self._running = done
        done.addCallbacks(self._advanced, self._broken)

    async def _advance(self, work: Coroutine[Any, Any, None]) -> None:
        await _flushing(work, self._flush)

    def _advanced(self, result: None) -> None:
        self._running = None
        self._last_heard = self._clock.seconds()
        if self._ended:
            return self._abandon()
        self._flush()
        session = self._session
        if session.closing:
            self._lose()
        elif session.tls_requested:
            transport: Any = self.transport
            transport.startTLS(self._factory.tls_options)
        if self._paused_for_input:
            self._paused_for_input = False
            self._update_reading()
        return None

    def _broken(self, failure: Failure) -> None:
        """The session was interrupted, because the connection has gone or took too long; anything else is our fault."""
        self._running = None
        if not self._ended:
            self._session.leave()
            transport: Any = self.transport
            if failure.check(CancelledError):
                self._log.warn("{service}: work took too long", service=self._peer.service)
                transport.write(b"421 4.4.2 This took too long, closing the connection\r\n")
            else:
                self._failed_with(failure)
                transport.write(b"421 4.3.0 Local error, closing the connection\r\n")
            self._lose()
        self._abandon()

    def _flush(self) -> None:
        if not self._ended:
            output = self._session.take_output()
            if output:
                self.transport.write(output)  # type: ignore[union-attr]  # connected

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

    # --- back-pressure

    def pauseProducing(self) -> None:
        """The peer does not read: listen no more until it does."""
        self._paused_by_transport = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """The replies are through."""
        self._paused_by_transport = False
        self._update_reading()

    def stopProducing(self) -> None:
        """The transport ends; `connectionLost` follows."""

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
        """One timer per connection: it looks when the peer was last heard, and comes again when that was lately."""
        self._timer = self._clock.callLater(max(self._due() - self._clock.seconds(), 0.001), self._look)

    def _due(self) -> float:
        """When the connection is given up, if nothing happens."""
        limits = self._limits
        if self._ended:
            return self._last_heard + limits.command_seconds
        if self._running is not None:
            return self._last_heard + max(limits.work_seconds, limits.command_seconds)
        wait = limits.data_seconds if self._session.in_body else limits.command_seconds
        due = self._last_heard + wait
        if self._factory.profile.submission and limits.login_seconds and self._session.identity is None:
            due = min(due, self._began + limits.login_seconds)
        return due

    def _look(self) -> None:
        if self._clock.seconds() < self._due():
            self._arm()
            return
        transport: Any = self.transport
        if self._ended:
            transport.abortConnection()  # it was told to go, and does not take the last words
            return
        if self._running is not None:
            self._session.leave()
            self._running.cancel()  # `_broken` says goodbye
            self._arm()
            return
        self._session.timed_out()
        self._session.leave()
        self._flush()
        self._lose()
        self._abandon()
        self._arm()

    def drain(self) -> None:
        """Leave as soon as no transaction is going on."""
        self._session.drain()
        if self._running is None and not self._ended:
            self._run()


class SMTPServerFactory(Factory):
    """Builds the connections of one listener, TCP or UNIX; *profile* says whether SMTP, submission or LMTP."""

    noisy = False

    def __init__(
        self,
        profile: Profile,
        intake: Intake,
        authentication: Authentication | None,
        limits: Limits,
        tls_options: Any,
        clock: IReactorTime,
        hostname: str,
        *,
        implicit_tls: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # tls_options: what `transport.startTLS` takes (a context factory or an IOpenSSLServerConnectionCreator), or
        # None: no TLS; Any, since Twisted's two interfaces have no common type
        if implicit_tls and tls_options is None:
            raise ValueError("TLS from the start needs TLS options")
        self.profile = profile
        self.intake = intake
        self.authentication = authentication
        self.limits = limits
        self.tls_options = tls_options
        self.clock = clock
        self.hostname = hostname
        self.implicit_tls = implicit_tls
        self.wall = wall
        self.draining = False
        """New connections are turned away."""
        self._connections: set[SMTPServer] = set()
        self._by_address: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> SMTPServer:
        """A connection from *addr*; a UNIX socket's peer has no address."""
        if isinstance(addr, (IPv4Address, IPv6Address)):
            protocol = SMTPServer(self, addr.host, addr.port)
        else:
            protocol = SMTPServer(self, "", 0)
        protocol.factory = self
        return protocol

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def by_address(self) -> Mapping[str, int]:
        """Connections by IP address."""
        return self._by_address

    def admit(self, connection: SMTPServer, address: str) -> bool:
        """Count *connection*; False if its address has too many."""
        most = self.limits.connections_per_address
        allowed = not (most and address and self._by_address[address] >= most)
        self._connections.add(connection)
        self._by_address[address] += 1
        return allowed

    def forget(self, connection: SMTPServer, address: str) -> None:
        """*connection* has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]

    def drain(self) -> None:
        """Say 421 to every connection when its transaction is over, and at once to those that have none."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()

