"""The Twisted end of the sending engine: moves octets, owns the timer, pauses who sends too fast, does TLS.

A `Client` is driven by one coroutine at a time, which awaits `event` and `drained`; between two users it is kept idle.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mail.smtp.client.conversation import Conversation, Event
from twisted_mail.tls_info import describe

__all__ = ["Client", "HandshakeFailed"]


class HandshakeFailed(Exception):
    """The TLS handshake did not come to an end; the text says why."""


@implementer(IHandshakeListener, IPushProducer)
class Client(Protocol):
    """One connection to a server."""

    def __init__(self, conversation: Conversation, clock: IReactorTime, address: str, implicit_tls: Any = None) -> None:
        # implicit_tls: what `transport.startTLS` takes, if TLS comes first; Any, as Twisted has no type for it
        self.conversation = conversation
        self.address = address
        """The server's."""
        self.source = ""
        """Ours."""
        self.tls = ""
        """Version and cipher; empty: in the clear."""
        self.protected = ""
        """The same, with the reason for it."""
        self.note = ""
        """What is to be told with each verdict."""
        self.transactions = 0
        self.gone: Callable[[Client], None] = lambda client: None
        """Told when the connection ends while it is kept."""
        self._clock = clock
        self._implicit_tls = implicit_tls
        self._waiter: Deferred[Any] | None = None
        """Of who awaits an event, the handshake or room to write."""
        self._event: Event | None = None
        self._deadline: float | None = None
        self._straight: socket.socket | None = None
        """The connection's own socket, while no TLS is on it."""
        self._through = True
        """Nothing that was written waits in the transport."""
        self._end_of_all: float | None = None
        """When the whole of what is being done must be over."""
        self._refreshed = 0.0
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._draining = False
        self._handshaking = False
        self._kept = False
        self._lost = False

    @property
    def handle(self) -> SSL.Connection:
        """Of the TLS connection."""
        return self.transport.getHandle()  # type: ignore[union-attr,no-any-return]  # a TLS transport's

    # --- what its user does

    def limit(self, seconds: float) -> None:
        """Everything up to the next `limit` or `keep` has to be done within *seconds*."""
        self._end_of_all = self._clock.seconds() + seconds

    async def event(self, seconds: float) -> Event:
        """Send what there is to say, and wait for the next event; at most *seconds* for each whole reply."""
        output = self.conversation.take_output()
        if output:
            self.write(output)
        event, self._event = self._event, None
        if event is not None:
            return event
        if self._lost or self.conversation.broken:
            return Event.ENDED
        event = await self._wait(seconds)
        self._event = None
        return event if event is not None else Event.ENDED

    async def handshake(self, options: Any, seconds: float) -> None:
        """Begin TLS, and wait until it is there. *options*: see `implicit_tls`. Raises: HandshakeFailed."""
        self._handshaking = True
        self._straight = None
        transport: Any = self.transport
        transport.startTLS(options)
        await self.handshaken(seconds)

    async def handshaken(self, seconds: float) -> None:
        """Wait for the end of a handshake that has begun. Raises: HandshakeFailed."""
        if self._handshaking:
            if self._lost:
                raise HandshakeFailed("the connection ended")
            await self._wait(seconds)
        if not self.tls:
            raise HandshakeFailed("the connection ended")

    def write(self, data: bytes) -> None:
        """Send octets; see `full`.

        They are given to the kernel at once, where that is possible: a batch mostly fits whole, and through the transport
        it would cost two more system calls and a turn of the reactor, a fourth of a small message's CPU time.
        """
        if not data or self._lost:
            return
        if self._straight is not None and self._through:
            try:
                sent = self._straight.send(data)
            except OSError:  # full, or gone: the transport knows what to do about either
                sent = 0
            if sent == len(data):
                return
            self._through = False
            data = data[sent:]
        self.transport.write(data)  # type: ignore[union-attr]  # connected

    @property
    def full(self) -> bool:
        """The server takes no more now: see `drained`."""
        return self._paused and not self._lost

    async def drained(self, seconds: float) -> None:
        """Wait until the server takes more, or the connection ends."""
        self._draining = True
        try:
            while self._paused and not self._lost and not self.conversation.broken:
                await self._wait(seconds)
        finally:
            self._draining = False

    def abort(self) -> None:
        """Hang up: nothing that is not sent yet will be."""
        self._kept = False
        self.conversation.closed("The connection was given up")
        self._stop_timer()
        if not self._lost:
            transport: Any = self.transport
            transport.abortConnection()

    # --- between its users

    def keep(self, seconds: float, gone: Callable[[Client], None]) -> None:
        """Stay idle for *seconds*, then leave; *gone* is told when the connection ends meanwhile."""
        self._kept = True
        self.gone = gone
        self._end_of_all = None
        self._until(seconds)

    def use(self) -> None:
        """It is needed again."""
        self._kept = False
        self._deadline = None

    def leave(self, seconds: float) -> None:
        """Say QUIT, if the server will hear it, and hang up when it was answered or after *seconds*."""
        self._kept = False
        self._end_of_all = None
        conversation = self.conversation
        if self._lost:
            return
        if conversation.broken:
            return self._lose()
        conversation.quit()
        self.write(conversation.take_output())
        self._until(seconds)
        return None

    # --- connection

    def connectionMade(self) -> None:
        """Nothing is said before the greeting has come."""
        transport: Any = self.transport
        self.source = getattr(transport.getHost(), "host", "")  # a UNIX socket has none
        if self.source:
            transport.setTcpNoDelay(True)
            handle = transport.getHandle()
            if isinstance(handle, socket.socket):
                self._straight = handle
        transport.registerProducer(self, True)
        if self._implicit_tls is not None:
            self._handshaking = True
            self._straight = None
            transport.startTLS(self._implicit_tls)

    def handshakeCompleted(self) -> None:
        """TLS is there; what is thought of it, who waits for it says."""
        self._handshaking = False
        self.tls = describe(self.handle)
        self._wake(None)

    def dataReceived(self, data: bytes) -> None:
        """Take octets of replies."""
        conversation = self.conversation
        heard = conversation.heard
        event = conversation.receive(data)
        output = conversation.take_output()
        if output:
            self.write(output)
        if event is not None:
            if event is Event.DONE or event is Event.READY:
                self._through = True  # everything was answered
            self._happened(event)
        elif conversation.heard != heard and self._deadline is not None and self._waiter is not None:
            self._until(self._refreshed)  # it gets on

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits is told."""
        self._lost = True
        self._stop_timer()
        if self._handshaking:
            self._handshaking = False
            self.conversation.closed()
            self._fail(HandshakeFailed(_why(reason.value)))
        else:
            event = self.conversation.closed()
            self._happened(event if event is not None else Event.ENDED)

    def _happened(self, event: Event) -> None:
        if self._kept:
            self._kept = False
            self.gone(self)
            return self._lose()
        if self._waiter is not None and not self._draining:
            self._event = None
            return self._wake(event)
        if self._event is not Event.DONE:  # ENDED behind DONE: `ended` tells
            self._event = event
        if event is Event.ENDED and self._deadline is not None and not self._draining:
            self._lose()  # it was told to leave
        if self._draining:
            self._wake(None)
        return None

    def _lose(self) -> None:
        self._stop_timer()
        if not self._lost:
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseConnection()
            self._until(_LINGER_SECONDS)  # what is not taken by then never will be

    # --- who waits

    def _wait(self, seconds: float) -> Deferred[Any]:
        waiter: Deferred[Any] = Deferred()
        self._waiter = waiter
        self._refreshed = seconds
        self._until(seconds)
        return waiter

    def _wake(self, result: Event | None) -> None:
        waiter, self._waiter = self._waiter, None
        self._deadline = None
        if waiter is not None:
            waiter.callback(result)

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.errback(error)

    # --- back-pressure

    def pauseProducing(self) -> None:
        """The server does not read as fast as we write."""
        self._paused = True

    def resumeProducing(self) -> None:
        """What was written is through."""
        self._paused = False
        if self._draining:
            self._wake(None)

    def stopProducing(self) -> None:
        """The transport ends; `connectionLost` follows."""

    # --- time

    def _until(self, seconds: float) -> None:
        """One timer per connection; it looks when something was due, and comes again when that is later now."""
        deadline = self._clock.seconds() + seconds
        if self._end_of_all is not None and self._end_of_all < deadline:
            deadline = self._end_of_all
        self._deadline = deadline
        timer = self._timer
        if timer is None:
            self._timer = self._clock.callLater(max(deadline - self._clock.seconds(), 0.0), self._look)
        elif deadline < timer.getTime():
            timer.reset(max(deadline - self._clock.seconds(), 0.0))

    def _stop_timer(self) -> None:
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._look)
        elif self._kept:
            self._kept = False
            self.gone(self)
            self.leave(_LINGER_SECONDS)
        else:
            self._too_late()

    def _too_late(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        handshaking, self._handshaking = self._handshaking, False
        event = self.conversation.timed_out()
        transport.abortConnection()
        if handshaking:
            self._fail(HandshakeFailed("it took too long"))
        elif self._waiter is not None:
            self._wake(event if event is not None else Event.ENDED)


_LINGER_SECONDS = 5.0


def _why(error: BaseException | None) -> str:
    """What a handshake broke on."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1] or error.args[0][-1][0])
    return "the connection ended"
