"""What the store cannot take goes into the queue, and nothing is promised that is not durable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivery.queue_house import ANN, BOB, MESSAGE, Node, QueueHouse
from tests.delivery.support import run
from twisted_mail.delivery.items import NewerVersion, inbound_of
from twisted_mail.queueing.spool import MEMORY_BYTES, SpoolFolder
from twisted_mail.services import MailRefused, Refusal
from twisted_mail.storage.interfaces import Corrupt, ItemState, QueueItem
from twisted_mail.values import DeliveryId

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 65_536


@pytest.fixture
def house(tmp_path: Path) -> QueueHouse:
    return QueueHouse(tmp_path)


def test_mail_goes_straight_while_the_store_is_well(house: QueueHouse) -> None:
    node = Node(house)
    [outcome] = house.give(node, ANN)
    assert outcome.refused is None
    assert [m.endswith(MESSAGE) for m in house.mailbox(ANN)] == [True]
    assert (house.items(), house.holders(), node.counts.straight, node.counts.queued) == ([], [], 1, 0)


def test_a_node_without_the_role_queues_everything_and_opens_no_account(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    node.log.mode = node.messages.mode = "hang"
    outcomes = house.give(node, ANN, BOB)
    assert [outcome.refused for outcome in outcomes] == [None, None]
    items = house.items()
    assert {status.item.id for status in items} == {outcome.delivery for outcome in outcomes}
    assert len({status.item.body for status in items}) == 1, "one body for both"
    assert sorted(house.holders()) == sorted(f"q/{status.item.id}" for status in items)
    inbound = inbound_of(items[0].item)
    assert not inbound.repeated and inbound.sender == "a@b.example" and inbound.received == int(house.wall())
    assert house.mailbox(ANN) == []


@pytest.mark.parametrize("mode", ["down", "full", "lost"])
def test_a_store_that_fails_has_its_mail_queued_under_the_same_id(house: QueueHouse, mode: str) -> None:
    node = Node(house)
    house.give(node, ANN)
    node.log.mode, node.log.only = mode, {"append"}
    [outcome] = house.give(node, ANN, wait=6)
    node.log.mode = "up"
    house.go_on(3)
    if mode == "lost":  # settled: it stands, and needs no queue
        assert (len(house.mailbox(ANN)), house.items()) == (2, [])
        return
    assert outcome.refused is None
    [status] = house.items()
    assert status.item.id == outcome.delivery and inbound_of(status.item).repeated
    assert len(house.mailbox(ANN)) == 1


def test_a_store_that_hangs_has_its_mail_queued_after_its_time(house: QueueHouse) -> None:
    node = Node(house)
    house.give(node, ANN)
    node.log.mode = "hang"
    assert house.give(node, ANN, wait=4) == []
    house.go_on(2)
    [status] = house.items()
    assert inbound_of(status.item).repeated


def test_many_copies_do_not_each_wait_for_a_store_that_hangs(house: QueueHouse) -> None:
    names = [f"user{number}@example.org" for number in range(80)]
    for name in names:
        house.user(name)
    node = Node(house)
    node.log.mode = "hang"
    outcomes = house.give(node, *names, wait=6)
    assert [outcome.refused for outcome in outcomes] == [None] * 80
    assert [inbound_of(status.item).repeated for status in house.items()].count(False) == 48, "32 had begun"


def test_one_slow_account_does_not_touch_the_other(house: QueueHouse) -> None:
    node = Node(house)
    bob = run(node.accounts.open(house.people[BOB]))
    bob.commit = node.log._call  # type: ignore[assignment, method-assign]  # wrong, so a defect: refused, not queued
    ann, other = house.give(node, ANN, BOB)
    assert ann.refused is None and other.refused is not None and other.refused.reason is Refusal.UNAVAILABLE
    assert len(house.mailbox(ANN)) == 1 and house.items() == []


def test_over_quota_is_stored_once_it_was_accepted_and_the_next_is_refused(house: QueueHouse) -> None:
    house.user("small@example.org", quota_bytes=100)
    node = Node(house)
    [outcome] = house.give(node, "small@example.org")
    assert outcome.refused is None and len(house.mailbox("small@example.org")) == 1
    with pytest.raises(MailRefused) as refused:
        house.give(node, "small@example.org")
    assert refused.value.reason is Refusal.MAILBOX_FULL and refused.value.temporary
    assert house.items() == [] and house.holders() == []


def test_a_full_mailbox_is_not_asked_about_while_the_store_hangs(house: QueueHouse) -> None:
    house.user("small@example.org", quota_bytes=100_000)
    node = Node(house)
    node.log.mode = "hang"
    [outcome] = house.give(node, "small@example.org", wait=12)
    assert outcome.refused is None and len(house.items()) == 1


@pytest.mark.parametrize(("mode", "reason"), [("down", Refusal.UNAVAILABLE), ("full", Refusal.NO_ROOM)])
def test_store_and_queue_down_is_refused_and_leaves_no_holder_where_that_is_certain(
    house: QueueHouse, mode: str, reason: Refusal
) -> None:
    node = Node(house)
    node.log.mode, node.queue.mode = "full", mode
    [outcome] = house.give(node, ANN, wait=40)
    assert outcome.refused is not None and outcome.refused.reason is reason
    assert outcome.refused.temporary
    assert house.items() == []
    assert len(house.holders()) == (1 if mode == "down" else 0), "an item whose put got no answer may be there"


def test_a_put_that_got_no_answer_is_repeated_and_there_once(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    node.queue.mode, node.queue.only = "lost once", {"put"}
    [outcome] = house.give(node, ANN, wait=1)
    assert outcome.refused is None and len(house.items()) == 1


def test_a_queue_that_is_known_to_be_down_gets_no_body(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    node.trouble = "no server answers"
    [outcome] = house.give(node, ANN)
    assert outcome.refused is not None and outcome.refused.reason is Refusal.UNAVAILABLE
    assert house.holders() == [] and house.items() == []
    straight = Node(house)
    straight.trouble = "no server answers"
    assert house.give(straight, ANN)[0].refused is None, "the straight way needs no queue"


def test_a_queue_that_hangs_is_not_waited_for_without_end(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    node.queue.mode = "hang"
    [outcome] = house.give(node, ANN, wait=33)
    assert outcome.refused is not None and outcome.refused.reason is Refusal.UNAVAILABLE


# --- the object store


@pytest.mark.parametrize("operation", ["write", "finish"])
@pytest.mark.parametrize("mode", ["down", "hang"])
@pytest.mark.parametrize("straight", [True, False])
def test_an_object_store_that_fails_midway_costs_nothing(
    tmp_path: Path, operation: str, mode: str, straight: bool
) -> None:
    house = QueueHouse(tmp_path, overflow=True)
    node = Node(house, straight=straight)
    node.blobs.mode, node.blobs.only = mode, {operation}
    outcomes = house.give(node, ANN, BOB, message=LARGE, wait=80)
    assert [outcome.refused for outcome in outcomes] == [None, None]
    assert [inbound_of(status.item).place for status in house.items()] == ["queue", "queue"]
    assert house.overflowing() == 2 and house.holders() == []
    node.worker.start()
    house.go_on(2)
    assert house.mailbox(ANN) == [] or mode == "hang"
    node.blobs.mode = "up"
    house.go_on(700)
    for name in (ANN, BOB):
        assert [m.endswith(LARGE) for m in house.mailbox(name)] == [True]
    assert (house.items(), house.overflowing()) == ([], 0)


def test_an_object_store_that_is_known_to_be_down_is_not_asked(tmp_path: Path) -> None:
    house = QueueHouse(tmp_path, overflow=True)
    node = Node(house, straight=False)
    node.blob_trouble, node.blobs.mode = "no connection", "hang"
    [outcome] = house.give(node, ANN)
    assert outcome.refused is None and house.overflowing() == 1
    house.has_overflow = False
    other = Node(house, straight=False)
    other.blob_trouble = "no connection"
    assert house.give(other, ANN)[0].refused is None, "where there is no other place it is tried all the same"


def test_without_a_store_of_the_queue_a_failing_object_store_is_refused(house: QueueHouse) -> None:
    node = Node(house)
    node.blobs.mode = "down"
    [outcome] = house.give(node, ANN, message=LARGE)
    assert outcome.refused is not None and outcome.refused.reason is Refusal.UNAVAILABLE


def test_beyond_the_bound_there_is_no_room(tmp_path: Path) -> None:
    house = QueueHouse(tmp_path, overflow=True)
    node = Node(house)
    node.blobs.mode, node.overflow.mode = "down", "full"
    [outcome] = house.give(node, ANN, message=LARGE)
    assert outcome.refused is not None and outcome.refused.reason is Refusal.NO_ROOM


def test_references_that_cannot_be_written_send_the_body_to_the_queue_too(tmp_path: Path) -> None:
    house = QueueHouse(tmp_path, overflow=True)
    node = Node(house)
    for store in (node.log, node.messages, node.references):
        store.mode = "down"
    [outcome] = house.give(node, ANN, wait=6)
    assert outcome.refused is None and house.overflowing() == 1


def test_a_condemned_generation_is_passed_over(house: QueueHouse) -> None:
    node = Node(house, straight=False)
    house.give(node, ANN)
    [first] = house.items()
    assert first.item.body is not None
    run(house.engine.references.condemn(first.item.body))
    house.clock.advance(0)
    house.give(node, ANN)
    bodies = [status.item.body for status in house.items()]
    assert len(bodies) == 2 and len(house.holders()) == 2


def test_a_directory_that_does_not_answer_is_done_without_for_known_addresses(house: QueueHouse) -> None:
    node = Node(house)
    house.give(node, ANN)
    house.go_on(5)
    node.directory.mode = "down"
    [outcome] = house.give(node, ANN)
    assert outcome.refused is None
    with pytest.raises(MailRefused):
        house.give(node, BOB)


# --- the spool


async def _counted(call: object, *arguments: object) -> object:
    return call(*arguments)  # type: ignore[operator]


def test_a_spool_reads_again_what_was_written_with_little_in_memory(tmp_path: Path) -> None:
    spool = SpoolFolder(tmp_path / "spool", _counted).begin()
    chunk = bytes(range(256)) * 256

    async def use() -> None:
        for _ in range(40):
            await spool.write(chunk)
            assert sum(map(len, spool._chunks)) <= MEMORY_BYTES + len(chunk)
        for _ in range(2):
            assert b"".join([piece async for piece in spool.chunks()]) == chunk * 40
        await spool.write(b"end")
        assert b"".join([piece async for piece in spool.chunks()]) == chunk * 40 + b"end"

    run(use())
    assert list((tmp_path / "spool").iterdir()) == [], "its file has no name"
    spool.close()


def test_small_messages_touch_no_disk(tmp_path: Path) -> None:
    spool = SpoolFolder(tmp_path / "spool", _counted).begin()
    run(spool.write(b"x" * MEMORY_BYTES))
    assert not (tmp_path / "spool").exists()


def test_a_spool_without_a_disk_leaves_the_straight_way(house: QueueHouse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    house.folder = tmp_path / "file"
    [outcome] = house.give(Node(house), ANN, message=LARGE)
    assert outcome.refused is None and len(house.mailbox(ANN)) == 1


# --- items


def test_items_of_a_later_version_are_left_to_those_who_know_it() -> None:
    with pytest.raises(NewerVersion):
        inbound_of(QueueItem(DeliveryId.new(), "inbound", b"\x81\xa7version\x02", None))
    with pytest.raises(Corrupt):
        inbound_of(QueueItem(DeliveryId.new(), "inbound", b"\x81\xa7version\x01", None))
    with pytest.raises(Corrupt):
        inbound_of(QueueItem(DeliveryId.new(), "inbound", b"\xff", None))


def test_an_alias_of_two_has_an_item_for_each(house: QueueHouse) -> None:
    from twisted_mail.storage.interfaces import Alias

    run(house.engine.directory.add_alias(Alias("both@example.org", (ANN, BOB))))
    node = Node(house, straight=False)
    [outcome] = house.give(node, "both@example.org")
    assert outcome.refused is None
    assert [status.state for status in house.items()] == [ItemState.DUE] * 2
    node.worker.start()
    house.go_on(2)
    assert len(house.mailbox(ANN)) == len(house.mailbox(BOB)) == 1
