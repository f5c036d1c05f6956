"""The worker of the inbound queue: every item ends in its account once, whatever dies on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.delivery.queue_house import ANN, BOB, MESSAGE, Death, Node, QueueHouse, for_ever
from tests.delivery.support import run
from twisted_mail.delivery.failing import Again, Failure, Hold, Kind, RetrySettings, decide
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.rejudging import Rejudged
from twisted_mail.queueing.leasing import crashes, reply_text
from twisted_mail.storage.interfaces import ItemState, QueueItem
from twisted_mail.values import DeliveryId

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 8192


@pytest.fixture
def house(tmp_path: Path) -> QueueHouse:
    return QueueHouse(tmp_path)


def test_what_waits_is_delivered_and_leaves_nothing_behind(house: QueueHouse) -> None:
    accepting, working = Node(house, straight=False), Node(house)
    house.give(accepting, ANN, BOB)
    working.worker.start()
    house.go_on(1)
    for name in (ANN, BOB):
        assert [m.endswith(MESSAGE) for m in house.mailbox(name)] == [True]
    assert (house.items(), house.holders(), working.counts.delivered) == ([], [], 2)


def test_the_octets_are_those_that_came(house: QueueHouse) -> None:
    node = Node(house)
    house.give(node, ANN, message=LARGE)
    house.give(Node(house, straight=False), ANN, message=LARGE)
    node.worker.start()
    house.go_on(1)
    straight, queued = (m[m.index(b"\r\n\t") :] for m in house.mailbox(ANN))  # without the id of the Received field
    assert straight[-len(LARGE) :] == queued[-len(LARGE) :] == LARGE
    assert straight.count(b"\r\n") == queued.count(b"\r\n")


def test_what_filters_make_of_a_message_meanwhile_is_stored(house: QueueHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    class Filters:
        """Implements `Rejudge`: another header and body behind the 14 octets of "Return-Path: <"."""

        async def again(self, judgement: Judgement, chunks: Any, sender: str, recipient: str) -> Rejudged:
            assert judgement.pending == ("late",) and (await chunks().__anext__()).startswith(b"Return-Path: <")
            return Rejudged(judgement=Judgement(), sender="new@far.example", skip=14, header=b"Return-Path: <", body=b"new\r\n")

    node = Node(house, straight=False)
    accepted = node.intake.accepted
    judgement = Judgement(pending=("late",))
    monkeypatch.setattr(node.intake, "accepted", lambda envelope, **more: accepted(envelope, **{**more, "judgement": judgement}))
    working = Node(house)
    monkeypatch.setattr(working.worker, "_rejudge", Filters())
    house.give(node, ANN)
    working.worker.start()
    house.go_on(1)
    assert house.mailbox(ANN) == [b"Return-Path: <\r\nnew\r\n"]
    assert house.items() == []


def test_a_local_put_wakes_the_worker_and_others_are_polled(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    node.worker.start()
    house.give(node, ANN)
    assert len(house.mailbox(ANN)) == 1, "at once"
    house.give(Node(house, straight=False), ANN)
    assert len(house.mailbox(ANN)) == 1
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 2
    asked = node.queue._death.operations.count("lease")
    house.go_on(10)
    assert node.queue._death.operations.count("lease") - asked <= 11, "an empty queue is not asked hot"


def test_a_worker_with_all_hands_full_waits_until_one_is_free(house: QueueHouse) -> None:
    names = [f"user{number}@example.org" for number in range(40)]
    for name in names:
        house.user(name)
    node = Node(house)
    node.worker.start()
    node.log.mode = "hang"
    accepting = Node(house, straight=False)
    accepting.inbound.wake(node.worker.wake)
    house.give(accepting, *names)
    house.go_on(3)
    assert node.counts.in_flight == 16
    assert node.queue._death.operations.count("lease") <= 34, "it does not ask while it has no room"
    house.go_on(200)
    assert node.counts.in_flight == 16
    node.log.mode = "up"
    house.go_on(400)
    assert [len(house.mailbox(name)) for name in names] == [1] * 40


def test_a_store_that_is_down_is_waited_for(house: QueueHouse) -> None:
    node = Node(house)
    node.log.mode = node.messages.mode = "down"
    house.give(node, ANN, wait=6)
    node.worker.start()
    house.go_on(120)
    [status] = house.items()
    assert status.state is ItemState.WAITING and status.item.last_reply.startswith("attempt ")
    assert node.counts.retried >= 3
    node.log.mode = node.messages.mode = "up"
    house.go_on(600)
    assert len(house.mailbox(ANN)) == 1 and house.items() == []


def test_an_append_that_arrives_late_and_its_repetition_are_one_message(house: QueueHouse) -> None:
    node = Node(house)
    house.give(node, ANN)
    gate: Deferred[None] = Deferred()
    append = house.engine.account_log.append

    async def late(*arguments: Any) -> Any:
        await gate
        return await append(*arguments)

    node.log._inner.append = late
    house.give(node, ANN, wait=6)
    house.engine.account_log.append = append  # type: ignore[method-assign]
    assert len(house.items()) == 1
    other = Node(house)
    other.worker.start()
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 2
    gate.callback(None)
    house.go_on(5)
    assert len(house.mailbox(ANN)) == 2 and house.items() == []


def test_one_that_came_to_stand_before_is_not_delivered_again(house: QueueHouse) -> None:
    node = Node(house)
    house.give(node, ANN)
    append = house.engine.account_log.append

    async def unheard(*arguments: Any) -> Any:
        await append(*arguments)
        await for_ever()

    node.log._inner.append = unheard
    house.give(node, ANN, wait=6)
    house.engine.account_log.append = append  # type: ignore[method-assign]
    assert len(house.items()) == 1 and len(house.mailbox(ANN)) == 2
    Node(house).worker.start()
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 2 and house.items() == [] and house.holders() == []


def test_an_acknowledgement_under_way_is_no_lost_lease(house: QueueHouse) -> None:
    """While the answer to it is awaited the item may be gone already: an extension then would find no lease."""
    accepting, working = Node(house, straight=False), Node(house)
    house.give(accepting, ANN, message=LARGE)
    gate: Deferred[None] = Deferred()
    ack = house.engine.queue.ack

    async def answered_late(token: str) -> bool:
        done = await ack(token)
        await gate
        return done

    working.queue._inner.ack = answered_late
    working.worker.start()
    house.go_on(90)
    gate.callback(None)
    house.go_on(1)
    assert (house.items(), house.holders(), len(house.mailbox(ANN))) == ([], [], 1)


def test_a_queue_that_hangs_is_asked_anew(house: QueueHouse) -> None:
    node = Node(house)
    node.queue.mode, node.queue.only = "hang", ("lease",)
    node.worker.start()
    house.go_on(10)
    node.queue.mode = "up"
    house.give(Node(house, straight=False), ANN)
    house.go_on(40)
    assert len(house.mailbox(ANN)) == 1


# --- death at every step


def _steps(tmp_path: Path, *, straight: bool, message: bytes) -> int:
    """How many operations on stores there are from the message's first octet to the end of its delivery."""
    house = QueueHouse(tmp_path, overflow=True)
    death = Death()
    node = Node(house, straight=straight, death=death)
    node.worker.start()
    house.give(node, ANN, message=message)
    house.go_on(1, 0.5)
    assert len(house.mailbox(ANN)) == 1
    assert len(death.operations) > (4 if straight else 10)
    return len(death.operations)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("straight", [True, False])
@pytest.mark.parametrize("message", [MESSAGE, LARGE])
def test_a_node_that_dies_at_any_step_neither_loses_nor_doubles(
    tmp_path: Path, straight: bool, after: bool, message: bytes
) -> None:
    for at in range(1, _steps(tmp_path, straight=straight, message=message) + 1):
        house = QueueHouse(tmp_path, overflow=True)
        death = Death(at, after=after)
        node = Node(house, straight=straight, death=death)
        node.worker.start()
        outcomes = house.give(node, ANN, message=message)
        taken = bool(outcomes) and outcomes[0].refused is None
        other = Node(house)
        other.worker.start()
        house.go_on(70, 0.5)
        found = len(house.mailbox(ANN))
        where = f"step {at}, {death.operations[-1:]}"
        assert death.dead, where
        assert found <= 1, where
        assert found == 1 or not taken, where
        assert house.items() == [], where


def test_a_worker_that_cannot_extend_its_lease_lets_go_in_time(house: QueueHouse) -> None:
    node, other = Node(house), Node(house)
    house.give(Node(house, straight=False), ANN)
    node.messages.mode = "hang"
    node.worker.start()
    house.go_on(1)
    assert node.counts.in_flight == 1
    house.go_on(100)
    assert node.counts.in_flight == 1, "extended"
    node.queue.mode = "down"
    other.worker.start()
    house.go_on(49)
    assert node.counts.in_flight == 0, "let go"
    assert house.mailbox(ANN) == []
    house.go_on(30)
    assert len(house.mailbox(ANN)) == 1
    node.messages.mode = "up"
    house.go_on(30)
    assert len(house.mailbox(ANN)) == 1 and house.items() == []


def test_an_item_that_an_operator_takes_away_is_let_go(house: QueueHouse) -> None:
    node = Node(house)
    house.give(Node(house, straight=False), ANN)
    node.messages.mode = "hang"
    node.worker.start()
    house.go_on(1)
    [status] = house.items()
    run(house.engine.queue.hold(status.item.id))
    house.go_on(21)
    assert node.counts.in_flight == 0
    assert [each.state for each in house.items()] == [ItemState.HELD]


def test_an_item_that_kills_its_workers_is_held(house: QueueHouse) -> None:
    house.give(Node(house, straight=False), ANN)
    for _ in range(5):
        death = Death()
        node = Node(house, death=death)
        node.messages.mode = "hang"
        node.worker.start()
        house.go_on(1)
        death.dead = True
        house.go_on(61)
    last = Node(house)
    last.worker.start()
    house.go_on(2)
    [status] = house.items()
    assert status.state is ItemState.HELD and "never heard of again" in status.item.last_reply
    assert last.counts.held == 1 and house.mailbox(ANN) == []
    run(house.engine.queue.release(status.item.id))
    house.go_on(2)
    assert len(house.mailbox(ANN)) == 1, "an operator may let it go"


def test_one_bad_item_holds_no_other_up(house: QueueHouse) -> None:
    run(house.engine.queue.put(QueueItem(DeliveryId.new(), "inbound", b"\xff", None, created=house.wall())))
    house.give(Node(house, straight=False), ANN)
    node = Node(house)
    node.worker.start()
    house.go_on(300)
    assert len(house.mailbox(ANN)) == 1
    assert [status.state for status in house.items()] == [ItemState.HELD]


def test_what_was_accepted_is_stored_although_the_mailbox_is_full_by_now(house: QueueHouse) -> None:
    house.user("small@example.org", quota_bytes=100)
    for _ in range(3):
        house.give(Node(house, straight=False), "small@example.org")
    Node(house).worker.start()
    house.go_on(2)
    assert len(house.mailbox("small@example.org")) == 3 and house.items() == []


def test_mail_for_an_account_that_was_deleted_meanwhile_is_a_dead_letter(house: QueueHouse) -> None:
    house.give(Node(house, straight=False), ANN)
    house.go_on(120)
    run(house.engine.directory.remove_account(house.people[ANN]))
    node = Node(house)
    node.worker.start()
    house.go_on(2)
    [status] = house.items()
    assert status.state is ItemState.HELD and "5.1.1" in status.item.last_reply
    assert run(house.engine.account_log.head(house.people[ANN])) == 0, "no account was made for it"


def test_a_queue_that_is_down_is_asked_less_and_less(house: QueueHouse) -> None:
    node = Node(house)
    node.queue.mode = "down"
    node.worker.start()
    house.go_on(120)
    assert node.queue._death.operations.count("lease") < 15
    node.queue.mode = "up"
    house.give(Node(house, straight=False), ANN)
    house.go_on(16)
    assert len(house.mailbox(ANN)) == 1


# --- the end


def test_the_end_waits_for_what_is_in_flight_and_leases_no_more(house: QueueHouse) -> None:
    node = Node(house)
    house.give(Node(house, straight=False), ANN)
    gate: Deferred[None] = Deferred()
    put = house.engine.messages.put

    async def slow(*arguments: Any) -> Any:
        await gate
        return await put(*arguments)

    node.messages._inner.put = slow
    node.worker.start()
    house.go_on(1)
    ended: list[Any] = []
    Deferred.fromCoroutine(node.worker.stop(30)).addBoth(ended.append)
    house.engine.messages.put = put  # type: ignore[method-assign]
    house.give(Node(house, straight=False), BOB)
    house.go_on(5)
    assert ended == []
    gate.callback(None)
    house.go_on(1)
    assert ended == [None]
    assert len(house.mailbox(ANN)) == 1 and house.mailbox(BOB) == []
    assert not house.clock.getDelayedCalls()


def test_what_does_not_end_in_time_is_given_back_at_once(house: QueueHouse) -> None:
    node = Node(house)
    house.give(Node(house, straight=False), ANN)
    node.messages.mode = "hang"
    node.worker.start()
    house.go_on(1)
    ended: list[Any] = []
    Deferred.fromCoroutine(node.worker.stop(5)).addBoth(ended.append)
    house.go_on(6)
    assert ended == [None] and node.counts.in_flight == 0
    [status] = house.items()
    assert status.state is ItemState.DUE and crashes(status.item) == 0
    Node(house).worker.start()
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 1


# --- what happens to an item that failed


def item(attempts: int, last_reply: str = "", created: float = 0.0) -> QueueItem:
    return QueueItem(DeliveryId.new(), "inbound", b"", None, attempts=attempts, last_reply=last_reply, created=created)


def test_delays_grow_with_jitter_up_to_a_bound() -> None:
    settings = RetrySettings()
    down = Failure(Kind.UNAVAILABLE, "451 4.3.0 x")

    def delay(attempts: int, at: float) -> float:
        again = decide(item(attempts), down, 0.0, settings, lambda: at)
        assert isinstance(again, Again)
        return again.delay

    assert [delay(n, 0.5) for n in (1, 2, 3, 100)] == [5.0, 10.0, 20.0, 600.0]
    assert delay(1, 0.0) == 3.75 and delay(1, 1.0) == 6.25
    assert decide(item(1), down, settings.expire_seconds, settings, lambda: 0.5) == Hold()


def test_attempts_that_nothing_was_written_of_count_as_crashes() -> None:
    assert crashes(item(1)) == 0
    assert crashes(item(4)) == 3
    assert crashes(item(4, reply_text(item(3), "451 4.3.0 x"))) == 0
    assert crashes(item(9, reply_text(item(3), "451 4.3.0 x"))) == 5
