"""Each message is in exactly one stream."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.relay.streams import NORMAL, Match, MessageFacts, Stream, Streams
from twisted_mail.relay.tables import Wrong, seconds_of

LIST = b"From: News <news@example.org>\r\nList-Unsubscribe: <https://x.example/u>\r\nPrecedence: Bulk\r\n\r\n"
POOLS = ("main", "bulk")


def read(**streams: Any) -> Streams:
    return Streams.read(streams, POOLS, ["main"])


def taken(match: dict[str, Any], facts: MessageFacts) -> bool:
    return read(some={"pools": ["bulk"], "match": match}).of(facts).name == "some"


def test_normal_takes_what_no_other_does() -> None:
    streams = read(marketing={"pools": ["bulk"], "match": {"sender": ["news@example.org"], "list_unsubscribe": True}})
    assert streams.of(MessageFacts(sender="ann@example.org")).name == NORMAL
    assert streams.of(MessageFacts()).pools == ("main",)
    assert streams.of(MessageFacts(sender="news@example.org")).name == NORMAL, "all keys must hold"
    assert streams.of(MessageFacts(sender="News@Example.org", header=LIST)).name == "marketing"


def test_the_first_that_matches_takes_it() -> None:
    streams = read(
        one={"pools": ["main"], "match": {"sender": "example.org"}},
        two={"pools": ["bulk"], "match": {"sender": "news@example.org"}},
    )
    assert streams.of(MessageFacts(sender="news@example.org")).name == "one"


@pytest.mark.parametrize(
    ("pattern", "sender", "holds"),
    [
        ("news@example.org", "NEWS@example.ORG", True),
        ("news@example.org", "xnews@example.org", False),
        ("example.org", "any@example.org", True),
        ("@example.org", "any@example.org", True),
        ("example.org", "any@sub.example.org", False),
        (".example.org", "any@sub.example.org", True),
        (".example.org", "any@example.org", False),
        ("*.example.org", "any@sub.example.org", True),
        ("news-*@example.org", "news-7@example.org", True),
        ("news-*@example.org", "news@example.org", False),
        ("n[e]ws@example.org", "news@example.org", False),
        ("n?ws@example.org", "news@example.org", True),
        ("<>", "", True),
        ("<>", "a@b", False),
        ("*", "", False),
        ("*@*", "a@b", True),
    ],
)
def test_senders(pattern: str, sender: str, holds: bool) -> None:
    assert taken({"sender": [pattern]}, MessageFacts(sender=sender)) is holds


def test_of_a_list_any_is_enough() -> None:
    assert taken({"sender": ["a@x.example", "b@x.example"]}, MessageFacts(sender="b@x.example"))


def test_the_other_keys() -> None:
    assert taken({"listener": ["submission"]}, MessageFacts(listener="submission"))
    assert not taken({"listener": ["submission"]}, MessageFacts(listener="smtp"))
    assert taken({"login": ["shop@example.org"]}, MessageFacts(login="shop@example.org"))
    assert not taken({"login": ["*@*"]}, MessageFacts())
    assert taken({"precedence": ["list", "bulk"]}, MessageFacts(header=LIST))
    assert not taken({"precedence": ["list"]}, MessageFacts(header=LIST))
    assert taken({"list_unsubscribe": False}, MessageFacts(header=b"A: b\r\n\r\n"))
    assert not taken({"list_unsubscribe": False}, MessageFacts(header=LIST))
    assert taken({"recipients": 50}, MessageFacts(recipients=50))
    assert not taken({"recipients": 50}, MessageFacts(recipients=49))


def test_header_fields_are_decoded_and_unfolded() -> None:
    header = b"X-Campaign: =?utf-8?q?Fr=C3=BChling?=\r\n 2026\r\nX-Empty:\r\n\r\n"
    facts = MessageFacts(header=header)
    assert taken({"header": {"X-Campaign": "Frühling*"}}, facts)
    assert taken({"header": {"x-campaign": ["nothing", "*2026"]}}, facts)
    assert taken({"header": {"X-Empty": True}}, facts)
    assert not taken({"header": {"X-Other": True}}, facts)
    assert not taken({"header": {"X-Campaign": "Herbst*", "X-Empty": True}}, facts)


def test_what_a_message_causes_stays_in_its_stream() -> None:
    streams = read(marketing={"pools": ["bulk"], "match": {"sender": ["news@example.org"]}})
    assert streams.of(MessageFacts(listener="internal", sender="", cause="marketing")).name == "marketing"
    assert streams.of(MessageFacts(sender="news@example.org", cause=NORMAL)).name == NORMAL
    with pytest.raises(KeyError):
        streams.of(MessageFacts(cause="gone"))


def test_marketing_wants_one_click_unless_it_is_told_otherwise() -> None:
    match = {"precedence": ["bulk"]}
    streams = read(
        marketing={"pools": ["bulk"], "match": match},
        lists={"pools": ["bulk"], "match": match},
        news={"pools": ["bulk"], "match": match, "one_click": True},
    )
    assert {each.name: each.one_click for each in streams.all()} == {
        "marketing": True, "lists": False, "news": True, NORMAL: False,
    }  # fmt: skip


def test_marketing_has_a_queue_of_its_own_unless_it_is_told_otherwise_and_normal_mail_never() -> None:
    match = {"precedence": ["bulk"]}
    streams = read(
        marketing={"pools": ["bulk"], "match": match},
        news={"pools": ["bulk"], "match": match, "bulk": True},
        lists={"pools": ["bulk"], "match": match},
    )
    assert {each.name for each in streams.all() if each.bulk} == {"marketing", "news"}
    with pytest.raises(Wrong) as caught:
        read(normal={"pools": ["main"], "bulk": True})
    assert [key for key, _ in caught.value.problems] == ["relay.streams.normal.bulk"]


def test_errors_are_named_by_their_keys() -> None:
    with pytest.raises(Wrong) as caught:
        read(
            marketing={"pools": ["bulk", "gone"], "match": {"sendr": ["x"], "recipients": 0, "list_unsubscribe": "yes"}},
            normal={"pools": [], "match": {"sender": ["x"]}},
            other={"pools": ["main"]},
            empty={"pools": "main", "match": {}},
            Bad={"pools": "main", "match": {"sender": "x", "header": {"a b": True}}},
            odd=3,
        )
    keys = {key for key, _ in caught.value.problems}
    assert keys >= {
        "relay.streams.marketing.pools",
        "relay.streams.marketing.match.sendr",
        "relay.streams.marketing.match.recipients",
        "relay.streams.marketing.match.list_unsubscribe",
        "relay.streams.normal.pools",
        "relay.streams.normal.match",
        "relay.streams.other.match",
        "relay.streams.empty.match",
        "relay.streams.Bad",
        "relay.streams.Bad.match.header.a b",
        "relay.streams.odd",
    }


def test_normal_must_have_pools() -> None:
    with pytest.raises(Wrong) as caught:
        Streams.read({}, POOLS)
    assert caught.value.problems[0][0] == "relay.streams.normal"


texts = st.sampled_from(["", "a@x.example", "news@x.example", "b@y.example"])
matches = st.builds(
    Match,
    sender=st.lists(st.sampled_from(["x.example", "news@*", "<>"]), max_size=2).map(tuple),
    recipients=st.none() | st.integers(1, 3),
    list_unsubscribe=st.none() | st.booleans(),
)


@given(st.lists(matches, max_size=4), st.builds(MessageFacts, sender=texts, header=st.sampled_from([b"", LIST]), recipients=st.integers(1, 4)))
def test_there_is_always_exactly_one(rules: list[Match], facts: MessageFacts) -> None:
    streams = Streams([Stream(f"s{n}", ("p",), match) for n, match in enumerate(rules)] + [Stream(NORMAL, ("p",))])
    holding = [f"s{n}" for n, match in enumerate(rules) if match.holds(facts)]
    assert streams.of(facts).name == [*holding, NORMAL][0]


def test_durations() -> None:
    assert [seconds_of(text) for text in ("5", "90s", "15m", "4h", "30d", "6w")] == [5, 90, 900, 14_400, 2_592_000, 3_628_800]
    with pytest.raises(ValueError):
        seconds_of("soon")
