"""Strangers are asked to come back (RFC 6647)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.filters.asking import DownCache, DownRecords, Message, ann, client, mail, now, recipient
from twisted_mail.filters.dnsbl import Listing, Listings
from twisted_mail.filters.greylisting import Greylisting, GreylistingSettings
from twisted_mail.filters.origins import SPF, SPFResult
from twisted_mail.filters.stages import AtEnd, AtRcpt
from twisted_mail.filters.values import ACCEPTED, Action, Client, FilterDown, Verdict
from twisted_mail.services import Recipient
from twisted_mail.storage.memory import MemoryCache, MemoryRecords

DAY = 86_400.0


class House:
    """Two nodes with one store."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock)
        self.records = MemoryRecords(self.clock)
        self.settings = GreylistingSettings(**settings)
        self.one, self.other = self.node(), self.node()

    def node(self, **more: Any) -> Greylisting:
        return Greylisting(
            self.cache, self.records, lambda: 1_700_000_000 + self.clock.seconds(), self.settings, **more
        )

    def tries(
        self,
        sender: str = "bob@example.net",
        to: str = "ann@example.org",
        peer: Client | None = None,
        *,
        node: Greylisting | None = None,
        spf: str = "",
    ) -> Verdict:
        transaction = mail(sender, peer)
        if spf:
            transaction.note(SPFResult(SPF.PASS, spf))
        return now((node or self.one).rcpt(transaction, recipient(to)))


def test_a_stranger_waits_five_minutes_and_is_let_in_by_any_node() -> None:
    house = House()
    assert isinstance(house.one, AtRcpt) and isinstance(house.one, AtEnd)
    first = house.tries()
    assert first.action is Action.DEFER and first.answer is not None
    assert (first.answer.code, first.answer.enhanced) == (451, "4.7.1")
    assert first.answer.text == "Greylisted: please come back in 5 minutes"
    house.clock.advance(240)
    early = house.tries(node=house.other)
    assert early.answer is not None and early.answer.text == "Greylisted: please come back in 1 minute"
    house.clock.advance(61)
    late = house.tries(node=house.other)
    assert late.action is Action.ACCEPT and "came back after 301 s" in late.reason
    assert house.tries() == ACCEPTED, "and goes on being let in"


def test_a_neighbour_in_the_network_is_the_same_but_another_sender_recipient_or_network_is_not() -> None:
    house = House()
    house.tries(peer=client("198.51.100.7"))
    house.clock.advance(301)
    for stranger in (
        house.tries(peer=client("198.51.101.7")),
        house.tries(sender="bob@example.com"),
        house.tries(to="joe@example.org"),
    ):
        assert stranger.action is Action.DEFER
    assert house.tries(sender="other@example.net", peer=client("198.51.100.200")).action is Action.ACCEPT
    house = House()
    house.tries(peer=client("2001:db8::1"))
    house.clock.advance(301)
    assert house.tries(peer=client("2001:db8::ffff:1")).action is Action.ACCEPT
    assert house.tries(peer=client("2001:db8:0:1::1")).action is Action.DEFER


def test_senders_can_be_told_apart_within_a_domain() -> None:
    house = House(by_domain=False)
    house.tries(sender="bob@example.net")
    house.clock.advance(301)
    assert house.tries(sender="joe@example.net").action is Action.DEFER
    assert house.tries(sender="Bob+tag@Example.NET").action is Action.ACCEPT


def test_who_comes_back_too_late_is_a_stranger_again() -> None:
    house = House()
    house.tries()
    house.clock.advance(2 * DAY + 1)
    assert house.tries().action is Action.DEFER


def test_who_came_back_often_waits_no_more_whatever_it_brings_until_it_was_not_seen_for_long() -> None:
    house = House(known_after=3)
    for number in range(3):
        assert house.tries(to=f"user{number}@example.org").action is Action.DEFER
    house.clock.advance(301)
    for number in range(3):
        assert house.tries(to=f"user{number}@example.org").action is Action.ACCEPT
    assert house.tries(sender="new@example.com", to="new@example.org", node=house.other) == ACCEPTED
    house.cache = MemoryCache(house.clock)
    assert house.tries(to="joe@example.org", node=house.node()) == ACCEPTED, "also when the cache has lost everything"
    house.clock.advance(37 * DAY)
    assert house.tries(to="new@example.org").action is Action.DEFER


def test_with_spf_a_domain_is_known_again_from_another_network() -> None:
    house = House()
    house.tries(spf="example.net")
    house.clock.advance(301)
    assert house.tries(spf="example.net", peer=client("203.0.113.1")).action is Action.ACCEPT
    assert house.tries(peer=client("203.0.113.1")).action is Action.DEFER, "but not without it"


def test_the_null_sender_is_deferred_at_the_end_only() -> None:
    house = House()
    bounce = mail("", recipients=["ann@example.org", "joe@example.org"])
    assert now(house.one.rcpt(bounce, recipient())) == ACCEPTED
    assert now(house.one.end(Message(b"Subject: x\n\ny\n", bounce))).action is Action.DEFER
    house.clock.advance(301)
    assert now(house.one.end(Message(b"Subject: x\n\ny\n", bounce))).action is Action.ACCEPT
    assert now(house.one.end(Message(b"Subject: x\n\ny\n", mail(recipients=["ann@example.org"])))) == ACCEPTED


def test_users_trusted_peers_and_whom_a_list_speaks_for_do_not_wait() -> None:
    house = House()
    assert house.tries(peer=client(trusted=True)) == ACCEPTED
    assert house.tries(peer=client(identity=ann())) == ACCEPTED
    welcome = mail()
    welcome.note(Listings((Listing("wl.example", "198.51.100.7", ("127.0.10.3",), -3.0),)))
    assert now(house.one.rcpt(welcome, recipient())) == ACCEPTED
    unwelcome = mail()
    unwelcome.note(Listings((Listing("bl.example", "198.51.100.7", ("127.0.0.2",), 3.0),)))
    assert now(house.one.rcpt(unwelcome, recipient())).action is Action.DEFER


def test_whom_the_recipient_has_written_to_does_not_wait() -> None:
    house = House()

    async def wrote(sender: str, to: Recipient) -> bool:
        return sender == "bob@example.net" and to.address == "ann@example.org"

    node = house.node(correspondents=wrote)
    assert house.tries(node=node) == ACCEPTED
    assert house.tries(to="joe@example.org", node=node).action is Action.DEFER


def test_a_clock_that_runs_ahead_keeps_nobody_out_for_long() -> None:
    house = House()
    ahead = Greylisting(house.cache, house.records, lambda: 1_700_100_000 + house.clock.seconds(), house.settings)
    house.tries(node=ahead)
    verdict = house.tries()
    assert verdict.answer is not None and verdict.answer.text == "Greylisted: please come back in 5 minutes"


@pytest.mark.parametrize("broken", ["cache", "records"])
def test_a_store_that_does_not_answer_is_a_filter_that_is_down(broken: str) -> None:
    house = House()
    setattr(house, broken, DownCache() if broken == "cache" else DownRecords())
    with pytest.raises(FilterDown):
        house.tries(node=house.node())
