"""The Twisted end of a session: moves octets, owns the clock, waits for a slow peer and pauses a fast one, does TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.connections import Connection, ServerFactory, peer_at
from twisted_mail.managesieve.session import Session
from twisted_mail.managesieve.settings import Settings
from twisted_mail.services import Authentication, Peer, Scripts

__all__ = ["ManageSieveServer", "ManageSieveServerFactory"]


class ManageSieveServer(Connection[Session]):
    """One connection. A command that was begun is finished, whether the peer is still there or not."""

    _log = Logger()
    _too_many = b'BYE (TRYLATER) "too many connections from your address"\r\n'
    _shutting_down = b'BYE (TRYLATER) "the server is shutting down"\r\n'

    def __init__(self, factory: ManageSieveServerFactory, peer: Peer) -> None:
        super().__init__(factory, peer, factory.settings.buffer_bytes)
        self._settings = factory.settings
        self._session = Session(
            factory.scripts,
            factory.authentication,
            peer,
            factory.settings,
            self._push,
            bounded=self._bounded,
            tls_available=factory.tls_options is not None,
            log=self._failed,
        )
        self._until_read: Deferred[None] | None = None

    def handshakeCompleted(self) -> None:
        """The capabilities come again."""
        super().handshakeCompleted()
        self._flush()

    def _lost_at_work(self, running: Deferred[None]) -> None:
        if self._until_read is not None:
            self._until_read.cancel()

    # --- work

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
        if session.identity is not None:
            self._began = self._last_moved  # who logs out again has that long for the next login
        if self._factory.draining and not session.tls_requested:
            session.drain()
        self._flush()
        if session.closing:
            self._lose()
            self._abandon()
        elif session.tls_requested:
            self._start_tls()
        self._read_on()

    def _broken(self, failure: Failure) -> None:
        """The session was interrupted, because the connection has gone or took too long; anything else is our fault."""
        self._running = None
        if not self._ended:
            self._session.leave()
            if not failure.check(CancelledError):
                self._failed_with(failure)
                transport: Any = self.transport
                transport.write(b'BYE (TRYLATER) "something failed here"\r\n')
            self._lose()
        self._abandon()

    def _bounded(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        begun = Deferred.fromCoroutine(work)
        if not begun.called:
            begun.addTimeout(self._settings.command_seconds, self._clock)
        return begun

    async def _push(self, data: bytes) -> None:
        """Write, and wait while the peer does not read. Raises: CancelledError when it has gone."""
        if self._ended:
            raise CancelledError
        self._last_moved = self._clock.seconds()
        self._write(data)
        if self._paused_by_transport:
            self._until_read = Deferred()
            try:
                await self._until_read
            finally:
                self._until_read = None

    def resumeProducing(self) -> None:
        """What was written is through."""
        self._last_moved = self._clock.seconds()
        super().resumeProducing()
        if self._until_read is not None:
            self._until_read.callback(None)

    # --- time

    def _due(self) -> float:
        due = self._last_moved + self._settings.idle_seconds
        if self._settings.login_seconds and self._session.identity is None and not self._ended:
            due = min(due, self._began + self._settings.login_seconds)
        return due

    def _look(self) -> None:
        if self._clock.seconds() < self._due():
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
        self._session.time_out()
        self._flush()
        self._lose()
        self._abandon()
        self._last_moved = self._clock.seconds()
        self._arm()

    def drain(self) -> None:
        """Leave now, or when what is under way is done."""
        if not self._ended and self._running is None and not self._session.tls_requested:
            self._session.drain()
            self._flush()
            self._lose()
            self._abandon()


class ManageSieveServerFactory(ServerFactory):
    """Builds the connections of one listener."""

    def __init__(
        self,
        scripts: Scripts,
        authentication: Authentication,
        settings: Settings,
        tls_options: Any,
        clock: IReactorTime,
        hostname: str,
        *,
        implicit_tls: bool = False,
    ) -> None:
        super().__init__(tls_options, clock, hostname, settings.connections_per_address, implicit_tls=implicit_tls)
        self.scripts = scripts
        self.authentication = authentication
        self.settings = settings

    def buildProtocol(self, addr: IAddress | None) -> ManageSieveServer:
        """A connection from *addr*."""
        protocol = ManageSieveServer(self, peer_at(addr, "managesieve"))
        protocol.factory = self
        return protocol
