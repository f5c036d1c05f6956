"""Stands before an object store and spoils its answers: errors, silence, drops, cut and damaged bodies.

`S3Proxy` listens on loopback and passes each request on over a connection of its own; `choose` says for every request
what goes wrong with it. The host that a client has signed is the proxy's, and the store checks what it is sent, so
signatures hold.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["Fault", "S3Proxy", "in_turn"]


class Fault(enum.Enum):
    """What goes wrong with a request."""

    NONE = "nothing"
    ERROR = "500 is answered, and the store never hears of it"
    BUSY = "503 SlowDown is answered, and the store never hears of it"
    RESET = "the connection breaks before the store hears of it"
    HANG = "the store never hears of it, and there is no answer"
    LOST = "the store has done it, and the connection breaks before the answer"
    HIDDEN = "the store has done it, and 500 is answered"
    TRUNCATED = "the answer breaks off in the middle"
    SLOW = "the answer comes in drops"
    DAMAGED = "a bit of the answer's body is another"


DONE_BY_THE_STORE: Final = {Fault.NONE, Fault.LOST, Fault.HIDDEN, Fault.TRUNCATED, Fault.SLOW, Fault.DAMAGED}
HEAD_LIMIT: Final = 65_536


def _answer(status: str, code: str) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>spoiled</Message></Error>'.encode()
    )
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


ERROR: Final = _answer("500 Internal Server Error", "InternalError")
BUSY: Final = _answer("503 Slow Down", "SlowDown")


def in_turn(faults: Iterable[Fault], methods: str = "GET PUT POST DELETE HEAD") -> Callable[[str, str], Fault]:
    """A `choose`: one of *faults* for each request of one of *methods*; when they have ended nothing goes wrong."""
    script, wanted = iter(faults), methods.split()
    return lambda method, path: next(script, Fault.NONE) if method in wanted else Fault.NONE


class S3Proxy:
    """One listening port on 127.0.0.1."""

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self.reactor = reactor
        self.store = TCP4ClientEndpoint(reactor, host, port, timeout=5)
        self.choose: Callable[[str, str], Fault] = lambda method, path: Fault.NONE
        """Asked with the method and the path of each request."""
        self.drop_octets = 2000
        self.drop_seconds = 0.05
        """How large the drops of `Fault.SLOW` are, and how far apart."""
        self.seen: list[tuple[str, str, Fault]] = []
        self.open: set[_Client] = set()
        self.port = 0
        self._listening: Any = None

    async def start(self) -> None:
        endpoint = TCP4ServerEndpoint(self.reactor, self.port, interface="127.0.0.1")
        self._listening = await endpoint.listen(_ClientFactory(self))
        self.port = self._listening.getHost().port

    async def stop(self) -> None:
        """No one is listened to any more, and what is open breaks; may be started again, on the same port."""
        await self._listening.stopListening()
        for client in list(self.open):
            client.transport.abortConnection()


class _Client(Protocol):
    """One request of a client."""

    transport: Any  # a TCP transport, whose interface is wider than ITransport

    def __init__(self, proxy: S3Proxy) -> None:
        self.proxy = proxy
        self._buffer = b""
        self._left: int | None = None
        """Octets of the request's body that are still to come; None: the head is not complete."""
        self._fault = Fault.NONE
        self._store: _Store | None = None
        self._waiting = b""

    def connectionMade(self) -> None:
        self.proxy.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._left is None:
            self._buffer += data
            head, end, data = self._buffer.partition(b"\r\n\r\n")
            if not end:
                if len(self._buffer) > HEAD_LIMIT:
                    self.transport.abortConnection()
                return
            self._buffer = b""
            self._begin(head)
        assert self._left is not None
        self._left -= len(data)
        if self._fault in DONE_BY_THE_STORE:
            if self._store is None:
                self._waiting += data
            else:
                self._store.transport.write(data)
        elif self._left <= 0 and self._fault in (Fault.ERROR, Fault.BUSY):
            self.transport.write(ERROR if self._fault is Fault.ERROR else BUSY)
            self.transport.loseConnection()

    def _begin(self, head: bytes) -> None:
        method, path = head.decode("latin-1").split(" ", 2)[:2]
        length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
        self._left = int(length[1]) if length else 0
        self._fault = self.proxy.choose(method, path)
        self.proxy.seen.append((method, path, self._fault))
        if self._fault is Fault.RESET:
            self.transport.abortConnection()
        elif self._fault in DONE_BY_THE_STORE:
            kept = re.sub(rb"(?im)^connection:[^\r\n]*\r\n", b"", head + b"\r\n")
            self._waiting = kept + b"Connection: close\r\n\r\n"
            self.transport.pauseProducing()
            self.proxy.store.connect(_StoreFactory(self, self._fault)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.transport.abortConnection()

    def connected_to(self, store: _Store) -> None:
        """The store is there: pass on what has come."""
        self._store = store
        store.transport.write(self._waiting)
        self._waiting = b""
        self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.open.discard(self)
        if self._store is not None:
            self._store.give_up()


class _ClientFactory(Factory):
    def __init__(self, proxy: S3Proxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return _Client(self._proxy)


class _StoreFactory(Factory):
    def __init__(self, client: _Client, fault: Fault) -> None:
        self._client = client
        self._fault = fault

    def buildProtocol(self, addr: IAddress | None) -> _Store:
        return _Store(self._client, self._fault)


class _Store(Protocol):
    """The store's side of one request: gathers the answer where it is to be spoiled, else passes it on."""

    transport: Any  # as above

    def __init__(self, client: _Client, fault: Fault) -> None:
        self._client = client
        self._fault = fault
        self._answer = b""
        self._dropping: Any = None

    def connectionMade(self) -> None:
        self._client.connected_to(self)

    def dataReceived(self, data: bytes) -> None:
        if self._fault is Fault.NONE:
            self._client.transport.write(data)
        else:
            self._answer += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        to = self._client.transport
        head, _, body = self._answer.partition(b"\r\n\r\n")
        start = len(head) + 4
        match self._fault:
            case Fault.NONE:
                to.loseConnection()
            case Fault.LOST:
                to.abortConnection()
            case Fault.HIDDEN:
                to.write(ERROR)
                to.loseConnection()
            case Fault.TRUNCATED:
                to.write(self._answer[: start + len(body) // 2] if body else self._answer[: len(head) // 2])
                to.loseConnection()
            case Fault.DAMAGED:
                if body:
                    middle = start + len(body) // 2
                    flipped = bytes([self._answer[middle] ^ 1])
                    self._answer = self._answer[:middle] + flipped + self._answer[middle + 1 :]
                to.write(self._answer)
                to.loseConnection()
            case Fault.SLOW:
                self._drop()

    def give_up(self) -> None:
        """The client is gone."""
        self.transport.abortConnection()
        if self._dropping is not None and self._dropping.active():
            self._dropping.cancel()

    def _drop(self) -> None:
        proxy, client = self._client.proxy, self._client
        if client not in proxy.open:
            return
        client.transport.write(self._answer[: proxy.drop_octets])
        self._answer = self._answer[proxy.drop_octets :]
        if self._answer:
            self._dropping = proxy.reactor.callLater(proxy.drop_seconds, self._drop)
        else:
            client.transport.loseConnection()
