"""The Twisted end, on a transport and a clock that are not real."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.smtp.fakes import NOW, FakeAuthentication, FakeIntake
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits, Profile
from twisted_mail.smtp.server import SMTPServer, SMTPServerFactory

GREETING = b"220 mx.example.org ESMTP\r\n"


class Transport(StringTransport):
    """Counts writes."""

    writes = 0
    aborted = False
    no_delay = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def abortConnection(self) -> None:
        self.aborted = True


class ServerTests(SynchronousTestCase):
    """Time-outs, back-pressure, batches, draining."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.intake = FakeIntake()

    def factory(self, profile: Profile = MX, **limits: Any) -> SMTPServerFactory:
        return SMTPServerFactory(
            profile,
            self.intake,
            FakeAuthentication(),
            Limits(**limits),
            None,
            self.clock,
            "mx.example.org",
            wall=lambda: NOW,
        )

    def connect(
        self, factory: SMTPServerFactory | None = None, address: str = "192.0.2.1"
    ) -> tuple[SMTPServer, Transport]:
        factory = factory or self.factory()
        peer: Any = IPv4Address("TCP", address, 4000) if address else UNIXAddress("/run/x")
        protocol, transport = factory.buildProtocol(peer), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def said(self, transport: Transport) -> bytes:
        value: bytes = transport.value()
        transport.clear()
        return value

    def in_data(self, factory: SMTPServerFactory | None = None) -> tuple[SMTPServer, Transport]:
        protocol, transport = self.connect(factory)
        protocol.dataReceived(
            b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
        )
        self.assertTrue(self.said(transport).endswith(b"354 End the message with <CRLF>.<CRLF>\r\n"))
        return protocol, transport

    def test_a_pipelined_batch_is_answered_by_one_write(self) -> None:
        protocol, transport = self.connect()
        self.assertTrue(transport.no_delay)
        self.assertEqual(self.said(transport), GREETING)
        transport.writes = 0
        protocol.dataReceived(b"HELO x\r\n" + b"NOOP\r\n" * 50)
        self.assertEqual(transport.writes, 1)
        self.assertEqual(self.said(transport).count(b"\r\n"), 51)

    def test_replies_that_are_ready_do_not_wait_for_a_slow_one(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.intake.slow_recipient = lambda: waiting
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nNOOP\r\n"
        )
        self.assertEqual(self.said(transport).count(b"\r\n"), 3)
        waiting.callback(None)
        self.assertEqual(self.said(transport), b"250 2.1.5 Recipient ok\r\n250 2.0.0 Ok\r\n")

    def test_250_comes_only_after_the_message_is_durable(self) -> None:
        durable: Deferred[None] = Deferred()
        self.intake.slow_finish = lambda: durable
        protocol, transport = self.in_data()
        protocol.dataReceived(b"text\r\n.\r\nNOOP\r\n")
        self.assertEqual(self.said(transport), b"")
        durable.callback(None)
        said = self.said(transport)
        self.assertTrue(said.startswith(b"250 2.0.0 Accepted"), said)
        self.assertTrue(said.endswith(b"250 2.0.0 Ok\r\n"), said)

    def test_who_says_nothing_is_sent_away_after_the_commands_time(self) -> None:
        protocol, transport = self.connect(self.factory(command_seconds=300))
        self.said(transport)
        self.clock.advance(200)
        protocol.dataReceived(b"NOOP\r\n")
        self.said(transport)
        self.clock.advance(299)
        self.assertEqual(self.said(transport), b"")
        self.clock.advance(1.1)
        self.assertTrue(self.said(transport).startswith(b"421 4.4.2"))
        self.assertTrue(transport.disconnecting)

    def test_the_message_has_a_time_of_its_own(self) -> None:
        protocol, transport = self.in_data(self.factory(command_seconds=300, data_seconds=600))
        protocol.dataReceived(b"some")
        self.clock.advance(599)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(2)
        self.assertTrue(self.said(transport).startswith(b"421 4.4.2"))
        self.assertTrue(self.intake.begun[0].aborted)
        self.assertEqual(self.intake.messages, [])

    def test_a_submission_client_has_to_log_in_in_time(self) -> None:
        protocol, transport = self.connect(self.factory(SUBMISSION, login_seconds=120))
        self.said(transport)
        for _ in range(12):
            self.assertFalse(transport.disconnecting)
            self.clock.advance(10.01)
            protocol.dataReceived(b"NOOP\r\n")
        self.assertTrue(transport.disconnecting)
        protocol, transport = self.connect(self.factory(SUBMISSION, login_seconds=120))
        protocol.dataReceived(b"EHLO x\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n")
        self.clock.advance(200)
        self.assertFalse(transport.disconnecting)

    def test_work_that_takes_too_long_is_given_up(self) -> None:
        cancelled: list[object] = []
        self.intake.slow_recipient = lambda: Deferred(cancelled.append)
        protocol, transport = self.connect(self.factory(work_seconds=400))
        protocol.dataReceived(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\n")
        self.said(transport)
        self.clock.advance(399)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(2)
        self.assertTrue(self.said(transport).startswith(b"421 4.4.2"))
        self.assertEqual(len(cancelled), 1)
        self.assertTrue(transport.disconnecting)

    def test_who_does_not_take_the_last_words_is_cut_off(self) -> None:
        protocol, transport = self.connect(self.factory(command_seconds=300))
        protocol.dataReceived(b"QUIT\r\n")
        self.assertTrue(transport.disconnecting)
        self.clock.advance(301)
        self.assertTrue(transport.aborted)

    def test_a_client_gone_within_a_message_leaves_nothing(self) -> None:
        protocol, _ = self.in_data()
        protocol.dataReceived(b"half a message\r\n")
        protocol.connectionLost()
        self.assertTrue(self.intake.begun[0].aborted)
        self.assertEqual(self.intake.messages, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_gone_while_a_message_is_written_leaves_nothing(self) -> None:
        cancelled: list[object] = []
        self.intake.slow = lambda: Deferred(cancelled.append)
        protocol, _ = self.in_data()
        protocol.dataReceived(b"half a message\r\n")
        protocol.connectionLost()
        self.assertEqual(len(cancelled), 1)
        self.assertTrue(self.intake.begun[0].aborted)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_gone_after_the_last_octet_does_not_undo_the_delivery(self) -> None:
        durable: Deferred[None] = Deferred()
        self.intake.slow_finish = lambda: durable
        protocol, _ = self.in_data()
        protocol.dataReceived(b"text\r\n.\r\n")
        protocol.connectionLost()
        durable.callback(None)
        self.assertEqual(len(self.intake.messages), 1)
        self.assertFalse(self.intake.begun[0].aborted)

    def test_a_fast_client_is_paused_while_a_message_is_written(self) -> None:
        waiting: list[Deferred[None]] = []

        def slow() -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.intake.slow = slow
        protocol, transport = self.in_data(self.factory(buffer_bytes=1000))
        protocol.dataReceived(b"x" * 500)
        self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(b"y" * 900)
        self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(b"z" * 200)
        self.assertEqual(transport.producerState, "paused")
        waiting.pop(0).callback(None)  # the rest is being written now
        waiting.pop(0).callback(None)
        self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(b"\r\n.\r\n")
        waiting.pop(0).callback(None)
        self.assertEqual(self.intake.messages[0][1], b"x" * 500 + b"y" * 900 + b"z" * 200 + b"\r\n")

    def test_a_client_that_does_not_read_is_not_listened_to(self) -> None:
        protocol, transport = self.connect()
        self.assertIs(transport.producer, protocol)
        protocol.pauseProducing()
        self.assertEqual(transport.producerState, "paused")
        protocol.resumeProducing()
        self.assertEqual(transport.producerState, "producing")

    def test_draining_waits_for_the_transaction_that_goes_on(self) -> None:
        factory = self.factory()
        idle = self.connect(factory)[1]
        protocol, busy = self.in_data(factory)
        self.said(idle)
        factory.drain()
        self.assertEqual(self.said(idle), b"421 4.3.2 The server is shutting down, try again later\r\n")
        self.assertTrue(idle.disconnecting)
        self.assertFalse(busy.disconnecting)
        protocol.dataReceived(b"text\r\n.\r\nMAIL FROM:<x@y.example>\r\n")
        said = self.said(busy).split(b"\r\n")
        self.assertTrue(said[0].startswith(b"250 2.0.0"))
        self.assertTrue(said[1].startswith(b"421 4.3.2"))
        self.assertEqual(said[2:], [b""])
        self.assertTrue(busy.disconnecting)
        late = self.connect(factory)[1]
        self.assertTrue(self.said(late).startswith(b"421 4.3.2"))

    def test_connections_of_one_address_are_limited(self) -> None:
        factory = self.factory(connections_per_address=2)
        first, _ = self.connect(factory)
        self.connect(factory)
        third, transport = self.connect(factory)
        self.assertTrue(self.said(transport).startswith(b"421 4.7.0 Too many connections"))
        self.assertTrue(transport.disconnecting)
        third.connectionLost()
        self.assertEqual(self.said(self.connect(factory, "192.0.2.2")[1]), GREETING)
        first.connectionLost()
        self.assertEqual(self.said(self.connect(factory)[1]), GREETING)

    def test_lmtp_on_a_unix_socket_has_a_peer_without_address(self) -> None:
        protocol, transport = self.connect(self.factory(LMTP), "")
        self.assertEqual(self.said(transport), b"220 mx.example.org LMTP\r\n")
        protocol.dataReceived(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")
        envelope, _ = self.intake.messages[0]
        self.assertEqual((envelope.peer.address, envelope.peer.service), ("", "lmtp"))
        self.assertEqual(envelope.protocol, "LMTP")

    def test_a_bug_behind_a_command_costs_451_and_is_logged(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<crash@example.org>\r\nNOOP\r\n")
        self.assertTrue(self.said(transport).endswith(b"451 4.3.0 Local error, try again later\r\n250 2.0.0 Ok\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_ten_thousand_unknown_commands_end_at_the_limit(self) -> None:
        protocol, transport = self.connect(self.factory(bad_commands=20))
        for _ in range(100):
            protocol.dataReceived(b"FROBNICATE\r\n" * 100)
        said = self.said(transport)
        self.assertEqual(said.count(b"500 5.5.1"), 20)
        self.assertEqual(said.count(b"421 4.7.0"), 1)
        self.assertTrue(transport.disconnecting)


class SocketTransport(Transport):
    """Has a socket of its own, as a real one has."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self.handle = handle

    def getHandle(self) -> socket.socket:
        return self.handle


class StraightTests(SynchronousTestCase):
    """Replies are given to the kernel at once, as long as it takes them."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        for each in (self.ours, self.theirs):
            each.setblocking(False)
        factory = SMTPServerFactory(MX, FakeIntake(), None, Limits(), None, Clock(), "mx.example.org", wall=lambda: NOW)
        self.transport = SocketTransport(self.ours)
        self.server: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4000))
        self.server.makeConnection(self.transport)

    def read(self) -> bytes:
        got = b""
        try:
            while data := self.theirs.recv(65_536):
                got += data
        except BlockingIOError:
            pass
        return got

    def test_a_reply_is_there_before_the_reactor_has_its_turn(self) -> None:
        self.assertEqual(self.read(), GREETING)
        self.server.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.read(), b"250 2.0.0 Ok\r\n")
        self.assertEqual(self.transport.writes, 0)

    def test_what_does_not_fit_goes_through_the_transport_and_nothing_overtakes_it(self) -> None:
        self.read()
        while not self.transport.writes:
            self.server.dataReceived(b"NOOP\r\n" * 100)
        taken = self.read()
        self.server.dataReceived(b"RSET\r\nVRFY x\r\n")
        self.assertEqual(self.read(), b"", "what came later waits behind it")
        said = taken + self.transport.value()
        self.assertEqual(said.replace(b"250 2.0.0 Ok\r\n", b""), b"252 2.5.0 Send some mail: it is looked at then\r\n")

    def test_a_connection_that_is_gone_is_the_transports_to_notice(self) -> None:
        self.ours.close()
        self.server.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.transport.value(), b"250 2.0.0 Ok\r\n")
