"""Stands before the nodes of a CQL cluster and spoils what becomes of conditional statements.

Each node has a port of its own on the node's own address, the same for all; a driver that is told this port comes back to
it for every node it hears of (the proxy knows nothing of ``system.peers_v2``, where other ports would stand). `choose`
says of every conditional statement and of every serial read what goes wrong with it; all else is passed on as it comes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.services.cql_frames import (
    CONDITION,
    INVALID,
    READ_TIMEOUT,
    WRITE_TIMEOUT,
    Consistency,
    Frame,
    Op,
    applied,
    error,
    failure_of,
    prepared_id,
    query_of,
    statements_of,
    take_frames,
    without_compression,
)

__all__ = ["CQLProxy", "Fault", "Kind"]

_OWN_STREAMS: Final = range(32_000, 32_700)
"""For requests of the proxy's own; drivers begin at 0 and never have so many under way."""


class Kind(enum.Enum):
    """What `choose` is asked about."""

    WRITE = "a conditional statement, or a batch with one"
    READ = "a read at SERIAL or LOCAL_SERIAL"


class Fault(enum.Enum):
    """What goes wrong with a request."""

    NONE = "nothing"
    APPLIED_TIMEOUT = "it is carried out, and a time-out is answered"
    APPLIED_SILENT = "it is carried out, and nothing is answered"
    APPLIED_CUT = "it is carried out, and the connection breaks before the answer"
    LOST_TIMEOUT = "no node hears of it, and a time-out is answered"
    LOST_SILENT = "no node hears of it, and nothing is answered"
    LATE = "a time-out is answered, and seconds later it is carried out"
    TWICE = "it is carried out twice, and the second answer is given: not applied"


Choose = Callable[[Kind, Sequence[str]], Fault]


class CQLProxy:
    """A listening port on each of *addresses*, for the node that listens there on *port*."""

    def __init__(self, reactor: Any, addresses: Sequence[str], port: int) -> None:
        self.reactor = reactor
        self.addresses, self.node_port = list(addresses), port
        self.choose: Choose = lambda kind, texts: Fault.NONE
        self.late_seconds: Callable[[], float] = lambda: 1.0
        """How long `Fault.LATE` waits."""
        self.tell: Callable[[str, str, bool], None] = lambda what, about, was_applied: None
        """Told what went wrong (the name of a fault, or ``server`` for a time-out that the nodes answered themselves),
        with what, and whether a node said that it was applied."""
        self.prepared: dict[bytes, str] = {}
        """The texts of prepared statements; every node has the same ids."""
        self.port = 0
        self._listening: list[Any] = []

    async def start(self) -> None:
        for address in self.addresses:
            endpoint = TCP4ServerEndpoint(self.reactor, self.port, interface=address)
            listening: Any = await endpoint.listen(_Clients(self, address))
            self._listening.append(listening)
            self.port = listening.getHost().port

    async def stop(self) -> None:
        for listening in self._listening:
            await listening.stopListening()
        self._listening.clear()

    def kind_of(self, frame: Frame) -> tuple[Kind | None, list[str]]:
        """What a request is, with its texts; None: nothing that may go wrong."""
        if frame.opcode not in (Op.QUERY, Op.EXECUTE, Op.BATCH):
            return None, []
        texts, consistency = statements_of(frame, self.prepared)
        if any(CONDITION.match(text) for text in texts):
            return Kind.WRITE, texts
        serial = consistency in (Consistency.SERIAL, Consistency.LOCAL_SERIAL)
        return (Kind.READ if serial else None), texts


class _Clients(Factory):
    def __init__(self, proxy: CQLProxy, address: str) -> None:
        self._proxy, self._address = proxy, address

    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return _Client(self._proxy, self._address)


class _Client(Protocol):
    """A driver's connection, and the one to the node that belongs to it."""

    transport: Any  # a TCP transport, whose interface is wider than ITransport

    def __init__(self, proxy: CQLProxy, address: str) -> None:
        self._proxy, self._address = proxy, address
        self._buffer = bytearray()
        self._node: _Node | None = None
        self._waiting: list[Frame] = []
        self._gone = False
        self._late = 0
        """Requests that are still to be carried out, or under way, after they were given up."""
        self._asked: dict[int, Callable[[Frame], None]] = {}
        """By stream, what is done with an answer instead of passing it on."""
        self._about: dict[int, str] = {}
        """By stream, conditional statements under way."""

    def connectionMade(self) -> None:
        endpoint = TCP4ClientEndpoint(self._proxy.reactor, self._address, self._proxy.node_port, timeout=5)
        endpoint.connect(_Nodes(self)).addErrback(lambda failure: self.transport.abortConnection())

    def connected_to(self, node: _Node) -> None:
        """The node is there: pass on what has come."""
        self._node = node
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            node.transport.write(frame.octets)
        self._end_node()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._end_node()

    def node_lost(self) -> None:
        self._node = None
        self.transport.abortConnection()

    def _end_node(self) -> None:
        if self._gone and not self._late and self._node is not None:
            self._node.transport.abortConnection()

    # --- requests

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        for frame in take_frames(self._buffer):
            self._request(frame)

    def _pass_on(self, frame: Frame) -> None:
        if self._node is None:
            self._waiting.append(frame)
        else:
            self._node.transport.write(frame.octets)

    def _answer(self, frame: Frame) -> None:
        if not self._gone:
            self.transport.write(frame.octets)

    def _request(self, frame: Frame) -> None:
        proxy, stream = self._proxy, frame.stream
        if frame.opcode == Op.PREPARE:
            text = query_of(frame)
            self._asked[stream] = lambda answer: self._prepared(text, answer)
        kind, texts = proxy.kind_of(frame)
        if frame.opcode == Op.QUERY and "system.peers_v2" in texts[0]:
            self._answer(error(INVALID, stream))
            return
        if kind is None:
            self._pass_on(frame)
            return
        about = next((text for text in texts if CONDITION.match(text)), texts[0] if texts else "")
        fault = proxy.choose(kind, texts)
        timeout = error(WRITE_TIMEOUT if kind is Kind.WRITE else READ_TIMEOUT, stream)
        match fault:
            case Fault.NONE:
                self._about[stream] = about
                self._pass_on(frame)
            case Fault.LOST_TIMEOUT | Fault.LOST_SILENT:
                proxy.tell(fault.name, about, False)
                if fault is Fault.LOST_TIMEOUT:
                    self._answer(timeout)
            case Fault.LATE:
                self._answer(timeout)
                self._late += 1
                proxy.reactor.callLater(proxy.late_seconds(), self._carry_out_late, frame, about)
            case Fault.TWICE:
                self._asked[stream] = lambda answer: self._again(frame, about, answer)
                self._pass_on(frame)
            case _:
                self._asked[stream] = lambda answer: self._applied(fault, about, timeout, answer)
                self._pass_on(frame)

    def _prepared(self, text: str, answer: Frame) -> None:
        if id := prepared_id(answer):
            self._proxy.prepared[id] = text
        self._answer(answer)

    def _applied(self, fault: Fault, about: str, timeout: Frame, answer: Frame) -> None:
        self._proxy.tell(fault.name, about, applied(answer))
        if fault is Fault.APPLIED_TIMEOUT:
            self._answer(timeout)
        elif fault is Fault.APPLIED_CUT:
            self.transport.abortConnection()

    def _free_stream(self) -> int:
        return next(number for number in _OWN_STREAMS if number not in self._asked)

    def _carry_out_late(self, frame: Frame, about: str) -> None:
        stream = self._free_stream()

        def done(answer: Frame) -> None:
            self._proxy.tell(Fault.LATE.name, about, applied(answer))
            self._late -= 1
            self._end_node()

        if self._node is None:
            self._proxy.tell(Fault.LATE.name, about, False)
            return
        self._asked[stream] = done
        self._pass_on(frame.on(stream))

    def _again(self, frame: Frame, about: str, first: Frame) -> None:
        stream = self._free_stream()

        def done(second: Frame) -> None:
            self._proxy.tell(Fault.TWICE.name, about, applied(first))
            self._answer(second.on(frame.stream))

        self._asked[stream] = done
        self._pass_on(frame.on(stream))

    # --- answers

    def answered(self, frame: Frame) -> None:
        """By the node."""
        about = self._about.pop(frame.stream, None)
        failure = failure_of(frame) if about is not None else None
        if about is not None and failure is not None and failure[0] in (WRITE_TIMEOUT, READ_TIMEOUT):
            self._proxy.tell("server", f"{failure[1]} | {about}", False)
        done = self._asked.pop(frame.stream, None)
        if done is not None:
            done(frame)
        elif frame.opcode == Op.SUPPORTED:
            self._answer(without_compression(frame))
        else:
            self._answer(frame)


class _Nodes(Factory):
    def __init__(self, client: _Client) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> _Node:
        return _Node(self._client)


class _Node(Protocol):
    """The node's side."""

    transport: Any  # as above

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._buffer = bytearray()

    def connectionMade(self) -> None:
        self._client.connected_to(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        for frame in take_frames(self._buffer):
            self._client.answered(frame)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.node_lost()
