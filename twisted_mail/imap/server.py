"""The Twisted end of an IMAP session: moves octets, owns the clock, pauses a peer that is too fast or too slow,
does TLS and compression."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mail.connections import ServerFactory, flushing, peer_at, secured
from twisted_mail.imap import codes
from twisted_mail.imap.recent import Recents
from twisted_mail.imap.replies import bye
from twisted_mail.imap.session import Session
from twisted_mail.imap.settings import Settings
from twisted_mail.imap.sink import FLUSH_BYTES
from twisted_mail.services import Accounts, Authentication, Peer

__all__ = ["IMAPServer", "IMAPServerFactory"]

TURN_SECONDS: Final = 0.01
"""A session that has worked for so long without a pause lets the others have a turn."""
INFLATE_BYTES: Final = 64 * 1024
"""At most so much is made of compressed input at a time; the rest waits, compressed, until it is asked for."""


class _Layer:
    """DEFLATE in both directions (RFC 4978)."""

    def __init__(self) -> None:
        # Raw streams of the largest window; a middling level, since mail's text compresses well at any.
        self._deflate = zlib.compressobj(5, zlib.DEFLATED, -15)
        self._inflate = zlib.decompressobj(-15)
        self.waiting = b""
        """Compressed input that has not been asked for."""

    def pack(self, data: bytes) -> bytes:
        """All of *data*, so that the peer can read it at once."""
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def unpack(self) -> bytes:
        """The next octets, at most `INFLATE_BYTES`. Raises zlib.error."""
        data = self._inflate.decompress(self.waiting, INFLATE_BYTES)
        self.waiting = self._inflate.unconsumed_tail
        if not data and self._inflate.eof:
            raise zlib.error("the compressed stream has ended")
        return data


@implementer(IHandshakeListener, IPushProducer)
class IMAPServer(Protocol):
    """One connection, and the `Sink` of its session. As a producer it is paused by its own transport when the peer does
    not read."""

    _log = Logger()

    def __init__(self, factory: IMAPServerFactory, peer: Peer) -> None:
        self._factory = factory
        self._clock = factory.clock
        self._settings = factory.settings
        self._peer = peer
        self._session: Session | None = None
        self._running: Deferred[None] | None = None
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._layer: _Layer | None = None
        self._input: Deferred[None] | None = None
        self._drain: Deferred[None] | None = None
        self._handshake: Deferred[Peer] | None = None
        self._timer: IDelayedCall | None = None
        self._began = self._last_heard = self._last_moved = 0.0
        self._turn_began = 0.0
        self._reading = True
        self._paused = False
        self._logged_in = False
        self._ended = False

    # --- connection

    def connectionMade(self) -> None:
        """Greet, or begin with TLS."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay") and self._peer.address:
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._began = self._last_heard = self._last_moved = self._clock.seconds()
        self._arm()
        factory = self._factory
        if not factory.admit(self, self._peer.address):
            transport.write(bye("Too many connections from your address", codes.LIMIT).untagged())
            self._lose()
        elif factory.draining:
            transport.write(bye("The server is shutting down", codes.UNAVAILABLE).untagged())
            self._lose()
        elif INegotiated.providedBy(transport):
            pass  # a wrapper does TLS already: `handshakeCompleted` follows
        elif factory.implicit_tls:
            transport.startTLS(factory.tls_options)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        """TLS is active: after STARTTLS the client speaks first, else we do."""
        connection: Any = self.transport.getHandle()  # type: ignore[union-attr]  # a TLS transport has it
        self._peer = secured(self._peer, connection)
        self._last_heard = self._clock.seconds()
        waiting, self._handshake = self._handshake, None
        if waiting is not None:
            waiting.callback(self._peer)
        elif self._session is None and not self._ended:
            self._begin()

    def _begin(self) -> None:
        factory = self._factory
        self._session = session = Session(
            factory.accounts,
            factory.authentication,
            self._peer,
            self,
            self._settings,
            factory.recents,
            clock=factory.wall,
            hostname=factory.hostname,
            tls_available=factory.tls_options is not None,
            log=self._failed,
        )
        self._resumes()
        done = Deferred.fromCoroutine(self._run(session))
        self._running = done
        done.addCallbacks(lambda _: self._finished(), self._broken)

    async def _run(self, session: Session) -> None:
        await flushing(session.run(), self._rests, self._resumes)

    def _finished(self) -> None:
        """The session has come to its end: what it said last goes out, then the connection ends."""
        self._running = None
        if not self._ended:
            self._flush()
            self._lose()

    def _broken(self, failure: Failure) -> None:
        """The session was interrupted, because the connection has gone or took too long; anything else is our fault."""
        self._running = None
        if self._ended:
            return
        if failure.check(CancelledError):
            self._log.warn("imap from {address}: work took too long", address=self._peer.address)
        else:
            self._failed_with(failure)
            # Whatever was being said may have stopped in the middle of a literal: nothing more can be said.
        self._lose()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The session is interrupted wherever it waits; a change that was proposed goes on without it."""
        self._ended = True
        self._factory.forget(self, self._peer.address)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._interrupt()
        self._output.clear()
        self._layer = None

    def _interrupt(self) -> None:
        if self._session is not None:
            self._session.lost = True
        if self._running is not None:
            self._running.cancel()

    def _failed(self, error: BaseException) -> None:
        self._failed_with(Failure(error))

    def _failed_with(self, failure: Failure) -> None:
        self._log.failure("imap from {address}: something failed", failure, address=self._peer.address)

    def _lose(self) -> None:
        """End the connection when everything is written."""
        if self._ended:
            return
        self._ended = True
        transport: Any = self.transport
        transport.unregisterProducer()
        if not self._reading:
            transport.resumeProducing()  # a paused transport does not learn that its peer is gone
        transport.loseConnection()

    # --- input

    def dataReceived(self, data: bytes) -> None:
        """Take octets; the session asks for them one command at a time."""
        session = self._session
        if self._ended or session is None:
            return
        self._last_heard = self._last_moved = self._clock.seconds()
        if self._layer is not None:
            self._layer.waiting += data
            if session.buffered < INFLATE_BYTES:
                self._unpack(session)
        else:
            session.receive(data)
        if self._input is not None:
            self.wake()
        elif self._reading and self._waiting_input() > self._settings.input_bytes:
            self._read(False)

    def _waiting_input(self) -> int:
        session = self._session
        compressed = len(self._layer.waiting) if self._layer is not None else 0
        return compressed + (session.buffered if session is not None else 0)

    def _unpack(self, session: Session) -> bool:
        layer = self._layer
        if layer is None or not layer.waiting:
            return False
        try:
            data = layer.unpack()
        except zlib.error:
            self._log.info("imap from {address}: bad compressed data", address=self._peer.address)
            self._abort()
            return False
        session.receive(data)
        return bool(data)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def _read(self, on: bool) -> None:
        if self._ended or on == self._reading:
            return
        self._reading = on
        transport: Any = self.transport
        if on:
            transport.resumeProducing()
        else:
            transport.pauseProducing()

    # --- Sink

    def write(self, octets: bytes) -> None:
        """Keep *octets*; one write to the transport takes all that is ready."""
        self._output.append(octets)
        self._output_bytes += len(octets)
        if self._output_bytes >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._output and not self._ended:
            data = b"".join(self._output)
            self._output.clear()
            self._output_bytes = 0
            if data:
                if self._layer is not None:
                    data = self._layer.pack(data)
                self.transport.write(data)  # type: ignore[union-attr]  # connected

    async def drained(self) -> None:
        """See `Sink`."""
        if self._paused:
            self._drain = Deferred()
            await self._drain
        elif self._factory.busy() - self._turn_began > TURN_SECONDS:
            self._last_moved = self._clock.seconds()
            await deferLater(self._clock, 0, lambda: None)

    async def wait(self) -> None:
        """See `Sink`."""
        session = self._session
        if self._layer is not None and session is not None and self._unpack(session):
            return
        self._read(True)
        self._input = Deferred()
        await self._input

    def wake(self) -> None:
        """See `Sink`."""
        waiting, self._input = self._input, None
        if waiting is not None:
            waiting.callback(None)

    async def start_tls(self) -> Peer:
        """See `Sink`."""
        self._flush()
        self._handshake = Deferred()
        transport: Any = self.transport
        transport.startTLS(self._factory.tls_options)
        return await self._handshake

    def start_compression(self, received: bytes) -> None:
        """See `Sink`."""
        self._flush()
        self._layer = _Layer()
        self._layer.waiting = received

    # --- turns

    def _rests(self) -> None:
        self._flush()
        logged_in = self._session is not None and self._session.identity is not None
        if self._logged_in and not logged_in:
            self._began = self._clock.seconds()  # UNAUTHENTICATE: the time for logging in runs anew
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
                self._arm()
        self._logged_in = logged_in

    def _resumes(self) -> None:
        self._turn_began = self._factory.busy()
        self._last_moved = self._clock.seconds()

    # --- back-pressure

    def pauseProducing(self) -> None:
        """The peer does not read: say no more until it does."""
        self._paused = True

    def resumeProducing(self) -> None:
        """What was said has gone through."""
        self._paused = False
        self._last_moved = self._clock.seconds()
        waiting, self._drain = self._drain, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The transport ends; `connectionLost` follows."""

    # --- time

    def _arm(self) -> None:
        """One timer per connection: it looks when the peer was last heard, and comes again when that was lately; often
        enough to find a command that hangs."""
        wait = min(self._due() - self._clock.seconds(), self._settings.command_seconds)
        self._timer = self._clock.callLater(max(wait, 0.001), self._look)

    def _due(self) -> float:
        """When the connection is given up, if nothing happens."""
        settings, session = self._settings, self._session
        if self._ended or session is None:
            return self._last_heard + settings.login_seconds
        if session.identity is None:
            return self._began + settings.login_seconds  # whatever is said meanwhile
        if self._input is None:
            return self._last_moved + settings.command_seconds
        return self._last_heard + settings.idle_seconds

    def _look(self) -> None:
        if self._clock.seconds() < self._due():
            self._arm()
            return
        session = self._session
        if self._ended or session is None:
            self._abort()  # it was told to go and does not take the last words, or does not get on with TLS
            return
        if self._input is not None:
            text = "Autologout, nothing was heard" if session.identity is not None else "Nobody has logged in"
            self._last_heard = self._clock.seconds()
            session.end(bye(text), at_once=True)
            if not self._ended:
                self._arm()
        else:
            self._interrupt()  # `_broken` ends the connection
            self._last_heard = self._clock.seconds()
            self._arm()

    def drain(self) -> None:
        """Say BYE when the command being carried out is finished."""
        if self._session is not None and not self._ended:
            self._session.end(bye("The server is shutting down", codes.UNAVAILABLE))


class IMAPServerFactory(ServerFactory):
    """Builds the connections of one listener."""

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
        recents: Recents | None = None,
        wall: Callable[[], float] = time.time,
        busy: Callable[[], float] = time.perf_counter,
    ) -> None:
        # recents: shared by all listeners of a node.  busy: measures a session's turn, in seconds
        super().__init__(tls_options, clock, hostname, settings.connections_per_address, implicit_tls=implicit_tls)
        self.accounts = accounts
        self.authentication = authentication
        self.settings = settings
        self.recents = recents if recents is not None else Recents(wall())
        self.wall = wall
        self.busy = busy

    def buildProtocol(self, addr: IAddress | None) -> IMAPServer:
        """A connection from *addr*."""
        protocol = IMAPServer(self, peer_at(addr, "imap"))
        protocol.factory = self
        return protocol
