"""The HTTPS client against web servers of this process, good and bad."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.dns.fakes import TableDNS
from tests.relay.authority import Certified, authority, server
from twisted_mail.dns.values import DNSFailure
from twisted_mail.relay.https import HTTPS, HTTPFailure, HTTPResponse, UntrustedServer, load_authorities
from twisted_mail.relay.mta_sts import MTASTS, MTASTSSettings
from twisted_mail.storage.memory import MemoryRecords

loop: Any = reactor

HOST = "mta-sts.example.org"
POLICY = b"version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(POLICY) + POLICY
ROOT = authority()


class _Web(Protocol):
    def __init__(self, house: HTTPSTests) -> None:
        self.house = house
        self.ended = False

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = True

    def connectionMade(self) -> None:
        self.house.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.house.request += data
        assert self.transport is not None
        if not self.house.answered and self.house.request.partition(b"\r\n\r\n")[2].endswith(self.house.until):
            self.house.answered = True
            self.house.answer(self.transport)


class HTTPSTests(TestCase):
    def setUp(self) -> None:
        self.request = b""
        self.until = b""
        self.answered = False
        self.open: list[_Web] = []
        self.answer: Callable[[Any], None] = lambda transport: transport.write(OK)
        self.dns = TableDNS({(HOST, "A"): ["127.0.0.1"]})
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "root.pem").write_bytes(b"The tests' own\n" + ROOT.pem + authority("another").pem)
        self.port = 0
        self.dripping: Any = None

    def tearDown(self) -> None:
        for web in self.open:
            if not web.ended and web.transport is not None:
                web.transport.abortConnection()  # type: ignore[attr-defined]

    def serve(self, certified: Certified | None = None) -> None:
        certified = certified or server(HOST, issuer=ROOT)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: _Web(self)  # type: ignore[method-assign]
        context = ssl.PrivateCertificate.loadPEM(certified.pem + certified.key_pem).options()
        listening = loop.listenSSL(0, factory, context, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port

    def client(self) -> HTTPS:
        return HTTPS(loop, self.dns, load_authorities(self.folder / "root.pem"))

    async def get(self, seconds: float = 30.0, octets: int = 1000) -> HTTPResponse:
        return await self.client().get(
            HOST, "/.well-known/mta-sts.txt", port=self.port, seconds=seconds, octets=octets
        )

    async def failure(self, seconds: float = 30.0) -> HTTPFailure:
        with self.assertRaises(HTTPFailure) as caught:
            await self.get(seconds)
        failure: HTTPFailure = caught.exception
        return failure

    async def test_a_get(self) -> None:
        self.serve()
        self.assertEqual(await self.get(), HTTPResponse(200, "text/plain", POLICY))
        self.assertTrue(self.request.startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n"))
        self.assertIn(b"\r\nHost: mta-sts.example.org\r\n", self.request)

    async def test_an_address_where_nobody_is_leads_to_the_next(self) -> None:
        self.serve()
        self.dns.table[HOST, "AAAA"] = ["::1"]  # the server listens on the other family
        self.assertEqual((await self.get()).status, 200)

    async def test_a_body_that_ends_with_the_connection(self) -> None:
        self.serve()

        def answer(transport: Any) -> None:
            transport.write(b"HTTP/1.0 200 OK\r\nContent-Type: Text/Plain\r\n\r\n" + POLICY)
            transport.loseConnection()

        self.answer = answer
        self.assertEqual(await self.get(), HTTPResponse(200, "text/plain", POLICY))

    async def test_certificates_that_are_not_for_it_or_from_nobody_or_old(self) -> None:
        for certified in (
            server("other.example", issuer=ROOT),
            server(HOST),
            server(HOST, issuer=authority()),
            server(HOST, issuer=ROOT, days=(-20, -10)),
        ):
            self.serve(certified)
            self.assertIsInstance(await self.failure(), UntrustedServer)
            self.assertEqual(self.request, b"")

    async def test_the_systems_authorities_do_not_know_ours(self) -> None:
        self.serve()
        with self.assertRaises(UntrustedServer):
            await HTTPS(loop, self.dns, load_authorities(None)).get(HOST, "/", port=self.port, seconds=30.0, octets=1000)

    async def test_redirects_are_answers(self) -> None:
        self.serve()
        self.answer = lambda transport: transport.write(
            b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual((await self.get()).status, 302)
        self.assertEqual(len(self.open), 1)

    async def test_silence_at_any_point_ends(self) -> None:
        self.serve()
        for said in (b"", b"HTTP/1.1 200 OK\r\nX: ", OK[:-5]):
            self.request, self.answered = b"", False
            self.answer = lambda transport, said=said: transport.write(said)  # type: ignore[misc]
            self.assertIn("within", str(await self.failure(0.3)))

    async def test_one_octet_at_a_time_ends_too(self) -> None:
        self.serve()

        def drip(transport: Any) -> None:
            transport.write(b"a")
            self.dripping = loop.callLater(0.05, drip, transport)

        def answer(transport: Any) -> None:
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
            drip(transport)

        self.answer = answer
        self.assertIn("within", str(await self.failure(0.5)))
        if self.dripping is not None:
            self.dripping.cancel()

    async def test_too_much_ends(self) -> None:
        self.serve()
        endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for said in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 100_000,
            endless + b"1\r\nx\r\n" * 2_000,
            b"HTTP/1.1 200 OK\r\n" + b"X-Field: value\r\n" * 20_000,
            b"HTTP/1.1 200 OK\r\nX-Field: " + b"x" * 300_000,
        ):
            self.request, self.answered = b"", False
            self.answer = lambda transport, said=said: transport.write(said)  # type: ignore[misc]
            self.assertNotIn("within", str(await self.failure(60.0)))

    async def test_no_http_and_a_connection_that_is_cut(self) -> None:
        self.serve()
        for said in (b"220 mail.example.org ESMTP\r\n", b"", OK[:-5]):
            self.request, self.answered = b"", False

            def answer(transport: Any, said: bytes = said) -> None:
                transport.write(said)
                transport.loseConnection()

            self.answer = answer
            await self.failure()

    async def test_a_name_that_leads_nowhere(self) -> None:
        self.dns.table = {}
        self.assertIn("no address", str(await self.failure()))
        self.dns.table[HOST, "A"] = DNSFailure("late")
        self.assertIn("DNS", str(await self.failure()))

    async def test_a_post(self) -> None:
        self.serve()
        self.until = b"report"
        self.answer = lambda transport: transport.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        response = await self.client().post(
            f"https://{HOST}:{self.port}/v1?x=y", b"report", {"Content-Type": "application/tlsrpt+gzip"}, seconds=30.0
        )
        self.assertEqual(response.status, 201)
        self.assertTrue(self.request.startswith(b"POST /v1?x=y HTTP/1.1\r\n"))
        self.assertIn(b"Content-Type: application/tlsrpt+gzip\r\n", self.request)
        self.assertIn(b"Content-Length: 6\r\n", self.request)

    async def test_urls_that_are_not_posted_to(self) -> None:
        for url in ("http://example.org/", "https://u:p@example.org/", "https:///x", "https://192.0.2.1/", "https://e.org/\r\nX: y", "https://e.org/a b", "ftp://e.org", "https://e.org:99999/"):
            with self.assertRaises(HTTPFailure):
                await self.client().post(url, b"", {}, seconds=30.0)

    def test_authorities_that_cannot_be_read(self) -> None:
        for content in (b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"):
            (self.folder / "bad.pem").write_bytes(content)
            self.assertRaises(ValueError, load_authorities, self.folder / "bad.pem")
        self.assertRaises(OSError, load_authorities, self.folder / "none.pem")

    async def test_a_policy_from_end_to_end(self) -> None:
        self.serve()
        self.dns.table["_mta-sts.example.org", "TXT"] = [b"v=STSv1; id=1;"]
        sts = MTASTS(self.dns, self.client(), MemoryRecords(loop), loop, MTASTSSettings(port=self.port))
        policy = await sts.policy("example.org")
        assert policy is not None
        self.assertEqual((policy.mode, policy.mx), ("enforce", ("mx.example.org",)))
