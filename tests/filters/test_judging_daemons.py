"""SpamAssassin, rspamd and ClamAV as Debian packs them, asked about real mail."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Coroutine
from email.utils import formatdate
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.filters.asking import Message, ann, client, mail
from tests.services.clamd import EICAR, MOST_BYTES, clamd
from tests.services.rspamd import rspamd
from tests.services.spamd import GTUBE, spamd
from twisted_mail.filters.clamav import ClamAV, VirusCheck
from twisted_mail.filters.rspamd import Rspamd
from twisted_mail.filters.spamassassin import SpamAssassin
from twisted_mail.filters.stages import AtEnd, AtMessage, Stage
from twisted_mail.filters.values import Action, FilterDown, Mail, Verdict
from twisted_mail.filters.wires import Place, dial

TODAY = formatdate()
"""Filters look at the Date, and at the clock."""

T = TypeVar("T")

HEAD = (
    f"Date: {TODAY}\r\n".encode() + b"From: Bob <bob@example.net>\r\nTo: Ann <ann@example.org>\r\n"
    b"Subject: The report\r\nMessage-ID: <1.2.3@example.net>\r\n"
)
HAM = HEAD + b"\r\nHere is the report that you asked for on Monday.\r\n"
SPAM = HEAD + b"\r\n" + GTUBE + b"\r\n"


def zipped(name: str, octets: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writing:
        writing.writestr(name, octets)
    return archive.getvalue()


def attached(octets: bytes, name: str = "report.bin") -> bytes:
    return (
        HEAD
        + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nSee there.\r\n--b\r\n'
        + f"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename={name}\r\n".encode()
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(octets).replace(b"\n", b"\r\n")
        + b"--b--\r\n"
    )


class DaemonCase(TestCase):
    timeout = 60

    async def end(self, stage: AtEnd, octets: bytes, of: Mail | None = None) -> Verdict:
        # SpamAssassin knows which addresses are for documentation, and gives points for them
        return await stage.end(Message(octets, of or mail(peer=client("193.0.6.139"), recipients=["ann@example.org"])))

    def begin(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)


class SpamAssassinTests(DaemonCase):
    def build(self, **options: Any) -> SpamAssassin:
        return SpamAssassin(Place.parse(spamd().address), dial(reactor), hostname="mx.example.org", **options)

    async def test_gtube_gets_a_thousand_points(self) -> None:
        verdict = await self.end(self.build(), SPAM)
        self.assertGreater(verdict.score, 990)
        self.assertIn("GTUBE", verdict.facts["symbols"])
        self.assertRegex(verdict.reason, r"SpamAssassin takes it for spam: 100\d.\d of 5.0 points by GTUBE")
        status = dict(verdict.fields)["X-Spam-Status"]
        self.assertTrue(status.startswith("Yes, score=100"), status)

    async def test_an_ordinary_message_is_none(self) -> None:
        verdict = await self.end(self.build(), HAM)
        self.assertLess(verdict.score, 2, verdict.reason)
        self.assertEqual(verdict.action, Action.ACCEPT)
        self.assertTrue(dict(verdict.fields)["X-Spam-Status"].startswith("No, score="))

    async def test_it_is_told_who_brought_the_message(self) -> None:
        verdict = await self.end(self.build(), HAM)
        self.assertNotIn("NO_RELAYS", verdict.facts["symbols"])
        self.assertNotIn("NO_RECEIVED", verdict.facts["symbols"])

    async def test_points_are_put_to_our_scale(self) -> None:
        once = await self.end(self.build(), SPAM)
        twice = await self.end(self.build(junk_score=10.0), SPAM)
        self.assertAlmostEqual(twice.score, 2 * once.score, places=1)

    async def test_mail_without_a_header_is_judged(self) -> None:
        verdict = await self.end(self.build(), b"\r\nbuy now\r\n")
        self.assertGreater(verdict.score, 0)

    async def test_a_large_message_is_not_asked_about(self) -> None:
        verdict = await self.end(self.build(most_bytes=100), SPAM)
        self.assertEqual((verdict.score, verdict.facts), (0.0, {}))
        self.assertIn("not asked", verdict.reason)

    async def test_or_only_its_beginning_is(self) -> None:
        padded = HAM + b"More of the same.\r\n" * 5_000 + GTUBE + b"\r\n"
        verdict = await self.end(self.build(most_bytes=4096, cut=True), padded)
        self.assertLess(verdict.score, 100)
        verdict = await self.end(self.build(most_bytes=4096, cut=True), SPAM + b"More of the same.\r\n" * 5_000)
        self.assertGreater(verdict.score, 990)

    async def test_a_header_of_a_megabyte(self) -> None:
        verdict = await self.end(self.build(most_bytes=2 << 20), b"X-Long: " + b"a" * (1 << 20) + b"\r\n" + SPAM)
        self.assertGreater(verdict.score, 900)

    async def test_where_nobody_listens_it_is_down(self) -> None:
        with self.assertRaises(FilterDown):
            await self.end(SpamAssassin(Place("127.0.0.1", 9), dial(reactor), hostname="mx.example.org"), HAM)

    async def test_a_question_that_is_given_up_hurts_nobody(self) -> None:
        stage = self.build()
        server = spamd()
        server.pause()
        try:
            asked = self.begin(self.end(stage, HAM))
            asked.addErrback(lambda failure: failure.trap(Exception))
            asked.cancel()
            await asked
        finally:
            server.resume()
        self.assertGreater((await self.end(stage, SPAM)).score, 990)


class RspamdTests(DaemonCase):
    def build(self, **options: Any) -> Rspamd:
        return Rspamd(rspamd().url, dial(reactor), hostname="mx.example.org", **options)

    async def test_gtube_is_rejected(self) -> None:
        verdict = await self.end(self.build(), SPAM)
        self.assertEqual(verdict.action, Action.REJECT)
        self.assertEqual(verdict.score, 15.0)
        assert verdict.answer is not None
        self.assertEqual(
            (verdict.answer.code, verdict.answer.enhanced, verdict.answer.text), (550, "5.7.1", "Gtube pattern")
        )
        self.assertIn("GTUBE", verdict.facts["symbols"])

    async def test_an_ordinary_message_passes(self) -> None:
        verdict = await self.end(self.build(), HAM)
        self.assertEqual(verdict.action, Action.ACCEPT)
        self.assertLess(verdict.score, 5.0)
        self.assertTrue(dict(verdict.fields)["X-Spamd-Result"].startswith("no action ["))

    async def test_the_envelope_is_seen(self) -> None:
        verdict = await self.end(self.build(), HAM, mail("bob@example.net", recipients=["ann@example.org"]))
        self.assertIn("FROM_EQ_ENVFROM", verdict.facts["symbols"])
        self.assertIn("TO_MATCH_ENVRCPT_ALL", verdict.facts["symbols"])
        verdict = await self.end(self.build(), HAM, mail("", recipients=["cyd@example.org"]))
        self.assertNotIn("TO_MATCH_ENVRCPT_ALL", verdict.facts["symbols"])

    async def test_what_it_wants_marked_is_junk_by_its_points(self) -> None:
        verdict = await self.end(self.build(junk_score=7.0), b"\r\nwithout a header\r\n")
        self.assertEqual(verdict.facts["action"], "add header")
        self.assertGreaterEqual(verdict.score, 7.0)

    async def test_a_header_of_a_megabyte(self) -> None:
        verdict = await self.end(self.build(), b"X-Long: " + b"a" * (1 << 20) + b"\r\n" + SPAM)
        self.assertEqual(verdict.action, Action.REJECT)

    async def test_a_wrong_path_is_down(self) -> None:
        with self.assertRaises(FilterDown):
            await self.end(Rspamd(rspamd().url + "/elsewhere", dial(reactor), hostname="mx.example.org"), HAM)

    async def test_where_something_else_listens_it_is_down(self) -> None:
        with self.assertRaises(FilterDown):
            await self.end(Rspamd(f"http://127.0.0.1:{spamd().port}", dial(reactor), hostname="mx.example.org"), HAM)


class ClamAVTests(DaemonCase):
    def build(self, **options: Any) -> ClamAV:
        return ClamAV(Place.parse(clamd().address), dial(reactor), **options)

    async def ask(self, stage: AtMessage, octets: bytes, of: Mail | None = None, piece: int = 10_000) -> Verdict:
        message = Message(octets, of)
        reader = stage.read(message.mail)
        for at in range(0, len(octets), piece):
            await reader.write(octets[at : at + piece])
        return await reader.finish(message)

    async def test_eicar_is_refused(self) -> None:
        cases = {
            "plain": HEAD + b"\r\n" + EICAR + b"\r\n",
            "base64": attached(EICAR),
            "zipped": attached(zipped("readme.txt", EICAR)),
            "nested": attached(zipped("inner.zip", zipped("readme.txt", EICAR))),
            "without a header": b"\r\n" + EICAR,
            "behind a header of a megabyte": b"X-Long: " + b"a" * (1 << 20) + b"\r\n" + attached(EICAR),
        }
        for name, octets in cases.items():
            of = mail()
            verdict = await self.ask(self.build(), octets, of)
            self.assertEqual(verdict.action, Action.REJECT, name)
            assert verdict.answer is not None
            self.assertEqual((verdict.answer.code, verdict.answer.enhanced), (550, "5.7.1"), name)
            self.assertIn("Eicar", verdict.facts["virus"], name)
            noted = of.noted(VirusCheck)
            assert noted is not None
            self.assertEqual(noted.grade, 5)

    async def test_or_put_aside(self) -> None:
        verdict = await self.ask(self.build(infected=Action.QUARANTINE), attached(EICAR))
        self.assertEqual(verdict.action, Action.QUARANTINE)

    async def test_what_is_clean_passes_and_says_so(self) -> None:
        of = mail()
        verdict = await self.ask(self.build(), HAM, of)
        self.assertEqual((verdict.action, verdict.fields), (Action.ACCEPT, (("X-Virus-Status", "Clean"),)))
        noted = of.noted(VirusCheck)
        assert noted is not None
        self.assertEqual(noted.grade, 1)

    async def test_a_unix_socket_serves_as_well(self) -> None:
        stage = ClamAV(Place.parse(f"unix:{clamd().socket}"), dial(reactor))
        self.assertEqual((await self.ask(stage, attached(EICAR))).action, Action.REJECT)

    async def test_mail_of_users_who_have_logged_in_is_looked_at(self) -> None:
        stage: Stage = self.build()
        self.assertTrue(stage.outbound)
        verdict = await self.ask(self.build(), attached(EICAR), mail(peer=client(identity=ann())))
        self.assertEqual(verdict.action, Action.REJECT)

    async def test_an_empty_message(self) -> None:
        self.assertEqual((await self.ask(self.build(), b"")).action, Action.ACCEPT)

    async def test_beyond_the_bound_the_beginning_is_looked_at(self) -> None:
        stage = self.build(most_bytes=100_000, unscannable=Action.JUNK)
        verdict = await self.ask(stage, HAM + b"0123456789" * 20_000)
        self.assertEqual(verdict.action, Action.JUNK)
        self.assertIn("its first 97 KiB are clean", verdict.reason)
        verdict = await self.ask(stage, attached(EICAR) + b"0123456789" * 20_000)
        self.assertEqual(verdict.action, Action.REJECT)

    async def test_what_is_too_large_for_the_daemon_is_not_taken_for_clean(self) -> None:
        of = mail()
        verdict = await self.ask(self.build(), HAM + b"0123456789" * (MOST_BYTES // 5), of, piece=65_536)
        self.assertEqual(verdict.action, Action.MARK)
        self.assertIn("too large for ClamAV", verdict.reason)
        noted = of.noted(VirusCheck)
        assert noted is not None
        self.assertEqual(noted.grade, 4)

    async def test_a_daemon_that_dies_in_the_middle_is_shown_the_message_once_more(self) -> None:
        server = clamd()
        octets = attached(EICAR) + b"0123456789" * 50_000
        message = Message(octets)
        reader = self.build().read(message.mail)
        await reader.write(octets[:200_000])
        server.kill()
        await reader.write(octets[200_000:400_000])
        await reader.write(octets[400_000:])
        with self.assertRaises(FilterDown):
            await reader.finish(message)
        reader = self.build().read(message.mail)
        await reader.write(octets[:200_000])  # nobody there: that is found out of, and nothing comes of it yet
        server.start()
        self.assertEqual((await reader.finish(message)).action, Action.REJECT)

    async def test_a_message_is_never_held_as_a_whole(self) -> None:
        """Whatever is written has gone out, but for the last piece."""
        reader = self.build().read(mail())
        for _ in range(60):
            await reader.write(b"x" * 65_536)
        stream: Any = reader
        self.assertLess(stream._stream._size, 131_072)
        await reader.abort()
