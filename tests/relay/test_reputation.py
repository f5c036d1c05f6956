"""What a receiver's answer says of the address it was sent from, and how it is counted."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import pytest
from twisted.trial.unittest import TestCase

from tests.relay.test_blocks import Counted
from twisted_mail.relay.reputation import Counts, Signal, Tally, signal_of
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.storage.interfaces import Unavailable

TEMPORARY, PERMANENT, DELIVERED = Result.TEMPORARY, Result.PERMANENT, Result.DELIVERED


@pytest.mark.parametrize(
    ("result", "reply", "stage", "signal"),
    [
        (DELIVERED, "250 2.0.0 OK", Stage.END, Signal.DELIVERED),
        (TEMPORARY, "421 4.7.28 Our system has detected an unusual rate of mail", Stage.END, Signal.DEFERRED),
        (TEMPORARY, "421 too many messages from your address", Stage.GREETING, Signal.DEFERRED),
        (TEMPORARY, "451 4.7.651 The mail server has been temporarily rate limited", Stage.MAIL, Signal.DEFERRED),
        (TEMPORARY, "451 4.7.1 Greylisting in action, come back later", Stage.RCPT, None),
        (TEMPORARY, "450 4.2.0 Recipient address rejected: Greylisted", Stage.RCPT, None),
        (TEMPORARY, "452 4.2.2 mailbox full", Stage.RCPT, None),
        (TEMPORARY, "421 4.3.2 shutting down", Stage.MAIL, None),
        (PERMANENT, "550 5.7.1 blocked because of its reputation", Stage.RCPT, Signal.DEFERRED),
        (PERMANENT, "554 no SMTP service here for you", Stage.GREETING, Signal.DEFERRED),
        (PERMANENT, "550 5.1.1 no such user", Stage.RCPT, Signal.BOUNCED),
        (PERMANENT, "550 5.1.10 null MX", Stage.RCPT, Signal.BOUNCED),
        (PERMANENT, "552 5.3.4 too big", Stage.MAIL, None),
    ],
)
def test_what_a_reply_says(result: Result, reply: str, stage: Stage, signal: Signal | None) -> None:
    assert signal_of(Verdict(result, reply, stage, source="192.0.2.1")) is signal


def test_our_own_words_and_no_address_say_nothing() -> None:
    assert signal_of(Verdict(TEMPORARY, "421 4.7.0 ours", Stage.CONNECT, source="192.0.2.1", remote=False)) is None
    assert signal_of(Verdict(PERMANENT, "550 5.1.1 x", Stage.RCPT)) is None


class TallyTests(TestCase):
    async def test_counts_are_written_together_and_seen_by_all(self) -> None:
        store = Counted()
        one, other = Tally(store), Tally(store)
        for _ in range(100):
            one.add("192.0.2.1", "google", Signal.DELIVERED, 5)
        one.add("192.0.2.1", "google", Signal.BOUNCED, 5, 3)
        other.add("192.0.2.1", "google", Signal.DELIVERED, 5, 2)
        self.assertEqual(one.pending, 103)
        touched: list[tuple[str, str]] = []
        await one.flush(lambda address, group: touched.append((address, group)))
        await other.flush()
        self.assertEqual(touched, [("192.0.2.1", "google")])
        self.assertEqual(store.writes, 3)
        self.assertEqual(await other.counts("192.0.2.1", "google", 5), Counts(102, 0, 3, 0))
        self.assertEqual(await other.counts("192.0.2.1", "google", 6), Counts())
        self.assertEqual(await other.counts("192.0.2.2", "google", 5), Counts())

    async def test_what_could_not_be_written_is_written_later(self) -> None:
        store = Counted()
        tally = Tally(store)
        tally.add("a", "g", Signal.COMPLAINED, 1)
        store.down = True
        with self.assertRaises(Unavailable):
            await tally.flush()
        store.down = False
        touched: list[str] = []
        await tally.flush(lambda address, group: touched.append(address))
        self.assertEqual((await tally.counts("a", "g", 1)).complained, 1)
        self.assertEqual((touched, tally.pending), (["a"], 0))
