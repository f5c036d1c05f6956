"""What a user moves by IMAP is learned by Debian's spamd and rspamd, and tells on the next message of its kind."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.filters.asking import Message, client, mail
from tests.imap.session.fakes import Node
from tests.services import running
from tests.services.rspamd import PASSWORD, rspamd
from tests.services.spamd import Spamd, spamd
from twisted_mail.delivery.lessons import Lessons
from twisted_mail.filters.spamassassin import SpamAssassin
from twisted_mail.filters.teaching import RspamdTeacher, SpamAssassinTeacher, Teacher
from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.wires import Place, dial
from twisted_mail.storage.interfaces import AccountRecord, Domain
from twisted_mail.storage.memory.directory import MemoryDirectory
from twisted_mail.storage.memory.records import MemoryRecords

TODAY = formatdate()
"""Filters look at the Date, and at the clock."""


def letter(number: int, *words: str) -> bytes:
    text = "\r\n".join(" ".join(f"{word}{line}" for word in words) for line in range(20))
    return (
        f"Date: {TODAY}\r\nFrom: Bob <bob@example.net>\r\nTo: Ann <ann@example.org>\r\n"
        f"Subject: {words[0]}\r\nMessage-ID: <{number}@example.net>\r\n\r\n{text}\r\n"
    ).encode()


SPAM = [letter(n, "lottery", "winner", "claim", f"prize{n}") for n in (1, 2)]
HAM = [letter(n, "meeting", "minutes", "agenda", f"point{n}") for n in (3, 4)]


class TeachingTests(TestCase):
    timeout = 60

    async def teach(self, teacher: Teacher) -> Lessons:
        """Ann moves spam into Junk, and what is none out of it."""
        node, directory = Node(), MemoryDirectory()
        lessons = Lessons(MemoryRecords(node.house.clock), node.service, directory, reactor, time.time, daemons=[teacher])
        node.service.notice = lessons.notice
        lessons.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(lessons.stop()))
        await directory.add_domain(Domain("example.org"))
        await directory.add_account(AccountRecord(node.logins.account("ann"), "ann@example.org"))
        for octets in SPAM:
            await node.add(octets)
        for octets in HAM:
            await node.add(octets, mailbox="Junk")
        talk = node.talk().login().select()
        self.assertIn(b"a OK", talk.say("a UID MOVE 1:* Junk"))
        talk.select("Junk")
        self.assertIn(b"a OK", talk.say("a UID MOVE 1:2 INBOX"))
        await lessons.idle()
        return lessons

    async def symbols(self, octets: bytes) -> Sequence[str]:
        stage = SpamAssassin(Place.parse(spamd().address), dial(reactor), hostname="mx.example.org")
        verdict = await stage.end(Message(octets, mail(peer=client("193.0.6.139"), recipients=["ann@example.org"])))
        return verdict.facts["symbols"].split(",")

    async def test_spamassassin_learns_what_is_moved(self) -> None:
        lessons = await self.teach(SpamAssassinTeacher(Place.parse(spamd().address), dial(reactor)))
        self.assertEqual((lessons.taught, lessons.failures), (4, 0))
        self.assertIn("BAYES_99", await self.symbols(letter(5, "lottery", "winner", "claim", "now")))
        self.assertIn("BAYES_00", await self.symbols(letter(6, "meeting", "minutes", "agenda", "now")))

    async def test_what_spamassassin_knows_is_not_learned_twice_and_may_be_unlearned(self) -> None:
        teacher = SpamAssassinTeacher(Place.parse(spamd().address), dial(reactor))
        octets = letter(7, "voucher", "shop", "rebate", "code")
        self.assertTrue(await teacher.learn(octets, spam=True, user="ann@example.org"))
        self.assertFalse(await teacher.learn(octets, spam=True, user="ann@example.org"))
        self.assertTrue(await teacher.learn(octets, spam=False, user="ann@example.org"))

    async def test_a_spamd_that_may_not_be_taught_says_so(self) -> None:
        server = Spamd(running.new_folder("spamd"))
        server.process.words.remove("--allow-tell")
        server.start()
        self.addCleanup(server.stop)
        with self.assertRaises(FilterDown) as caught:
            await SpamAssassinTeacher(Place.parse(server.address), dial(reactor)).learn(SPAM[0], spam=True, user="")
        self.assertIn("TELL", str(caught.exception))

    async def test_rspamd_learns_what_is_moved(self) -> None:
        teacher = RspamdTeacher(rspamd().controller_url, dial(reactor), password=PASSWORD)
        lessons = await self.teach(teacher)
        self.assertEqual((lessons.taught, lessons.failures), (4, 0))
        # (whether it still knows what it has learned before depends on its cache: see test_daemons_at_fault)
        await teacher.learn(SPAM[0], spam=True, user="ann@example.org")

    async def test_rspamd_wants_its_password(self) -> None:
        with self.assertRaises(FilterDown) as caught:
            await RspamdTeacher(rspamd().controller_url, dial(reactor), password="wrong").learn(SPAM[0], spam=True, user="")
        self.assertIn("401", str(caught.exception))
