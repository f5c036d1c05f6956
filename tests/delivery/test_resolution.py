"""From addresses to accounts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.delivery.support import FakeOutbound, House, run
from twisted_mail.services import Identity, MailRefused, Refusal
from twisted_mail.storage.interfaces import Domain
from twisted_mail.values import AccountId

ANN, BOB = "ann@example.org", "bob@example.org"
LOGGED_IN = Identity(AccountId(bytes(16)), ANN)


@pytest.fixture
def house() -> House:
    house = House()
    house.user(ANN, created=2)
    house.user(BOB, created=1)
    return house


def refusal(house: House, address: str, identity: Identity | None = None) -> MailRefused:
    with pytest.raises(MailRefused) as caught:
        house.recipient(address, identity)
    return caught.value


@pytest.mark.parametrize(
    "address",
    ["ann@example.org", "Ann@Example.ORG", '"ann"@example.org', '"a\\nn"@example.org', "ann@example.org."],
)
def test_spelling_does_not_matter(house: House, address: str) -> None:
    assert house.names(address) == [ANN]
    assert house.recipient(address).address == address


def test_domains_are_the_same_in_both_forms() -> None:
    house = House()
    house.user("jürgen@bücher.example")
    for address in ("jürgen@bücher.example", "JÜRGEN@BÜCHER.example", "ju\u0308rgen@xn--bcher-kva.example"):
        assert house.names(address) == ["jürgen@bücher.example"]


@pytest.mark.parametrize(
    ("address", "detail"),
    [("ann+Tag@example.org", "Tag"), ("ann+a+b@example.org", "a+b"), ("ann+@example.org", ""), ('"ann+x y"@example.org', "x y")],
)
def test_sub_addresses_lead_to_the_user(house: House, address: str, detail: str) -> None:
    assert house.names(address) == [ANN]
    assert house.recipient(address).detail == detail


def test_a_user_whose_name_holds_the_delimiter_comes_first() -> None:
    house = House(subaddress="-")
    house.user("mary-ann@example.org")
    house.user("mary@example.org")
    assert house.names("mary-ann@example.org") == ["mary-ann@example.org"]
    assert house.recipient("mary-ann-lists@example.org").detail == "lists"
    assert house.names("mary-ann-lists@example.org") == ["mary-ann@example.org"]
    assert house.names("mary-x@example.org") == ["mary@example.org"]


def test_without_a_delimiter_there_are_no_sub_addresses() -> None:
    house = House(subaddress="")
    house.user(ANN)
    assert refusal(house, "ann+tag@example.org").reason is Refusal.NO_SUCH_RECIPIENT


def test_strangers_and_unknown_users_are_refused(house: House) -> None:
    assert refusal(house, "nobody@example.org").reason is Refusal.NO_SUCH_RECIPIENT
    assert refusal(house, "+tag@example.org").reason is Refusal.NO_SUCH_RECIPIENT
    assert refusal(house, "x@elsewhere.example").reason is Refusal.RELAY_DENIED
    assert refusal(house, "ann@[192.0.2.1]").reason is Refusal.RELAY_DENIED
    assert refusal(house, "ann").reason is Refusal.BAD_ADDRESS


def test_aliases_have_several_targets_and_levels(house: House) -> None:
    house.alias("team@example.org", ANN, BOB, "all@example.org")
    house.alias("all@example.org", "team@example.org", "ann+x@example.org", "gone@example.org")
    assert house.names("team@example.org") == [ANN, BOB]
    assert house.names("all@example.org") == [ANN, BOB]
    assert house.names("Team+tag@example.org") == [ANN, BOB]
    assert house.recipient("team+tag@example.org").detail == "tag"


def test_aliases_that_lead_nowhere_are_refused(house: House) -> None:
    house.alias("loop1@example.org", "loop2@example.org")
    house.alias("loop2@example.org", "loop1@example.org")
    house.alias("dead@example.org", "gone@example.org")
    assert refusal(house, "loop1@example.org").reason is Refusal.NO_SUCH_RECIPIENT
    assert refusal(house, "dead@example.org").reason is Refusal.NO_SUCH_RECIPIENT
    for number in range(30):
        house.alias(f"deep{number}@example.org", f"deep{number + 1}@example.org")
    house.alias("deep30@example.org", ANN)
    assert refusal(house, "deep0@example.org").reason is Refusal.LOOP
    assert house.names("deep25@example.org") == [ANN]


def test_the_catch_all_comes_last(house: House) -> None:
    house.alias("@example.org", ANN)
    assert house.names("whoever@example.org") == [ANN]
    assert house.names("bob+x@example.org") == [BOB]


def test_a_domain_may_stand_for_another(house: House) -> None:
    house.alias("@bücher.example".replace("bücher", "xn--bcher-kva"), "@example.org")
    assert house.names("bob+x@bücher.example") == [BOB]
    assert refusal(house, "nobody@bücher.example").reason is Refusal.NO_SUCH_RECIPIENT


def test_disabled_users_and_domains(house: House) -> None:
    house.user("off@example.org", enabled=False)
    house.alias("both@example.org", "off@example.org", ANN)
    house.alias("only@example.org", "off@example.org")
    assert refusal(house, "off@example.org").reason is Refusal.RECIPIENT_DISABLED
    assert refusal(house, "only@example.org").reason is Refusal.RECIPIENT_DISABLED
    assert house.names("both@example.org") == [ANN]
    run(house.directory.add_domain(Domain("off.example", enabled=False)))
    house.user("x@off.example")
    assert refusal(house, "x@off.example").reason is Refusal.RECIPIENT_DISABLED


def test_there_is_always_a_postmaster(house: House) -> None:
    # the oldest account, unless somebody is named
    assert house.names("postmaster@example.org") == house.names("Postmaster") == [BOB]
    house.alias("postmaster@example.org", ANN)
    assert house.names("PostMaster@example.org") == house.names("postmaster") == [ANN]
    late = refusal(house, "postmaster@bücher.example")
    assert late.temporary


def test_the_postmaster_may_be_named_for_all_domains() -> None:
    house = House(postmaster=ANN)
    house.user(ANN)
    house.user("x@bücher.example")
    assert house.names("postmaster@bücher.example") == [ANN]


def test_other_domains_need_a_login_and_a_queue(house: House) -> None:
    assert refusal(house, "x@elsewhere.example", LOGGED_IN).reason is Refusal.NO_QUEUE
    house.alias("away@example.org", "x@elsewhere.example", ANN)
    assert refusal(house, "away@example.org").reason is Refusal.NO_QUEUE
    queued = House(outbound=FakeOutbound())
    queued.user(ANN)
    queued.alias("away@example.org", "x@elsewhere.example")
    assert refusal(queued, "x@elsewhere.example").reason is Refusal.RELAY_DENIED
    assert queued.recipient("x@elsewhere.example", LOGGED_IN).accounts == ()
    assert queued.recipient("away@example.org").accounts == ()


def test_a_full_mailbox_is_refused_before_the_message(house: House) -> None:
    small = house.user("small@example.org", quota_bytes=10_000)
    assert house.deliver("small@example.org")[0].refused is None
    record = run(house.directory.account(small))
    assert record is not None
    used = len(house.mailbox("small@example.org")[0])
    run(house.directory.set_account(replace(record, quota_bytes=used + 1)))
    assert house.names("small@example.org") == ["small@example.org"]
    run(house.directory.set_account(replace(record, quota_bytes=used)))
    full = refusal(house, "small@example.org")
    assert full.reason is Refusal.MAILBOX_FULL
    assert full.temporary


def test_what_exists_may_be_remembered_for_a_moment_and_what_does_not_never_is() -> None:
    house = House(remember_seconds=1.0)
    moment = [100.0]
    house.intake._wall = lambda: moment[0]
    assert refusal(house, BOB).reason is Refusal.NO_SUCH_RECIPIENT
    house.user(BOB)
    assert house.names(BOB) == [BOB], "a new user has mail at once"
    record = run(house.directory.account_by_address(BOB))
    assert record is not None
    run(house.directory.set_account(replace(record, enabled=False)))
    moment[0] += 0.9
    assert house.names(BOB) == [BOB]
    moment[0] += 0.2
    assert refusal(house, BOB).reason is Refusal.RECIPIENT_DISABLED
    moment[0] -= 500
    assert refusal(house, BOB).reason is Refusal.RECIPIENT_DISABLED
