"""The Twisted end, on fake transports and a fake clock: time-outs, back-pressure, pipelining, compression, the end."""

# mypy: disallow-untyped-calls=False
# (Twisted's fake transports have no types)

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.account.house import now
from tests.imap.session.fakes import Node
from twisted_mail.imap.server import IMAPServer, IMAPServerFactory
from twisted_mail.imap.settings import Settings


class Transport(StringTransport):
    """Tells what happened to it, and pauses its producer when more than *room* octets lie in it."""

    room = 1 << 62

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.7", 4711))
        self.writes = 0
        self.aborted = False
        self.most = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes += 1
        self.most = max(self.most, len(self.value()))
        producer: Any = self.producer
        if producer is not None and len(self.value()) > self.room:
            producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True

    def take(self) -> bytes:
        taken: bytes = self.value()
        self.clear()
        return taken


class Server:
    """A factory over the memory engine, and connections to it."""

    def __init__(self, **settings: Any) -> None:
        self.node = Node()
        self.clock = self.node.house.clock
        self.busy = 0.0
        self.factory = IMAPServerFactory(
            self.node.service,
            self.node.logins,
            Settings(**settings),
            None,
            self.clock,
            "mail.example.org",
            wall=self.node.wall,
            busy=lambda: self.busy,
        )

    def connect(self, room: int = 1 << 62) -> tuple[IMAPServer, Transport]:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 4711))
        transport = Transport()
        transport.room = room
        protocol.makeConnection(transport)
        return protocol, transport

    def logged_in(self, room: int = 1 << 62) -> tuple[IMAPServer, Transport]:
        protocol, transport = self.connect(room)
        protocol.dataReceived(b"a LOGIN ann secret\r\nb SELECT INBOX\r\n")
        assert b"b OK" in transport.take()
        return protocol, transport


def lose(protocol: IMAPServer) -> None:
    protocol.connectionLost(Failure(ConnectionDone()))


def test_greeting_and_logout() -> None:
    server = Server()
    protocol, transport = server.connect()
    assert transport.take().startswith(b"* OK [CAPABILITY IMAP4rev1 ")
    protocol.dataReceived(b"a LOGOUT\r\n")
    assert transport.take() == b"* BYE Logging out\r\na OK LOGOUT completed\r\n"
    assert transport.disconnecting


def test_pipelined_commands_run_in_order_and_are_answered_in_one_write() -> None:
    server = Server()
    protocol, transport = server.connect()
    transport.take()
    writes = transport.writes
    protocol.dataReceived(b"a LOGIN ann secret\r\nb SELECT INBOX\r\nc STATUS Sent (MESSAGES)\r\nd NOOP\r\n")
    tags = [line.split()[0] for line in transport.take().splitlines() if not line.startswith(b"*")]
    assert tags == [b"a", b"b", b"c", b"d"]
    assert transport.writes == writes + 1


def test_nobody_logs_in_for_a_minute() -> None:
    server = Server()
    protocol, transport = server.connect()
    transport.take()
    server.clock.advance(50)
    protocol.dataReceived(b"a NOOP\r\n")
    assert transport.take() == b"a OK NOOP completed\r\n"
    server.clock.advance(9)
    assert not transport.disconnecting
    server.clock.advance(2)
    assert transport.take() == b"* BYE Nobody has logged in\r\n"
    assert transport.disconnecting


def test_autologout_after_half_an_hour_in_idle_too() -> None:
    for command in (b"", b"c IDLE\r\n"):
        server = Server()
        protocol, transport = server.logged_in()
        protocol.dataReceived(command)
        transport.take()
        server.clock.advance(1799)
        assert not transport.disconnecting
        server.clock.advance(2)
        assert transport.take().startswith(b"* BYE Autologout")
        assert transport.disconnecting
        lose(protocol)
        assert not server.clock.getDelayedCalls() or server.factory.connections == 0


def test_after_unauthenticate_the_time_for_logging_in_runs_anew() -> None:
    server = Server()
    protocol, transport = server.logged_in()
    server.clock.pump([200] * 5)
    protocol.dataReceived(b"c UNAUTHENTICATE\r\n")
    server.clock.advance(50)
    assert not transport.disconnecting
    protocol.dataReceived(b"d NOOP\r\n")
    transport.take()
    server.clock.advance(11)
    assert transport.take() == b"* BYE Nobody has logged in\r\n"


def test_a_peer_that_does_not_take_the_last_words_is_cut_off() -> None:
    server = Server()
    protocol, transport = server.logged_in()
    protocol.dataReceived(b"c LOGOUT\r\n")
    assert transport.disconnecting
    server.clock.advance(4000)
    assert transport.aborted
    lose(protocol)
    assert not server.clock.getDelayedCalls()


def test_a_client_that_does_not_read_stalls_its_fetch() -> None:
    server = Server()
    body = b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 50_000
    for _ in range(10):
        now(server.node.add(body))
    protocol, transport = server.logged_in(room=100_000)
    protocol.dataReceived(b"c FETCH 1:* BODY.PEEK[]\r\n")
    assert 64 * 1024 <= len(transport.value()) < 400_000
    received = 0
    for _ in range(10_000):
        received += len(transport.take())
        if b"c OK" in transport.value() or transport.producerState == "stopped":
            break
        protocol.resumeProducing()
        if not transport.value():
            break
    assert received > 10 * len(body)
    assert transport.most < 400_000


def test_a_client_that_never_reads_again_is_given_up() -> None:
    server = Server(command_seconds=60)
    for _ in range(4):
        now(server.node.add(b"Subject: big\r\n\r\n" + b"x" * 100_000))
    protocol, transport = server.logged_in(room=50_000)
    protocol.dataReceived(b"c FETCH 1:* BODY.PEEK[]\r\n")
    server.clock.advance(59)
    assert not transport.disconnecting
    server.clock.advance(62)
    assert transport.disconnecting
    server.clock.advance(200)
    assert transport.aborted
    lose(protocol)


def test_a_long_answer_lets_others_have_a_turn() -> None:
    server = Server()
    for number in range(10):
        now(server.node.add(b"Subject: %d\r\n\r\n" % number))
    protocol, transport = server.logged_in()
    server.busy += 1.0  # the first turn has been long
    protocol.dataReceived(b"c FETCH 1:* FLAGS\r\n")
    transport.take()
    _, other = server.connect()
    assert other.take().startswith(b"* OK")
    server.clock.advance(0)
    protocol.dataReceived(b"d NOOP\r\n")
    server.clock.advance(0)
    assert b"d OK" in transport.take()


def test_a_fast_peer_is_paused_while_a_command_is_carried_out() -> None:
    server = Server(input_bytes=10_000)
    for _ in range(4):
        now(server.node.add(b"Subject: big\r\n\r\n" + b"x" * 200_000))
    protocol, transport = server.logged_in(room=50_000)
    protocol.dataReceived(b"c FETCH 1:* BODY.PEEK[]\r\n")
    for number in range(2000):
        protocol.dataReceived(b"d%d NOOP\r\n" % number)
        if transport.producerState == "paused":
            break
    assert transport.producerState == "paused"
    assert number < 1500
    received = b""
    for _ in range(1000):
        received += transport.take()
        if b"d%d OK" % number in received:
            break
        protocol.resumeProducing()
    assert b"d%d OK" % number in received
    assert transport.producerState == "producing"


def test_a_client_gone_in_the_middle_of_append_leaves_nothing() -> None:
    server = Server()
    protocol, transport = server.logged_in()
    protocol.dataReceived(b"c APPEND INBOX {1000000}\r\n")
    assert transport.take().startswith(b"+ ")
    protocol.dataReceived(b"Subject: x\r\n\r\n" + b"y" * 500_000)
    lose(protocol)
    assert server.factory.connections == 0
    account = now(server.node.open())
    assert account.state.inbox.messages == 0
    blobs: Any = server.node.house.engine.blobs

    async def count() -> int:
        return sum([1 async for _ in blobs.iterate()])

    assert now(count()) == 0


def test_a_lost_connection_leaves_its_view_and_its_account() -> None:
    server = Server()
    protocol, _ = server.logged_in()
    account = now(server.node.open())
    columns = account.state.inbox.columns
    assert columns is not None
    assert columns.views == 1
    protocol.dataReceived(b"c IDLE\r\n")
    lose(protocol)
    assert columns.views == 0
    now(server.node.add(b"Subject: nobody listens\r\n\r\n"))


def test_too_many_connections_from_one_address() -> None:
    server = Server(connections_per_address=2)
    first = server.connect()
    server.connect()
    _, refused = server.connect()
    assert refused.take().startswith(b"* BYE [LIMIT] ")
    assert refused.disconnecting
    lose(first[0])


def test_drain_says_bye_when_the_command_is_finished() -> None:
    server = Server()
    idle, idle_transport = server.logged_in()
    idle.dataReceived(b"c IDLE\r\n")
    idle_transport.take()
    waiting, waiting_transport = server.logged_in()
    appending, appending_transport = server.logged_in()
    appending.dataReceived(b"c APPEND INBOX {6}\r\n")
    appending_transport.take()
    server.factory.drain()
    assert idle_transport.take() == b"c OK IDLE terminated\r\n* BYE [UNAVAILABLE] The server is shutting down\r\n"
    assert waiting_transport.take() == b"* BYE [UNAVAILABLE] The server is shutting down\r\n"
    assert waiting_transport.disconnecting
    assert not appending_transport.disconnecting
    appending.dataReceived(b"A: b\r\n\r\n")
    assert b"c OK [APPENDUID " in appending_transport.value()
    assert appending_transport.take().endswith(b"* BYE [UNAVAILABLE] The server is shutting down\r\n")
    _, late = server.connect()
    assert late.take().startswith(b"* BYE [UNAVAILABLE]")
    lose(idle)
    lose(waiting)


class Deflated:
    """The client's end of a compressed connection."""

    def __init__(self, server: Server) -> None:
        self.protocol, self.transport = server.logged_in()
        self.protocol.dataReceived(b"c COMPRESS DEFLATE\r\n")
        assert self.transport.take() == b"c OK DEFLATE active\r\n"
        self.deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        self.inflate = zlib.decompressobj(-15)

    def pack(self, data: bytes) -> bytes:
        return self.deflate.compress(data) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def say(self, data: bytes) -> bytes:
        self.protocol.dataReceived(self.pack(data))
        return self.inflate.decompress(self.transport.take())


def test_compression_in_both_directions() -> None:
    server = Server()
    now(server.node.add(b"Subject: x\r\n\r\n" + b"y" * 50_000))
    client = Deflated(server)
    assert b"d OK" in client.say(b"d NOOP\r\n")
    client.protocol.dataReceived(client.pack(b"e FETCH 1 BODY.PEEK[]\r\n"))
    wire = client.transport.take()
    assert len(wire) < 5000
    assert b"y" * 50_000 in client.inflate.decompress(wire)
    assert b"f NO [COMPRESSIONACTIVE]" in client.say(b"f COMPRESS DEFLATE\r\n")


def test_what_follows_compress_is_compressed() -> None:
    server = Server()
    protocol, transport = server.logged_in()
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    more = packed.compress(b"d NOOP\r\n") + packed.flush(zlib.Z_SYNC_FLUSH)
    protocol.dataReceived(b"c COMPRESS DEFLATE\r\n" + more)
    answer = transport.take().removeprefix(b"c OK DEFLATE active\r\n")
    assert zlib.decompressobj(-15).decompress(answer) == b"d OK NOOP completed\r\n"


def test_a_decompression_bomb_stays_packed() -> None:
    server = Server()
    client = Deflated(server)
    bomb = client.pack(b"x" * 100_000_000)
    assert len(bomb) < 200_000
    most = 0
    for at in range(0, len(bomb), 16_384):
        client.protocol.dataReceived(bomb[at : at + 16_384])
        session: Any = client.protocol._session
        most = max(most, session.buffered)
    assert most < 1_000_000
    assert client.inflate.decompress(client.transport.take()).count(b"BAD") <= 1
    assert b"d OK" in client.say(b"\r\nd NOOP\r\n")


def test_garbage_in_a_compressed_stream_ends_the_connection() -> None:
    server = Server()
    client = Deflated(server)
    client.protocol.dataReceived(b"\xff\xff\xff\xff not deflate")
    assert client.transport.aborted
    lose(client.protocol)
