"""TLS as it is asked for: offered or not, broken, expired, for somebody else, by an authority or by TLSA records."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.relay.receiver import Authority, Broken, Receiver
from tests.relay.test_sending import BODY, SendingCase
from twisted_mail.dns.values import TLSA
from twisted_mail.relay.sending import Sender
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.values import Login, Protection, Result, Stage, TLSFailure, TLSMode

OPPORTUNISTIC = Protection(TLSMode.OPPORTUNISTIC)
ENCRYPTED = Protection(TLSMode.ENCRYPTED, "configuration")
VERIFIED = Protection(TLSMode.VERIFIED, "mta-sts", ("mx.there.example",))
OFFER = ("PIPELINING", "STARTTLS")


class TLSTests(SendingCase):
    authority: Authority

    def make_sender(self, tls: ClientTLS | None = None, **settings: Any) -> Sender:
        if not hasattr(self, "authority"):
            folder = Path(self.mktemp())
            folder.mkdir(parents=True)
            self.authority = Authority(folder)
        return super().make_sender(tls or ClientTLS(self.authority.file), **settings)

    def secured(self, *names: str, expired: bool = False, **more: Any) -> Receiver:
        options, self.certificate = self.authority.server(*(names or ("mx.there.example",)), expired=expired)
        return Receiver(extensions=OFFER, options=options, **more)

    async def test_tls_where_it_is_offered_whatever_the_certificate_says(self) -> None:
        receiver = self.secured("other.example", expired=True)
        for protection in (OPPORTUNISTIC, ENCRYPTED):
            verdict = await self.one(self.route(self.host(receiver)), protection=protection)
            self.assertEqual(verdict.result, Result.DELIVERED)
            self.assertRegex(verdict.tls, r"^TLS1\.3 with cipher \w+" + (", configuration" if protection.why else "") + "$")
        self.assertEqual(self.notes, [("mx.there.example", None)] * 2)
        self.assertEqual(self.verbs(receiver)[:4], ["EHLO", "STAR", "EHLO", "MAIL"])

    async def test_in_the_clear_where_it_is_not(self) -> None:
        verdict = await self.one(self.route(), protection=OPPORTUNISTIC)
        self.assertEqual((verdict.result, verdict.tls), (Result.DELIVERED, ""))
        self.assertEqual(self.notes, [("mx.there.example", TLSFailure.STARTTLS_NOT_SUPPORTED)])

    async def test_what_must_be_encrypted_does_not_go_in_the_clear(self) -> None:
        for protection in (ENCRYPTED, VERIFIED, Protection(TLSMode.DANE, "dane", ("mx.there.example",))):
            verdict = await self.one(self.route(), protection=protection)
            self.assertEqual((verdict.result, verdict.stage, verdict.about_connection), (Result.TEMPORARY, Stage.TLS, True))
            self.assertEqual(verdict.reply, "451 4.7.4 The server does not offer TLS")
        refusing = self.secured(on={"STARTTLS": b"454 4.7.0 not now\r\n"})
        refusing.options = None
        verdict = await self.one(self.route(self.host(refusing)), protection=ENCRYPTED)
        self.assertEqual(verdict.reply, "451 4.7.4 The server refused TLS: 454 4.7.0 not now")
        verdict = await self.one(self.route(self.host(refusing)), protection=OPPORTUNISTIC)
        self.assertEqual((verdict.result, verdict.tls), (Result.DELIVERED, ""))

    async def test_broken_tls_is_done_without_where_that_is_allowed(self) -> None:
        for how in (Broken(), "garbage"):
            broken = Receiver(extensions=OFFER, options=how if how != "garbage" else None)
            if how == "garbage":
                broken.on["STARTTLS"] = lambda line, at: (at.say(b"220 go\r\n", b""), self.reactor.callLater(0.05, at.say, b"x" * 100, b""))[0] or b""
            verdict = await self.one(self.route(self.host(broken)), protection=OPPORTUNISTIC)
            self.assertEqual((verdict.result, verdict.tls), (Result.DELIVERED, ""))
            self.assertRegex(verdict.note, "^sent in the clear, as TLS was offered but broken: .")
            self.assertEqual(len(broken.connections), 2)
            self.assertEqual(broken.bodies, [BODY])
            verdict = await self.one(self.route(self.host(broken)), protection=ENCRYPTED)
            self.assertEqual((verdict.result, verdict.stage, verdict.about_connection), (Result.TEMPORARY, Stage.TLS, True))
            self.assertRegex(verdict.reply, "^451 4.7.5 TLS did not come about: .")
        self.assertEqual(self.notes, [("mx.there.example", TLSFailure.VALIDATION_FAILURE)] * 4)

    async def test_a_handshake_that_never_ends_is_given_up(self) -> None:
        silent = Receiver(extensions=OFFER, on={"STARTTLS": [b"220 go\r\n"]})
        running = self.start(self.route(self.host(silent)), protection=ENCRYPTED)
        while self.verbs(silent) != ["EHLO", "STAR"]:
            await self.breathe()
        await self.breathe(0.05)
        self.clock.advance(61)
        (verdict,) = await running
        self.assertEqual((verdict.stage, verdict.reply), (Stage.TLS, "451 4.7.5 TLS did not come about: it took too long"))

    async def test_the_right_certificate(self) -> None:
        for names in (("mx.there.example",), ("other.example", "*.there.example")):
            verdict = await self.one(self.route(self.host(self.secured(*names))), protection=VERIFIED)
            self.assertEqual(verdict.result, Result.DELIVERED)
            self.assertRegex(verdict.tls, r"^TLS1\.3 with cipher \w+, mta-sts$")
        by_address = Protection(TLSMode.VERIFIED, "configuration", ("127.0.0.1",))
        verdict = await self.one(self.route(self.host(self.secured("127.0.0.1"))), protection=by_address)
        self.assertEqual(verdict.result, Result.DELIVERED)

    async def test_the_wrong_certificate(self) -> None:
        wrong: list[tuple[Receiver, ClientTLS | None, TLSFailure, str]] = [
            (self.secured("*.example", "there.example", "*.mx.there.example", "m*.there.example"), None,
             TLSFailure.CERTIFICATE_HOST_MISMATCH, "The server's certificate is not for mx.there.example"),
            (self.secured(expired=True), None, TLSFailure.CERTIFICATE_EXPIRED,
             "The server's certificate is not to be trusted: it has expired"),
            (self.secured(), ClientTLS(), TLSFailure.CERTIFICATE_NOT_TRUSTED,
             "The server's certificate is not to be trusted: its issuer is not known"),
        ]  # fmt: skip
        good = self.secured()
        for receiver, tls, failure, text in wrong:
            self.notes.clear()
            self.sender = self.make_sender(tls)
            verdict = await self.one(self.route(self.host(receiver)), protection=VERIFIED)
            self.assertEqual((verdict.result, verdict.stage, verdict.reply), (Result.TEMPORARY, Stage.TLS, f"451 4.7.5 {text}"))
            self.assertEqual((verdict.about_connection, verdict.remote), (True, False))
            self.assertEqual(self.notes, [("mx.there.example", failure)])
            await self.breathe(0.05)
            self.assertEqual((receiver.open, self.verbs(receiver)), (0, ["EHLO", "STAR"]))
            if tls is None:
                verdict = await self.one(self.route(self.host(receiver), self.host(good)), protection=VERIFIED)
                self.assertEqual(verdict.result, Result.DELIVERED)

    def test_authorities_must_be_some(self) -> None:
        empty = Path(self.mktemp())
        empty.write_text("nothing")
        for path in (empty, empty.with_name("missing")):
            self.assertRaises(ValueError, ClientTLS, path)

    async def test_a_policy_that_is_tested_is_reported_and_does_no_harm(self) -> None:
        testing = Protection(TLSMode.OPPORTUNISTIC, "", ("mx.there.example",), testing=True)
        verdict = await self.one(self.route(self.host(self.secured(expired=True))), protection=testing)
        self.assertEqual(verdict.result, Result.DELIVERED)
        self.assertTrue(verdict.tls)
        self.assertEqual(self.notes, [("mx.there.example", TLSFailure.CERTIFICATE_EXPIRED)])

    async def test_dane(self) -> None:
        receiver = self.secured("whatever.example", expired=True)
        key = self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        right = TLSA(3, 1, 1, hashlib.sha256(key).digest())
        wrong = TLSA(3, 1, 1, bytes(32))
        names = ("mx.there.example",)
        verdict = await self.one(self.route(self.host(receiver)), protection=Protection(TLSMode.DANE, "dane", names, (wrong, right)))
        self.assertEqual(verdict.result, Result.DELIVERED)
        self.assertRegex(verdict.tls, ", dane$")
        verdict = await self.one(self.route(self.host(receiver)), protection=Protection(TLSMode.DANE, "dane", names, (wrong,)))
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.TLS))
        self.assertEqual(verdict.reply, "451 4.7.5 The server's certificate is not the one that its TLSA records name")
        self.assertEqual(self.notes, [("mx.there.example", None), ("mx.there.example", TLSFailure.VALIDATION_FAILURE)])

    async def test_dane_with_an_authority_wants_the_name(self) -> None:
        own = self.authority.certificate
        anchor = TLSA(2, 0, 0, own.public_bytes(Encoding.DER))
        for name, result in (("mx.there.example", Result.DELIVERED), ("other.example", Result.TEMPORARY)):
            protection = Protection(TLSMode.DANE, "dane", ("mx.there.example",), (anchor,))
            verdict = await self.one(self.route(self.host(self.secured(name))), protection=protection)
            self.assertEqual(verdict.result, result, name)

    async def test_the_server_is_told_which_name_is_meant(self) -> None:
        asked: list[bytes | None] = []
        for host, protection, name in (
            ("mx.there.example", OPPORTUNISTIC, b"mx.there.example"),
            ("127.0.0.1", OPPORTUNISTIC, None),
            ("alias.example", Protection(TLSMode.DANE, names=("base.example",)), b"base.example"),
        ):
            receiver = self.secured()
            context = receiver.options.getContext()
            context.set_tlsext_servername_callback(lambda connection: asked.append(connection.get_servername()))
            await self.one(self.route(self.host(receiver, host)), protection=protection)
            self.assertEqual(asked.pop(), name)

    async def test_tls_from_the_first_octet_and_a_login_within_it(self) -> None:
        receiver = self.secured(implicit_tls=True)
        receiver.extensions = ("PIPELINING", "AUTH PLAIN")
        receiver.on["AUTH"] = b"235 2.7.0 welcome\r\n"
        route = self.route(self.host(receiver), implicit_tls=True, login=Login("ann", "secret"))
        for _ in range(2):
            verdict = await self.one(route, protection=VERIFIED)
            self.assertEqual(verdict.result, Result.DELIVERED)
        self.assertEqual(self.verbs(receiver), ["EHLO", "AUTH", *(["MAIL", "RCPT", "DATA"] * 2)])
        clear = Receiver()
        verdict = await self.one(self.route(self.host(clear), implicit_tls=True), protection=OPPORTUNISTIC)
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.TLS))

    async def test_octets_behind_the_answer_to_starttls_are_an_attack(self) -> None:
        receiver = self.secured(on={"STARTTLS": b"220 go\r\n250-mx.there.example\r\n250 AUTH PLAIN\r\n"})
        for protection in (OPPORTUNISTIC, VERIFIED):
            verdict = await self.one(self.route(self.host(receiver)), protection=protection)
            self.assertEqual((verdict.result, verdict.stage, verdict.about_connection), (Result.TEMPORARY, Stage.TLS, True))
            self.assertRegex(verdict.reply, "^451 4.7.0 The server said more behind its answer to STARTTLS")
        self.assertEqual(receiver.bodies, [])

    async def test_requiretls_is_looked_for_under_tls(self) -> None:
        required = Protection(TLSMode.VERIFIED, "requiretls", ("mx.there.example",), requiretls=True)
        receiver = self.secured()
        verdict = await self.one(self.route(self.host(receiver)), protection=required)
        self.assertEqual((verdict.result, verdict.reply), (Result.PERMANENT, "550 5.7.30 The server does not offer REQUIRETLS"))
        receiver.extensions = (*OFFER, "REQUIRETLS")
        self.assertEqual((await self.one(self.route(self.host(receiver)), protection=required)).result, Result.DELIVERED)

    async def test_a_large_message_under_tls_and_a_server_that_ends_it_without_a_word(self) -> None:
        from tests.relay.test_sending import parcel

        receiver = self.secured()
        big = parcel(body=BODY * 5000, pieces=50_000)
        verdict = await self.one(self.route(self.host(receiver)), big, protection=VERIFIED)
        self.assertEqual((verdict.result, receiver.bodies), (Result.DELIVERED, [BODY * 5000]))
        receiver.on["end"] = "close"
        verdict = await self.one(self.route(self.host(receiver)), big, protection=VERIFIED)
        self.assertEqual((verdict.result, verdict.stage), (Result.TEMPORARY, Stage.END))


