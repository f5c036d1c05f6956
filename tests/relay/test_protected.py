"""A message's way through real name servers to a server: routes by MX, protected by DANE, by MTA-STS, by nothing."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tests.relay.authority import Certified, authority, server
from tests.relay.receiver import Receiver
from tests.relay.test_sending import SendingCase, parcel
from tests.services.knot import Knot
from tests.services.unbound import Unbound
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.transport import Network
from twisted_mail.relay.dane import DANE
from twisted_mail.relay.https import HTTPS, load_authorities
from twisted_mail.relay.mta_sts import MTASTS, MTASTSSettings
from twisted_mail.relay.routing import Router, RoutingSettings
from twisted_mail.relay.sending import Sender
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.tls_policy import TLSPolicy
from twisted_mail.relay.values import Result, RouteFailure, TLSFailure, Verdict
from twisted_mail.storage.memory import MemoryRecords

loop: Any = reactor

ROOT = authority()
MX_SIGNED = server("mx1.signed.example")
MX_PLAIN = server("mx1.plain.example", issuer=ROOT)
WEB = server("mta-sts.plain.example", issuer=ROOT)
HOSTS = "@ MX 10 mx1\nmx1 A 127.0.0.1\n"
POLICY = "version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n"


def options(certified: Certified) -> Any:
    return ssl.PrivateCertificate.loadPEM(certified.pem + certified.key_pem).options()


def tlsa(port: int, *, usage: int = 3, of: Certified = MX_SIGNED) -> str:
    return f"_{port}._tcp.mx1 TLSA {usage} 1 1 {hashlib.sha256(of.spki).hexdigest()}\n"


class ProtectedTests(SendingCase):
    """Name servers are started once; each test serves zones of its own."""

    knot: Knot | None = None
    unbound: Unbound

    def setUp(self) -> None:
        cls = type(self)
        if cls.knot is None:
            knot = Knot({"signed.example": "", "plain.example": ""}, signed=frozenset({"signed.example"}))
            knot.start()
            cls.knot, cls.unbound = knot, Unbound(knot)
            cls.unbound.start()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "root.pem").write_bytes(ROOT.pem)
        super().setUp()
        self.policy = Data(POLICY.format(mx="*.plain.example").encode(), "text/plain")
        self.receiver = Receiver(extensions=("PIPELINING", "STARTTLS", "REQUIRETLS"), options=options(MX_SIGNED))
        self.port = self.listen()
        web, well_known = Resource(), Resource()
        web.putChild(b".well-known", well_known)
        well_known.putChild(b"mta-sts.txt", self.policy)
        site = Site(web)
        site.noisy = False
        https = loop.listenSSL(0, site, options(WEB), interface="127.0.0.1")
        self.addCleanup(https.stopListening)
        servers = (NameServer(self.unbound.address, self.unbound.port),)
        self.resolver = Resolver(
            Network(loop), servers, loop, ResolverSettings(dnssec=True, timeout_seconds=20.0, limit_seconds=60.0)
        )
        self.router = Router(self.resolver, settings=RoutingSettings(port=self.port))
        sts = MTASTS(
            self.resolver,
            HTTPS(loop, self.resolver, load_authorities(self.folder / "root.pem")),
            MemoryRecords(loop),
            loop,
            MTASTSSettings(port=https.getHost().port, fetch_seconds=60.0),
        )
        self.tls = TLSPolicy(DANE(self.resolver), sts, noted=self.note)

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.knot is not None:
            cls.unbound.stop()
            cls.knot.stop()
            cls.knot = None

    def make_sender(self, tls: ClientTLS | None = None, **settings: Any) -> Sender:
        return super().make_sender(ClientTLS(self.folder / "root.pem"), **settings)

    def serve(self, zone: str, text: str) -> None:
        assert self.knot is not None
        self.knot.set(zone, text)
        self.unbound.forget(zone)

    async def to(self, domain: str, *, requiretls: bool = False) -> Verdict:
        route = await self.router.route(domain)
        protections = await self.tls.protections(route, requiretls=requiretls)
        return await self.one(route, parcel(f"bob@{domain}", requiretls=requiretls), protection=protections)

    async def test_dane(self) -> None:
        self.serve("signed.example", HOSTS + tlsa(self.port))
        verdict = await self.to("signed.example", requiretls=True)
        self.assertEqual(verdict.result, Result.DELIVERED, verdict)
        self.assertRegex(verdict.tls, "dane")
        self.assertEqual(self.notes, [("mx1.signed.example", None)])
        self.assertIn("REQUIRETLS", next(line for line in self.receiver.commands if line.startswith("MAIL")))

    async def test_a_certificate_that_is_not_the_one_that_is_signed_for(self) -> None:
        self.serve("signed.example", HOSTS + tlsa(self.port, of=MX_PLAIN))
        verdict = await self.to("signed.example")
        self.assertEqual((verdict.result, self.receiver.bodies), (Result.TEMPORARY, []), verdict)
        self.assertEqual(self.notes, [("mx1.signed.example", TLSFailure.VALIDATION_FAILURE)])

    async def test_an_authority_that_is_signed_for(self) -> None:
        self.receiver.options = options(server("*.signed.example", issuer=ROOT))
        self.serve("signed.example", HOSTS + f"_{self.port}._tcp.mx1 TLSA 2 0 0 {ROOT.der.hex()}\n")
        verdict = await self.to("signed.example")
        self.assertEqual(verdict.result, Result.DELIVERED, verdict)
        self.assertRegex(verdict.tls, "dane")

    async def test_a_zone_that_is_not_signed_has_no_dane(self) -> None:
        self.serve("plain.example", HOSTS + tlsa(self.port, of=MX_PLAIN))
        verdict = await self.to("plain.example")
        self.assertEqual(verdict.result, Result.DELIVERED, verdict)
        self.assertNotRegex(verdict.tls, "dane")

    async def test_mta_sts(self) -> None:
        self.receiver.options = options(MX_PLAIN)
        self.serve("plain.example", HOSTS + 'mta-sts A 127.0.0.1\n_mta-sts TXT "v=STSv1; id=1;"\n')
        verdict = await self.to("plain.example")
        self.assertEqual(verdict.result, Result.DELIVERED, verdict)
        self.assertRegex(verdict.tls, "mta-sts")
        self.assertEqual((await self.to("plain.example", requiretls=True)).result, Result.DELIVERED)

    async def test_mta_sts_and_a_certificate_from_nobody(self) -> None:
        self.receiver.options = options(server("mx1.plain.example"))
        self.serve("plain.example", HOSTS + 'mta-sts A 127.0.0.1\n_mta-sts TXT "v=STSv1; id=1;"\n')
        verdict = await self.to("plain.example")
        self.assertEqual((verdict.result, self.receiver.bodies), (Result.TEMPORARY, []), verdict)
        self.assertEqual(self.notes, [("mx1.plain.example", TLSFailure.CERTIFICATE_NOT_TRUSTED)])

    async def test_mta_sts_and_a_host_that_the_policy_does_not_name(self) -> None:
        self.policy.data = POLICY.format(mx="other.example").encode()
        self.serve("plain.example", HOSTS + 'mta-sts A 127.0.0.1\n_mta-sts TXT "v=STSv1; id=1;"\n')
        verdict = await self.to("plain.example")
        self.assertEqual((verdict.result, verdict.reply[:9]), (Result.TEMPORARY, "451 4.7.5"), verdict)
        self.assertEqual(self.receiver.connections, [])

    async def test_requiretls_where_nothing_vouches_for_the_host(self) -> None:
        self.serve("plain.example", HOSTS)
        verdict = await self.to("plain.example", requiretls=True)
        self.assertEqual((verdict.result, verdict.reply[:10]), (Result.PERMANENT, "550 5.7.30"), verdict)

    async def test_domains_that_take_no_mail(self) -> None:
        self.serve("plain.example", "@ MX 0 .\nnone TXT x\nloop CNAME pool\npool CNAME loop\n")
        for domain, code, permanent in (
            ("plain.example", "556 5.1.10", True),
            ("none.plain.example", "550 5.1.2 ", True),
            ("nowhere.plain.example", "550 5.1.2 ", True),
            ("loop.plain.example", "451 4.4.3 ", False),
        ):
            with self.assertRaises(RouteFailure) as caught:
                await self.router.route(domain)
            self.assertEqual((caught.exception.reply[:10], caught.exception.permanent), (code, permanent), domain)
