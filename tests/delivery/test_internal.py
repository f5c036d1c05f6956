"""Mail of the server's own, addresses that nobody has a mailbox for, and deliveries that are put off."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.delivery.queue_house import ANN, BOB, Node, QueueHouse
from tests.delivery.support import PEER, run
from twisted_mail.delivery import DeliverySettings, MailIntake
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.services import Envelope, Identity, MailRefused, Refusal
from twisted_mail.storage.interfaces import Alias, ItemState, QueueFilter, Unavailable
from twisted_mail.values import AccountId, DeliveryId

REPORT = b"From: mailer-daemon@mx.example.org\r\nSubject: It failed\r\n\r\nsorry\r\n"


@dataclass
class Door:
    """What left."""

    left: dict[DeliveryId, tuple[str, bytes, str]] = field(default_factory=dict)

    async def submit(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "", sender: str = ""
    ) -> None:
        self.left[cause.caused(action)] = (recipient, octets, stream)


@dataclass
class Programs:
    """Addresses that the server reads itself, or that lead back to somebody. Implements `Returns`."""

    read: list[tuple[str, str, bytes]] = field(default_factory=list)
    broken: bool = False

    def ours(self, address: str) -> bool:
        return address.startswith(("b+", "srs0="))

    def bounces_only(self, address: str) -> bool:
        return address.startswith("srs0=")

    async def leads_to(self, address: str) -> str | None:
        if address.startswith("b+"):
            return None
        local = address.partition("@")[0].removeprefix("srs0=")
        if not local:
            raise MailRefused(Refusal.NO_SUCH_RECIPIENT)
        return local.replace("=", "@")

    async def take(self, address: str, sender: str, octets: bytes) -> None:
        if self.broken:
            raise Unavailable("no answer")
        self.read.append((address, sender, octets))


@pytest.fixture
def house(tmp_path: Path) -> QueueHouse:
    return QueueHouse(tmp_path)


def test_a_bounce_comes_to_its_user_once_however_often_it_is_caused(house: QueueHouse) -> None:
    node, cause = Node(house), DeliveryId.new()
    internal = InternalMail(node.intake, node.inbound, None, house.wall)
    run(internal.submit(cause, "bounce", ANN, REPORT))
    run(internal.submit(cause, "bounce", ANN, REPORT))
    node.worker.start()
    house.go_on(1)
    assert house.mailbox(ANN) == [b"Return-Path: <>\r\n" + REPORT]
    run(internal.submit(cause, "bounce", ANN, REPORT))
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 1, "also after it was delivered"
    run(internal.submit(cause, "delayed", ANN, REPORT))
    house.go_on(1)
    assert len(house.mailbox(ANN)) == 2
    assert (house.items(), house.holders()) == ([], [])


def test_what_is_for_others_leaves_by_the_stream_of_its_cause(house: QueueHouse) -> None:
    run(house.engine.directory.add_alias(Alias("both@example.org", (BOB, "eve@elsewhere.example"))))
    node, door, cause = Node(house), Door(), DeliveryId.new()
    internal = InternalMail(node.intake, node.inbound, door, house.wall)
    for _ in range(2):
        run(internal.submit(cause, "bounce", "both@example.org", REPORT, stream="marketing"))
    node.worker.start()
    house.go_on(1)
    assert len(house.mailbox(BOB)) == 1
    assert list(door.left.values()) == [("eve@elsewhere.example", REPORT, "marketing")]


def test_who_does_not_exist_is_told_nothing_and_a_store_that_is_down_is_waited_for(house: QueueHouse) -> None:
    node = Node(house)
    internal = InternalMail(node.intake, node.inbound, None, house.wall)
    run(internal.submit(DeliveryId.new(), "bounce", "nobody@example.org", REPORT))
    run(internal.submit(DeliveryId.new(), "bounce", "eve@elsewhere.example", REPORT))
    assert house.items() == []
    node.queue.mode = "full"
    with pytest.raises(MailRefused):
        run(internal.submit(DeliveryId.new(), "bounce", ANN, REPORT))
    assert (house.items(), house.holders()) == ([], [])


def with_programs(house: QueueHouse, programs: Programs) -> Node:
    node = Node(house)
    node.intake = MailIntake(
        node.directory,
        node.ways,
        DeliverySettings(hostname="mx.example.org"),
        wall=house.wall,
        returns=programs,
    )
    return node


def test_the_server_reads_what_comes_to_its_own_addresses(house: QueueHouse) -> None:
    programs = Programs()
    node = with_programs(house, programs)
    outcomes = house.give(node, "b+abc@example.org", ANN, message=REPORT)
    assert [outcome.refused for outcome in outcomes] == [None, None]
    [(address, sender, octets)] = programs.read
    assert (address, sender) == ("b+abc@example.org", "a@b.example")
    assert octets == REPORT
    assert len(house.mailbox(ANN)) == 1
    programs.broken = True
    [outcome] = house.give(node, "b+abc@example.org", message=REPORT)
    assert outcome.refused is not None and outcome.refused.temporary


@pytest.mark.parametrize(("sender", "taken"), [("", True), ("a@b.example", False), (ANN, False)])
def test_a_rewritten_sender_takes_bounces_and_is_no_relay(house: QueueHouse, sender: str, taken: bool) -> None:
    """Whoever forges a sender to a forward of ours gets an address here that leads to it."""
    node = with_programs(house, Programs())

    async def begin() -> None:
        recipients = tuple([await node.intake.recipient(each, identity=None) for each in (BOB, f"srs0={ANN.replace('@', '=')}@x")])
        await (await node.intake.begin(Envelope(sender, recipients, PEER, "client.example", "ESMTP"))).abort()

    if taken:
        run(begin())
    else:
        with pytest.raises(MailRefused) as refused:
            run(begin())
        assert refused.value.reason is Refusal.RELAY_DENIED


def test_no_more_than_a_megabyte_is_read(house: QueueHouse) -> None:
    programs = Programs()
    node = with_programs(house, programs)
    house.give(node, "b+abc@example.org", message=REPORT + b"x" * 76 * (1 << 15))
    assert len(programs.read[0][2]) == 1 << 20


def test_a_rewritten_sender_leads_back_to_whom_it_was_made_of(house: QueueHouse) -> None:
    node = with_programs(house, Programs())
    [outcome] = house.give(node, "srs0=ann=example.org@example.org", sender="")
    assert outcome.refused is None and len(house.mailbox(ANN)) == 1
    with pytest.raises(MailRefused):
        house.give(node, "srs0=@example.org", sender="")


def test_a_submission_to_ones_own_server_is_held_as_long_as_was_asked_for(house: QueueHouse) -> None:
    node = Node(house)
    node.worker.start()

    async def submit() -> None:
        me = Identity(AccountId(bytes(16)), BOB)
        recipient = await node.intake.recipient(ANN, identity=me)
        envelope = Envelope(BOB, (recipient,), PEER, identity=me, hold_until=house.wall() + 600)
        incoming = await node.intake.begin(envelope)
        await incoming.write(b"Subject: later\r\n\r\n")
        [outcome] = await incoming.finish()
        assert outcome.refused is None

    run(submit())
    house.go_on(590)
    assert house.mailbox(ANN) == []
    [status] = run(house.engine.queue.list(QueueFilter(use="inbound")))
    assert status.state is ItemState.WAITING
    house.go_on(15)
    assert len(house.mailbox(ANN)) == 1
