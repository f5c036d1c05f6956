"""The Twisted end: on fake transports with a fake clock, and once on real sockets with Python's own client."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import poplib
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.pop3.support import USERS, House, HouseCase, identity, message_of
from tests.pop3.test_wire import received
from twisted_mail.auth.tls import TLSContexts, self_signed
from twisted_mail.pop3.server import POP3Server, POP3ServerFactory
from twisted_mail.pop3.settings import Settings
from twisted_mail.services import AuthenticationFailed, Exclusive, Identity, Peer
from twisted_mail.values import AccountId


class Transport(StringTransport):
    """Says "enough" to its producer above 64 KiB, as a socket does, and has TLS in name."""

    limit = 65_536

    def __init__(self, address: Any) -> None:
        super().__init__(peerAddress=address)
        self.writes: list[bytes] = []
        self.waiting = 0
        self.read_paused = False
        self.no_delay = False
        self.tls: Any = None
        self.aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def startTLS(self, options: Any) -> None:
        self.tls = options

    def write(self, data: bytes) -> None:
        assert not self.disconnecting
        super().write(data)
        self.writes.append(data)
        self.waiting += len(data)
        if self.waiting > self.limit and self.producer is not None:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer has read everything."""
        self.waiting = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def pauseProducing(self) -> None:
        self.read_paused = True

    def resumeProducing(self) -> None:
        self.read_paused = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Line:
    """One connection."""

    def __init__(self, factory: POP3ServerFactory, address: Any = None) -> None:
        self.address = address or IPv4Address("TCP", "127.0.0.1", 40000)
        self.server: POP3Server = factory.buildProtocol(self.address)
        self.transport = Transport(self.address)
        self.server.makeConnection(self.transport)

    def say(self, *lines: str) -> bytes:
        self.server.dataReceived("".join(f"{line}\r\n" for line in lines).encode())
        return self.take()

    def take(self) -> bytes:
        out: bytes = self.transport.value()
        self.transport.clear()
        return out

    def log_in(self, user: str = "mrose") -> bytes:
        self.take()
        return self.say(f"USER {user}", f"PASS {USERS[user]}")

    def hang_up(self) -> None:
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.server.connectionLost(Failure(ConnectionDone()))


class ServerCase(HouseCase):
    async def factory(self, settings: Settings | None = None, **options: Any) -> tuple[POP3ServerFactory, House]:
        house = await self.memory()
        options = {"tls_options": None, **options}
        factory = POP3ServerFactory(
            house.accounts,
            house.authentication(failure_seconds=options.pop("failure_seconds", 0.0)),
            settings or Settings(),
            clock=house.clock,
            hostname="mail.example.org",
            **options,
        )
        return factory, house


class FakeTransportTests(ServerCase):
    async def test_a_session_from_greeting_to_goodbye(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(100))
        line = Line(factory)
        self.assertEqual(line.take(), b"+OK mail.example.org POP3 server ready\r\n")
        self.assertTrue(line.transport.no_delay)
        line.log_in()
        line.say("DELE 1")
        self.assertFalse(line.transport.disconnecting)
        self.assertTrue(line.say("QUIT").startswith(b"+OK"))
        self.assertTrue(line.transport.disconnecting)
        line.hang_up()
        self.assertEqual(await house.inbox("mrose"), [])
        self.assertEqual((factory.connections, dict(factory.by_address)), (0, {}))
        self.assertEqual(house.clock.getDelayedCalls(), [])

    async def test_pipelined_commands_are_answered_in_one_write(self) -> None:
        factory, _ = await self.factory()
        line = Line(factory)
        line.transport.writes.clear()
        line.say("USER mrose", "PASS secret", "STAT", "LIST", "UIDL", "NOOP")
        self.assertEqual(len(line.transport.writes), 1)

    async def test_a_message_waits_for_a_peer_that_does_not_read(self) -> None:
        factory, house = await self.factory()
        message = message_of(1_000_000)
        await house.deliver("mrose", message)
        line = Line(factory)
        line.log_in()
        line.say("DELE 9")
        line.server.dataReceived(b"RETR 1\r\nNOOP\r\n")
        got, rounds = line.take(), 0
        self.assertTrue(line.transport.read_paused)
        while b"+OK\r\n" not in got[-10:]:
            rounds += 1
            self.assertLess(rounds, 100)
            line.transport.drain()
            more = line.take()
            self.assertLess(len(more), 300_000)
            got += more
        self.assertGreater(rounds, 5)
        self.assertFalse(line.transport.read_paused)
        self.assertEqual(received(got.partition(b"\r\n")[2][:-5]), message)

    async def test_a_peer_that_never_reads_is_given_up(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(1_000_000))
        line = Line(factory)
        line.log_in()
        line.server.dataReceived(b"RETR 1\r\n")
        for _ in range(5):
            house.clock.advance(150)
        self.assertTrue(line.transport.aborted)
        line.hang_up()
        self.assertEqual(house.clock.getDelayedCalls(), [])
        self.assertTrue(Line(factory).log_in().endswith(b"octets)\r\n"))

    async def test_a_peer_that_goes_in_the_middle_of_a_message_frees_the_maildrop(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(1_000_000))
        line = Line(factory)
        line.log_in()
        line.server.dataReceived(b"DELE 2\r\nRETR 1\r\n")
        line.hang_up()
        self.assertTrue(Line(factory).log_in().endswith(b"octets)\r\n"))
        self.assertEqual(len(await house.inbox("mrose")), 1)
        self.assertFalse(self.flushLoggedErrors())

    async def test_a_peer_that_sends_too_much_is_paused(self) -> None:
        factory, house = await self.factory(failure_seconds=1.0)
        line = Line(factory)
        line.take()
        line.server.dataReceived(b"USER mrose\r\nPASS wrong\r\n")
        line.server.dataReceived(b"NOOP\r\n" * 20_000)
        self.assertTrue(line.transport.read_paused)
        house.clock.advance(1)
        self.assertFalse(line.transport.read_paused)
        self.assertIn(b"too many bad commands", line.take())

    # --- time

    async def test_auto_logout_says_nothing_and_deletes_nothing(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(100))
        line = Line(factory)
        line.log_in()
        line.say("DELE 1")
        house.clock.advance(599)
        self.assertEqual(line.say("NOOP"), b"+OK\r\n")
        house.clock.advance(599)
        self.assertFalse(line.transport.disconnecting)
        house.clock.advance(1.1)
        self.assertTrue(line.transport.disconnecting)
        self.assertEqual(line.take(), b"")
        line.hang_up()
        self.assertEqual(len(await house.inbox("mrose")), 1)
        self.assertTrue(Line(factory).log_in().endswith(b"octets)\r\n"))

    async def test_who_does_not_log_in_is_ended_however_busy(self) -> None:
        factory, house = await self.factory()
        line = Line(factory)
        for _ in range(12):
            house.clock.advance(9.9)
            line.say("CAPA")
        self.assertFalse(line.transport.disconnecting)
        house.clock.advance(2)
        self.assertTrue(line.transport.disconnecting)
        house.clock.advance(120)
        self.assertFalse(line.transport.aborted)
        house.clock.advance(600)
        self.assertTrue(line.transport.aborted)  # it never closed its end

    async def test_a_login_that_fails_takes_its_time_and_the_connection_goes_on(self) -> None:
        factory, house = await self.factory(failure_seconds=2.0)
        line = Line(factory)
        line.take()
        self.assertEqual(line.say("USER mrose", "PASS wrong"), b"")
        house.clock.advance(2)
        self.assertEqual(line.take(), b"+OK send the password\r\n-ERR [AUTH] authentication failed\r\n")
        self.assertIn(b"octets)", line.log_in())

    async def test_login_delay_is_kept_over_connections(self) -> None:
        factory, house = await self.factory(Settings(login_delay_seconds=60))
        line = Line(factory)
        line.log_in()
        line.say("QUIT")
        self.assertIn(b"-ERR [LOGIN-DELAY]", Line(factory).log_in())
        self.assertIn(b"octets)", Line(factory).log_in("test"))
        house.clock.advance(60)
        self.assertIn(b"octets)", Line(factory).log_in())

    async def test_the_lock_is_kept_up_during_a_long_session(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(100))
        line = Line(factory)
        line.log_in()
        line.say("DELE 1")
        for _ in range(30):
            for _ in range(5):
                house.clock.advance(10)
            line.say("NOOP")
        self.assertIn(b"[IN-USE]", Line(factory).log_in())
        self.assertTrue(line.say("QUIT").startswith(b"+OK"))
        self.assertEqual(await house.inbox("mrose"), [])

    # --- bounds

    async def test_connections_of_one_address_are_counted(self) -> None:
        factory, _ = await self.factory(Settings(connections_per_address=2))
        lines = [Line(factory) for _ in range(3)]
        self.assertEqual([line.transport.disconnecting for line in lines], [False, False, True])
        self.assertTrue(lines[2].take().startswith(b"-ERR [SYS/TEMP]"))
        self.assertFalse(Line(factory, IPv4Address("TCP", "127.0.0.2", 1)).transport.disconnecting)
        lines[2].hang_up()
        lines[0].hang_up()
        self.assertFalse(Line(factory).transport.disconnecting)

    async def test_sockets_of_this_machine_are_not_counted(self) -> None:
        factory, _ = await self.factory(Settings(connections_per_address=1))
        for _ in range(3):
            self.assertFalse(Line(factory, UNIXAddress("/x")).transport.disconnecting)

    async def test_draining_lets_who_has_logged_in_finish(self) -> None:
        factory, house = await self.factory(failure_seconds=1.0)
        await house.deliver("mrose", message_of(100))
        idle, busy, slow = Line(factory), Line(factory), Line(factory)
        busy.log_in()
        slow.say("USER mrose", "PASS wrong")
        factory.drain()
        self.assertTrue(idle.transport.disconnecting)
        self.assertIn(b"-ERR [SYS/TEMP]", idle.take())
        self.assertFalse(busy.transport.disconnecting)
        house.clock.advance(1)
        self.assertTrue(slow.transport.disconnecting)
        busy.say("DELE 1")
        self.assertTrue(busy.say("QUIT").startswith(b"+OK"))
        self.assertTrue(busy.transport.disconnecting)
        self.assertEqual(await house.inbox("mrose"), [])
        late = Line(factory)
        self.assertTrue(late.transport.disconnecting)
        self.assertTrue(late.take().startswith(b"-ERR [SYS/TEMP]"))

    # --- failures

    async def test_a_fault_of_ours_ends_one_connection(self) -> None:
        factory, _ = await self.factory()

        def broken(peer: Peer) -> bool:
            raise RuntimeError("a bug")

        self.patch(factory.authentication, "cleartext_allowed", broken)
        line = Line(factory)
        line.take()
        self.assertEqual(line.say("USER mrose"), b"-ERR [SYS/TEMP] something failed here\r\n")
        self.assertTrue(line.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_lock_that_comes_too_late_is_given_back(self) -> None:
        factory, house = await self.factory()
        waiting: Deferred[None] = Deferred()
        lock = house.accounts.lock

        async def slow(account: AccountId, purpose: str) -> Exclusive | None:
            await waiting
            return await lock(account, purpose)

        patch = self.patch(house.accounts, "lock", slow)
        line = Line(factory)
        line.log_in()
        line.hang_up()
        patch.restore()
        waiting.callback(None)
        self.assertIn(b"octets)", Line(factory).log_in())

    async def test_a_quit_that_was_begun_is_finished_without_the_peer(self) -> None:
        factory, house = await self.factory()
        await house.deliver("mrose", message_of(100))
        account = await house.accounts.open(identity("mrose"))
        waiting: Deferred[None] = Deferred()
        commit = account.commit

        async def slow(intent: Any) -> Any:
            await waiting
            return await commit(intent)

        self.patch(account, "commit", slow)
        line = Line(factory)
        line.log_in()
        line.say("DELE 1", "QUIT")
        house.clock.advance(1000)
        self.assertFalse(line.transport.aborted)
        line.hang_up()
        waiting.callback(None)
        self.assertEqual(await house.inbox("mrose"), [])
        self.assertIn(b"octets)", Line(factory).log_in())

    # --- TLS

    async def test_stls_starts_tls_behind_its_answer(self) -> None:
        factory, _ = await self.factory(tls_options="options")
        line = Line(factory)
        line.take()
        self.assertEqual(line.say("STLS", "USER mrose"), b"+OK begin the TLS negotiation\r\n")
        self.assertEqual(line.transport.tls, "options")

    async def test_tls_from_the_start_greets_behind_the_handshake(self) -> None:
        factory, _ = await self.factory(tls_options="options", implicit_tls=True)
        line = Line(factory)
        self.assertEqual((line.take(), line.transport.tls), (b"", "options"))
        self.assertRaises(ValueError, POP3ServerFactory, None, None, Settings(), None, None, "x", implicit_tls=True)


class RecordingAuthentication:
    """Passes on, and remembers the last peer."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.peer: Peer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        self.peer = peer
        try:
            result: Identity = await self.inner.login(user, password, peer)
        except AuthenticationFailed:
            self.peer = None
            raise
        return result


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class LoopbackTests(HouseCase):
    async def serve(self, wrap: bool = False, **options: Any) -> tuple[int, House, RecordingAuthentication]:
        from twisted.internet import reactor

        house = await self.sqlite()
        folder = Path(tempfile.mkdtemp(prefix="pop3-tls-"))
        self.addCleanup(shutil.rmtree, folder, True)
        contexts = TLSContexts([self_signed(folder, "mail.example.org")])
        authentication = RecordingAuthentication(house.authentication(allow_cleartext=()))
        clock: Any = reactor
        factory: Any = POP3ServerFactory(
            house.accounts, authentication, Settings(), contexts, clock, "mail.example.org", **options
        )
        if wrap:
            factory = TLSMemoryBIOFactory(contexts, False, factory)
        port = clock.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port, house, authentication

    async def test_poplib_with_stls_takes_everything_and_deletes_it(self) -> None:
        port, house, authentication = await self.serve()
        messages = [message_of(size) for size in (100, 5000, 400_000)] + [b"A: b\r\n\r\n.\r\n..\r\n\r\n"]
        await house.deliver("mrose", *messages)

        def client() -> list[bytes]:
            pop = poplib.POP3("127.0.0.1", port, timeout=10)
            try:
                pop.user("mrose")
                raise AssertionError("a name without TLS")
            except poplib.error_proto as error:
                assert b"[AUTH]" in error.args[0]
            assert "STLS" in pop.capa()
            pop.stls(trusting())
            capabilities = pop.capa()
            assert "STLS" not in capabilities and "SCRAM-SHA-256-PLUS" in capabilities["SASL"]
            pop.user("mrose")
            pop.pass_("secret")
            count, size = pop.stat()
            assert size == sum(map(len, messages))
            found = [b"\r\n".join(pop.retr(number)[1]) + b"\r\n" for number in range(1, count + 1)]
            assert pop.top(2, 1)[1] == messages[1].split(b"\r\n")[:3]
            for number in range(1, count + 1):
                pop.dele(number)
            pop.quit()
            return found

        self.assertEqual(await deferToThread(client), messages)
        self.assertEqual(await house.inbox("mrose"), [])
        peer = authentication.peer
        assert peer is not None
        self.assertTrue(peer.secure)
        self.assertEqual(set(peer.channel_bindings), {"tls-exporter", "tls-server-end-point"})
        self.assertTrue(peer.tls_description.startswith("TLS1.3 with cipher "))
        self.assertEqual((peer.address, peer.service), ("127.0.0.1", "pop3"))

    async def _implicit(self, wrap: bool, **options: Any) -> None:
        port, house, _ = await self.serve(wrap, **options)
        await house.deliver("mrose", message_of(2_000_000))

        def client() -> bytes:
            pop = poplib.POP3_SSL("127.0.0.1", port, timeout=10, context=trusting())
            pop.user("mrose")
            pop.pass_("secret")
            found = b"\r\n".join(pop.retr(1)[1]) + b"\r\n"
            pop.quit()
            return found

        self.assertEqual(await deferToThread(client), message_of(2_000_000))

    async def test_tls_from_the_start(self) -> None:
        await self._implicit(False, implicit_tls=True)

    async def test_tls_of_a_wrapping_factory(self) -> None:
        await self._implicit(True)
