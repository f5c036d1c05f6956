"""What a configuration says of where mail leaves from is read whole, with every mistake named."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.relay.kept import Stores, granted
from twisted_mail.relay.leaving import Leaving
from twisted_mail.relay.streams import NORMAL, MessageFacts
from twisted_mail.relay.tables import Wrong
from twisted_mail.relay.warm_up import Curve, WarmUpSettings

EXAMPLE = """
[relay.pools.main]
addresses = { "192.0.2.10" = "mx1.example.org" }
[relay.pools.bulk]
addresses = { "192.0.2.20" = "news1.example.org", "192.0.2.21" = "news2.example.org" }
warm_up = "2026-12-01"
[relay.streams.normal]
pools = ["main"]
[relay.streams.marketing]
pools = ["bulk"]
match = { sender = ["news@example.org"], list_unsubscribe = true }
[relay.warm_up]
days = 28
"""


def read(text: str) -> Leaving:
    return Leaving.read(tomllib.loads(text)["relay"])


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "sending-and-reputation.md").read_text("utf-8")
    leaving = read(text.split("```toml\n")[1].split("```")[0])
    assert [pool.name for pool in leaving.pools] == ["main", "bulk", "bulk-warm"] and leaving.pools[2].daily == 200_000
    assert [stream.name for stream in leaving.streams.all()] == ["normal", "marketing", "transactional"]
    assert leaving.warm_up == replace(WarmUpSettings(), curves={"microsoft": Curve.growing(20, 50_000, 60)})
    assert leaving.providers.of("web.de") == "gmx"


def test_an_example() -> None:
    leaving = read(EXAMPLE)
    assert [pool.name for pool in leaving.pools] == ["main", "bulk"] and len(leaving.warm_up.curve) == 28
    facts = MessageFacts(sender="news@example.org", header=b"List-Unsubscribe: <https://x.example>\r\n\r\n")
    assert leaving.streams.of(facts).pools == ("bulk",)
    stores = Stores()
    node = leaving.over(stores.records, stores.allowances)
    assert granted(node, "marketing", 20_788 * 86_400.0).source.helo in ("news1.example.org", "news2.example.org")


def test_nothing_configured_leaves_by_whatever_the_system_chooses() -> None:
    leaving = Leaving.read({"port": 25})
    stores = Stores()
    assert granted(leaving.over(stores.records, stores.allowances), NORMAL, 0.0).source.address is None


def test_without_streams_normal_leaves_by_the_first_pool() -> None:
    leaving = read('[relay.pools.a]\naddresses = { "192.0.2.1" = "a.example" }\n[relay.pools.b]\naddresses = { "192.0.2.2" = "b.example" }')
    assert leaving.streams.of(MessageFacts()).pools == ("a",)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(Wrong) as caught:
        read(EXAMPLE.replace('pools = ["bulk"]', 'pools = ["gone"]').replace("days = 28", "dais = 28"))
    assert {key for key, _ in caught.value.problems} == {"relay.streams.marketing.pools", "relay.warm_up.dais"}
    with pytest.raises(Wrong) as caught:
        read(EXAMPLE.replace("192.0.2.21", "192.0.2.10"))
    assert [key for key, _ in caught.value.problems] == ["relay.pools.bulk.addresses"]
    with pytest.raises(Wrong) as caught:
        Leaving.read({"pools": 5, "streams": {"x": 5}})
    assert [key for key, _ in caught.value.problems] == ["relay.pools"]
