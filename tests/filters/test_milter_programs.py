"""Real milters: Debian's OpenDKIM, clamav-milter, and rspamd's proxy."""

from __future__ import annotations

from functools import cache
from typing import Any

import dkim
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from tests.filters.milters import FakeWire, Message, ScriptedMilter, a_mail, changed, say
from tests.services import running
from tests.services.clamav_milter import clamav_milter
from tests.services.clamd import EICAR
from tests.services.opendkim import OpenDKIM
from tests.services.processes import free_port
from tests.services.rspamd import Rspamd
from tests.services.spamd import GTUBE
from tests.signatures.support import RSA
from twisted_mail.filters.milter import Milter
from twisted_mail.filters.milter_chain import MilterChain
from twisted_mail.filters.milter_packets import Command, Modification, Reply
from twisted_mail.filters.rewriting import rewritten
from twisted_mail.filters.values import Action, Client, FilterDown, Mail, Verdict
from twisted_mail.filters.wires import Place, dial
from twisted_mail.services import Identity
from twisted_mail.values import AccountId

reactor: Any = _reactor

PLAIN = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: a\r\n folded  subject\r\nMessage-ID: <1@example.org>\r\n" \
    b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\nHello\r\n\r\n. dots\r\n\r\n"  # fmt: skip


@cache
def opendkim() -> OpenDKIM:
    """It signs what 192.0.2.10 sends for example.org, and verifies everything else."""
    return running.shared(
        "opendkim-milters",
        lambda folder: OpenDKIM(
            folder,
            domain="example.org",
            key=RSA.pem(),
            internal=("192.0.2.10",),
            keys={"od1._domainkey.example.org": RSA.record()},
        ),
    )


def signed() -> bytes:
    """`PLAIN` with a signature by another implementation."""
    return bytes(dkim.sign(PLAIN, b"od1", b"example.org", RSA.pem())) + PLAIN


def with_changes(octets: bytes, verdict: Verdict) -> bytes:
    """Fields that are inserted in front, before the message."""
    assert verdict.changes is not None and not verdict.changes.added and verdict.changes.body is None
    assert all(position == 0 for position, _, _ in verdict.changes.inserted)
    front = "".join(f"{name}: {value}\r\n" for _, name, value in verdict.changes.inserted)
    return front.encode() + octets


class Programs(TestCase):
    """One SMTP connection that is shown to a milter."""

    timeout = 60

    def setUp(self) -> None:
        self.clients: list[tuple[Milter, Client]] = []

    async def tearDown(self) -> None:  # type: ignore[override]  # trial awaits it
        for milter, client in self.clients:
            await milter.closed(client)

    def milter(self, place: str, name: str, **options: Any) -> Milter:
        return Milter(Place.parse(place), dial(reactor), "mx.example.net", name=name, **options)

    def mail(self, milter: Milter, address: str = "198.51.100.7") -> Mail:
        client = Client(address, port=1025)
        client.helo = "mail.example.org"
        self.clients.append((milter, client))
        return a_mail(client)

    async def show(self, milter: Milter, mail: Mail, octets: bytes) -> Verdict:
        recipients, mail.recipients = mail.recipients, []
        await milter.connect(mail.client)
        await milter.helo(mail.client)
        await milter.mail(mail)
        for each in recipients:
            await milter.rcpt(mail, each)
            mail.recipients.append(each)
        reader = milter.read(mail)
        for start in range(0, len(octets), 30_000):
            await reader.write(octets[start : start + 30_000])
        verdict = await reader.finish(Message(mail, octets))
        await milter.ended(mail)
        return verdict


class OpenDKIMTests(Programs):
    """Verifying and signing."""

    def found(self, verdict: Verdict) -> str:
        assert verdict.changes is not None, verdict
        (results,) = [value for _, name, value in verdict.changes.inserted if name == "Authentication-Results"]
        return results

    async def test_a_signature_is_verified_and_the_result_put_in_front(self) -> None:
        milter = self.milter(opendkim().address, "opendkim")
        verdict = await self.show(milter, self.mail(milter), signed())
        self.assertEqual(verdict.action, Action.ACCEPT)
        self.assertIn(OpenDKIM.AUTHSERV, self.found(verdict))
        self.assertIn("dkim=pass", self.found(verdict))
        self.assertEqual(verdict.reason, "opendkim has added Authentication-Results")

    async def test_a_changed_body_and_no_signature_are_told_apart_on_one_connection(self) -> None:
        milter = self.milter(opendkim().address, "opendkim")
        mail = self.mail(milter)
        self.assertIn("dkim=fail", self.found(await self.show(milter, mail, signed().replace(b"Hello", b"Jello"))))
        again = a_mail(mail.client)
        self.assertIn("dkim=pass", self.found(await self.show(milter, again, signed())))
        third = await self.show(milter, a_mail(mail.client), PLAIN)
        if third.changes is not None:
            self.assertNotIn("pass", self.found(third))

    async def test_results_that_the_peer_has_forged_are_removed_by_it(self) -> None:
        forged = b"Authentication-Results: opendkim.example; dkim=pass header.d=bank.example\r\n" + PLAIN
        milter = self.milter(opendkim().address, "opendkim")
        verdict = await self.show(milter, self.mail(milter), forged)
        assert verdict.changes is not None
        self.assertEqual([(each.nth, each.value) for each in verdict.changes.changed], [(1, None)])

    async def test_what_comes_from_inside_is_signed_so_that_others_can_verify_it(self) -> None:
        milter = self.milter(opendkim().address, "opendkim", outbound=True)
        verdict = await self.show(milter, self.mail(milter, "192.0.2.10"), PLAIN)
        self.assertTrue(dkim.verify(with_changes(PLAIN, verdict), dnsfunc=lambda *_, **__: RSA.record().encode()))

    async def test_who_has_logged_in_is_signed_for_wherever_he_is(self) -> None:
        milter = self.milter(opendkim().address, "opendkim", outbound=True)
        mail = self.mail(milter, "2001:db8::7")
        mail.client.identity = Identity(AccountId.new(), "ann@example.org")
        verdict = await self.show(milter, mail, PLAIN)
        self.assertTrue(dkim.verify(with_changes(PLAIN, verdict), dnsfunc=lambda *_, **__: RSA.record().encode()))

    async def test_behind_one_that_changes_the_message_it_signs_what_is_sent(self) -> None:
        footer = ScriptedMilter(
            answers={
                Command.END_OF_BODY: [
                    *changed(
                        Modification(Reply.CHANGE_HEADER, "Subject", "[list] a", 1),
                        Modification(Reply.REPLACE_BODY, octets=b"Hello\n-- \nthe list\n"),
                    ),
                    say(Reply.CONTINUE),
                ]
            }
        )

        async def dialed(place: Place, seconds: float) -> Any:
            return FakeWire(footer)

        chain = MilterChain()
        signer = self.milter(opendkim().address, "opendkim", outbound=True, chain=chain)
        changer = Milter(Place("127.0.0.1", 1), dialed, "mx.example.net", name="footer", outbound=True, chain=chain)
        mail = self.mail(signer, "192.0.2.10")
        readers = [changer.read(mail), signer.read(mail)]
        for reader in readers:
            await reader.write(PLAIN)
        message = Message(mail, PLAIN)
        changes = [(await reader.finish(message)).changes for reader in readers]
        made = [each for each in changes if each is not None]
        self.assertEqual(len(made), 2)
        header = rewritten(message.header, (), made)
        sent = header + b"\r\n" + b"Hello\r\n-- \r\nthe list\r\n"
        self.assertIn(b"Subject: [list] a\r\n", header)
        self.assertTrue(dkim.verify(sent, dnsfunc=lambda *_, **__: RSA.record().encode()))

    async def test_a_peer_without_an_address_is_no_fault(self) -> None:
        milter = self.milter(opendkim().address, "opendkim")
        self.assertEqual((await self.show(milter, self.mail(milter, ""), PLAIN)).action, Action.ACCEPT)


class ClamAVMilterTests(Programs):
    """Refusing what is infected."""

    async def test_what_is_clean_is_marked_as_scanned(self) -> None:
        milter = self.milter(f"inet:{clamav_milter().port}@127.0.0.1", "clamav-milter")
        verdict = await self.show(milter, self.mail(milter), PLAIN)
        self.assertEqual(verdict.action, Action.ACCEPT)
        assert verdict.changes is not None
        names = [name for _, name, _ in verdict.changes.inserted] + [name for name, _ in verdict.changes.added]
        self.assertIn("X-Virus-Scanned", names)

    async def test_what_is_infected_is_refused_with_the_milters_words(self) -> None:
        milter = self.milter(f"127.0.0.1:{clamav_milter().port}", "clamav-milter")
        verdict = await self.show(milter, self.mail(milter), PLAIN.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + EICAR + b"\r\n")
        self.assertEqual(verdict.action, Action.REJECT)
        assert verdict.answer is not None
        self.assertIn("Infected: ", verdict.answer.text)
        self.assertEqual(verdict.answer.code // 100, 5)

    async def test_a_large_message_goes_through_in_pieces(self) -> None:
        milter = self.milter(f"127.0.0.1:{clamav_milter().port}", "clamav-milter")
        octets = PLAIN + b"0123456789abcdef\r\n" * 50_000
        self.assertEqual((await self.show(milter, self.mail(milter), octets)).action, Action.ACCEPT)


class RspamdTests(Programs):
    """rspamd's proxy, in milter mode."""

    async def test_spam_is_refused_and_the_rest_is_marked(self) -> None:
        port = free_port()
        more = f"""
worker "rspamd_proxy" {{
    bind_socket = "127.0.0.1:{port}";
    milter = yes;
    timeout = 8s;
    count = 1;
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
"""
        server = Rspamd(running.new_folder("rspamd-milter"), more)
        server.start()
        server.process.wait("127.0.0.1", port, 30)
        try:
            milter = self.milter(f"127.0.0.1:{port}", "rspamd")
            mail = self.mail(milter)
            spam = await self.show(milter, mail, PLAIN.replace(b"Hello", GTUBE))
            self.assertEqual(spam.action, Action.REJECT)
            self.assertIn("Gtube", spam.reason)
            self.assertEqual((await self.show(milter, a_mail(mail.client), PLAIN)).action, Action.ACCEPT)
        finally:
            server.stop()


class GoneTests(Programs):
    """A program that is killed, or hangs."""

    async def test_one_that_is_killed_or_stopped_is_down_and_heard_again_when_it_is_back(self) -> None:
        program = OpenDKIM(running.new_folder("opendkim-killed"), keys={"od1._domainkey.example.org": RSA.record()})
        program.start()
        try:
            milter = self.milter(program.address, "opendkim", answer_seconds=0.2)
            mail = self.mail(milter)
            await self.show(milter, mail, signed())
            program.pause()
            with self.assertRaises(FilterDown):
                await self.show(milter, mail, signed())
            program.resume()
            self.assertEqual((await self.show(milter, a_mail(mail.client), signed())).action, Action.ACCEPT)
            program.kill()
            for _ in range(2):
                with self.assertRaises(FilterDown):
                    await self.show(milter, a_mail(mail.client), signed())
            program.start()
            self.assertEqual((await self.show(milter, a_mail(mail.client), signed())).action, Action.ACCEPT)
        finally:
            program.kill()  # told to stop it waits some seconds for its peers
            program.stop()
