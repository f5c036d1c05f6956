"""Connecting to one of several addresses (RFC 8305): the next one is tried a moment after the one before, or when that
has failed; the first that answers is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import NotConnectingError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IReactorTime
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

__all__ = ["ATTEMPT_SECONDS", "NotConnected", "dial"]

ATTEMPT_SECONDS: Final = 0.25
"""Connection Attempt Delay (section 5)."""

P = TypeVar("P", bound=Protocol)


class NotConnected(Exception):
    """None of the addresses answers; the text says why, of the last that failed."""


def dial(
    reactor: Any,
    clock: IReactorTime,
    addresses: Sequence[str],
    port: int,
    build: Callable[[str], P],
    *,
    bind: str | None = None,
    seconds: float = 30.0,
) -> Deferred[P]:
    """A protocol made by *build* (which is given the address) and connected; an address with a slash is a UNIX socket.

    *reactor*: IReactorTCP and IReactorUNIX, for which Twisted has no common type; *clock* limits each attempt to
    *seconds*. *bind*: the local address. Errback: NotConnected.
    """
    return _Race(reactor, clock, addresses, port, build, bind, seconds).begin()


class _Race:
    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        addresses: Sequence[str],
        port: int,
        build: Callable[[str], Any],  # a Protocol; the type of `dial` does not reach here
        bind: str | None,
        seconds: float,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._waiting = list(addresses)
        self._port = port
        self._build = build
        self._bind = bind
        self._seconds = seconds
        self._running: set[_Attempt] = set()
        self._next: IDelayedCall | None = None
        self._why = "there is no address to connect to"
        self.result: Deferred[Any] = Deferred(lambda _: self._stop())
        self.over = False

    def begin(self) -> Deferred[Any]:
        self._go_on()
        return self.result

    def _go_on(self) -> None:
        """Try the next address, if there is one."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if self._waiting:
            attempt = _Attempt(self, self._waiting.pop(0))
            self._running.add(attempt)
            if self._waiting:
                self._next = self._clock.callLater(ATTEMPT_SECONDS, self._go_on)
            attempt.begin(self._reactor, self._clock, self._port, self._bind, self._seconds)
        elif not self._running and not self.over:
            self.over = True
            self.result.errback(Failure(NotConnected(self._why)))

    def failed(self, attempt: _Attempt, why: str) -> None:
        self._running.discard(attempt)
        self._why = why
        if not self.over and (self._waiting or not self._running):
            self._go_on()

    def won(self, attempt: _Attempt) -> Any:
        self._running.discard(attempt)
        self._stop()
        return self._build(attempt.address)

    def _stop(self) -> None:
        self.over = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        for other in list(self._running):
            other.stop()


class _Attempt(ClientFactory):
    """One address."""

    noisy = False

    def __init__(self, race: _Race, address: str) -> None:
        self._race = race
        self.address = address
        self._connector: IConnector | None = None
        self._limit: IDelayedCall | None = None
        self._late = False

    def begin(self, reactor: Any, clock: IReactorTime, port: int, bind: str | None, seconds: float) -> None:
        self._limit = clock.callLater(seconds, self._too_late)
        if "/" in self.address:
            self._connector = reactor.connectUNIX(self.address, self, timeout=None)
        else:
            local = (bind, 0) if bind is not None else None
            self._connector = reactor.connectTCP(self.address, port, self, timeout=None, bindAddress=local)

    def _too_late(self) -> None:
        self._late = True
        self.stop()

    def stop(self) -> None:
        self._end()
        if self._connector is not None:
            with contextlib.suppress(NotConnectingError):  # it may have come to an end just now
                self._connector.stopConnecting()

    def _end(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """It answers; whoever comes second is hung up on."""
        self._end()
        if self._race.over:
            return None
        protocol: Any = self._race.won(self)
        made = protocol.connectionMade

        def connection_made() -> None:
            made()
            self._race.result.callback(protocol)

        protocol.connectionMade = connection_made
        return protocol  # type: ignore[no-any-return]  # Any, because its method is wrapped

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """It does not answer."""
        self._end()
        text = "it did not answer in time" if self._late else str(reason.value).rstrip(".")
        self._race.failed(self, f"{self.address}: {text}")
