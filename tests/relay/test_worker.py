"""The worker of the outbound queue: every item is sent once, or its sender hears why not, whatever dies on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivery.queue_house import Death
from tests.relay.house import DEAD, MESSAGE, Node, RelayHouse, run, verdict
from twisted_mail.relay.destinations import DestinationSettings
from twisted_mail.relay.schedule import Schedule, next_delay
from twisted_mail.relay.values import Host, Route, RouteFailure, Stage
from twisted_mail.storage.interfaces import ItemState, QueueFilter
from twisted_mail.values import DeliveryId

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef0123456789abcdef\r\n" * 8192


@pytest.fixture
def house(tmp_path: Path) -> RelayHouse:
    return RelayHouse(tmp_path)


@pytest.fixture
def node(house: RelayHouse) -> Node:
    node = Node(house)
    node.worker.start()
    return node


def test_a_message_goes_to_each_recipient_and_leaves_nothing_behind(house: RelayHouse, node: Node) -> None:
    node.give("bob@b.test", "eve@b.test", "carol@c.test")
    house.go_on(1)
    assert sorted((a.domain, tuple(sorted(a.addresses)), a.octets) for a in house.world.attempts) == [
        ("b.test", ("bob@b.test", "eve@b.test"), MESSAGE),
        ("c.test", ("carol@c.test",), MESSAGE),
    ]
    assert (house.items(), house.holders(), node.counts.delivered) == ([], [], 3)


def test_a_large_message_is_streamed_with_what_is_put_in_front(house: RelayHouse, node: Node) -> None:
    node.departures.front = b"DKIM-Signature: x\r\n"
    node.give("bob@b.test", message=LARGE)
    house.go_on(1)
    [attempt] = house.world.attempts
    assert attempt.octets == b"DKIM-Signature: x\r\n" + LARGE
    assert attempt.parcel.size == len(attempt.octets)


def test_what_was_asked_of_the_delivery_goes_along(house: RelayHouse, node: Node) -> None:
    node.give(
        "bob@b.test",
        notify=frozenset({"SUCCESS", "DELAY"}),
        envelope_id="abc",
        dsn_return="HDRS",
        priority=3,
        requiretls=True,
        deliver_by=(600, "NT"),
        message="Subject: zoë\r\n\r\nü\r\n".encode(),
    )
    house.go_on(1)
    [attempt] = house.world.attempts
    parcel = attempt.parcel
    assert (parcel.envelope_id, parcel.dsn_return, parcel.priority, parcel.requiretls) == ("abc", "HDRS", 3, True)
    assert (parcel.eight_bit, parcel.smtputf8, parcel.deliver_by) == (True, True, (599.75, "NT"))
    assert parcel.addressees[0].notify == {"SUCCESS", "DELAY"}


def test_a_temporary_failure_is_tried_again_by_the_schedule(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 mailbox busy")
    node.give("bob@b.test")
    began = house.clock.seconds()
    house.go_on(3100)
    assert [round(a.at - began, -1) for a in house.world.attempts] == [0, 300, 1200, 2100, 3000]
    [status] = house.items()
    assert (status.state, status.item.last_reply) == (ItemState.WAITING, "attempt 5: 450 4.2.1 mailbox busy")
    assert [reply for _, reply in house.outbounds()[0].trail][-1] == "mx.test[192.0.2.1]: 450 4.2.1 mailbox busy"


def test_recipients_of_one_transaction_have_their_own_fates(house: RelayHouse, node: Node) -> None:
    said = {"a@b.test": "250 2.0.0 ok", "b@b.test": "550 5.1.1 no such user", "c@b.test": "451 4.7.1 greylisted"}
    house.world.answers["b.test"] = lambda address: verdict(said[address], Stage.RCPT)
    node.give(*said)
    house.go_on(1)
    assert len(house.world.attempts) == 1
    assert [outbound.address for outbound in house.outbounds()] == ["c@b.test"]
    assert house.reports.of("failed") == [("b@b.test", "550 5.1.1 no such user")]


def test_who_waits_long_is_told_once_and_gets_a_last_try_before_it_is_given_up(house: RelayHouse) -> None:
    node = Node(house, schedule=Schedule(retry=(900.0, 40_000.0), warn=3600.0, expire=86_400.0, jitter=0.0))
    node.worker.start()
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 busy")
    node.give("bob@b.test")
    began = house.clock.seconds()
    house.go_on(90_000, 10)
    assert [round(a.at - began, -2) for a in house.world.attempts] == [0, 900, 40_900, 80_900, 86_400]
    assert house.reports.of("delayed") == house.reports.of("failed") == [("bob@b.test", "450 4.2.1 busy")]
    assert (house.items(), house.holders()) == ([], [])


def test_the_null_sender_is_never_told_anything(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("550 5.1.1 no")
    node.give("bob@b.test", sender="")
    house.go_on(1)
    assert (house.reports.told, house.items()) == ({}, [])


def test_success_is_reported_where_it_was_asked_for_and_the_server_will_not(house: RelayHouse, node: Node) -> None:
    wished = frozenset({"SUCCESS"})
    house.world.answers["c.test"] = lambda address: verdict("250 2.0.0 ok", dsn=True)
    node.give("bob@b.test", "carol@c.test", notify=wished)
    node.give("dave@d.test")
    house.go_on(1)
    assert [address for address, _ in house.reports.of("delivered")] == ["bob@b.test"]


@pytest.mark.parametrize(("permanent", "told"), [(True, [("bob@b.test", "556 5.1.10 null MX")]), (False, [])])
def test_no_route_is_a_failure_like_others(house: RelayHouse, node: Node, permanent: bool, told: list[object]) -> None:
    house.world.routes["b.test"] = RouteFailure("556 5.1.10 null MX", permanent=permanent)
    node.give("bob@b.test")
    house.go_on(1)
    assert house.reports.of("failed") == told
    assert len(house.items()) == (not permanent)


def test_a_report_that_cannot_be_written_loses_nothing(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("550 5.1.1 no")
    house.reports.broken = True
    node.give("bob@b.test")
    house.go_on(200)
    assert len(house.items()) == 1
    house.reports.broken = False
    house.go_on(100)
    assert (house.reports.of("failed"), house.items()) == ([("bob@b.test", "550 5.1.1 no")], [])


def test_what_must_not_be_sent_is_not(house: RelayHouse, node: Node) -> None:
    node.departures.suppressed.add("bob@b.test")
    node.give("bob@b.test")
    house.go_on(1)
    assert house.world.attempts == []
    assert house.reports.of("failed") == [("bob@b.test", "550 5.7.1 it was unsubscribed")]


def test_a_message_is_held_until_its_time_and_expires_from_there(house: RelayHouse, node: Node) -> None:
    began = house.clock.seconds()
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 busy")
    node.give("bob@b.test", hold_until=began + 90_000)
    house.go_on(89_900, 10)
    assert house.world.attempts == []
    house.go_on(200, 10)
    assert len(house.world.attempts) == 1
    assert (house.reports.of("delayed"), house.reports.of("failed")) == ([], [])


def test_by_a_time_that_was_asked_for_it_is_there_or_given_back(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 busy")
    node.give("bob@b.test", deliver_by=(400, "R"))
    house.go_on(450)
    assert [reply for _, reply in house.reports.of("failed")] == [
        "554 5.4.7 it could not be delivered by the time that was asked for"
    ]
    assert len(house.world.attempts) == 2


# --- destinations


def test_a_destination_that_does_not_answer_is_asked_once_for_all(house: RelayHouse, node: Node) -> None:
    house.world.answers["dead.test"] = lambda address: DEAD
    house.world.seconds["dead.test"] = 30.0
    for number in range(50):
        node.give(f"u{number}@dead.test", message=MESSAGE + b"%d" % number)
    node.give("bob@b.test")
    house.go_on(1)
    assert house.world.taken["bob@b.test"] == 1
    house.go_on(59)
    tries = len(house.world.attempts) - 1
    assert tries <= 6, "some conversations, not fifty"
    house.go_on(240)
    assert len(house.items()) == 50
    del house.world.answers["dead.test"], house.world.seconds["dead.test"]
    house.go_on(3000, 1)
    assert house.items() == []
    assert {house.world.taken[f"u{number}@dead.test"] for number in range(50)} == {1}


def test_conversations_grow_with_success_and_are_bounded(house: RelayHouse) -> None:
    node = Node(house, destinations=DestinationSettings(connections=8, first=2, waiting=1000), concurrent=1000)
    node.worker.start()
    house.world.seconds["b.test"] = 1.0
    for number in range(200):
        node.give(f"u{number}@b.test", message=MESSAGE + b"%d" % number)
    house.go_on(1)
    assert house.world.most["b.test"] == 2
    house.go_on(300)
    assert house.world.most["b.test"] == 8
    assert house.items() == []


def test_who_says_that_it_is_too_much_gets_less(house: RelayHouse) -> None:
    node = Node(house, destinations=DestinationSettings(first=10))
    node.worker.start()
    house.world.answers["b.test"] = lambda address: verdict(
        "421 4.7.0 too many messages", Stage.MAIL, about_connection=True
    )
    for number in range(10):
        node.give(f"u{number}@b.test", message=MESSAGE + b"%d" % number)
    house.go_on(1)
    first = len(house.world.attempts)
    del house.world.answers["b.test"]
    house.go_on(1200, 1)
    assert first == 10
    assert house.items() == []
    destination = node.worker.destinations.of("b.test")
    assert destination.limit < 10


def test_more_than_may_wait_is_put_off_without_an_attempt(house: RelayHouse) -> None:
    node = Node(house, destinations=DestinationSettings(connections=1, first=1, waiting=3), concurrent=500)
    node.worker.start()
    house.world.seconds["b.test"] = 1.0
    for number in range(60):
        node.give(f"u{number}@b.test", message=MESSAGE + b"%d" % number)
    house.go_on(2)
    assert node.counts.put_off > 40
    house.go_on(1200, 0.5)
    assert house.items() == []
    assert len(house.world.attempts) == 60
    assert all(value == 1 for value in house.world.taken.values())


def test_the_most_urgent_goes_first(house: RelayHouse) -> None:
    node = Node(house, destinations=DestinationSettings(connections=1, first=1))
    house.world.seconds["b.test"] = 1.0
    for number, priority in enumerate((None, -5, 4, 9)):
        node.give(f"u{number}@b.test", message=MESSAGE + b"%d" % number, priority=priority)
    node.worker.destinations.of("b.test").known = True
    node.worker.start()
    house.go_on(10)
    assert [a.addresses[0][1] for a in house.world.attempts] == ["3", "2", "0", "1"]


def test_domains_with_the_same_servers_are_one_destination(house: RelayHouse) -> None:
    for name in ("b.test", "c.test"):
        house.world.routes[name] = Route(name, "provider.test", (Host("mx", ("192.0.2.1",)),))
        house.world.seconds[name] = 5.0
    node = Node(house, destinations=DestinationSettings(first=2))
    node.worker.start()
    for number in range(4):
        node.give(f"u{number}@{'bc'[number % 2]}.test", message=MESSAGE + b"%d" % number)
    house.go_on(1)
    assert house.world.most["provider.test"] == 2


# --- streams


def test_each_stream_leaves_by_its_own_addresses_on_every_way(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 busy")
    node.give("bob@b.test", sender="news@example.org")
    node.give("bob@b.test", sender="ann@example.org")
    [first] = node.give("eve@c.test", sender="news@example.org")
    node.give("eve@d.test", sender="news@example.org", forward=True)
    node.give("eve@d.test", sender="stranger@elsewhere.test", forward=True)
    run(node.outgoing.submit(first, "bounce", "news@elsewhere.test", b"Subject: failed\r\n\r\n", stream="marketing"))
    run(node.outgoing.submit(first, "bounce", "news@elsewhere.test", b"Subject: failed\r\n\r\n", stream="marketing"))
    house.go_on(2000)
    by_pool = {(a.source.pool, a.sender, a.domain) for a in house.world.attempts}
    assert by_pool == {
        ("bulk", "news@example.org", "b.test"),
        ("main", "ann@example.org", "b.test"),
        ("bulk", "news@example.org", "c.test"),
        ("bulk", "", "elsewhere.test"),
        ("bulk", "news@example.org", "d.test"),
        ("main", "stranger@elsewhere.test", "d.test"),
    }
    assert house.world.taken["news@elsewhere.test"] == 1, "what is caused twice is one message"
    assert {pool for pool, _ in node.departures.heard_of} == {"bulk", "main"}


# --- leases, crashes, poison


def test_nothing_is_sent_without_its_lease(house: RelayHouse) -> None:
    slow, other = Node(house), Node(house)
    slow.worker.start()
    house.world.seconds["b.test"] = 100.0
    slow.give("bob@b.test")
    house.go_on(1)
    slow.queue.only, slow.queue.mode = {"lease", "extend"}, "down"
    house.go_on(40)
    other.worker.start()
    house.go_on(300)
    assert house.world.taken["bob@b.test"] == 1
    assert house.items() == []


@pytest.mark.parametrize("jump", [-400 * 86_400.0, -3600.0, 3600.0])
def test_a_clock_that_jumps_while_a_message_is_on_its_way_changes_nothing(
    house: RelayHouse, node: Node, jump: float
) -> None:
    house.world.seconds["b.test"] = 100.0
    node.give("bob@b.test", "eve@c.test")
    house.go_on(50)
    house.jump = jump
    house.go_on(100)
    assert (house.items(), dict(house.world.taken)) == ([], {"bob@b.test": 1, "eve@c.test": 1})
    assert house.reports.told == {}


def test_a_clock_that_was_set_back_does_not_stop_what_waits(house: RelayHouse, node: Node) -> None:
    house.world.answers["b.test"] = lambda address: verdict("450 4.2.1 busy")
    node.give("bob@b.test")
    house.go_on(10)
    house.jump = -30 * 86_400.0
    house.go_on(400)
    assert len(house.world.attempts) == 2
    del house.world.answers["b.test"]
    house.go_on(1000)
    assert (house.items(), house.world.taken["bob@b.test"]) == ([], 1)


def test_a_poison_item_is_set_aside_after_some_attempts_and_the_rest_goes_on(house: RelayHouse) -> None:
    poison = Node(house, concurrent=1)
    [id] = poison.give("poison@b.test")
    for _ in range(5):
        victim = Node(house, death=Death(2))
        victim.worker.start()
        house.go_on(70)
    node = Node(house)
    node.worker.start()
    node.give("bob@c.test")
    house.go_on(70)
    assert house.world.taken["bob@c.test"] == 1
    [status] = house.items()
    assert (status.item.id, status.state) == (id, ItemState.HELD)
    assert "never heard of again" in status.item.last_reply


def test_a_body_that_cannot_be_read_is_tried_some_times_and_then_held(house: RelayHouse, node: Node) -> None:
    node.blobs.only, node.blobs.mode = {"open"}, "down"
    node.give("bob@b.test")
    house.go_on(130)
    assert [status.item.attempts for status in house.items()] == [0], "the store's trouble is no attempt"
    node.blobs.mode = "up"
    house.go_on(70)
    assert house.world.taken["bob@b.test"] == 1


def operations(house: RelayHouse) -> int:
    """How many steps a node takes that sends one message and bounces another."""
    death = Death()
    node = Node(house, death=death)
    _script(house, node)
    return len(death.operations)


def _script(house: RelayHouse, node: Node) -> None:
    node.worker.start()
    house.go_on(30)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_step_nothing_is_lost_and_nothing_taken_is_sent_again(tmp_path: Path, after: bool) -> None:
    count, seen = 1, 0
    while seen <= count:
        seen += 1
        house = RelayHouse(tmp_path)
        house.world.answers["no.test"] = lambda address: verdict("550 5.1.1 no")
        given = Node(house)
        given.give("bob@b.test", "eve@no.test")
        death = Death(seen, after=after)
        _script(house, Node(house, death=death))
        count = max(count, len(death.operations))
        healthy = Node(house)
        healthy.worker.start()
        house.go_on(200, 1)
        assert house.items() == [], seen
        assert house.reports.of("failed") == [("eve@no.test", "550 5.1.1 no")], seen
        # the one window of the RFC: the server has it, and its answer was not written down
        window = "after the answer" in death.operations[:seen] and house.world.taken["bob@b.test"] == 2
        assert house.world.taken["bob@b.test"] == 1 or window, (seen, death.operations)
        acknowledged = [at for at, name in enumerate(death.operations) if name == "ack"]
        if acknowledged and acknowledged[-1] < seen - 1:
            assert house.world.taken["bob@b.test"] <= 2
    assert count > 8


def test_what_a_server_took_is_never_forgotten_for_what_fails_afterwards(house: RelayHouse, node: Node) -> None:
    async def broken(*given: object) -> None:
        raise RuntimeError("no counting today")

    node.departures.heard = broken  # type: ignore[assignment,method-assign]  # it may be given anything
    node.give("bob@b.test", "eve@b.test")
    house.go_on(700)
    assert (house.items(), dict(house.world.taken)) == ([], {"bob@b.test": 1, "eve@b.test": 1})


def test_all_or_none_of_a_message_is_queued(house: RelayHouse) -> None:
    node = Node(house)
    node.queue.only, node.queue.mode = {"put"}, "full"
    with pytest.raises(AssertionError, match="MailRefused"):
        node.give("bob@b.test", "eve@c.test")
    assert (house.items(), house.holders()) == ([], [])


def test_the_way_of_a_message_is_kept(house: RelayHouse, node: Node) -> None:
    replies = iter(["450 4.2.1 busy", "250 2.0.0 taken"])
    house.world.answers["b.test"] = lambda address: verdict(next(replies))
    node.give("bob@b.test")
    house.go_on(400)
    steps = run(node.journal.steps("one@example.org"))
    assert [(step.what, step.reply) for step in steps] == [
        ("queued", ""),
        ("deferred", "450 4.2.1 busy"),
        ("delivered", "250 2.0.0 taken"),
    ]
    assert steps[2].host == "mx.test[192.0.2.1]" and steps[1].next > steps[1].at


# --- times


def test_delays_follow_the_schedule_and_never_pass_a_deadline() -> None:
    schedule = Schedule(retry=(100.0, 1000.0), jitter=0.1)
    half = lambda: 0.5  # noqa: E731
    assert [next_delay(schedule, n, "450 no", 1e9, half) for n in (1, 2, 3)] == [100.0, 1000.0, 1000.0]
    assert next_delay(schedule, 1, "450 no", 1e9, lambda: 0.0) == pytest.approx(90.0)
    assert next_delay(schedule, 2, "450 no", 50.0, half) == 50.0
    assert next_delay(schedule, 2, "450 no", 1e9, half, [20.0, -5.0]) == 20.0
    assert next_delay(Schedule(), 1, "451 4.7.1 Greylisted, try again", 1e9, half) == 300.0
    assert next_delay(Schedule(), 2, "451 4.7.1 Greylisted, try again", 1e9, half) == 330.0


def test_what_is_caused_has_one_id() -> None:
    id = DeliveryId.new()
    assert id.caused("bounce") == id.caused("bounce") != id.caused("delayed")


def test_nothing_is_in_the_queue_of_others(house: RelayHouse, node: Node) -> None:
    node.give("bob@b.test")
    assert run(house.engine.queue.list(QueueFilter(use="inbound"))) == []


# --- what filters found of mail that is forwarded


def test_a_forward_carries_what_was_found_of_it_and_a_submission_does_not(house: RelayHouse, node: Node) -> None:
    results = "mx.example.org;\r\n\tspf=pass smtp.mailfrom=elsewhere.test"
    node.give("eve@d.test", sender="stranger@elsewhere.test", forward=True, verified=True, results=results)
    node.give("eve@d.test", verified=True, results=results)
    carried = {outbound.cause: outbound for outbound in house.outbounds()}
    assert (carried["forward"].verified, carried["forward"].results) == (True, results)
    assert (carried[""].verified, carried[""].results) == (False, ""), "who logged in is vouched for by the login"
