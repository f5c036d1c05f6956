"""From which address a message leaves: only by its stream's pools, steady for a destination, those that warm up first."""

from __future__ import annotations

import heapq
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.relay.kept import AT_ONCE, DAY, FIRST, Stores, granted, leave, now, pool, streams
from tests.relay.test_blocks import Counted
from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.pools import (
    Departure,
    Grant,
    Pool,
    PoolAddress,
    Pools,
    Providers,
    Wait,
    families_of,
    read_pools,
    read_providers,
)
from twisted_mail.relay.reputation import Counts, Signal
from twisted_mail.relay.streams import NORMAL, MessageFacts, Stream, Streams
from twisted_mail.relay.tables import Wrong
from twisted_mail.relay.values import Host, Result, Stage, Verdict
from twisted_mail.relay.warm_up import DEFAULT_CURVE, Curve, WarmUpSettings

AT = float(FIRST * DAY)
MAIN, BULK = ("192.0.2.10", "192.0.2.11"), ("192.0.2.20", "192.0.2.21")


def test_a_destination_sees_a_steady_address_and_mail_is_spread() -> None:
    node = Stores().node([pool("main", *MAIN)], streams())
    chosen = {}
    for number in range(200):
        facts = {"destination": f"d{number}.example", "sender_domain": "x.example"}
        first = granted(node, NORMAL, AT, **facts).source
        assert first.pool == "main" and first.helo == "mx.main.example"
        assert all(granted(node, NORMAL, AT + n * 9999, **facts).source == first for n in range(3))
        chosen[number] = first.address
    assert 60 < Counter(chosen.values())[MAIN[0]] < 140


def test_of_several_in_their_warm_up_the_one_further_on_gets_more() -> None:
    stores = Stores()
    node = stores.node([pool("bulk", *BULK, warm_up=FIRST)], streams(normal=["bulk"]))
    for destination in ("gmail.com", "d.example"):
        granted(node, NORMAL, AT, destination=destination)
    for group in ("google", "others"):
        now(node.plans.standing(BULK[1], group, FIRST, AT))
    now(node.plans.step(BULK[1], 20, AT))
    found = [granted(node, NORMAL, AT, destination=f"d{n}.example").source.address for n in range(40)]
    assert Counter(found)[BULK[1]] > 30


def test_those_that_warm_up_go_first_and_what_is_over_leaves_by_a_warm_one_of_the_same_pools() -> None:
    node = Stores().node([pool("main", *MAIN), pool("bulk", BULK[0], warm_up=FIRST), pool("warm", BULK[1])],
                         streams(marketing=["bulk", "warm"]))  # fmt: skip
    found = [granted(node, "marketing", AT).source.address for _ in range(80)]
    assert found == [BULK[0]] * 50 + [BULK[1]] * 30


def test_without_a_warm_one_it_waits_until_a_stated_time() -> None:
    node = Stores().node([pool("main", *MAIN), pool("bulk", *BULK, warm_up=FIRST)], streams(marketing=["bulk"]))
    found = Counter(granted(node, "marketing", AT + 60).source.address for _ in range(100))
    assert found == {BULK[0]: 50, BULK[1]: 50}
    waits = leave(node, "marketing", AT + 60)
    assert isinstance(waits, Wait) and waits.seconds == DAY - 60.0
    assert "has sent its 50 of 50 today to google" in waits.why
    assert isinstance(leave(node, "marketing", AT + DAY), Grant)
    assert isinstance(leave(node, "marketing", AT + 60, destination="yahoo.com"), Grant), "another provider"
    assert isinstance(leave(node, NORMAL, AT + 60), Grant), "another stream"


def test_copies_count_and_a_parcel_is_cut_to_what_is_left() -> None:
    node = Stores().node([pool("bulk", BULK[0], warm_up=FIRST)], streams(normal=["bulk"]))
    assert granted(node, NORMAL, AT, recipients=40).recipients == 40
    assert granted(node, NORMAL, AT, recipients=40).recipients == 10
    assert isinstance(leave(node, NORMAL, AT, recipients=40), Wait)


def test_what_was_not_tried_does_not_count() -> None:
    node = Stores().node([pool("bulk", BULK[0], warm_up=FIRST, daily=45)], streams(normal=["bulk"]))
    grant = granted(node, NORMAL, AT, recipients=45)
    node.unused(grant, 5)
    node.unused(grant, 40)
    assert granted(node, NORMAL, AT, recipients=60).recipients == 45


def test_what_receivers_say_is_counted_and_one_small_domain_that_blocks_us_counts_once() -> None:
    stores = Stores()
    node = stores.node([pool("bulk", BULK[0], warm_up=FIRST)], streams(normal=["bulk"]))

    def say(destination: str, reply: str, result: Result, times: int) -> None:
        grant = granted(node, NORMAL, AT, destination=destination)
        for _ in range(times):
            node.heard(grant, Verdict(result, reply, Stage.RCPT, source=BULK[0]), AT)

    say("a.example", "250 2.1.5 fine", Result.DELIVERED, 20)
    say("b.example", "550 5.7.1 blocked", Result.PERMANENT, 50)
    say("c.example", "421 4.7.0 slower", Result.TEMPORARY, 50)
    say("google.com", "421 4.7.0 slower", Result.TEMPORARY, 3)
    say("google.com", "452 4.2.2 full", Result.TEMPORARY, 3)
    assert now(node.plans.review(AT, node.warming())) == []
    assert now(node.plans.counts(BULK[0], "others", FIRST)) == Counts(delivered=20, deferred=2)
    assert now(node.plans.counts(BULK[0], "google", FIRST)) == Counts(deferred=3)


def test_complaints_are_counted_for_the_address_that_the_report_names() -> None:
    node = Stores().node([pool("bulk", BULK[0], "2001:db8::20", warm_up=FIRST)], streams(normal=["bulk"]))
    assert node.complained(BULK[0], "hotmail.com", AT) and node.complained("2001:0DB8:0::20", "x.example", AT)
    assert not node.complained("192.0.2.99", "hotmail.com", AT) and not node.complained("nonsense", "hotmail.com", AT)
    now(node.plans.review(AT, node.warming()))
    assert now(node.plans.counts(BULK[0], "microsoft", FIRST)).complained == 1
    assert now(node.plans.counts("2001:db8::20", "others", FIRST)).complained == 1


def test_a_pools_own_limit_holds_over_all_providers_and_nodes() -> None:
    stores = Stores()
    nodes = [stores.node([pool("main", *MAIN, daily=30)], streams()) for _ in range(2)]
    found: Counter[str | None] = Counter()
    for turn in range(200):
        grant = leave(nodes[turn % 2], NORMAL, AT, destination=f"d{turn}.example")
        if isinstance(grant, Grant):
            found[grant.source.address] += 1
    assert found == {MAIN[0]: 30, MAIN[1]: 30}
    waits = leave(nodes[0], NORMAL, AT)
    assert isinstance(waits, Wait) and "its 30 of today" in waits.why and waits.seconds == DAY


def test_the_smaller_of_two_limits_holds_and_the_other_is_not_used_up() -> None:
    stores = Stores()
    node = stores.node([pool("bulk", BULK[0], warm_up=FIRST, daily=20)], streams(normal=["bulk"]))
    assert granted(node, NORMAL, AT, recipients=50).recipients == 20
    assert isinstance(leave(node, NORMAL, AT), Wait)
    # what the provider's allowance gave, and the address's did not, is there on this day still
    assert now(stores.allowances.taken(f"warm-up/{BULK[0]}/google", FIRST)) <= 50


def test_an_address_reaches_hosts_of_its_family_only() -> None:
    node = Stores().node([pool("main", "192.0.2.10", "2001:db8::10")], streams())
    four = [granted(node, NORMAL, AT, destination=f"d{n}.example", families=frozenset({4})) for n in range(20)]
    six = [granted(node, NORMAL, AT, destination=f"d{n}.example", families=frozenset({6})) for n in range(20)]
    assert {each.source.address for each in four} == {"192.0.2.10"}
    assert {each.source.address for each in six} == {"2001:db8::10"}
    only = Stores().node([pool("main", "192.0.2.10")], streams())
    waits = leave(only, NORMAL, AT, families=frozenset({6}))
    assert isinstance(waits, Wait) and "IP version" in waits.why
    anything = Stores().node([Pool("default", (PoolAddress(None, ""),))], streams(normal=["default"]))
    assert granted(anything, NORMAL, AT, families=frozenset({6})).source.address is None


def test_families_of_a_route() -> None:
    assert families_of([Host("a", ("192.0.2.1", "2001:db8::1"))]) == {4, 6}
    assert families_of([Host("a", ("192.0.2.1",)), Host("b", ("192.0.2.2",))]) == {4}
    assert families_of([Host("/run/lmtp", ("/run/lmtp",))]) == {4, 6}


def test_a_stream_that_is_gone_waits_and_is_not_sent_by_another() -> None:
    waits = leave(Stores().node([pool("main", *MAIN)], streams()), "gone", AT)
    assert isinstance(waits, Wait) and "no longer configured" in waits.why


def test_a_store_that_is_down_stops_what_must_be_counted_and_nothing_else() -> None:
    stores = Stores()
    store = Counted()
    pools = [pool("main", *MAIN), pool("bulk", BULK[0], warm_up=FIRST)]
    node = Pools(pools, streams(marketing=["bulk"], mixed=["bulk", "main"]), stores.plans(), Blocks(store))
    store.down = True
    waits = leave(node, "marketing", AT)
    assert isinstance(waits, Wait) and waits.seconds <= 60 and "cannot be counted" in waits.why
    assert granted(node, NORMAL, AT).source.address in MAIN
    assert granted(node, "mixed", AT).source.address in MAIN


def test_a_halted_address_says_why_the_mail_waits() -> None:
    node = Stores().node([pool("bulk", BULK[0], warm_up=FIRST)], streams(normal=["bulk"]))
    granted(node, NORMAL, AT)
    now(node.plans.halt(BULK[0], "listed", AT))
    waits = leave(node, NORMAL, AT)
    assert isinstance(waits, Wait) and "listed" in waits.why


def test_a_pool_may_have_a_curve_of_its_own() -> None:
    node = Stores().node([pool("bulk", BULK[0], warm_up=FIRST, curve=Curve((3, 4)))], streams(normal=["bulk"]))
    assert granted(node, NORMAL, AT, recipients=9).recipients == 3


def test_providers() -> None:
    providers = Providers()
    assert [providers.of(name) for name in ("google.com", "aspmx.l.google.com", "outlook.com", "yahoo.com", "icloud.com")] == [
        "google", "google", "microsoft", "yahoo", "apple",
    ]  # fmt: skip
    assert providers.of("mx.example.org") == providers.of("notgoogle.com") == "others"
    more = read_providers({"gmx": ["gmx.net", "web.de"]})
    assert more.of("gmx.net") == "gmx" and more.of("google.com") == "google" and "gmx" in more.names
    for name in ("others", "a/b", "!operator"):
        with pytest.raises(Wrong):
            read_providers({name: ["x.example"]})


def test_what_waits_comes_back_when_there_is_room_for_it_and_not_before() -> None:
    stores = Stores()
    node = stores.node([pool("bulk", BULK[0], warm_up=FIRST)], streams(normal=["bulk"]), WarmUpSettings(hours=12))
    waiting = [(AT, number) for number in range(3000)]
    asked: Counter[int] = Counter()
    hourly: Counter[int] = Counter()
    left: Counter[int] = Counter()
    while waiting and waiting[0][0] < AT + 6 * DAY:
        at, number = heapq.heappop(waiting)
        asked[number] += 1
        hourly[int((at - AT) // 3600)] += 1
        found = leave(node, NORMAL, at)
        if isinstance(found, Grant):
            left[int((at - AT) // DAY)] += 1
        else:
            assert found.own and 0 < found.seconds <= DAY + 3600
            heapq.heappush(waiting, (at + found.seconds, number))
    assert [left[day] for day in range(6)] == list(DEFAULT_CURVE.allowances[:6])
    assert max(asked.values()) <= 13 and sum(asked.values()) < 3000 * 11
    del hourly[0]
    assert max(hourly.values()) < 450, "never all at once"


def test_the_line_behind_a_halt_is_spread_too() -> None:
    node = Stores().node([pool("bulk", BULK[0], warm_up=FIRST)], streams(normal=["bulk"]), WarmUpSettings(hours=12))
    granted(node, NORMAL, AT)
    now(node.plans.halt(BULK[0], "listed", AT))
    waits = [leave(node, NORMAL, AT) for _ in range(300)]
    seconds = [each.seconds for each in waits if isinstance(each, Wait)]
    assert len(seconds) == 300 and min(seconds) >= 3600
    assert max(Counter(int(each // 3600) for each in seconds).values()) < 60


# --- configuration


def test_pools_are_read() -> None:
    [main, bulk] = read_pools({
        "main": {"addresses": {"192.0.2.10": "mx1.example.org", "2001:DB8:0::1": "mx1.example.org"}},
        "bulk": {"addresses": {"::ffff:192.0.2.20": "news1.example.org"}, "warm_up": "2026-12-01", "daily": 9, "curve": [5]},
    })  # fmt: skip
    assert main == Pool("main", (PoolAddress("192.0.2.10", "mx1.example.org"), PoolAddress("2001:db8::1", "mx1.example.org")))
    assert bulk.addresses[0].address == "192.0.2.20" and bulk.warm_up == 20_788 and bulk.daily == 9
    assert bulk.curve == Curve((5,))
    [default] = read_pools({})
    assert default.addresses == (PoolAddress(None, ""),)


def test_mistakes_are_named_by_their_keys() -> None:
    with pytest.raises(Wrong) as caught:
        read_pools({
            "a": {"addresses": {"192.0.2.300": "mx", "192.0.2.1": "", "192.0.2.2": "not a name"}, "warm_up": "soon"},
            "b": {"adresses": {}, "daily": 0, "curve": [0]},
        })  # fmt: skip
    assert {key.removeprefix("relay.pools.") for key, _ in caught.value.problems} == {
        "a.addresses.192.0.2.300", "a.addresses.192.0.2.1", "a.addresses.192.0.2.2", "a.warm_up",
        "b.addresses", "b.adresses", "b.daily", "b.curve",
    }  # fmt: skip


def test_an_address_is_in_one_pool_only_however_it_is_written() -> None:
    pools = read_pools({"a": {"addresses": {"2001:db8::1": "mx"}}, "b": {"addresses": {"2001:0DB8::0001": "mx"}}})
    with pytest.raises(Wrong) as caught:
        Stores().node(pools, streams(normal=["a"]))
    assert caught.value.problems[0][0] == "relay.pools.b.addresses"
    with pytest.raises(Wrong):
        Stores().node([pool("a", *MAIN)], streams(normal=["b"]))
    with pytest.raises(Wrong):
        Stores().node([pool("a", MAIN[0]), pool("a", MAIN[1])], streams(normal=["a"]))


# --- marketing never touches a normal address


class EveryPath(RuleBasedStateMachine):
    """Mail of three streams is sent, deferred and tried again, bounces, is forwarded and overflows, while plans grow and
    are halted, nodes die, clocks jump and the store goes away: no message ever leaves by an address of another stream."""

    POOLS = {"main": MAIN, "bulk": BULK, "bulk-warm": ("192.0.2.22",), "receipts": ("192.0.2.30", "2001:db8::30")}
    STREAMS = {NORMAL: ("main",), "marketing": ("bulk", "bulk-warm"), "transactional": ("receipts",)}

    @initialize(overflow=st.booleans(), daily=st.none() | st.integers(1, 40))
    def start(self, overflow: bool, daily: int | None) -> None:
        self.stores = Stores()
        self.store = self.stores.allowances = Counted()
        marketing = self.STREAMS["marketing"] if overflow else ("bulk",)
        self.streams = streams(**{**self.STREAMS, "marketing": marketing})
        self.pools = [
            pool("main", *MAIN, daily=daily),
            pool("bulk", *BULK, warm_up=FIRST),
            pool("bulk-warm", *self.POOLS["bulk-warm"], daily=daily),
            pool("receipts", *self.POOLS["receipts"], warm_up=FIRST, daily=daily),
        ]
        self.allowed = {name: {a for p in of for a in self.POOLS[p]} for name, of in self.STREAMS.items()}
        if not overflow:
            self.allowed["marketing"] = set(BULK)
        self.nodes = [self.stores.node(self.pools, self.streams) for _ in range(2)]
        self.at = AT
        self.waiting: list[tuple[str, str]] = []
        self.left: list[tuple[str, str | None]] = []
        self.sent: Counter[tuple[str | None, str, int]] = Counter()

    def go(self, stream: str, destination: str, node: int, recipients: int = 1) -> None:
        families = frozenset({4, 6}) if len(destination) % 2 else frozenset({4})
        found = now(
            self.nodes[node].source(stream, Departure(destination, "x.example", families, recipients), self.at)
        )
        if isinstance(found, Wait):
            assert found.seconds > 0 and found.why
            self.waiting.append((stream, destination))
            return
        assert 1 <= found.recipients <= recipients
        self.left.append((stream, found.source.address))
        self.sent[found.source.address, found.group, found.day] += found.recipients

    names = st.sampled_from(sorted(STREAMS))
    destinations = st.sampled_from(["google.com", "outlook.com", "a.example", "b.example"])
    node = st.integers(0, 1)

    @rule(stream=names, destination=destinations, node=node, n=st.integers(1, 70), copies=st.integers(1, 20))
    def send(self, stream: str, destination: str, node: int, n: int, copies: int) -> None:
        senders = {NORMAL: "ann@person.example", "marketing": "x@marketing.example", "transactional": "x@transactional.example"}
        facts = MessageFacts(listener="submission", sender=senders[stream])
        assert self.streams.of(facts).name == stream
        for _ in range(n):
            self.go(stream, destination, node, copies)

    @rule(node=node)
    def retry(self, node: int) -> None:
        waiting, self.waiting = self.waiting, []
        for stream, destination in waiting[:50]:
            self.go(stream, destination, node)

    @rule(cause=names, destination=destinations, node=node, sender=st.sampled_from(["", "ann@person.example"]))
    def bounce_or_forward(self, cause: str, destination: str, node: int, sender: str) -> None:
        stream = self.streams.of(MessageFacts(listener="internal", sender=sender, cause=cause))
        assert stream.name == cause
        self.go(stream.name, destination, node)

    @rule(address=st.sampled_from([*BULK, "192.0.2.30"]), signal=st.sampled_from(Signal), n=st.integers(1, 60), node=node)
    def receivers_say(self, address: str, signal: Signal, n: int, node: int) -> None:
        self.nodes[node].plans.heard(address, "google", signal, self.at, n)
        if not self.store.down:
            now(self.nodes[node].plans.review(self.at, self.nodes[node].warming()))

    @rule(address=st.sampled_from([*MAIN, *BULK]), halted=st.booleans())
    def operator(self, address: str, halted: bool) -> None:
        plans = self.nodes[0].plans
        now(plans.halt(address, "by hand", self.at) if halted else plans.resume(address))

    @rule(node=node)
    def node_dies(self, node: int) -> None:
        self.nodes[node] = self.stores.node(self.pools, self.streams)

    @rule(by=st.sampled_from([3600.0, DAY, 3 * DAY, -DAY, 40 * DAY, -39 * DAY]))
    def time_goes(self, by: float) -> None:
        self.at = max(self.at + by, AT)

    @rule(down=st.booleans())
    def store_goes(self, down: bool) -> None:
        self.store.down = down

    @invariant()
    def each_stream_keeps_to_its_addresses(self) -> None:
        for stream, address in getattr(self, "left", ()):
            assert address in self.allowed[stream], (stream, address)
        if hasattr(self, "left"):
            self.left.clear()

    @invariant()
    def no_day_has_more_than_the_plan_could_allow(self) -> None:
        for (address, _, day), n in getattr(self, "sent", {}).items():
            if address in BULK:
                assert n <= DEFAULT_CURVE.allowances[min(day - FIRST, 41)], (address, day, n)


EveryPath.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)
TestEveryPath = EveryPath.TestCase


def test_a_machine_that_let_marketing_out_by_main_would_be_noticed() -> None:
    machine = EveryPath()
    machine.start(overflow=False, daily=None)
    machine.streams = Streams([Stream("marketing", ("bulk", "main")), Stream(NORMAL, ("main",))])
    machine.nodes[0] = machine.stores.node(machine.pools, machine.streams, AT_ONCE)
    for _ in range(101):
        machine.go("marketing", "google.com", 0)
    with pytest.raises(AssertionError):
        machine.each_stream_keeps_to_its_addresses()


def test_settings_are_taken_as_given() -> None:
    node = Stores().node([pool("main", *MAIN)], streams(), WarmUpSettings(hours=3))
    assert node.plans.settings.hours == 3 and [each.name for each in node.all()] == ["main"]
    assert (found := node.pool_of(MAIN[1])) is not None and found.name == "main" and node.pool_of("192.0.2.99") is None
