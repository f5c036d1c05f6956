"""Sending to a server in this process, over loopback: what goes well, and what is kept, counted and told."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.relay.receiver import CLOSE, DROP, OK, SILENCE, Receiver
from twisted_mail.relay.sending import Sender, SendingSettings
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.values import (
    Addressee,
    Host,
    Login,
    Parcel,
    Protection,
    Result,
    Route,
    RouteFailure,
    Source,
    Stage,
    TLSMode,
    Verdict,
)

BODY = b"From: ann@here.example\r\nSubject: x\r\n\r\n.a line\r\n" + b"0123456789" * 10 + b"\r\n"
OFF = Protection(TLSMode.OFF)
ANY = Source()


def parcel(
    *addresses: str, body: bytes = BODY, pieces: int = 1000, octets: Callable[[], AsyncIterator[bytes]] | None = None, **more: Any
) -> Parcel:
    # more: fields of Parcel, of many types
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), pieces):
            yield body[at : at + pieces]

    to = tuple(Addressee(address) for address in addresses or ("bob@there.example",))
    return Parcel("ann@here.example", to, octets or chunks, len(body), **more)


class SendingCase(TestCase):
    """Real sockets; time stands still but where a test moves it."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.clock = Clock()
        self.receiver = Receiver()
        self.receivers = [self.receiver]
        self.notes: list[tuple[str, Any]] = []
        self.sender = self.make_sender()
        self.addCleanup(self._quiet)

    async def _quiet(self) -> None:
        self.sender.close()
        for _ in range(200):
            if not any(receiver.open for receiver in self.receivers):
                break
            await self.breathe()
        for receiver in self.receivers:
            for connection in receiver.connections:
                if connection.connected:
                    connection.transport.abortConnection()  # type: ignore[union-attr]  # connected
        await self.breathe(0.02)
        self.clock.advance(10_000)

    async def breathe(self, seconds: float = 0.005) -> None:
        await deferLater(self.reactor, seconds, lambda: None)

    def make_sender(self, tls: ClientTLS | None = None, **settings: Any) -> Sender:
        settings.setdefault("hostname", "here.example")
        return Sender(self.reactor, self.clock, tls or ClientTLS(), SendingSettings(**settings), noted=self.note)

    def note(self, protection: Protection, host: Host, failure: Any, source: str, remote: str, detail: str) -> None:
        self.notes.append((host.name, failure))

    def listen(self, receiver: Receiver | None = None) -> int:
        receiver = receiver or self.receiver
        self.receivers.append(receiver)
        port = self.reactor.listenTCP(0, receiver, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def host(self, receiver: Receiver | None = None, name: str = "mx.there.example") -> Host:
        return Host(name, ("127.0.0.1",), self.listen(receiver))

    def route(self, *hosts: Host, **more: Any) -> Route:
        return Route("there.example", "there.example", hosts or (self.host(),), **more)

    async def send(
        self,
        route: Route,
        what: Parcel | None = None,
        *,
        protection: Protection | RouteFailure | Callable[[Host], Protection | RouteFailure] = OFF,
        source: Source = ANY,
        before_end: Callable[[], bool] = lambda: True,
    ) -> Sequence[Verdict]:
        protections = protection if callable(protection) else lambda host: protection
        return await self.sender.send(route, what or parcel(), source, protections, before_end)

    def start(self, *arguments: Any, **more: Any) -> Deferred[Sequence[Verdict]]:
        return Deferred.fromCoroutine(self.send(*arguments, **more))

    async def one(self, *arguments: Any, **more: Any) -> Verdict:
        (verdict,) = await self.send(*arguments, **more)
        return verdict

    def verbs(self, receiver: Receiver | None = None) -> list[str]:
        return [each[:4] for each in (receiver or self.receiver).commands]


class SendingTests(SendingCase):
    async def test_messages_go_over_one_connection(self) -> None:
        route = self.route()
        for _ in range(3):
            verdict = await self.one(route)
            self.assertEqual(
                verdict, Verdict(Result.DELIVERED, "250 2.0.0 ok", Stage.END, "mx.there.example[127.0.0.1]", "127.0.0.1")
            )
        self.assertEqual(self.verbs(), ["EHLO", *(["MAIL", "RCPT", "DATA"] * 3)])
        self.assertEqual(self.receiver.bodies, [BODY] * 3)
        self.assertEqual((len(self.receiver.connections), self.sender.idle_connections), (1, 1))
        self.assertIn("MAIL FROM:<ann@here.example> SIZE=149", self.receiver.commands)

    async def test_chunks_are_sent_where_they_are_offered(self) -> None:
        self.receiver.extensions = ("PIPELINING", "CHUNKING")
        big = parcel(body=BODY * 1000, pieces=30_000)
        self.assertEqual((await self.one(self.route(), big)).result, Result.DELIVERED)
        self.assertEqual(self.receiver.bodies, [BODY * 1000])
        self.assertEqual(self.verbs()[-5:], ["BDAT"] * 5)

    async def test_without_pipelining_each_command_waits(self) -> None:
        self.receiver.extensions = ()
        self.receiver.on["RCPT"] = [b"550 5.1.1 no\r\n", OK, b"450 4.2.0 later\r\n"]
        verdicts = await self.send(self.route(), parcel("a@there.example", "b@there.example", "c@there.example"))
        self.assertEqual([each.result for each in verdicts], [Result.PERMANENT, Result.DELIVERED, Result.TEMPORARY])
        self.assertEqual([each.stage for each in verdicts], [Stage.RCPT, Stage.END, Stage.RCPT])
        self.assertEqual([each.about_connection for each in verdicts], [False] * 3)

    async def test_replies_cut_everywhere_change_nothing(self) -> None:
        self.receiver.cut = lambda data: [data[at : at + 1] for at in range(len(data))]
        self.assertEqual((await self.one(self.route())).result, Result.DELIVERED)

    async def test_a_connection_takes_as_many_messages_as_is_set_or_said(self) -> None:
        self.receiver.extensions = ("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=1")
        route = self.route()
        verdicts = await self.send(route, parcel(*(f"{at}@there.example" for at in range(5))))
        self.assertEqual([each.result for each in verdicts], [Result.DELIVERED] * 5)
        self.assertEqual((len(self.receiver.connections), len(self.receiver.bodies)), (3, 5))
        self.assertEqual(self.verbs().count("QUIT"), 2)

    async def test_recipients_too_many_go_in_the_next_transaction(self) -> None:
        self.receiver.on["RCPT"] = lambda line, connection: OK if len(connection.taken) < 2 else b"452 4.5.3 too many\r\n"
        verdicts = await self.send(self.route(), parcel(*(f"{at}@there.example" for at in range(5))))
        self.assertEqual([each.result for each in verdicts], [Result.DELIVERED] * 5)
        self.assertEqual((len(self.receiver.connections), len(self.receiver.bodies)), (1, 3))

    async def test_if_none_fits_too_many_is_an_answer_like_others(self) -> None:
        self.receiver.on["RCPT"] = b"452 4.5.3 too many\r\n"
        verdicts = await self.send(self.route(), parcel("a@there.example", "b@there.example"))
        self.assertEqual([each.result for each in verdicts], [Result.TEMPORARY] * 2)
        self.assertEqual(self.verbs().count("RCPT"), 2)

    async def test_idle_connections_leave_in_time_and_when_there_are_too_many(self) -> None:
        self.sender = self.make_sender(idle_connections=2, idle_seconds=10)
        receivers = [Receiver() for _ in range(3)]
        for receiver in receivers:
            await self.one(self.route(self.host(receiver)))
        await self.breathe(0.05)
        self.assertEqual([receiver.commands[-1] == "QUIT" for receiver in receivers], [True, False, False])
        self.clock.advance(9.9)
        await self.one(self.route(Host("mx.there.example", ("127.0.0.1",), receivers[2].connections[0].transport.getHost().port)))  # type: ignore[union-attr]
        self.clock.advance(0.2)
        await self.breathe(0.05)
        self.assertEqual([receiver.commands[-1] == "QUIT" for receiver in receivers], [True, True, False])
        self.clock.advance(10)
        await self.breathe(0.05)
        self.assertEqual([receiver.open for receiver in receivers], [0, 0, 0])
        self.assertEqual(self.sender.idle_connections, 0)

    async def test_connections_are_not_shared_between_sources_names_or_protections(self) -> None:
        route = self.route()
        await self.one(route)
        await self.one(route, source=Source("127.0.0.1"))
        await self.one(route, source=Source("127.0.0.1", helo="other.example"))
        await self.one(route, protection=Protection(TLSMode.OPPORTUNISTIC))
        await self.one(self.route(*route.hosts, login=None, lmtp=False), source=Source("127.0.0.1"))
        self.assertEqual(len(self.receiver.connections), 4)
        self.assertEqual([each for each in self.receiver.commands if each.startswith("EHLO")],
                         ["EHLO here.example", "EHLO here.example", "EHLO other.example", "EHLO here.example"])  # fmt: skip

    async def test_a_kept_connection_that_has_died_is_replaced_and_nobody_notices(self) -> None:
        route = self.route()
        for answer in (DROP, CLOSE, b"421 4.4.2 idle for too long\r\n"):
            await self.one(route)
            self.receiver.on["MAIL"] = [answer, OK]
            verdict = await self.one(route)
            self.assertEqual(verdict.result, Result.DELIVERED)
        self.assertEqual(len(self.receiver.connections), 4)
        self.assertEqual(self.receiver.bodies, [BODY] * 6)

    async def test_a_kept_connection_that_ends_is_forgotten(self) -> None:
        route = self.route()
        for end in (lambda at: at.say(CLOSE, b""), lambda at: at.say(b"421 4.3.2 going down\r\n", b"")):
            await self.one(route)
            self.assertEqual(self.sender.idle_connections, 1)
            end(self.receiver.connections[-1])
            for _ in range(100):
                await self.breathe()
                if not self.sender.idle_connections:
                    break
            self.assertEqual(self.sender.idle_connections, 0)

    async def test_a_rejected_message_costs_no_connection(self) -> None:
        self.receiver.on["MAIL"] = [b"550 5.7.1 no\r\n", OK]
        self.receiver.on["end"] = [b"554 5.6.0 spam\r\n", OK]
        route = self.route()
        replies = [(await self.one(route)).reply for _ in range(3)]
        self.assertEqual(replies, ["550 5.7.1 no", "554 5.6.0 spam", "250 2.0.0 ok"])
        self.assertEqual(len(self.receiver.connections), 1)

    async def test_once_closed_nothing_is_kept(self) -> None:
        route = self.route()
        await self.one(route)
        self.sender.close()
        self.assertEqual(self.sender.idle_connections, 0)
        self.assertEqual((await self.one(route)).result, Result.DELIVERED)
        while self.receiver.open:
            await self.breathe()
        self.assertEqual(self.verbs().count("QUIT"), 2)

    async def test_lmtp_has_a_verdict_for_each_recipient(self) -> None:
        self.receiver.lmtp = True
        self.receiver.on["end"] = [OK, b"452 4.2.2 full\r\n"]
        verdicts = await self.send(self.route(lmtp=True), parcel("a@there.example", "b@there.example"))
        self.assertEqual([each.reply for each in verdicts], ["250 2.0.0 ok", "452 4.2.2 full"])
        self.assertEqual(self.verbs()[0], "LHLO")

    async def test_a_unix_socket_is_a_host_too(self) -> None:
        folder = tempfile.TemporaryDirectory()  # a socket's path must be short
        self.addCleanup(folder.cleanup)
        socket = f"{folder.name}/lmtp"
        port = self.reactor.listenUNIX(socket, self.receiver)
        self.addCleanup(port.stopListening)
        self.receiver.lmtp = True
        verdict = await self.one(self.route(Host(socket, (socket,)), lmtp=True))
        self.assertEqual((verdict.result, verdict.host, verdict.source), (Result.DELIVERED, f"{socket}[{socket}]", ""))

    async def test_who_the_dsn_is_left_to(self) -> None:
        asked = Parcel("ann@here.example", (Addressee("b@there.example", frozenset({"SUCCESS"})),), parcel().octets, len(BODY))
        self.assertFalse((await self.one(self.route(), asked)).dsn)
        offering = Receiver(extensions=("PIPELINING", "DSN"))
        route = self.route(self.host(offering))
        self.assertTrue((await self.one(route, asked)).dsn)
        self.assertFalse((await self.one(route)).dsn)
        self.assertIn("RCPT TO:<b@there.example> NOTIFY=SUCCESS", offering.commands)

    async def test_login_with_a_smart_host(self) -> None:
        self.receiver.extensions = ("AUTH PLAIN LOGIN",)
        self.receiver.on["AUTH"] = [b"235 2.7.0 welcome\r\n", b"535 5.7.8 no\r\n"]
        route = self.route(login=Login("ann", "secret"))
        self.assertEqual((await self.one(route)).result, Result.DELIVERED)
        self.sender.close()
        self.sender = self.make_sender()
        refused = await self.one(route)
        self.assertEqual((refused.result, refused.stage, refused.reply), (Result.TEMPORARY, Stage.LOGIN, "535 5.7.8 no"))
        self.assertTrue(refused.about_connection)
        clear = await self.one(route, protection=Protection(TLSMode.OPPORTUNISTIC))
        self.assertEqual(clear.reply, "451 4.7.0 The server offers no login that could be used without TLS")
        self.assertEqual(sum(each.startswith("AUTH") for each in self.receiver.commands), 2)

    # --- the end of a message

    async def test_a_lost_lease_ends_it_before_the_dot(self) -> None:
        for extensions in (("PIPELINING",), ("PIPELINING", "CHUNKING")):
            receiver = Receiver(extensions=extensions)
            asked: list[int] = []

            def lost(receiver: Receiver = receiver, asked: list[int] = asked) -> bool:
                asked.append(len(receiver.bodies))
                return False

            verdict = await self.one(self.route(self.host(receiver)), parcel(body=BODY * 500, pieces=10_000), before_end=lost)
            self.assertEqual((verdict.result, verdict.stage, verdict.about_connection), (Result.TEMPORARY, Stage.BODY, False))
            self.assertEqual(asked, [0])
            await self.breathe(0.05)
            self.assertEqual((receiver.bodies, receiver.open), ([], 0))

    async def test_a_message_that_cannot_be_read_is_not_ended(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 20_000
            yield b"x" * 20_000
            raise OSError("the disk is gone")

        self.receiver.on["RCPT"] = [b"550 5.1.1 no\r\n", OK]
        verdicts = await self.send(self.route(), parcel("a@there.example", "b@there.example", octets=broken))
        self.assertEqual([each.stage for each in verdicts], [Stage.RCPT, Stage.BODY])
        self.assertEqual([each.result for each in verdicts], [Result.PERMANENT, Result.TEMPORARY])
        await self.breathe(0.05)
        self.assertEqual((self.receiver.bodies, self.receiver.open), ([], 0))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def test_cancelling_hangs_up(self) -> None:
        self.receiver.on["end"] = SILENCE
        running = self.start(self.route())
        while not self.receiver.bodies:
            await self.breathe()
        running.cancel()
        with self.assertRaises(CancelledError):
            await running
        await self.breathe(0.05)
        self.assertEqual(self.receiver.open, 0)

    async def test_cancelling_while_it_connects(self) -> None:
        self.receiver.on["greeting"] = SILENCE
        running = self.start(self.route())
        while not self.receiver.connections:
            await self.breathe()
        running.cancel()
        with self.assertRaises(CancelledError):
            await running
        await self.breathe(0.05)
        self.assertEqual(self.receiver.open, 0)

    async def test_a_slow_server_slows_the_reading_of_the_message(self) -> None:
        """16 MB to a server that reads nothing: most of it must not have been asked for."""
        given = 0

        async def octets() -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(250):
                given += 65_536
                yield b"0123456789abcde\n".replace(b"e\n", b"\r\n") * 4096

        def stop_reading(line: bytes, connection: Any) -> bytes:
            connection.transport.pauseProducing()
            return b"354 go\r\n"

        self.receiver.extensions = ("PIPELINING",)
        self.receiver.on["DATA"] = stop_reading
        running = self.start(self.route(), parcel(octets=octets, body=b"x"))
        before = -1
        while before != given or not given:
            before = given
            await self.breathe(0.1)
        self.assertLess(given, 12_000_000)
        self.clock.advance(181)
        (verdict,) = await running
        self.assertEqual((verdict.stage, verdict.about_connection), (Stage.BODY, True))
        self.assertIn("time limit", verdict.reply)
