"""SRS and VERP: what goes out comes back, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.signatures.support import run
from twisted_mail.relay.rewriting import SRS, VERP, BadPath, Bounced, ReturnPaths, was_here
from twisted_mail.storage.memory.records import MemoryRecords

SECRET = b"0123456789abcdef"
DAY = 86_400.0


class House:
    def __init__(self, days: int = 30) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.records = MemoryRecords(self.clock)
        self.paths = ReturnPaths([SECRET], records=self.records, wall=self.clock.seconds, days=days)
        self.srs = SRS(self.paths, "fwd.example")
        self.verp = VERP(self.paths)


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789.+=-_", min_size=1, max_size=70)
hosts = st.lists(st.text("abcdefghij0123456789", min_size=1, max_size=20), min_size=2, max_size=4).map(".".join)
addresses = st.builds(lambda local, host: f"{local}@{host}", words, hosts)


@settings(max_examples=100, deadline=None)
@given(addresses, st.booleans())
def test_a_forward_comes_back_whatever_the_case(sender: str, folded: bool) -> None:
    house = House()
    made = run(house.srs.forward(sender))
    assert made.endswith("@fwd.example") and len(made.rpartition("@")[0]) <= 64
    assert house.srs.ours(made)
    back = run(house.srs.reverse(made.lower() if folded else made))
    assert back.lower() == sender.lower() or back.startswith("SRS0")


@settings(max_examples=100, deadline=None)
@given(addresses)
def test_a_forward_of_a_forward_goes_back_by_the_first_forwarder(sender: str) -> None:
    first, second, third = House(), House(), House()
    second.srs = SRS(ReturnPaths([b"another secret 16"], records=second.records, wall=second.clock.seconds), "two.example")
    third.srs = SRS(ReturnPaths([b"yet another secret"], records=third.records, wall=third.clock.seconds), "three.example")
    one = run(first.srs.forward(sender))
    two = run(second.srs.forward(one))
    three = run(third.srs.forward(two))
    assert len(three.rpartition("@")[0]) <= 64
    back = run(third.srs.reverse(three))
    if back == two:  # it did not fit, and was kept
        back = run(second.srs.reverse(two))
    assert back == one
    assert run(first.srs.reverse(back)).lower() == sender.lower() or sender.lower().startswith("srs")


def test_an_address_has_the_form_that_others_know() -> None:
    house = House()
    made = run(house.srs.forward("ann@example.org"))
    prefix, hash, day, host, local = made.partition("@")[0].split("=")
    assert (prefix, len(hash), len(day), host, local) == ("SRS0", 6, 2, "example.org", "ann")
    made = run(house.srs.forward("SRS0=HHHH=TT=example.org=ann@other.example"))
    assert made.startswith("SRS1=") and made.endswith("=other.example==HHHH=TT=example.org=ann@fwd.example")
    assert run(house.srs.reverse(made)) == "SRS0=HHHH=TT=example.org=ann@other.example"
    made = run(house.srs.forward("SRS1=XXXX=other.example==HHHH=TT=example.org=ann@third.example"))
    assert run(house.srs.reverse(made)) == "SRS0=HHHH=TT=example.org=ann@other.example"


def test_what_needs_no_rewriting_is_left_alone() -> None:
    async def local(domain: str) -> bool:
        return domain == "ours.example"

    srs = SRS(House().paths, "fwd.example", local)
    for sender in ("", "ann@ours.example", "ann@OURS.example", "x@fwd.example"):
        assert run(srs.forward(sender)) == sender


def test_a_forged_an_old_and_a_foreign_address_are_refused() -> None:
    house = House()
    made = run(house.srs.forward("ann@example.org"))
    forged = made.replace("=ann@", "=bob@")
    for address, why in ((forged, "hash"), ("SRS0=x@fwd.example", "not ours"), ("SRS1=x=y@fwd.example", "not ours")):
        with pytest.raises(BadPath, match=why):
            run(house.srs.reverse(address))
    assert not house.srs.ours("ann@fwd.example") and not house.srs.ours("SRS0=x@other.example")
    house.clock.advance(30 * DAY)
    assert run(house.srs.reverse(made)) == "ann@example.org"
    house.clock.advance(DAY)
    with pytest.raises(BadPath, match="old"):
        run(house.srs.reverse(made))


def test_what_was_kept_is_forgotten_with_its_day() -> None:
    house = House()
    made = run(house.srs.forward("a" * 60 + "@long.example"))
    assert made.count("==") == 1
    assert run(house.srs.reverse(made)) == "a" * 60 + "@long.example"
    house.clock.advance(29 * DAY)
    assert run(house.srs.reverse(made)) == "a" * 60 + "@long.example"
    run(house.records.delete("paths/" + made.partition("==")[2][:2], made.partition("==")[2].partition("@")[0]))
    with pytest.raises(BadPath, match="known"):
        run(house.srs.reverse(made))
    with pytest.raises(BadPath, match="long"):
        run(SRS(ReturnPaths([SECRET]), "fwd.example").forward("a" * 60 + "@long.example"))


def test_a_new_secret_makes_and_the_old_one_is_believed() -> None:
    house = House()
    made = run(house.srs.forward("ann@example.org"))
    both = SRS(ReturnPaths([b"the newest secret", SECRET], wall=house.clock.seconds), "fwd.example")
    assert run(both.reverse(made)) == "ann@example.org"
    with pytest.raises(BadPath):
        run(house.srs.reverse(run(both.forward("ann@example.org"))))


@pytest.mark.parametrize("secrets", [[], [b"short"], [SECRET, b""]])
def test_secrets_are_secrets(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        ReturnPaths(secrets)


@settings(max_examples=100, deadline=None)
@given(addresses, st.text("abc01_", max_size=12))
def test_a_bounce_says_for_whom_it_is(recipient: str, tag: str) -> None:
    house = House()
    made = run(house.verp.encode("News.example", recipient, tag))
    assert made.endswith("@news.example") and len(made.rpartition("@")[0]) <= 64
    assert house.verp.ours(made) and house.verp.ours(made.upper())
    assert run(house.verp.decode(made.upper())) == Bounced(recipient.lower(), "news.example", tag)


def test_a_forged_or_old_verp_address_is_refused() -> None:
    house = House()
    made = run(house.verp.encode("news.example", "bob@example.net", "bulk"))
    for forged in (
        made.replace("bob", "eve"), made.replace("bulk", "main"), made.replace("news.", "olds."), "b+x@news.example",
        "news@news.example",
    ):  # fmt: skip
        with pytest.raises(BadPath):
            run(house.verp.decode(forged))
    assert not house.verp.ours("news@news.example")
    house.clock.advance(31 * DAY)
    with pytest.raises(BadPath):
        run(house.verp.decode(made))
    with pytest.raises(ValueError, match="tag"):
        run(house.verp.encode("news.example", "bob@example.net", "not a tag"))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_garbage_is_refused(text: str) -> None:
    house = House()
    for decode in (house.srs.reverse, house.verp.decode):
        with pytest.raises(BadPath):
            run(decode(text))
        with pytest.raises(BadPath):
            run(decode("SRS0=aaaaaa=aa=" + text + "@fwd.example"))


def test_days_wrap_around() -> None:
    house = House()
    house.clock.advance((1024 - int(house.clock.seconds() // DAY) % 1024 - 1) * DAY)
    made = run(house.srs.forward("ann@example.org"))
    house.clock.advance(20 * DAY)
    assert run(house.srs.reverse(made)) == "ann@example.org"
    house.clock.advance(11 * DAY)
    with pytest.raises(BadPath):
        run(house.srs.reverse(made))


def test_a_circle_is_seen() -> None:
    header = b"Delivered-To: <ann@Example.org>\r\nDelivered-To: bob@example.net\r\nSubject: x\r\n\r\n"
    assert was_here(header, "ann@example.org") and was_here(header, "Bob@example.net")
    assert not was_here(header, "carl@example.org")
