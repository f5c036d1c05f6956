"""Servers that fail in every way, at every stage: no hang, no loss, nothing sent twice, the next host tried."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.relay.receiver import CLOSE, DROP, OK, SILENCE, Receiver
from tests.relay.test_sending import BODY, SendingCase, parcel
from tests.services.processes import free_port
from twisted_mail.relay.dialling import NotConnected, dial
from twisted_mail.relay.values import Host, Protection, Result, RouteFailure, Source, Stage, TLSMode

STAGES = {
    "greeting": Stage.GREETING,
    "EHLO": Stage.HELLO,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
    "end": Stage.END,
}


class FaultTests(SendingCase):
    async def test_a_server_that_drops_at_any_stage_is_left_for_the_next_but_not_after_the_dot(self) -> None:
        for answer in (DROP, CLOSE, b"421 4.3.2 going down\r\n", b"nonsense\r\n", b"250-" + b"x" * 10_000_000, b"999 what\r\n"):
            for verb, stage in STAGES.items():
                bad, good = Receiver(on={verb: answer}), Receiver()
                route = self.route(self.host(bad, "bad.example"), self.host(good, "good.example"))
                verdict = await self.one(route)
                if stage is Stage.END:
                    self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.END), (verb, answer[:9]))
                    self.assertTrue(verdict.about_connection)
                    self.assertEqual((len(bad.bodies), good.connections), (1, []))
                else:
                    self.assertEqual((verdict.result, verdict.host[:4]), (Result.DELIVERED, "good"), (verb, answer[:9]))
                    self.assertEqual((bad.bodies, len(good.bodies)), ([], 1))
                alone = await self.one(self.route(*route.hosts[:1]))
                # a reset connection takes replies with it that were not read yet
                early = (Stage.MAIL, Stage.RCPT) if answer is DROP and stage in (Stage.RCPT, Stage.DATA) else ()
                self.assertEqual(alone.result, Result.TEMPORARY, (verb, answer[:9]))
                self.assertIn(alone.stage, (stage, *early), (verb, answer[:9]))
                self.assertEqual(alone.remote, answer == b"421 4.3.2 going down\r\n")
                self.assertLess(len(alone.reply), 1100)

    async def test_a_server_that_is_silent_at_any_stage_is_waited_for_only_so_long(self) -> None:
        seconds = {"greeting": 300, "EHLO": 300, "MAIL": 300, "RCPT": 300, "DATA": 300, "end": 600}
        for verb, stage in STAGES.items():
            receiver = Receiver(on={verb: SILENCE})
            running = self.start(self.route(self.host(receiver)))
            await self.until(lambda receiver=receiver, verb=verb: self.reached(receiver, verb))
            self.clock.advance(seconds[verb] - 1)
            await self.breathe()
            self.assertNoResult(running)
            self.clock.advance(2)
            (verdict,) = await running
            self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, stage))
            self.assertEqual(verdict.reply, "421 4.4.2 The server did not answer within the time limit")
            await self.until(lambda receiver=receiver: not receiver.open)

    @staticmethod
    def reached(receiver: Receiver, verb: str) -> bool:
        if verb == "greeting":
            return bool(receiver.connections)
        return bool(receiver.bodies) if verb == "end" else any(each.startswith(verb) for each in receiver.commands)

    async def until(self, condition: Any) -> None:
        for _ in range(2000):
            if condition():
                return await self.breathe()
            await self.breathe()
        self.fail("it never came to that")
        return None

    async def test_a_server_that_answers_an_octet_a_second_is_waited_for_only_so_long(self) -> None:
        """Each octet is no progress, and a reply is none either when there are enough of them."""
        receiver = Receiver(on={"MAIL": SILENCE})
        running = self.start(self.route(self.host(receiver)))
        await self.until(lambda: self.reached(receiver, "MAIL"))
        for second in range(400):
            if not receiver.open:
                break
            receiver.connections[0].say(b"250-slow"[second : second + 1] or b"y", b"")
            self.clock.advance(1)
            if second % 20 == 0 or second > 290:
                await self.breathe(0.002)
        self.assertIn(second, range(299, 330))
        (verdict,) = await running
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.MAIL))

    async def test_a_server_that_is_slow_with_every_recipient_is_waited_for_only_so_long(self) -> None:
        self.sender = self.make_sender(transaction_seconds=1000)
        receiver = Receiver(on={"RCPT": SILENCE})
        running = self.start(self.route(self.host(receiver)), parcel(*(f"{at}@there.example" for at in range(50))))
        await self.until(lambda: self.reached(receiver, "RCPT"))
        for _ in range(5):
            self.clock.advance(190)  # less than the limit of one
            self.assertNoResult(running)
            receiver.connections[0].say(OK, b"")
            await self.breathe(0.05)
        self.clock.advance(51)
        verdicts = await running
        self.assertEqual({each.stage for each in verdicts}, {Stage.RCPT})

    async def test_greylisting_is_an_answer(self) -> None:
        self.receiver.on["RCPT"] = [b"451 4.7.1 greylisted, come back\r\n", OK]
        route = self.route(self.host(), self.host(Receiver(), "second.example"))
        first, second = await self.one(route), await self.one(route)
        self.assertEqual((first.reply, first.result, first.about_connection),
                         ("451 4.7.1 greylisted, come back", Result.TEMPORARY, False))  # fmt: skip
        self.assertEqual((second.result, len(self.receiver.connections)), (Result.DELIVERED, 1))

    async def test_a_421_leaves_those_that_were_refused_and_takes_the_rest_elsewhere(self) -> None:
        self.receiver.on["RCPT"] = [b"550 5.1.1 no\r\n", b"421 4.7.0 slow down\r\n"]
        other = Receiver()
        verdicts = await self.send(self.route(self.host(), self.host(other, "second.example")), parcel("a@x.example", "b@x.example"))
        self.assertEqual([each.reply for each in verdicts], ["550 5.1.1 no", "250 2.0.0 ok"])
        self.assertEqual([each for each in other.commands if each.startswith("RCPT")], ["RCPT TO:<b@x.example>"])

    async def test_hosts_that_are_down_are_passed_over(self) -> None:
        down = Host("down.example", ("127.0.0.1",), free_port())
        verdict = await self.one(self.route(down, self.host()))
        self.assertEqual(verdict.result, Result.DELIVERED)
        verdict = await self.one(self.route(down))
        self.assertEqual((verdict.result, verdict.stage, verdict.about_connection, verdict.remote),
                         (Result.TEMPORARY, Stage.CONNECT, True, False))  # fmt: skip
        self.assertRegex(verdict.reply, r"^421 4\.4\.1 127\.0\.0\.1: .*refused")

    async def test_a_broken_ipv6_does_not_hide_a_good_ipv4(self) -> None:
        port = self.listen()
        host = Host("mx.there.example", ("::1", "127.0.0.1"), port)
        self.assertEqual((await self.one(self.route(host))).host, "mx.there.example[127.0.0.1]")

    async def test_another_address_of_a_host_is_tried_when_one_turns_us_away(self) -> None:
        port = self.listen(Receiver(greeting=b"421 4.7.0 busy\r\n"))
        second = self.reactor.listenTCP(port, self.receiver, interface="127.0.0.2")
        self.addCleanup(second.stopListening)
        verdict = await self.one(self.route(Host("mx.there.example", ("127.0.0.1", "127.0.0.2"), port)))
        self.assertEqual((verdict.result, verdict.host), (Result.DELIVERED, "mx.there.example[127.0.0.2]"))

    async def test_the_source_address_is_bound_and_chooses_the_family(self) -> None:
        route = self.route()
        verdict = await self.one(route, source=Source("127.0.0.9"))
        self.assertEqual(verdict.source, "127.0.0.9")
        verdict = await self.one(route, source=Source("2001:db8::1"))
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.CONNECT))
        self.assertEqual(verdict.reply, "451 4.4.4 mx.there.example has no address that 2001:db8::1 can reach")

    async def test_an_address_that_this_machine_does_not_have_is_told(self) -> None:
        verdict = await self.one(self.route(), source=Source("192.0.2.1"))
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.CONNECT))

    async def test_only_so_many_connections_are_tried(self) -> None:
        receivers = [Receiver(greeting=b"554 5.7.1 go away\r\n") for _ in range(5)]
        self.sender = self.make_sender(attempts=3)
        verdict = await self.one(self.route(*map(self.host, receivers)))
        self.assertEqual((verdict.result, verdict.stage, verdict.reply), (Result.TEMPORARY, Stage.GREETING, "554 5.7.1 go away"))
        self.assertEqual([len(each.connections) for each in receivers], [1, 1, 1, 0, 0])
        await self.until(lambda: receivers[0].commands == ["QUIT"])

    async def test_a_host_that_cannot_be_protected_is_passed_over(self) -> None:
        failure = RouteFailure("451 4.7.5 no TLSA records can be had", permanent=False)
        first, second = self.host(Receiver(), "first.example"), self.host()
        verdict = await self.one(
            self.route(first, second), protection=lambda host: failure if host is first else Protection(TLSMode.OFF)
        )
        self.assertEqual((verdict.result, verdict.host), (Result.DELIVERED, "mx.there.example[127.0.0.1]"))
        verdict = await self.one(self.route(first), protection=failure)
        self.assertEqual((verdict.reply, verdict.result, verdict.about_connection), (failure.reply, Result.TEMPORARY, True))

    async def test_a_route_without_hosts_and_a_message_that_only_another_host_takes(self) -> None:
        from dataclasses import replace

        route = self.route()
        self.assertEqual((await self.one(replace(route, hosts=()))).stage, Stage.ROUTE)
        knowing = Receiver(extensions=("PIPELINING", "REQUIRETLS"))
        verdict = await self.one(self.route(*route.hosts, self.host(knowing, "second.example")), parcel(requiretls=True))
        self.assertEqual((verdict.result, verdict.host), (Result.DELIVERED, "second.example[127.0.0.1]"))
        self.assertTrue(knowing.commands[1].endswith(" REQUIRETLS"))
        verdict = await self.one(route, parcel(requiretls=True))
        self.assertEqual((verdict.result, verdict.reply), (Result.PERMANENT, "550 5.7.30 The server does not offer REQUIRETLS"))

    async def test_of_equal_hosts_one_that_has_a_connection_is_first(self) -> None:
        other = Receiver()
        first, second = self.host(), self.host(other, "second.example")
        await self.one(self.route(second, first))
        await self.one(self.route(first, second))
        self.assertEqual((len(self.receiver.connections), len(other.bodies)), (0, 2))
        worse = Host(second.name, second.addresses, second.port, preference=20)
        await self.one(self.route(first, worse))
        self.assertEqual(len(self.receiver.bodies), 1)

    async def test_a_refusal_in_the_middle_of_a_message_ends_the_sending_of_it(self) -> None:
        self.receiver.extensions = ("PIPELINING", "CHUNKING")
        self.receiver.on["BDAT"] = b"552 5.3.4 enough\r\n"
        given = 0

        async def octets() -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(500):
                given += 1
                yield BODY * 200
                await self.breathe(0.001)

        verdict = await self.one(self.route(), parcel(octets=octets, body=b"x"))
        self.assertLess(given, 500)
        self.assertEqual((verdict.result, verdict.stage, verdict.reply), (Result.PERMANENT, Stage.BODY, "552 5.3.4 enough"))
        self.assertEqual(self.receiver.bodies, [])
        self.receiver.on["BDAT"] = OK
        self.assertEqual((await self.one(self.route(Host("mx.there.example", ("127.0.0.1",), self.port)))).result, Result.DELIVERED)

    @property
    def port(self) -> int:
        transport: Any = self.receiver.connections[0].transport
        return int(transport.getHost().port)


class DiallingTests(SynchronousTestCase):
    """Happy eyeballs on a reactor that is not real."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.clock = Clock()
        self.built: list[str] = []

    def build(self, address: str) -> Any:
        from twisted.internet.protocol import Protocol

        self.built.append(address)
        return Protocol()

    def dial(self, *addresses: str, **more: Any) -> Deferred[Any]:
        return dial(self.reactor, self.clock, addresses, 25, self.build, **more)

    def tried(self) -> list[str]:
        return [client[0] for client in self.reactor.tcpClients]

    def answer(self, at: int) -> Any:
        factory = self.reactor.tcpClients[at][2]
        protocol = factory.buildProtocol(IPv4Address("TCP", self.tried()[at], 25))
        if protocol is not None:
            protocol.makeConnection(StringTransport())
        return protocol

    def refuse(self, at: int) -> None:
        connector = self.reactor.connectors[at]
        self.reactor.tcpClients[at][2].clientConnectionFailed(connector, Failure(ConnectionRefusedError("refused")))

    def test_the_next_address_is_tried_after_a_moment_and_the_first_that_answers_is_taken(self) -> None:
        result = self.dial("2001:db8::1", "192.0.2.1", "192.0.2.2", bind=None)
        self.assertEqual(self.tried(), ["2001:db8::1"])
        self.clock.advance(0.24)
        self.assertEqual(len(self.tried()), 1)
        self.clock.advance(0.02)
        self.assertEqual(self.tried(), ["2001:db8::1", "192.0.2.1"])
        protocol = self.answer(1)
        self.assertIs(self.successResultOf(result), protocol)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertIs(self.answer(0), None)
        self.clock.advance(100)
        self.assertEqual((len(self.tried()), self.built), (2, ["192.0.2.1"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_refusal_makes_the_next_try_at_once(self) -> None:
        result = self.dial("192.0.2.1", "192.0.2.2")
        self.refuse(0)
        self.assertEqual(self.tried(), ["192.0.2.1", "192.0.2.2"])
        self.refuse(1)
        self.assertEqual(str(self.failureResultOf(result, NotConnected).value), "192.0.2.2: refused")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence_ends_at_the_limit(self) -> None:
        result = self.dial("192.0.2.1", seconds=30)
        self.clock.advance(31)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.refuse(0)  # what stopping leads to
        self.assertIn("did not answer in time", str(self.failureResultOf(result, NotConnected).value))

    def test_cancelling_stops_all(self) -> None:
        result = self.dial("192.0.2.1", "192.0.2.2")
        self.clock.advance(0.3)
        result.cancel()
        self.failureResultOf(result)
        self.assertTrue(all(each.stoppedConnecting for each in self.reactor.connectors))
        self.assertEqual(self.clock.getDelayedCalls(), [])


