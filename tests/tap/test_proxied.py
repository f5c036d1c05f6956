"""Listeners behind a proxy: who is believed, who is counted, what comes too late; and HAProxy itself."""

from __future__ import annotations

import ipaddress
import smtplib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.certificates import pair, pem, trusting
from tests.services import running
from tests.services.haproxy import HAProxy
from tests.smtp.fakes import FakeIntake
from tests.test_proxy_protocol import TLS, v2
from twisted_mail.connections import peer_at
from twisted_mail.services import Peer
from twisted_mail.smtp.profiles import MX, Limits
from twisted_mail.smtp.server import SMTPServerFactory
from twisted_mail.tap.configuration import ConfigurationError, load
from twisted_mail.tap.listeners import AdoptedSocket, ConnectionCounts, Gate, adopt_all, bind_all
from twisted_mail.tap.proxied import Proxying, Trusted, bare
from twisted_mail.tap.settings import LISTENERS, Configuration

reactor: Any = _reactor
HEADER = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 25\r\n"


class Spoken(Protocol):
    """Greets, and keeps what it is told."""

    def __init__(self, peer: Peer, all_of_them: list[Spoken]) -> None:
        self.peer = peer
        self.heard = b""
        self.lost = 0
        all_of_them.append(self)

    def connectionMade(self) -> None:
        self.transport.write(b"hello " + self.peer.address.encode())  # type: ignore[union-attr]  # connected

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1


class Inner(Factory):
    def __init__(self) -> None:
        self.here: list[Spoken] = []

    def buildProtocol(self, addr: Any) -> Spoken:
        return Spoken(peer_at(addr, "smtp"), self.here)


class Transport(StringTransport):
    """Feeds whatever protocol is there at the moment, as a real one does."""

    protocol: Any = None

    def receive(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def end(self) -> None:
        self.protocol.connectionLost()


class GateTests(SynchronousTestCase):
    """Without a network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = Inner()

    def gate(self, *, total: int = 0, per_address: int = 0, name: str = "smtp") -> Gate:
        trusted = Trusted((ipaddress.ip_network("10.0.0.0/8"),))
        self.counts = ConnectionCounts(total=total, per_address=per_address)
        gate = Gate(name, self.counts, Proxying(self.clock, trusted))
        gate.fill(self.inner)
        return gate

    def connect(self, gate: Gate, host: str = "10.0.0.1") -> Transport | None:
        address: Any = IPv4Address("TCP", host, 4000) if host else UNIXAddress("/x")
        protocol = gate.buildProtocol(address)
        if protocol is None:
            return None
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def connected(self, gate: Gate, host: str = "10.0.0.1") -> Transport:
        transport = self.connect(gate, host)
        assert transport is not None
        return transport

    def test_nothing_is_said_before_the_header_and_then_the_client_is_the_peer(self) -> None:
        transport = self.connected(self.gate())
        for octet in HEADER:
            self.assertEqual(transport.value(), b"")
            transport.receive(bytes((octet,)))
        self.assertEqual(transport.value(), b"hello 203.0.113.5")
        (spoken,) = self.inner.here
        self.assertEqual(spoken.peer, Peer("203.0.113.5", 4711, service="smtp"))
        transport.receive(b"more")
        self.assertEqual(spoken.heard, b"more")
        self.assertIs(transport.protocol, spoken, "there is no layer in between")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_behind_the_header_is_not_lost(self) -> None:
        self.connected(self.gate()).receive(HEADER + b"EHLO x\r\n")
        self.assertEqual(self.inner.here[0].heard, b"EHLO x\r\n")

    def test_tls_with_the_proxy_is_tls(self) -> None:
        self.connected(self.gate()).receive(v2("203.0.113.5", extensions=TLS))
        peer = self.inner.here[0].peer
        self.assertTrue(peer.secure)
        self.assertEqual(peer.tls_description, "TLS1.3 with cipher TLS_AES_256_GCM_SHA384")

    def test_a_probe_of_the_proxys_own_has_the_proxys_address(self) -> None:
        self.connected(self.gate()).receive(v2(command=0x20))
        self.assertEqual(self.inner.here[0].peer.address, "10.0.0.1")

    def test_who_is_not_trusted_is_not_even_read(self) -> None:
        self.assertIsNone(self.connect(self.gate(), "203.0.113.5"))
        self.assertEqual(self.counts.now, 0)

    def test_a_unix_socket_is_trusted(self) -> None:
        self.connected(self.gate(), "").receive(HEADER)
        self.assertEqual(self.inner.here[0].peer.address, "203.0.113.5")

    def test_no_header_a_malformed_one_and_a_late_one_end_the_connection(self) -> None:
        gate = self.gate()
        for octets in (b"EHLO x\r\n", b"PROXY TCP4 nonsense\r\n", v2(command=0x25)):
            transport = self.connected(gate)
            transport.receive(octets)
            self.assertTrue(transport.disconnected)
            transport.receive(HEADER)  # what is still on its way
            transport.end()
        late = self.connected(gate)
        late.receive(HEADER[:10])
        self.clock.advance(4.9)
        self.assertFalse(late.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(late.disconnected)
        late.end()
        self.assertEqual((self.inner.here, self.counts.now, self.clock.getDelayedCalls()), ([], 0, []))

    def test_clients_are_counted_by_their_own_addresses(self) -> None:
        gate = self.gate(per_address=1)
        first = self.connected(gate)
        first.receive(HEADER)
        second = self.connected(gate)
        second.receive(HEADER)
        self.assertEqual(second.value(), b"421 4.7.0 Too many connections, try again later\r\n")
        self.assertTrue(second.disconnecting)
        third = self.connected(gate)
        third.receive(HEADER.replace(b"203.0.113.5", b"203.0.113.6"))
        self.assertEqual(len(self.inner.here), 2)
        first.end()
        again = self.connected(gate)
        again.receive(HEADER)
        self.assertEqual(self.inner.here[-1].peer.address, "203.0.113.5")

    def test_those_whose_header_is_awaited_count_too(self) -> None:
        gate = self.gate(total=2)
        waiting = [self.connected(gate), self.connected(gate)]
        refused = self.connected(gate)
        self.assertTrue(refused.disconnecting)
        waiting[0].end()
        waiting[1].receive(HEADER)
        self.assertEqual((gate.connections, self.counts.now), (1, 1))
        waiting[1].end()
        self.assertEqual((gate.connections, self.counts.now, self.inner.here[0].lost), (0, 0, 1))

    def test_a_refusal_on_an_encrypted_listener_only_ends_the_connection(self) -> None:
        gate = self.gate(per_address=1, name="imaps")
        self.connected(gate).receive(HEADER)
        second = self.connected(gate)
        second.receive(HEADER)
        self.assertTrue(second.disconnected)

    def test_the_gate_is_empty_when_the_last_has_left_whatever_it_was(self) -> None:
        gate = self.gate()
        transport = self.connected(gate)
        empty = gate.empty()
        self.assertNoResult(empty)
        transport.receive(HEADER)
        self.assertNoResult(empty)
        transport.end()
        self.successResultOf(empty)
        waiting = self.connected(gate)
        self.assertEqual(gate.abort(), 1)
        self.assertTrue(waiting.disconnected)


@pytest.mark.parametrize(
    ("address", "believed"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("2001:db8::1", True), ("2001:db9::1", False), ("", True),
     ("nonsense", False)],
)  # fmt: skip
def test_networks_are_trusted_in_either_form_of_an_address(address: str, believed: bool) -> None:
    trusted = Trusted((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")))
    assert trusted(address) is believed


# --- the configuration


def configured(**variables: str) -> Configuration:
    environment = {f"TWISTED_MAIL__LISTEN__{name.upper()}": "" for name in LISTENERS}
    return load(None, environment | {f"TWISTED_MAIL__{name}": value for name, value in variables.items()})


def refused(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configured(**variables)
    return str(caught.value)


def test_networks_of_proxies_are_read() -> None:
    configuration = configured(LISTEN__SMTP="haproxy:tcp:25", SMTP__TRUSTED="10.0.0.0/8,::1/128")
    assert configuration.smtp.trusted == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert configuration.listen.smtp == ("haproxy:tcp:25",)
    assert bare("haproxy:tcp:25") == bare("tcp:25") == "tcp:25"


def test_a_proxy_that_nobody_trusts_is_a_mistake() -> None:
    assert 'listen.smtp[1]: "haproxy:tcp:25": smtp.trusted says whose PROXY header is believed' in refused(
        LISTEN__SMTP="haproxy:tcp:25"
    )
    assert configured(LISTEN__LMTP="haproxy:unix:/run/lmtp").listen.lmtp


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("haproxy:haproxy:tcp:25", "one header is enough"),
        ("haproxy:ssl:25", "give the plain endpoint"),
        ("haproxy:tcp:70000", "there is no port 70000"),
        ("haproxy:", "is not a Twisted server endpoint string"),
    ],
)
def test_endpoints_behind_proxies_are_checked_like_all_others(endpoint: str, said: str) -> None:
    assert said in refused(LISTEN__SMTP=endpoint, SMTP__TRUSTED="10.0.0.0/8")


def test_one_port_cannot_be_behind_a_proxy_and_not() -> None:
    assert "is taken by listen.smtp" in refused(LISTEN__SMTP="haproxy:tcp:25,tcp:25", SMTP__TRUSTED="10.0.0.0/8")


def test_a_masters_socket_says_that_it_is_behind_a_proxy() -> None:
    one = AdoptedSocket("imap", 7, 2, True)
    assert str(one) == "imap=7:2:proxied"
    assert AdoptedSocket.parse(str(one)) == one
    with pytest.raises(ValueError):
        AdoptedSocket.parse("imap=7:2:nonsense")


# --- real sockets


class Client(Protocol):
    """Keeps what it hears until *enough* of it is there."""

    def __init__(self, enough: Callable[[bytes], bool]) -> None:
        self.heard = b""
        self.done: Deferred[bytes] = Deferred()
        self._enough = enough

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self._enough(self.heard) and not self.done.called:
            self.done.callback(self.heard)

    def connectionLost(self, reason: Any = None) -> None:
        if not self.done.called:
            self.done.callback(self.heard)


class SocketTests(TestCase):
    """On loopback, HAProxy in front."""

    timeout = 30

    def opened(self, endpoint: str, trusted: str = "127.0.0.0/8") -> tuple[int, Inner]:
        configuration = configured(LISTEN__SMTP=endpoint, SMTP__TRUSTED=trusted)
        (listener,) = bind_all(reactor, configuration, ConnectionCounts(total=0, per_address=0))
        self.addCleanup(listener.close)
        inner = Inner()
        listener.open(inner)
        port: Any = listener.port
        return port.getHost().port, inner

    async def said(self, port: int, octets: bytes, source: str = "127.0.0.1") -> bytes:
        client = Client(lambda heard: b"hello" in heard)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(source, 0))
        await connectProtocol(endpoint, client)
        client.transport.write(octets)  # type: ignore[union-attr]  # connected
        heard = await client.done
        client.transport.loseConnection()  # type: ignore[union-attr]  # connected
        return heard

    async def test_a_header_over_a_real_socket(self) -> None:
        port, inner = self.opened("haproxy:tcp:0:interface=127.0.0.1")
        self.assertEqual(await self.said(port, HEADER), b"hello 203.0.113.5")
        self.assertEqual(await self.said(port, b"EHLO x\r\n"), b"")
        self.assertEqual(len(inner.here), 1)

    async def test_a_stranger_is_hung_up_on(self) -> None:
        port, inner = self.opened("haproxy:tcp:0:interface=127.0.0.1", "127.0.0.1/32")
        self.assertEqual(await self.said(port, HEADER, "127.0.0.9"), b"")
        self.assertEqual(inner.here, [])

    async def test_a_worker_gets_it_from_its_master(self) -> None:
        configuration = configured(LISTEN__SMTP="haproxy:tcp:0:interface=127.0.0.1", SMTP__TRUSTED="127.0.0.0/8")
        counts = ConnectionCounts(total=0, per_address=0)
        (bound,) = bind_all(reactor, configuration, counts)
        given = AdoptedSocket("smtp", bound.port.fileno(), int(bound.port.addressFamily), True)
        (adopted,) = adopt_all(reactor, [given], counts, configuration)
        inner = Inner()
        adopted.open(inner)
        port: Any = bound.port
        self.assertEqual(await self.said(port.getHost().port, HEADER), b"hello 203.0.113.5")
        await adopted.close()
        await bound.close()

    async def through_haproxy(self, options: str) -> Peer:
        port, inner = self.opened("haproxy:tcp:0:interface=127.0.0.1")
        proxy = HAProxy(running.new_folder("haproxy"), port, options)
        proxy.start()
        try:
            self.assertEqual(await self.said(proxy.port, b"", "127.0.0.77"), b"hello 127.0.0.77")
            (peer,) = {spoken.peer.address: spoken.peer for spoken in inner.here if spoken.peer.address == "127.0.0.77"}.values()
            return peer
        finally:
            proxy.stop()

    async def test_haproxy_speaks_version_1(self) -> None:
        self.assertFalse((await self.through_haproxy("send-proxy")).secure)

    async def test_haproxy_speaks_version_2_with_its_checksum(self) -> None:
        options = "send-proxy-v2 proxy-v2-options crc32c,ssl,unique-id,authority"
        self.assertFalse((await self.through_haproxy(options)).secure)

    def mail_server(self, **options: Any) -> int:
        """The port of a real SMTP server behind a gate."""
        self.intake = FakeIntake()
        configuration = configured(LISTEN__SMTP="haproxy:tcp:0:interface=127.0.0.1", SMTP__TRUSTED="127.0.0.0/8")
        (listener,) = bind_all(reactor, configuration, ConnectionCounts(total=0, per_address=0))
        self.addCleanup(listener.close)
        tls, _ = pair()
        listener.open(SMTPServerFactory(MX, self.intake, None, Limits(), tls, reactor, "mx.example.org", **options))
        port: Any = listener.port
        return int(port.getHost().port)

    async def sent(self, proxy: HAProxy) -> tuple[bool, Peer]:
        """Send a message by TLS; whether STARTTLS was offered, and who the peer was."""
        proxy.start()

        def send() -> bool:
            with smtplib.SMTP_SSL(
                "127.0.0.1", proxy.port, "x.example", timeout=10, context=trusting(), source_address=("127.0.0.78", 0)
            ) as client:
                client.sendmail("a@b.example", ["ann@example.org"], b"Subject: a\r\n\r\nb\r\n")
                return client.has_extn("starttls")

        try:
            offered = await deferToThread(send)
        finally:
            proxy.stop()
        ((envelope, _),) = self.intake.messages
        return offered, envelope.peer

    async def test_tls_goes_through_the_proxy_to_a_listener_that_is_encrypted_from_the_start(self) -> None:
        port = self.mail_server(implicit_tls=True)
        offered, peer = await self.sent(HAProxy(running.new_folder("haproxy-tls"), port, "send-proxy-v2"))
        self.assertEqual((offered, peer.address, peer.secure), (False, "127.0.0.78", True))
        self.assertIn("tls-server-end-point", peer.channel_bindings)

    async def test_tls_that_haproxy_ends_counts_as_tls_where_it_says_so(self) -> None:
        folder = running.new_folder("haproxy-ends-tls")
        (folder / "pair.pem").write_bytes(pem())
        options = "send-proxy-v2 proxy-v2-options ssl,crc32c"
        proxy = HAProxy(folder, self.mail_server(), options, f"ssl crt {folder / 'pair.pem'}")
        offered, peer = await self.sent(proxy)
        self.assertEqual((offered, peer.address, peer.secure, peer.channel_bindings), (False, "127.0.0.78", True, {}))
        self.assertRegex(peer.tls_description, r"^TLS1\.[23]")
