"""Who is not written to: entries for each sender domain, with an end, and an operator's word over them."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from twisted_mail.relay.streams import NORMAL, Stream
from twisted_mail.relay.suppression import (
    ALLOWED,
    BOUNCE,
    COMPLAINT,
    OPERATOR,
    UNSUBSCRIBE,
    Suppressions,
    SuppressionSettings,
    kept_for,
)
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.storage.memory import MemoryRecords

DAY = 86_400.0
S = SuppressionSettings()
MARKETING = Stream("marketing", ("bulk",), one_click=True)
TRANSACTIONAL = Stream("transactional", ("main",))
PERSONAL = Stream(NORMAL, ("main",), suppress=False)


@pytest.mark.parametrize(
    ("reply", "days"),
    [
        ("550 5.1.1 <x@y>: Recipient address rejected: User unknown", 180),
        ("550-5.1.1 The email account that you tried to reach does not exist", 180),
        ("553 5.1.3 bad syntax", 180),
        ("551 5.1.6 moved", 180),
        ("550 5.1.2 no such domain", 30),
        ("556 5.1.10 null MX", 30),
        ("550 5.2.1 mailbox disabled", 30),
        ("550 No such user here", 180),
        ("550 Requested action not taken: mailbox unavailable", 0),
        ("550 5.5.0 mailbox unknown", 180),
        ("550 5.7.1 blocked; unknown user of ours", 0),
        ("550 5.7.26 unauthenticated mail", 0),
        ("552 5.2.2 mailbox full", 0),
        ("554 5.3.4 too large", 0),
        ("554 rejected as spam", 0),
        ("450 4.1.1 user unknown for now", 0),
        ("550 4.1.1 odd", 0),
        ("250 2.1.5 fine", 0),
        ("nonsense", 0),
    ],
)
def test_what_suppresses_and_for_how_long(reply: str, days: int) -> None:
    assert kept_for(reply, S) == days * DAY


def test_words_before_the_recipient_was_named_say_nothing_of_it() -> None:
    assert kept_for("550 unknown user", S, Stage.MAIL) == 0


class SuppressionTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.records = MemoryRecords(self.clock)
        self.lists = Suppressions(self.records, S, self.clock.seconds)

    async def stopped(self, address: str = "bob@y.example", domain: str = "x.example") -> list[str]:
        found = []
        for stream in (MARKETING, TRANSACTIONAL, PERSONAL):
            if await self.lists.check(domain, address, stream):
                found.append(stream.name)
        return found

    async def bounce(self, reply: str = "550 5.1.1 unknown", stage: Stage = Stage.RCPT) -> None:
        await self.lists.bounced("x.example", "bob@y.example", Verdict(Result.PERMANENT, reply, stage))

    async def test_a_hard_bounce_stops_what_is_sent_by_programs_until_it_ends(self) -> None:
        await self.bounce()
        self.assertEqual(await self.stopped(), ["marketing", "transactional"])
        self.assertEqual(await self.stopped("BOB@Y.example", "X.EXAMPLE"), ["marketing", "transactional"])
        self.assertEqual(await self.stopped(domain="other.example"), [], "another sender's business")
        self.assertEqual(await self.stopped("bo@y.example"), [])
        self.clock.advance(180 * DAY - 1)
        self.assertEqual(await self.stopped(), ["marketing", "transactional"])
        self.clock.advance(1)
        self.assertEqual(await self.stopped(), [])

    async def test_blocks_and_deferrals_suppress_nobody(self) -> None:
        await self.bounce("550 5.7.1 blocked")
        await self.lists.bounced("x.example", "bob@y.example", Verdict(Result.TEMPORARY, "550 5.1.1 x", Stage.RCPT))
        await self.lists.bounced("", "bob@y.example", Verdict(Result.PERMANENT, "550 5.1.1 x", Stage.RCPT))
        self.assertEqual(await self.stopped(), [])

    async def test_the_null_sender_has_no_list(self) -> None:
        await self.bounce()
        self.assertIsNone(await self.lists.check("", "bob@y.example", MARKETING))

    async def test_who_unsubscribed_still_gets_receipts(self) -> None:
        await self.lists.add("x.example", "bob@y.example", "by mail", UNSUBSCRIBE, None, "marketing")
        self.assertEqual(await self.stopped(), ["marketing"])
        self.clock.advance(4000 * DAY)
        self.assertEqual(await self.stopped(), ["marketing"])
        other = Stream("digest", ("bulk",), one_click=True)
        self.assertIsNone(await self.lists.check("x.example", "bob@y.example", other))

    async def test_a_complaint_about_we_do_not_know_what_stops_all_that_can_be_unsubscribed_from(self) -> None:
        await self.lists.add("x.example", "bob@y.example", "abuse", COMPLAINT)
        self.assertEqual(await self.stopped(), ["marketing"])

    async def test_an_operator_stops_everything_and_allows_over_everything(self) -> None:
        await self.lists.add("x.example", "bob@y.example", "asked by phone")
        self.assertEqual(await self.stopped(), ["marketing", "transactional", NORMAL])
        await self.lists.allow("x.example", "bob@y.example", "asked again", 10 * DAY)
        await self.bounce()
        self.assertEqual(await self.stopped(), [])
        self.clock.advance(10 * DAY)
        self.assertEqual(await self.stopped(), ["marketing", "transactional", NORMAL])

    async def test_the_trace_is_told_why(self) -> None:
        await self.bounce()
        found = await self.lists.check("x.example", "bob@y.example", MARKETING)
        assert found is not None
        verdict = found.verdict()
        self.assertEqual((verdict.result, verdict.remote), (Result.PERMANENT, False))
        self.assertIn("550 5.7.1 not sent: bob@y.example is suppressed since 1970-01-12", verdict.reply)
        self.assertIn("550 5.1.1 unknown", verdict.reply)
        self.assertEqual(kept_for(verdict.reply, S), 0.0, "it does not feed itself")

    async def test_a_domain_without_a_list_is_asked_for_once_a_minute(self) -> None:
        other = Suppressions(self.records, S, self.clock.seconds)
        stream = Stream("letters", ("main",))
        self.assertIsNone(await other.check("a.example", "bob@b.example", stream))
        await self.lists.add("a.example", "bob@b.example", "gone", "bounce", 900.0)
        self.assertIsNotNone(await self.lists.check("a.example", "bob@b.example", stream), "who wrote it knows")
        self.assertIsNone(await other.check("a.example", "bob@b.example", stream))
        self.clock.advance(61)
        self.assertIsNotNone(await other.check("a.example", "bob@b.example", stream))

    async def test_everything_of_an_address_is_forgotten(self) -> None:
        await self.bounce()
        await self.lists.allow("x.example", "bob@y.example")
        await self.lists.add("x.example", "bob@y.example", "", UNSUBSCRIBE, None, "marketing")
        sources = {entry.source for entry in await self.lists.remove("x.example", "Bob@y.example")}
        self.assertEqual(sources, {BOUNCE, ALLOWED, UNSUBSCRIBE})
        self.assertEqual(list(await self.lists.entries("x.example", "bob@y.example")), [])
        self.assertEqual(list(await self.lists.remove("x.example", "bob@y.example")), [])

    async def test_a_second_bounce_begins_the_time_anew(self) -> None:
        await self.bounce()
        self.clock.advance(100 * DAY)
        await self.bounce()
        self.clock.advance(100 * DAY)
        self.assertEqual(len(await self.stopped()), 2)

    async def test_lists_come_in_pages(self) -> None:
        wanted = {f"user{n}@y.example" for n in range(700)}
        for address in wanted:
            await self.lists.add("x.example", address, "", OPERATOR)
        await self.lists.add("z.example", "one@y.example", "", OPERATOR)
        found: list[str] = []
        after: str | None = ""
        pages = 0
        while after is not None:
            page, after = await self.lists.page("X.example", after, 150)
            self.assertLessEqual(len(page), 150)
            found += [entry.address for entry in page]
            pages += 1
        self.assertEqual((len(found), set(found)), (700, wanted))
        self.assertGreaterEqual(pages, 5)
        self.assertEqual(len([entry async for entry in self.lists.every("x.example")]), 700)
        self.assertEqual([domain async for domain in self.lists.domains()], ["x.example", "z.example"])
        self.assertEqual((await self.lists.page("none.example"))[0], [])

    async def test_what_cannot_be_an_entry(self) -> None:
        for domain, address, source in (
            ("x.example", "", OPERATOR), ("", "a@b.example", OPERATOR), ("x.example", "a@b.example", "hearsay"),
            ("x.example", "a\nb@b.example", OPERATOR),
        ):  # fmt: skip
            with self.assertRaises(ValueError):
                await self.lists.add(domain, address, "", source)
        self.assertIsNone(await self.lists.check("x.example", "a\x00b", MARKETING))
