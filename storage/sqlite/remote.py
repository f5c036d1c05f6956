"""The two ends of the writer's socket: the hub in the process that writes, the link in each of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.storage.interfaces import Refused, StorageError
from twisted_mail.storage.sqlite.operations import OPERATIONS, error_from_wire, error_to_wire
from twisted_mail.storage.sqlite.threads import Answer
from twisted_mail.storage.sqlite.wire import (
    ANSWER,
    COUNT,
    FAILURE,
    HELLO,
    MAX_FRAME,
    MOVED,
    REQUEST,
    VERSION,
    FrameProtocol,
)

__all__ = ["Hub", "Link", "LinkLost"]

MAX_UNANSWERED = 20_000
"""Requests that one process may have in flight."""


class LinkLost(Exception):
    """The writer has gone; what was in flight may or may not have been carried out."""


class Hub(Factory):
    """Takes the writes of other processes and passes notices between them."""

    noisy = False

    def __init__(
        self,
        submit: Callable[[str, Sequence[Any], Answer], None],
        count: Callable[[str, float, int], int],
        moved: Callable[[bytes, int], None],
    ) -> None:
        self.submit = submit
        self.count = count
        self.moved = moved
        self.clients: dict[bytes, _Client] = {}
        self.connections: set[_Client] = set()

    def buildProtocol(self, addr: object) -> _Client:
        return _Client(self)

    def tell(self, account: bytes, modseq: int, but: _Client | None = None) -> None:
        """Send a notice to every process but the one that it came from."""
        for client in self.clients.values():
            if client is not but:
                client.send(MOVED, account, modseq)

    def close(self) -> None:
        """Let every client go, after the answers that are on their way."""
        for client in list(self.connections):
            client.closing = True
            client.transport.loseConnection()  # type: ignore[union-attr]  # connected


class _Client(FrameProtocol):
    """One other process, as the writer sees it."""

    _log = Logger()

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._name: bytes | None = None
        self._connected = False
        self.closing = False

    def connectionMade(self) -> None:
        self._connected = True
        self._hub.connections.add(self)

    def frame_received(self, frame: list[Any]) -> None:
        if not self._connected:
            return
        kind = frame[0]
        if self._name is None:
            if kind != HELLO or frame[1] != VERSION:
                self.send(HELLO, VERSION, b"")
                self.lost_sync(f"a process that speaks version {frame[1] if kind == HELLO else '?'}")
                return
            self._name = frame[2]
            # What that process sent before over another connection and has not come yet must never be carried out:
            # it asks now what became of it.
            earlier = self._hub.clients.pop(frame[2], None)
            if earlier is not None:
                earlier.drop()
            self._hub.clients[frame[2]] = self
            self.send(HELLO, VERSION, b"")
        elif kind == REQUEST:
            _, number, operation, arguments = frame
            if operation not in OPERATIONS:
                self.send(FAILURE, number, *error_to_wire(StorageError(f"no operation {operation}")))
            elif self.closing:
                self.send(FAILURE, number, *error_to_wire(Refused("the database is closing")))
            else:
                self._hub.submit(operation, arguments, self._answer(number))
        elif kind == COUNT:
            _, number, key, seconds, by = frame
            self.send(ANSWER, number, self._hub.count(key, seconds, by))
        elif kind == MOVED:
            _, account, modseq = frame
            self._hub.moved(account, modseq)
            self._hub.tell(account, modseq, but=self)
        else:
            raise ValueError(f"a frame of kind {kind}")

    def _answer(self, number: int) -> Answer:
        def answer(good: bool, value: Any) -> None:
            if not self._connected:
                return
            if good:
                self.send(ANSWER, number, value)
            else:
                self.send(FAILURE, number, *error_to_wire(value))

        return answer

    def drop(self) -> None:
        """Take nothing more from this connection."""
        self._connected = False
        self.transport.abortConnection()  # type: ignore[union-attr]  # of UNIX sockets

    def lost_sync(self, why: str) -> None:
        self._log.warn("a process that shares the database is sent away: {why}", why=why)
        super().lost_sync(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connected = False
        self._hub.connections.discard(self)
        if self._name is not None and self._hub.clients.get(self._name) is self:
            del self._hub.clients[self._name]


class Link(FrameProtocol):
    """The way to the process that writes."""

    _log = Logger()

    def __init__(self, name: bytes, moved: Callable[[bytes, int], None], lost: Callable[[Link], None]) -> None:
        super().__init__()
        self._name = name
        self._moved = moved
        self._lost = lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._number = 0
        self._up = False
        self._why = "the writer did not greet"
        self.ready: Deferred[None] = Deferred(lambda deferred: self.transport.abortConnection())  # type: ignore[union-attr]
        """Fires when the writer has answered the greeting; fails with LinkLost."""

    def connectionMade(self) -> None:
        self.send(HELLO, VERSION, self._name)

    def request(self, operation: str, arguments: Sequence[Any]) -> Deferred[Any]:
        """Have the writer carry out *operation*. Fails with StorageError, or LinkLost when the outcome is not known."""
        return self._ask(REQUEST, operation, arguments)

    def count(self, key: str, seconds: float, by: int) -> Deferred[Any]:
        """Add to a counter in the writer's process."""
        return self._ask(COUNT, key, seconds, by)

    def tell(self, account: bytes, modseq: int) -> None:
        """Send a notice to all other processes."""
        if self._up:
            self.send(MOVED, account, modseq)

    def _ask(self, kind: int, *rest: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred(lambda deferred: None)
        if not self._up or len(self._waiting) >= MAX_UNANSWERED:
            done.errback(Refused("too many writes are waiting" if self._up else "the writer has gone"))
            return done
        self._number += 1
        frame = self._encoder.encode((kind, self._number, *rest))
        if len(frame) > MAX_FRAME:
            done.errback(Refused(f"{len(frame)} octets are too many for one write"))
            return done
        self._waiting[self._number] = done
        self.transport.write(len(frame).to_bytes(4, "big") + frame)  # type: ignore[union-attr]  # connected
        return done

    def frame_received(self, frame: list[Any]) -> None:
        kind = frame[0]
        if kind == MOVED:
            self._moved(frame[1], frame[2])
        elif kind == HELLO:
            if frame[1] != VERSION:
                raise ValueError("the process that writes is of another version of the suite: stop it first")
            self._up = True
            self.ready.callback(None)
        elif kind in (ANSWER, FAILURE):
            done = self._waiting.pop(frame[1], None)
            if done is None or done.called:
                return
            if kind == ANSWER:
                done.callback(frame[2])
            else:
                done.errback(error_from_wire(frame[2], frame[3]))

    def lost_sync(self, why: str) -> None:
        self._log.error("the process that writes the database is not understood: {why}", why=why)
        self._why = why
        super().lost_sync(why)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._up = False
        waiting, self._waiting = self._waiting, {}
        self._lost(self)
        if not self.ready.called:
            self.ready.errback(LinkLost(self._why))
        for done in waiting.values():
            if not done.called:
                done.errback(LinkLost("the writer has gone"))
