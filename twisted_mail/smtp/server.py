"""The Twisted end of a session: moves octets, owns the clock, pauses a peer that is too fast, does TLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.connections import Connection, ServerFactory, flushing, peer_at
from twisted_mail.services import Authentication, Intake, Peer, Submitters
from twisted_mail.smtp.profiles import Limits, Profile
from twisted_mail.smtp.session import Session

__all__ = ["SMTPServer", "SMTPServerFactory"]


class SMTPServer(Connection[Session]):
    """One connection. A message that had not come whole is forgotten with it; one that had is finished."""

    _log = Logger()
    _too_many = b"421 4.7.0 Too many connections from your address\r\n"
    _shutting_down = b"421 4.3.2 The server is shutting down, try again later\r\n"

    def __init__(self, factory: SMTPServerFactory, peer: Peer) -> None:
        super().__init__(factory, peer, factory.limits.buffer_bytes)
        self._limits = factory.limits
        self._submission = factory.profile.submission
        self._session = Session(
            factory.profile,
            factory.limits,
            factory.intake,
            factory.authentication,
            peer,
            factory.hostname,
            tls_available=factory.tls_options is not None,
            trusted=factory.trusted(peer.address),
            submitters=factory.submitters,
            now=factory.wall,
            log=self._failed,
        )

    def _greet(self) -> None:
        super()._greet()
        if self._session.welcoming:
            self._run()

    def _lost_at_work(self, running: Deferred[None]) -> None:
        if not self._session.finishing:
            running.cancel()

    # --- work

    def _run(self) -> None:
        done = Deferred.fromCoroutine(self._advance())
        if not done.called:
            self._running = done
        done.addCallbacks(self._advanced, self._broken)

    async def _advance(self) -> None:
        await flushing(self._session.advance(), self._flush)

    def _advanced(self, result: None) -> None:
        self._running = None
        self._last_moved = self._clock.seconds()
        if self._ended:
            self._abandon()
            return
        self._flush()
        session = self._session
        if session.closing:
            self._lose()
        elif session.tls_requested:
            self._start_tls()
        self._read_on()

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

    # --- time

    def _due(self) -> float:
        limits = self._limits
        if self._ended:
            return self._last_moved + limits.command_seconds
        if self._running is not None:
            return self._last_moved + max(limits.work_seconds, limits.command_seconds)
        wait = limits.data_seconds if self._session.in_body else limits.command_seconds
        due = self._last_moved + wait
        if self._submission and limits.login_seconds and self._session.anonymous:
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


class SMTPServerFactory(ServerFactory):
    """Builds the connections of one listener, TCP or UNIX; *profile* says whether SMTP, submission or LMTP."""

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
        trusted: Callable[[str], bool] = lambda address: False,
        submitters: Submitters | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(tls_options, clock, hostname, limits.connections_per_address, implicit_tls=implicit_tls)
        self.profile = profile
        self.intake = intake
        self.authentication = authentication
        self.limits = limits
        self.trusted = trusted
        """Whether the peer at an address is believed by XCLIENT."""
        self.submitters = submitters
        """Who need not log in."""
        self.wall = wall

    def buildProtocol(self, addr: IAddress | None) -> SMTPServer:
        """A connection from *addr*."""
        protocol = SMTPServer(self, peer_at(addr, self.profile.name))
        protocol.factory = self
        return protocol
