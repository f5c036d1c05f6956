"""Questions and replies over UDP and TCP, on a reactor that is handed in.

Each UDP question has a socket of its own, connected, with a port that the system draws (RFC 5452 section 9.2): only octets
from the server's address and port come in, and "port unreachable" is heard at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mail.dns.servers import NameServer

__all__ = ["Network", "SuspiciousReplies", "Transport", "Unanswered"]

R = TypeVar("R")

_LONGEST: Final = 65_535
"""Octets of a datagram."""
_LIES: Final = 20
"""So many wrong replies to one question are no accident (RFC 5452 section 9.1)."""


class Unanswered(Exception):
    """Nothing came in time, or nobody is there."""


class SuspiciousReplies(Unanswered):
    """Many replies came that answer something else: somebody guesses. TCP cannot be guessed into."""


class Transport(Protocol):
    """One question to one server. *judge* says what a reply means, or None to wait for another one."""

    async def datagram(
        self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float
    ) -> R:
        """Raises Unanswered, SuspiciousReplies."""

    async def stream(self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float) -> R:
        """Raises Unanswered."""


class Network:
    """The real thing."""

    def __init__(self, reactor: Any, *, sockets: int = 200) -> None:
        """*reactor* provides IReactorTime, IReactorFDSet and IReactorTCP. At most *sockets* questions are under way at a time;
        others wait for theirs within their own time limits."""
        self._reactor = reactor
        self._turns = DeferredSemaphore(sockets)

    async def datagram(
        self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float
    ) -> R:
        seconds = await self._turn(seconds)
        try:
            return await self._datagram(server, question, judge, seconds)
        finally:
            self._turns.release()

    async def _turn(self, seconds: float) -> float:
        """Wait for one's turn; returns what is left of *seconds*. Raises Unanswered."""
        if self._turns.tokens:
            await self._turns.acquire()
            return seconds
        began, place = self._reactor.seconds(), self._turns.acquire()
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            place.cancel()

        call = self._reactor.callLater(seconds, give_up)
        try:
            await place
        except CancelledError:
            if late:
                raise Unanswered("too many questions at once") from None
            raise
        finally:
            if call.active():
                call.cancel()
        waited: float = self._reactor.seconds() - began
        return max(0.001, seconds - waited)

    async def _datagram(
        self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float
    ) -> R:
        asking = _Datagram(self._reactor, server, question, judge)
        try:
            asking.ask()
            return await self._within(asking.answered, seconds, server)
        finally:
            asking.close()

    async def stream(self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float) -> R:
        seconds = await self._turn(seconds)
        factory = _StreamFactory(question, judge)
        connector = self._reactor.connectTCP(server.address, server.port, factory, timeout=seconds)
        try:
            return await self._within(factory.answered, seconds, server)
        finally:
            self._turns.release()
            connector.disconnect()

    async def _within(self, answered: Deferred[R], seconds: float, server: NameServer) -> R:
        def give_up() -> None:
            if not answered.called:
                answered.errback(Unanswered(f"{server} did not answer in {seconds:g} s"))

        late = self._reactor.callLater(seconds, give_up)
        try:
            return await answered
        finally:
            if late.active():
                late.cancel()


@implementer(IReadDescriptor)
class _Datagram:
    """One question's own socket. Not a UDP port of Twisted's, which logs two lines for each."""

    def __init__(
        self, reactor: Any, server: NameServer, question: bytes, judge: Callable[[bytes], R | None]
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._question = question
        self._judge: Callable[[bytes], Any] = judge
        self._lies = 0
        self._socket: socket.socket | None = None
        self.answered: Deferred[Any] = Deferred()

    def ask(self) -> None:
        """Raises Unanswered."""
        family = socket.AF_INET6 if ":" in self._server.address else socket.AF_INET
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect((self._server.address, self._server.port))
            self._socket.send(self._question)
        except OSError as trouble:
            raise Unanswered(f"{self._server}: {trouble.strerror}") from trouble
        self._reactor.addReader(self)

    def close(self) -> None:
        if self._socket is not None:
            if self._socket.fileno() >= 0:
                self._reactor.removeReader(self)
            self._socket.close()

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives it up."""
        self._fail(Unanswered(f"{self._server}: {reason.getErrorMessage()}"))

    def doRead(self) -> None:
        while self._socket is not None and not self.answered.called:
            try:
                datagram = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError as trouble:  # "port unreachable", as a rule
                self._fail(Unanswered(f"{self._server}: {trouble.strerror}"))
                return
            meaning = self._judge(datagram)
            if meaning is not None:
                self.answered.callback(meaning)
                return
            self._lies += 1
            if self._lies >= _LIES:
                self._fail(SuspiciousReplies(f"{self._server}: {self._lies} replies to other questions"))

    def _fail(self, why: Unanswered) -> None:
        if not self.answered.called:
            self.answered.errback(why)


class _Stream(StreamProtocol):
    """Two octets of length before each message (RFC 1035 section 4.2.2)."""

    def __init__(self, factory: _StreamFactory) -> None:
        self._factory = factory
        self._buffer = bytearray()

    def connectionMade(self) -> None:
        question = self._factory.question
        assert self.transport is not None
        self.transport.write(len(question).to_bytes(2, "big") + question)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + size:
                return
            message = bytes(self._buffer[2 : 2 + size])
            del self._buffer[: 2 + size]
            meaning = self._factory.judge(message)
            assert self.transport is not None
            if meaning is None:  # on a connection of its own, whose only question this is
                self._factory.fail(Unanswered("a reply to another question"))
            elif not self._factory.answered.called:
                self._factory.answered.callback(meaning)
            self.transport.loseConnection()
            return

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._factory.fail(Unanswered("the connection was closed without an answer"))


class _StreamFactory(ClientFactory):
    noisy = False

    def __init__(self, question: bytes, judge: Callable[[bytes], R | None]) -> None:
        self.question = question
        self.judge: Callable[[bytes], Any] = judge
        self.answered: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: Any) -> _Stream:
        return _Stream(self)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.fail(Unanswered(reason.getErrorMessage()))

    def fail(self, why: Unanswered) -> None:
        if not self.answered.called:
            self.answered.errback(why)
