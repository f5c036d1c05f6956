"""A daemon that a test plays by itself: what was sent to it, what it says, when it dies; with a clock of the test's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twisted_mail.filters.wires import Place, dial

__all__ = ["Daemon"]


class _Transport(StringTransport):
    gone = False
    half_closed = False

    def abortConnection(self) -> None:
        self.gone = True

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class Daemon:
    """Listens at `place` for whoever connects by `dial`; each connection takes the place of the one before."""

    def __init__(self) -> None:
        self.clock = MemoryReactorClock()
        self.place = Place(path="/run/daemon")
        self.dial = dial(self.clock)
        self.connections = 0
        self._protocol: Any = None
        self._transport = _Transport()

    def accept(self) -> None:
        """The connection that was asked for last stands."""
        factory = self.clock.unixClients[self.connections][1]
        self.connections += 1
        self._transport = _Transport()
        self._protocol = factory.buildProtocol(None)
        self._protocol.makeConnection(self._transport)

    def refuse(self) -> None:
        """Nobody listens."""
        factory = self.clock.unixClients[self.connections][1]
        self.connections += 1
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    @property
    def asked(self) -> int:
        """Connections that were asked for."""
        return len(self.clock.unixClients)

    @property
    def received(self) -> bytes:
        return bytes(self._transport.value())

    @property
    def hung_up(self) -> bool:
        """The other side has."""
        return self._transport.gone

    @property
    def half_closed(self) -> bool:
        return self._transport.half_closed

    def say(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def die(self) -> None:
        self._protocol.connectionLost(Failure(ConnectionDone()))

    def stall(self) -> None:
        """It takes no more of what is sent."""
        producer: Any = self._transport.producer
        producer.pauseProducing()
