"""Real sockets, Python's own client: plain, STARTTLS, TLS from the start, and LMTP on a UNIX socket."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import hashlib
import smtplib
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import pair, trusting
from tests.smtp.fakes import FakeAuthentication, FakeIntake
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits, Profile
from twisted_mail.smtp.server import SMTPServerFactory

MESSAGE = b"From: ann@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\n.dot\r\n" + b"0123456789" * 7 + b"\r\n"


class LoopbackTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.intake = FakeIntake()
        self.options, self.der = pair()

    def factory(self, profile: Profile, **more: Any) -> SMTPServerFactory:
        return SMTPServerFactory(
            profile, self.intake, FakeAuthentication(), Limits(), self.options, self.reactor, "mx.example.org", **more
        )

    def listen(self, profile: Profile, **more: Any) -> int:
        port = self.reactor.listenTCP(0, self.factory(profile, **more), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_a_message_over_starttls(self) -> None:
        port = self.listen(MX)

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                client.ehlo("client.example")
                self.assertTrue(client.has_extn("starttls"))
                client.starttls(context=trusting())
                client.ehlo("client.example")
                self.assertFalse(client.has_extn("starttls"))
                client.sendmail("a@b.example", ["ann@example.org"], MESSAGE)

        await deferToThread(send)
        envelope, octets = self.intake.messages[0]
        self.assertEqual(octets, MESSAGE)
        self.assertEqual((envelope.protocol, envelope.helo), ("ESMTPS", "client.example"))
        self.assertTrue(envelope.peer.secure)
        self.assertRegex(envelope.peer.tls_description, r"^TLS1\.\d with cipher \S+$")
        bindings = envelope.peer.channel_bindings
        self.assertEqual(bindings["tls-server-end-point"], hashlib.sha256(self.der).digest())
        self.assertEqual(len(bindings["tls-exporter"]), 32)

    async def test_submission_with_tls_from_the_start(self) -> None:
        port = self.listen(SUBMISSION, implicit_tls=True)

        def send() -> None:
            with smtplib.SMTP_SSL("127.0.0.1", port, timeout=10, context=trusting()) as client:
                client.login("ann", "secret")
                client.sendmail("ann@example.org", ["bob@example.org"], MESSAGE)

        await deferToThread(send)
        envelope, octets = self.intake.messages[0]
        self.assertEqual((envelope.protocol, octets), ("ESMTPSA", MESSAGE))
        self.assertEqual(envelope.identity and envelope.identity.login, "ann@example.org")

    async def test_lmtp_on_a_unix_socket(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="lmtp")
        self.addCleanup(folder.cleanup)
        path = str(Path(folder.name) / "s")
        listening = self.reactor.listenUNIX(path, self.factory(LMTP))
        self.addCleanup(listening.stopListening)

        def send() -> None:
            with smtplib.LMTP(path) as client:
                client.sendmail("a@b.example", ["ann@example.org"], MESSAGE)

        await deferToThread(send)
        self.assertEqual(self.intake.messages[0][1], MESSAGE)
        self.assertEqual(self.intake.messages[0][0].protocol, "LMTP")

    async def test_ten_megabytes(self) -> None:
        port = self.listen(MX)
        big = MESSAGE + b".line of text\r\n" * 700_000

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                client.sendmail("a@b.example", ["ann@example.org"], big)

        await deferToThread(send)
        self.assertTrue(self.intake.messages[0][1] == big)
