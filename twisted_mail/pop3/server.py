"""The Twisted end of a session: moves octets, owns the clock, waits for a slow peer and pauses a fast one, does TLS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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

from twisted_mail.pop3.login import LastLogins
from twisted_mail.pop3.session import Session
from twisted_mail.pop3.settings import Settings
from twisted_mail.services import Accounts, Authentication, Peer
from twisted_mail.tls_info import channel_bindings, describe

__all__ = ["POP3Server", "POP3ServerFactory"]


@implementer(IHandshakeListener, IPushProducer)
class POP3Server(Protocol):
    """One connection. As a producer it is paused by its own transport when the peer does not read."""

    _log = Logger()

    def __init__(self, factory: POP3ServerFactory, address: str, port: int) -> None:
        self._factory = factory
        self._settings = factory.settings
        self._clock = factory.clock
        self._peer = Peer(address, port, service="pop3")
        self._session = Session(
            factory.accounts,
            factory.authentication,
            self._peer,
            factory.settings,
            factory.hostname,
            self._push,
            last_logins=factory.last_logins,
            tls_available=factory.tls_options is not None,
            log=self._failed,
        )
        self._running: Deferred[None] | None = None
        self._until_read: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._began = 0.0
        self._last_moved = 0.0
        self._paused_for_input = False
        self._paused_by_transport = False
        self._ended = False
        self._abandoned = False

    def _failed(self, error: BaseException) -> None:
        self._failed_with(Failure(error))

    def _failed_with(self, failure: Failure) -> None:
        self._log.failure("pop3 from {address}: something failed", failure, address=self._peer.address)

    # --- connection

    def connectionMade(self) -> None:
        """Greet, or begin with TLS."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay") and self._peer.address:
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._began = self._last_moved = self._clock.seconds()
        self._arm()
        if not self._factory.admit(self, self._peer.address):
            transport.write(b"-ERR [SYS/TEMP] too many connections from your address\r\n")
            self._lose()
        elif self._factory.draining:
            transport.write(b"-ERR [SYS/TEMP] the server is shutting down\r\n")
            self._lose()
        elif INegotiated.providedBy(transport):
            pass  # a wrapper does TLS already: `handshakeCompleted` follows
        elif self._factory.implicit_tls:
            transport.startTLS(self._factory.tls_options)
        else:
            self._greet()

    def handshakeCompleted(self) -> None:
        """TLS is active: after STLS the client speaks first, else we do."""
        connection: Any = self.transport.getHandle()  # type: ignore[union-attr]  # a TLS transport has it
        starting = self._session.tls_requested
        self._peer = Peer(
            self._peer.address,
            self._peer.port,
            secure=True,
            channel_bindings=channel_bindings(connection),
            tls_description=describe(connection),
            service=self._peer.service,
        )
        self._session.tls_started(self._peer)
        self._last_moved = self._clock.seconds()
        if not starting and not self._ended:
            self._greet()

    def _greet(self) -> None:
        self._session.greet()
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever goes without QUIT deletes nothing; a QUIT that was begun is finished."""
        self._ended = True
        self._factory.forget(self, self._peer.address)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._session.leave()
        if self._running is None:
            self._abandon()
        elif self._until_read is not None:
            self._until_read.cancel()
        # else: what runs is let run, so that nothing it takes (the lock) is lost; `_advanced` or `_broken` gives it back

    def _abandon(self) -> None:
        if not self._abandoned:
            self._abandoned = True
            Deferred.fromCoroutine(self._session.abandon()).addErrback(self._failed_with)

    # --- octets

    def dataReceived(self, data: bytes) -> None:
        """Take octets; what is whole is carried out, one command after the other."""
        if self._ended:
            return
        self._last_moved = self._clock.seconds()
        self._session.receive(data)
        if self._running is None:
            self._run()
        elif not self._paused_for_input and self._session.waiting > self._settings.buffer_bytes:
            self._paused_for_input = True
            self._update_reading()

    def _run(self) -> None:
        done = Deferred.fromCoroutine(self._session.advance())
        if not done.called:
            self._running = done
        done.addCallbacks(self._advanced, self._broken)
        # what happens in these two is our fault
        done.addErrback(self._failed_with)

    def _advanced(self, result: None) -> None:
        self._running = None
        self._last_moved = self._clock.seconds()
        if self._ended:
            self._abandon()
            return
        session = self._session
        if self._factory.draining:
            session.drain()
        self._flush()
        if session.closing:
            self._lose()
            self._abandon()
        elif session.tls_requested:
            transport: Any = self.transport
            transport.startTLS(self._factory.tls_options)
        if self._paused_for_input:
            self._paused_for_input = False
            self._update_reading()

    def _broken(self, failure: Failure) -> None:
        """The session was interrupted, because the connection has gone or took too long; anything else is our fault."""
        self._running = None
        if not self._ended:
            self._session.leave()
            if not failure.check(CancelledError):
                self._failed_with(failure)
                transport: Any = self.transport
                transport.write(b"-ERR [SYS/TEMP] something failed here\r\n")
            self._lose()
        self._abandon()

    async def _push(self, data: bytes) -> None:
        """Write, and wait while the peer does not read. Raises: CancelledError when it has gone."""
        if self._ended:
            raise CancelledError
        self._last_moved = self._clock.seconds()
        self.transport.write(data)  # type: ignore[union-attr]  # connected
        if self._paused_by_transport:
            self._until_read = Deferred()
            try:
                await self._until_read
            finally:
                self._until_read = None

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
        """The peer does not read: send no more, and listen no more, until it does."""
        self._paused_by_transport = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """What was written is through."""
        self._paused_by_transport = False
        self._last_moved = self._clock.seconds()
        self._update_reading()
        if self._until_read is not None:
            self._until_read.callback(None)

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
        """One timer per connection: it looks when something last moved, and comes again when that was lately."""
        self._timer = self._clock.callLater(max(self._due() - self._clock.seconds(), 0.001), self._look)

    def _due(self) -> float:
        """When the connection is given up, if nothing happens."""
        due = self._last_moved + self._settings.idle_seconds
        if self._settings.login_seconds and self._session.identity is None and not self._ended:
            due = min(due, self._began + self._settings.login_seconds)
        return due

    def _look(self) -> None:
        if self._clock.seconds() < self._due() or self._session.updating:
            if self._session.updating:
                self._last_moved = self._clock.seconds()  # a commit has its own limit, and ends as it ends
            self._arm()
            return
        transport: Any = self.transport
        if self._ended or self._running is not None:
            # it does not take the last words, or does not read, or the store does not answer
            self._session.leave()
            running, self._running = self._running, None
            if running is not None:
                running.cancel()
            transport.abortConnection()
            return
        # RFC 1939 section 3: "the server should close the TCP connection without removing any messages or sending any
        # response"
        self._session.leave()
        self._lose()
        self._abandon()
        self._last_moved = self._clock.seconds()
        self._arm()

    def drain(self) -> None:
        """Leave at once if nobody has logged in, else when they are done; nothing can be said in between."""
        if not self._ended and self._running is None and self._session.drain():
            self._flush()
            self._lose()
            self._abandon()


class POP3ServerFactory(Factory):
    """Builds the connections of one listener."""

    noisy = False

    def __init__(
        self,
        accounts: Accounts,
        authentication: Authentication,
        settings: Settings,
        tls_options: Any,
        clock: IReactorTime,
        hostname: str,
        *,
        implicit_tls: bool = False,
    ) -> None:
        # tls_options: what `transport.startTLS` takes (a context factory or an IOpenSSLServerConnectionCreator), or
        # None: no TLS; Any, since Twisted's two interfaces have no common type
        if implicit_tls and tls_options is None:
            raise ValueError("TLS from the start needs TLS options")
        self.accounts = accounts
        self.authentication = authentication
        self.settings = settings
        self.tls_options = tls_options
        self.clock = clock
        self.hostname = hostname
        self.implicit_tls = implicit_tls
        self.last_logins = LastLogins(settings.login_delay_seconds, clock.seconds)
        self.draining = False
        """New connections are turned away."""
        self._connections: set[POP3Server] = set()
        self._by_address: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> POP3Server:
        """A connection from *addr*; a UNIX socket's peer has no address."""
        if isinstance(addr, (IPv4Address, IPv6Address)):
            protocol = POP3Server(self, addr.host, addr.port)
        else:
            protocol = POP3Server(self, "", 0)
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

    def admit(self, connection: POP3Server, address: str) -> bool:
        """Count *connection*; False if its address has too many."""
        most = self.settings.connections_per_address
        allowed = not (most and address and self._by_address[address] >= most)
        self._connections.add(connection)
        self._by_address[address] += 1
        return allowed

    def forget(self, connection: POP3Server, address: str) -> None:
        """*connection* has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]

    def drain(self) -> None:
        """Take nobody new; end connections that have not logged in, let the others come to their end."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
