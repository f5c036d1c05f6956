"""The transport on real sockets, with servers in this process; then real name servers, one that signs and one that validates."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.dns.fakes import reply_to
from tests.services.knot import Knot
from tests.services.unbound import Unbound
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.transport import Network, Unanswered
from twisted_mail.dns.values import MX, TLSA, DNSFailure, NoSuchName

loop: Any = reactor

GOOD = "example.org. 60 IN A 192.0.2.7"


class _Datagrams(DatagramProtocol):
    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self.answers = answers

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for answer in self.answers(datagram):
            self.transport.write(answer, addr)  # type: ignore[union-attr]


class _Streams(Protocol):
    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self.answers = answers
        self.buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= 2 and len(self.buffer) >= 2 + int.from_bytes(self.buffer[:2], "big"):
            assert self.transport is not None
            for answer in self.answers(self.buffer[2:]):
                whole = len(answer).to_bytes(2, "big") + answer
                for index in range(0, len(whole), 1000):
                    self.transport.write(whole[index : index + 1000])
            self.transport.loseConnection()


class NetworkTests(TestCase):
    def serve(
        self, datagrams: Callable[[bytes], list[bytes]], streams: Callable[[bytes], list[bytes]] | None = None
    ) -> NameServer:
        port = loop.listenUDP(0, _Datagrams(datagrams), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        if streams is not None:
            factory = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda addr: _Streams(streams)  # type: ignore[method-assign]
            listening = loop.listenTCP(number, factory, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)
        return NameServer("127.0.0.1", number)

    def resolver(self, *servers: NameServer, **settings: Any) -> Resolver:
        return Resolver(Network(loop), servers, loop, ResolverSettings(**settings), rng=random.Random(3))

    async def test_a_question_by_udp(self) -> None:
        server = self.serve(lambda question: [b"noise", reply_to(question, GOOD)])
        self.assertEqual((await self.resolver(server).a("example.org")).records, ("192.0.2.7",))

    async def test_a_long_answer_by_tcp(self) -> None:
        records = [f"example.org. 60 IN MX {n} mx{n}.a-rather-long-name-of-a-provider.example.org." for n in range(500)]
        server = self.serve(
            lambda question: [reply_to(question, truncated=True)], lambda question: [reply_to(question, *records)]
        )
        answer = await self.resolver(server).mx("example.org")
        self.assertEqual(len(answer.records), 100)
        self.assertEqual(answer.records[0].preference, 0)

    async def test_twenty_lies_and_the_question_goes_by_tcp(self) -> None:
        server = self.serve(
            lambda question: [bytes([question[0] ^ n]) + reply_to(question, GOOD.replace("192.0", "203.0"))[1:] for n in range(1, 40)],
            lambda question: [reply_to(question, GOOD)],
        )
        self.assertEqual((await self.resolver(server).a("example.org")).records, ("192.0.2.7",))

    async def test_nobody_there_is_heard_at_once(self) -> None:
        port = loop.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        gone = NameServer("127.0.0.1", port.getHost().port)
        await port.stopListening()
        server = self.serve(lambda question: [reply_to(question, GOOD)])
        resolver = self.resolver(gone, server, timeout_seconds=3600.0, limit_seconds=3600.0)
        self.assertEqual((await resolver.a("example.org")).records, ("192.0.2.7",))

    async def test_a_server_that_cannot_be_written_to(self) -> None:
        server = self.serve(lambda question: [reply_to(question, GOOD)])
        resolver = self.resolver(NameServer("255.255.255.255"), server, timeout_seconds=3600.0, limit_seconds=3600.0)
        self.assertEqual((await resolver.a("example.org")).records, ("192.0.2.7",))

    async def test_a_connection_closed_without_an_answer_and_one_with_a_lie(self) -> None:
        for lies in ([], [b"nonsense"], [b""]):
            server = self.serve(lambda question: [reply_to(question, truncated=True)], lambda question, lies=lies: lies)  # type: ignore[misc]
            with self.assertRaises(DNSFailure):
                await self.resolver(server, rounds=1).a("example.org")

    async def test_more_questions_than_sockets(self) -> None:
        questions: list[bytes] = []
        server = self.serve(lambda question: questions.append(question) or [reply_to(question, *[])])  # type: ignore[func-returns-value]
        network = Network(loop, sockets=2)
        resolver = Resolver(network, (server,), loop, ResolverSettings(timeout_seconds=30.0, limit_seconds=60.0), rng=random.Random(3))
        waiting = [Deferred.fromCoroutine(resolver.a(f"n{number}.example.org")) for number in range(20)]
        self.assertEqual([(await each).records for each in waiting], [()] * 20)
        self.assertEqual(len(questions), 20)

    async def test_who_has_no_turn_in_time_is_told(self) -> None:
        server = self.serve(lambda question: [])
        network = Network(loop, sockets=1)
        first = Deferred.fromCoroutine(network.datagram(server, b"question", lambda octets: octets, 30.0))
        with self.assertRaises(Unanswered):
            await network.datagram(server, b"question", lambda octets: octets, 0.01)
        first.cancel()
        await self.assertFailure(first, CancelledError)

    async def test_silence_ends(self) -> None:
        server = self.serve(lambda question: [])
        with self.assertRaises(DNSFailure):
            await self.resolver(server, timeout_seconds=0.01, rounds=2).a("example.org")


ZONE = f"""
@ MX 10 mx1
@ MX 20 mx2
mx1 A 127.0.0.5
mx1 AAAA ::5
mx2 A 127.0.0.6
_25._tcp.mx1 TLSA 3 1 1 {"ab" * 32}
_smtp._tls TXT "v=TLSRPTv1; " "rua=mailto:tls@signed.example"
www CNAME mx1
out CNAME mx.unsigned.example.
round CNAME about
about CNAME round
big TXT "{"x" * 250}" "{"y" * 250}" "{"z" * 250}" "{"a" * 250}" "{"b" * 250}" "{"c" * 250}" "{"d" * 250}"
"""


class RealServerTests(TestCase):
    """One Knot, and one Unbound that trusts its keys, for all tests of the class."""

    knot: Knot | None = None
    unbound: Unbound
    liar: Unbound

    def setUp(self) -> None:
        cls = type(self)
        if cls.knot is None:
            knot = Knot({"signed.example": ZONE, "unsigned.example": "@ MX 5 mx\nmx A 127.0.0.7\n"}, signed=frozenset({"signed.example"}))
            knot.start()
            cls.knot = knot
            cls.unbound = Unbound(knot)
            cls.unbound.start()
            wrong = knot.trust_anchors()[0][:-64] + "00" * 32
            cls.liar = Unbound(knot, anchors=(wrong,))
            cls.liar.start()

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.knot is not None:
            cls.unbound.stop()
            cls.liar.stop()
            cls.knot.stop()
            cls.knot = None

    def resolver(self, server: Knot | Unbound, *, dnssec: bool = True) -> Resolver:
        servers = (NameServer(server.address, server.port),)
        return Resolver(
            Network(loop), servers, loop, ResolverSettings(dnssec=dnssec, timeout_seconds=20.0, limit_seconds=60.0)
        )

    async def test_what_is_signed_is_secure_and_what_is_not_is_not(self) -> None:
        resolver = self.resolver(self.unbound)
        mx = await resolver.mx("signed.example")
        self.assertEqual(mx.records, (MX(10, "mx1.signed.example"), MX(20, "mx2.signed.example")))
        self.assertTrue(mx.secure)
        self.assertLessEqual(mx.ttl, 60)
        tlsa = await resolver.tlsa("_25._tcp.mx1.signed.example")
        self.assertEqual((tlsa.records, tlsa.secure), ((TLSA(3, 1, 1, bytes.fromhex("ab" * 32)),), True))
        unsigned = await resolver.mx("unsigned.example")
        self.assertEqual((unsigned.records, unsigned.secure), ((MX(5, "mx.unsigned.example"),), False))
        self.assertEqual((await resolver.aaaa("mx1.signed.example")).records, ("::5",))
        self.assertEqual((await resolver.txt("_smtp._tls.signed.example")).records, (b"v=TLSRPTv1; rua=mailto:tls@signed.example",))
        self.assertFalse((await self.resolver(self.unbound, dnssec=False).mx("signed.example")).secure)

    async def test_denials_are_validated_too(self) -> None:
        resolver = self.resolver(self.unbound)
        nothing = await resolver.mx("mx2.signed.example")
        self.assertEqual((nothing.records, nothing.secure), ((), True))
        with self.assertRaises(NoSuchName) as caught:
            await resolver.tlsa("_25._tcp.mx2.signed.example")
        self.assertTrue(caught.exception.secure)
        with self.assertRaises(NoSuchName) as caught:
            await resolver.a("no.unsigned.example")
        self.assertFalse(caught.exception.secure)

    async def test_aliases(self) -> None:
        resolver = self.resolver(self.unbound)
        inside = await resolver.a("www.signed.example")
        self.assertEqual((inside.records, inside.secure, inside.name), (("127.0.0.5",), True, "mx1.signed.example"))
        outside = await resolver.a("out.signed.example")
        self.assertEqual((outside.records, outside.secure, outside.name), (("127.0.0.7",), False, "mx.unsigned.example"))
        self.assertTrue((await resolver.cname("out.signed.example")).secure)
        with self.assertRaises(DNSFailure):
            await self.resolver(self.knot or self.unbound).a("round.signed.example")

    async def test_a_zone_that_does_not_verify_gives_no_answer(self) -> None:
        with self.assertRaises(DNSFailure):
            await self.resolver(self.liar).mx("signed.example")

    async def test_an_answer_that_does_not_fit_a_datagram(self) -> None:
        answer = await self.resolver(self.unbound).txt("big.signed.example")
        self.assertEqual(len(answer.records[0]), 1750)

    async def test_a_changed_zone_is_seen_once_what_was_cached_is_forgotten(self) -> None:
        assert self.knot is not None
        resolver = self.resolver(self.unbound)
        before = await resolver.a("mx.unsigned.example")
        self.knot.set("unsigned.example", "@ MX 5 mx\nmx A 127.0.0.8\n")
        self.addCleanup(self.knot.set, "unsigned.example", "@ MX 5 mx\nmx A 127.0.0.7\n")
        self.unbound.forget("unsigned.example")
        self.addCleanup(self.unbound.forget, "unsigned.example")
        self.assertEqual((await resolver.a("mx.unsigned.example")).records, before.records)
        resolver.flush("unsigned.example")
        self.assertEqual((await resolver.a("mx.unsigned.example")).records, ("127.0.0.8",))
