"""Sending to servers that were not written for it: our own, Postfix's smtp-sink, and Postfix itself."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import gatherResults

from tests.certificates import pair
from tests.relay.receiver import Authority, Receiver
from tests.relay.test_sending import BODY, SendingCase, parcel
from tests.services.postfix import Postfix, Sink
from tests.smtp.fakes import FakeAuthentication, FakeIntake
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.values import Addressee, Host, Login, Parcel, Protection, Result, Route, Stage, TLSMode
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits, Profile
from twisted_mail.smtp.server import SMTPServerFactory

LARGE = BODY * 20_000


class OwnServerTests(SendingCase):
    """Both ends are ours, with TLS between them."""

    def serve(self, profile: Profile = MX, *, implicit_tls: bool = False, **limits: Any) -> tuple[FakeIntake, Host]:
        # limits: fields of Limits
        intake = FakeIntake()
        options, _ = pair()
        factory = SMTPServerFactory(
            profile, intake, FakeAuthentication(), Limits(**limits), options, self.reactor, "mx.example.org", implicit_tls=implicit_tls
        )
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return intake, Host("mx.example.org", ("127.0.0.1",), port.getHost().port)

    async def test_messages_over_starttls(self) -> None:
        intake, host = self.serve(recipients=2)
        to = parcel("ann@example.org", "nobody@example.org", "bob@example.org", "cyd@elsewhere.example", "dan@example.org", body=LARGE)
        verdicts = await self.send(self.route(host), to, protection=Protection(TLSMode.ENCRYPTED))
        self.assertEqual([each.reply[:9] for each in verdicts], ["250 2.0.0", "550 5.1.1", "250 2.0.0", "550 5.7.1", "250 2.0.0"])
        self.assertRegex(verdicts[0].tls, r"^TLS1\.3 with cipher \S+$")
        # RCPTMAX=2, so it took three transactions
        self.assertEqual([[each.address for each in envelope.recipients] for envelope, _ in intake.messages],
                         [["ann@example.org"], ["bob@example.org"], ["dan@example.org"]])  # fmt: skip
        self.assertEqual({octets for _, octets in intake.messages}, {LARGE})
        self.assertEqual(intake.messages[0][0].protocol, "ESMTPS")

    async def test_submission_with_tls_from_the_start_and_a_login(self) -> None:
        intake, host = self.serve(SUBMISSION, implicit_tls=True)
        route = self.route(host, implicit_tls=True, login=Login("ann", "secret"))
        what = Parcel("ann@example.org", (Addressee("bob@example.org"),), parcel().octets, len(BODY))
        verdict = await self.one(route, what, protection=Protection(TLSMode.ENCRYPTED))
        self.assertEqual(verdict.result, Result.DELIVERED, verdict)
        self.assertEqual(intake.messages[0][0].protocol, "ESMTPSA")
        self.sender.close()
        self.sender = self.make_sender()
        wrong = await self.one(self.route(host, implicit_tls=True, login=Login("ann", "wrong")), what, protection=Protection(TLSMode.ENCRYPTED))
        self.assertEqual((wrong.stage, wrong.result), (Stage.LOGIN, Result.TEMPORARY))

    async def test_lmtp(self) -> None:
        _, host = self.serve(LMTP)
        verdicts = await self.send(self.route(host, lmtp=True), parcel("ann@example.org", "full@example.org", "gone@example.org"))
        self.assertEqual([each.reply[:9] for each in verdicts], ["250 2.1.5", "452 4.2.2", "550 5.2.1"])

    async def test_a_message_too_large_is_not_sent(self) -> None:
        intake, host = self.serve(message_bytes=100)
        verdict = await self.one(self.route(host), parcel("ann@example.org"))
        self.assertEqual((verdict.result, verdict.reply[:9], verdict.remote), (Result.PERMANENT, "552 5.3.4", False))
        self.assertEqual(intake.begun, [])


@skipUnless(Sink.installed(), "smtp-sink is not installed (Debian's package postfix)")
class SinkTests(SendingCase):
    def sink(self, *options: str) -> Host:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        sink = Sink(Path(folder.name), *options)
        sink.start()
        self.addCleanup(sink.stop)
        return Host("sink.example", ("127.0.0.1",), sink.port)

    async def test_many_messages_at_a_time(self) -> None:
        route = self.route(self.sink())
        found = await gatherResults([self.start(route, parcel("a@sink.example", "b@sink.example")) for _ in range(20)])
        self.assertEqual({each.result for verdicts in found for each in verdicts}, {Result.DELIVERED})
        self.assertEqual((await self.one(route, parcel(body=LARGE, pieces=65_536))).result, Result.DELIVERED)

    async def test_lmtp(self) -> None:
        verdicts = await self.send(self.route(self.sink("-L"), lmtp=True), parcel("a@sink.example", "b@sink.example"))
        self.assertEqual([each.result for each in verdicts], [Result.DELIVERED] * 2)

    async def test_it_refuses_or_hangs_up(self) -> None:
        for options, result, stage in (
            (("-r", "RCPT"), Result.TEMPORARY, Stage.RCPT),
            (("-f", "RCPT"), Result.PERMANENT, Stage.RCPT),
            (("-f", "."), Result.PERMANENT, Stage.END),
            (("-q", "."), Result.TEMPORARY, Stage.END),
        ):
            verdict = await self.one(self.route(self.sink(*options)))
            self.assertEqual((verdict.result, verdict.stage), (result, stage), (options, verdict))


@skipUnless(Postfix.installed(), "Postfix is not installed, or this is not root")
class PostfixTests(SendingCase):
    """To Postfix, and from there to us again by LMTP: the message comes as it went."""

    timeout = 120

    async def test_a_message_comes_through_as_it_was_sent(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        authority = Authority(folder)
        pem = folder / "mx.pem"
        pem.write_bytes(authority.pem("mx.there.example"))
        lmtp = Receiver(lmtp=True, extensions=("8BITMIME", "SIZE"))
        postfix = Postfix(folder / "postfix", self.listen(lmtp), "there.example", pem)
        postfix.start()
        self.addCleanup(postfix.stop)
        self.sender = self.make_sender(ClientTLS(authority.file))
        route = Route("there.example", "there.example", (Host("mx.there.example", ("127.0.0.1",), postfix.port),))
        verified = Protection(TLSMode.VERIFIED, "mta-sts", ("mx.there.example",))
        bodies = [BODY, BODY + b"..\r\n.\r\n. x\r\n", LARGE]
        for body in bodies:
            what = Parcel(
                "ann@here.example",
                (Addressee("bob@there.example", frozenset({"FAILURE"}), "rfc822;bob@there.example"), Addressee("cyd@elsewhere.invalid")),
                parcel(body=body, pieces=65_536).octets,
                len(body),
                eight_bit=True,
                envelope_id="QQ1",
                dsn_return="HDRS",
            )
            first, second = await self.send(route, what, protection=verified)
            self.assertEqual((first.result, first.dsn), (Result.DELIVERED, True), first)
            self.assertRegex(first.tls, r"^TLS1\.\d with cipher \S+, mta-sts$")
            self.assertEqual((second.result, second.stage), (Result.DELIVERED, Stage.END), second)
        # elsewhere.invalid is relayed by it (we are in its mynetworks), and bounces there
        for _ in range(1000):
            if len(lmtp.bodies) == len(bodies):
                break
            await self.breathe(0.02)
        came = sorted(lmtp.bodies, key=len)
        for body, received in zip(bodies, came, strict=True):
            # Postfix adds to the header
            self.assertEqual(received.partition(b"\r\n\r\n")[2], body.partition(b"\r\n\r\n")[2])
        self.assertEqual(self.sender.idle_connections, 1)
