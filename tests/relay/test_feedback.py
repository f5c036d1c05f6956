"""Bounces and complaints that come back: counted, believed only with proof, and acted upon."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.reports.test_feedback import RFC
from tests.reports.test_reading import EXIM, POSTFIX, QMAIL
from tests.signatures.support import run
from twisted_mail.relay.feedback import DailyCounts, Feedback, Heard, Known, What
from twisted_mail.relay.rewriting import VERP, ReturnPaths
from twisted_mail.relay.suppression import Suppressions, SuppressionSettings, kept_for
from twisted_mail.reports.feedback import write_feedback_report
from twisted_mail.reports.parts import Letter
from twisted_mail.reports.values import FeedbackReport
from twisted_mail.storage.memory import MemoryAllowances, MemoryRecords

KNOWN = Known("news.example", "bob@example.net", "marketing")


class House:
    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        records = MemoryRecords(self.clock)
        self.verp = VERP(ReturnPaths([b"0123456789abcdef"], records=records, wall=self.clock.seconds))
        self.suppressions = Suppressions(records, SuppressionSettings(), self.clock.seconds)
        self.counts = DailyCounts(MemoryAllowances(), self.clock.seconds)
        self.complained: list[tuple[str, str]] = []
        self.added: list[tuple[Any, ...]] = []
        self.feedback = Feedback(
            self.verp,
            self.add,
            self.counts,
            kept_for=lambda reply: kept_for(reply, SuppressionSettings()),
            complaints=["fbl@example.org"],
            token=lambda token: KNOWN if token == "a-good-token-of-ours" else None,
            complained=lambda source, recipient: self.complained.append((source, recipient)),
        )
        self.address = run(self.verp.encode("news.example", "bob@example.net", "bulk"))

    async def add(
        self, sender_domain: str, address: str, reason: str, source: str, ttl: float | None, stream: str = ""
    ) -> None:
        self.added.append((sender_domain, address, reason, source, ttl, stream))
        await self.suppressions.add(sender_domain, address, reason, source, ttl, stream)

    def take(self, octets: bytes, address: str = "", sender: str = "") -> Heard:
        return run(self.feedback.take(address or self.address, sender, octets))


def test_only_our_own_addresses_are_wanted() -> None:
    house = House()
    assert house.feedback.wants(house.address) and house.feedback.wants("FBL@example.org")
    assert not house.feedback.wants("ann@example.org")


def test_a_bounce_that_says_there_is_nobody_suppresses_the_address() -> None:
    house = House()
    gone = POSTFIX.replace(b"552 5.2.2", b"550 5.1.1").replace(b"Status: 5.2.2", b"Status: 5.1.1")
    heard = house.take(gone)
    assert (heard.what, heard.known) == (What.BOUNCE, Known("news.example", "bob@example.net", tag="bulk"))
    assert heard.suppressed == SuppressionSettings().unknown
    ((domain, address, reason, source, ttl, stream),) = house.added
    assert (domain, address, source, ttl, stream) == ("news.example", "bob@example.net", "bounce", heard.suppressed, "")
    assert reason.startswith("550 5.1.1 <bob@example.com>: Recipient address rejected")
    assert run(house.counts.of(What.BOUNCE, "bulk")) == 1


def test_a_full_mailbox_is_counted_and_not_suppressed() -> None:
    house = House()
    heard = house.take(POSTFIX)
    assert (heard.what, heard.suppressed, house.added) == (What.BOUNCE, None, [])
    assert heard.said.startswith("552 5.2.2 ")


@pytest.mark.parametrize(
    ("octets", "what"),
    [
        (POSTFIX.replace(b"Action: failed", b"Action: delayed"), What.DELAY),
        (POSTFIX.replace(b"Status: 5.2.2", b"Status: 4.4.7"), What.DELAY),
        (POSTFIX.replace(b"Action: failed", b"Action: relayed"), What.SUCCESS),
        (EXIM, What.BOUNCE),
        (QMAIL, What.BOUNCE),
        (b"From: postmaster@example.net\n\nYour mail: 550 5.1.1 no such user\n", What.BOUNCE),
        (b"From: postmaster@example.net\n\nYour mail: 450 4.2.2 mailbox full\n", What.DELAY),
        (b"From: postmaster@example.net\n\nSorry.\n", What.UNREADABLE),
        (b"", What.UNREADABLE),
    ],
)
def test_what_came_back_is_told_apart(octets: bytes, what: What) -> None:
    house = House()
    assert house.take(octets).what is what
    assert run(house.counts.of(what, "bulk")) == 1


def test_an_answer_of_a_person_is_no_bounce() -> None:
    house = House()
    octets = b"From: Bob <bob@example.net>\nAuto-Submitted: auto-replied\n\nI am away: 550 5.1.1 no such user\n"
    assert house.take(octets, sender="bob@example.net").what is What.ANSWER
    assert house.added == []


def test_a_forged_or_old_address_has_no_consequences() -> None:
    house = House()
    forged = house.address.replace("bob", "eve")
    assert house.take(POSTFIX.replace(b"5.2.2", b"5.1.1"), forged).what is What.FORGED
    house.clock.advance(40 * 86_400)
    assert house.take(POSTFIX.replace(b"5.2.2", b"5.1.1")).what is What.FORGED
    assert house.added == []


def complaint(**changes: Any) -> bytes:
    report = FeedbackReport("abuse", reporter="Somebody/1.0", source="192.0.2.20")
    return write_feedback_report(replace(report, **changes), Letter("a@b.example", "fbl@example.org", "x", "1@b.example", 0.0), "x\n")


def test_a_complaint_with_our_token_ends_the_stream_for_who_complained() -> None:
    house = House()
    header = b"List-Unsubscribe: <mailto:x@example.org>, <https://example.org/unsubscribe/a-good-token-of-ours>\r\n"
    heard = house.take(complaint(header=header), "fbl@example.org", "fbl@b.example")
    assert (heard.what, heard.known) == (What.COMPLAINT, KNOWN)
    assert house.added == [("news.example", "bob@example.net", "abuse reported by Somebody/1.0", "complaint", None, "marketing")]
    assert house.complained == [("192.0.2.20", "bob@example.net")]


@pytest.mark.parametrize("where", ["sender", "header"])
def test_a_complaint_with_our_return_path_is_believed(where: str) -> None:
    house = House()
    changes: dict[str, Any] = {"sender": house.address} if where == "sender" else {"header": f"Return-Path: <{house.address}>\r\n".encode()}
    heard = house.take(complaint(**changes), "fbl@example.org")
    assert heard.known == Known("news.example", "bob@example.net", tag="bulk")
    assert run(house.counts.of(What.COMPLAINT, "bulk")) == 1


def test_a_complaint_without_proof_is_counted_only() -> None:
    house = House()
    for octets in (
        RFC, complaint(sender="news@news.example", recipients=("bob@example.net",)),
        complaint(header=b"List-Unsubscribe: <https://example.org/unsubscribe/a-token-of-somebody>\r\n"),
    ):  # fmt: skip
        assert house.take(octets, "fbl@example.org").what is What.FORGED
    assert house.added == house.complained == []
    assert run(house.counts.of(What.FORGED, "")) == 3


def test_what_is_not_spam_or_no_report_is_no_complaint() -> None:
    house = House()
    assert house.take(complaint(type="not-spam", sender=house.address), "fbl@example.org").what is What.SUCCESS
    assert house.take(b"Subject: hello\n\nspam!\n", "fbl@example.org").what is What.UNREADABLE
    assert house.added == []


def test_days_are_counted_apart() -> None:
    house = House()
    house.take(POSTFIX)
    house.clock.advance(86_400)
    assert run(house.counts.of(What.BOUNCE, "bulk")) == 0
    assert run(house.counts.of(What.BOUNCE, "bulk", 1_700_000_000 // 86_400)) == 1
