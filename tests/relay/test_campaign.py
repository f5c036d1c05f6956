"""A campaign through the real worker: its plan is kept, it touches no normal address, and normal mail does not wait for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.relay.house import Node, RelayHouse, verdict
from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.plans import Plans
from twisted_mail.relay.pools import Pool, PoolAddress, Pools
from twisted_mail.relay.schedule import Schedule
from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams
from twisted_mail.relay.values import Stage, Verdict
from twisted_mail.relay.warm_up import Curve, WarmUpSettings, day_of

DAY = 86_400.0
CURVE = Curve((10, 14, 20))
NEW, OLD, MAIN = "192.0.2.20", "192.0.2.21", "192.0.2.10"
SPRING = b"Message-ID: <%d@example.org>\r\nFrom: news@example.org\r\nSubject: spring\r\n\r\ntext\r\n"


def started(house: RelayHouse, *more: Pool, hours: int = 12) -> Node:
    """A node whose campaign leaves by a new address, and by *more*."""
    node = Node(house, concurrent=200, schedule=Schedule(expire=10 * DAY))
    names = ("bulk", *(pool.name for pool in more))
    pools = [
        Pool("main", (PoolAddress(MAIN, "mx1.example.org"),)),
        Pool("bulk", (PoolAddress(NEW, "news1.example.org"),), warm_up=day_of(house.clock.seconds()), curve=CURVE),
        *more,
    ]
    streams = Streams(
        [Stream("marketing", names, Match(sender=("news@example.org",)), one_click=True), Stream(NORMAL, ("main",))]
    )
    plans = Plans(house.engine.records, house.engine.allowances, WarmUpSettings(hours=hours))
    node.worker._pools = Pools(pools, streams, plans, Blocks(house.engine.allowances))
    node.worker.start()
    return node


@pytest.fixture
def house(tmp_path: Path) -> RelayHouse:
    house = RelayHouse(tmp_path)
    house.clock.advance(DAY - house.clock.seconds() % DAY)  # midnight
    return house


def campaign(node: Node, count: int) -> None:
    for number in range(count):
        node.give(f"reader{number}@big.test", sender="news@example.org", message=SPRING % number)


def by_day(house: RelayHouse, start: float, source: str) -> list[int]:
    days = Counter(int((each.at - start) // DAY) for each in house.world.attempts if each.source.address == source)
    return [days[day] for day in range(max(days, default=-1) + 1)]


def sources(house: RelayHouse, sender: str) -> set[str | None]:
    return {each.source.address for each in house.world.attempts if each.sender == sender}


def test_a_plan_is_kept_through_the_worker_and_normal_mail_goes_at_once(house: RelayHouse) -> None:
    node, start = started(house), house.clock.seconds()
    seen: Counter[str] = Counter()

    def moody(address: str) -> Verdict:
        seen[address] += 1
        if address == "reader1@big.test" and seen[address] < 3:
            return verdict("451 4.3.0 not now", Stage.RCPT)
        return verdict("550 5.1.1 unknown", Stage.RCPT) if address == "reader2@big.test" else verdict("250 fine")

    house.world.answers["big.test"] = moody
    campaign(node, 60)
    house.go_on(2.0)
    for number in range(12):
        node.give(f"friend{number}@big.test")
        house.go_on(2.0)
        assert house.world.taken[f"friend{number}@big.test"] == 1, "normal mail does not wait"
        house.go_on(6 * 3600.0 - 2.0, 58.0)
    assert by_day(house, start, NEW) == list(CURVE.allowances)
    assert sources(house, "news@example.org") == {NEW}
    assert sources(house, "ann@example.org") == {MAIN}
    assert seen["reader1@big.test"] >= 2, "it was tried again, by the same address"
    left = {number for number in range(60) if seen[f"reader{number}@big.test"]}
    assert len(house.items()) == 60 - len(left) and len(left) >= sum(CURVE.allowances) - 2


def test_what_is_over_the_plan_leaves_by_the_warm_address_of_its_stream(house: RelayHouse) -> None:
    node, start = started(house, Pool("bulk-warm", (PoolAddress(OLD, "news2.example.org"),)), hours=1), house.clock.seconds()
    campaign(node, 60)
    house.go_on(30.0)
    assert by_day(house, start, NEW) == [10] and by_day(house, start, OLD) == [50]
    assert sources(house, "news@example.org") == {NEW, OLD}
    assert house.items() == []
