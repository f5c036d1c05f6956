"""Ports: bound silent, opened, counted, drained; and clear words when they cannot be bound."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_mail.tap.configuration import load
from twisted_mail.tap.listeners import AdoptedSocket, ConnectionCounts, Gate, Listener, StartError, adopt_all, bind_all
from twisted_mail.tap.settings import Configuration

reactor: Any = _reactor


def configured(**listeners: str) -> Configuration:
    environment = {f"TWISTED_MAIL__LISTEN__{name.upper()}": "" for name in (
        "smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "managesieve")}  # fmt: skip
    for name, endpoint in listeners.items():
        environment[f"TWISTED_MAIL__LISTEN__{name.upper()}"] = endpoint
    return load(None, environment)


def unlimited() -> ConnectionCounts:
    return ConnectionCounts(total=0, per_address=0)


class GateTests(SynchronousTestCase):
    """Counting, and refusing in the protocol's words."""

    def connect(self, gate: Gate, host: str = "192.0.2.1") -> Any:
        """The transport of a new connection, which has its protocol as an attribute."""
        transport: Any = StringTransport()
        protocol = gate.buildProtocol(IPv4Address("TCP", host, 4000))
        protocol.makeConnection(transport)
        transport.protocol = protocol
        return transport

    def gate(self, name: str = "imap", *, total: int = 0, per_address: int = 0) -> Gate:
        gate = Gate(name, ConnectionCounts(total=total, per_address=per_address))
        gate.fill(Factory.forProtocol(Protocol))
        return gate

    def test_the_limit_for_an_address_holds_for_that_address_only(self) -> None:
        gate = self.gate(per_address=2)
        first = self.connect(gate)
        self.assertFalse(self.connect(gate).disconnecting)
        refused = self.connect(gate)
        self.assertTrue(refused.disconnecting)
        self.assertEqual(refused.value(), b"* BYE [LIMIT] Too many connections\r\n")
        self.assertFalse(self.connect(gate, "192.0.2.2").disconnecting)
        first.protocol.connectionLost()
        self.assertFalse(self.connect(gate).disconnecting)

    def test_the_total_counts_every_listener_and_unix_sockets_too(self) -> None:
        counts = ConnectionCounts(total=2, per_address=1)
        smtp, lmtp = Gate("smtp", counts), Gate("lmtp", counts)
        for gate in (smtp, lmtp):
            gate.fill(Factory.forProtocol(Protocol))
        self.connect(smtp)
        lmtp.buildProtocol(UNIXAddress("/x")).makeConnection(StringTransport())
        refused = self.connect(smtp, "192.0.2.9")
        self.assertTrue(refused.value().startswith(b"421 4.7.0 "))
        self.assertEqual(counts.now, 2)

    def test_a_listener_that_is_encrypted_from_the_start_only_closes(self) -> None:
        gate = self.gate("imaps", total=1)
        self.connect(gate)
        self.assertIsNone(gate.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))

    def test_the_protocols_own_end_is_still_called_and_counted_once(self) -> None:
        gate = self.gate()
        lost: list[Any] = []

        class Watched(Protocol):
            def connectionLost(self, reason: Any = None) -> None:
                lost.append(reason)

        gate.fill(Factory.forProtocol(Watched))
        transport = self.connect(gate)
        empty = gate.empty()
        self.assertNoResult(empty)
        self.assertEqual(gate.connections, 1)
        transport.protocol.connectionLost("why")
        transport.protocol.connectionLost("again")
        self.successResultOf(empty)
        self.assertEqual((gate.connections, lost), (0, ["why", "again"]))

    def test_abort_ends_what_is_left(self) -> None:
        gate = self.gate()
        transport = self.connect(gate)
        self.assertEqual(gate.abort(), 1)
        self.assertTrue(transport.disconnected)


class SocketTests(SynchronousTestCase):
    """How a master's socket is named for a worker."""

    def test_what_is_written_is_read(self) -> None:
        one = AdoptedSocket("imaps", 7, int(socket.AF_INET6))
        self.assertEqual(AdoptedSocket.parse(str(one)), one)
        self.assertRaises(ValueError, AdoptedSocket.parse, "imaps")


class BindTests(TestCase):
    """Real sockets on loopback."""

    def refused(self, **listeners: str) -> str:
        return str(self.assertRaises(StartError, bind_all, reactor, configured(**listeners), unlimited()))

    def test_a_port_in_use_is_named(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            endpoint = f"tcp:{port}:interface=127.0.0.1"
            self.assertEqual(
                self.refused(imap=endpoint),
                f'listen.imap: "{endpoint}" is in use: another program, or another server of ours, listens there',
            )

    async def test_what_was_bound_before_the_failure_is_free_again(self) -> None:
        with socket.socket() as free, socket.socket() as taken:
            for each in (free, taken):
                each.bind(("127.0.0.1", 0))
            taken.listen()
            first, second = free.getsockname()[1], taken.getsockname()[1]
            free.close()
            self.refused(smtp=f"tcp:{first}:interface=127.0.0.1", imap=f"tcp:{second}:interface=127.0.0.1")
            await deferLater(reactor, 0)
            with socket.socket() as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                again.bind(("127.0.0.1", first))

    def test_an_address_that_is_not_ours(self) -> None:
        self.assertIn("this machine has no such address", self.refused(imap="tcp:0:interface=192.0.2.77"))

    def test_a_unix_socket_in_a_folder_that_does_not_exist(self) -> None:
        self.assertIn('listen.lmtp: "unix:/does/not/exist" cannot be bound: ', self.refused(lmtp="unix:/does/not/exist"))

    def test_a_unix_socket_that_another_process_holds(self) -> None:
        path = Path(self.mktemp()).absolute()
        (held,) = bind_all(reactor, configured(lmtp=f"unix:{path}"), unlimited())
        self.addCleanup(lambda: held.port.stopListening())
        self.assertIn("is in use", self.refused(lmtp=f"unix:{path}"))

    async def answer_of(self, listener: Listener) -> bytes:
        from twisted.internet.defer import Deferred
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        got: Deferred[bytes] = Deferred()

        class Client(Protocol):
            def dataReceived(self, data: bytes) -> None:
                if not got.called:
                    got.callback(data)

        address: Any = listener.port.getHost()
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", address.port), Client())
        try:
            return await got
        finally:
            assert client.transport is not None
            client.transport.loseConnection()
            await listener.gate.empty()

    async def test_who_comes_before_the_doors_are_open_waits_in_the_backlog(self) -> None:
        (listener,) = bind_all(reactor, configured(imap="tcp:0:interface=127.0.0.1"), unlimited())
        reactor.callLater(0.05, listener.open, Factory.forProtocol(Greeting))
        self.assertEqual(await self.answer_of(listener), b"hello\r\n")
        await listener.close()

    async def test_a_worker_serves_on_a_socket_that_the_master_has_bound(self) -> None:
        (bound,) = bind_all(reactor, configured(imap="tcp:0:interface=127.0.0.1"), unlimited())
        given = AdoptedSocket("imap", bound.port.fileno(), int(bound.port.addressFamily))
        (adopted,) = adopt_all(reactor, [given], unlimited(), configured(imap="tcp:0"))
        adopted.open(Factory.forProtocol(Greeting))
        self.assertEqual(await self.answer_of(adopted), b"hello\r\n")
        await adopted.close()
        await bound.close()


class Greeting(Protocol):
    """Says one line."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello\r\n")
