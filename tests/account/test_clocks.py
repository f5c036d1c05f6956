"""Nodes whose clocks are ten minutes apart do no harm: retention, deliveries by day, the checkpoint's pointer."""

from __future__ import annotations

import random
from typing import Any

from tests.account.house import START, House, now
from tests.account.model import Model, assert_same
from tests.account.test_intents import add, create, message, uids
from tests.account.test_rules import log_of
from twisted_mail.account.checkpoint import DELIVERED_DAYS
from twisted_mail.account.entries import decode_entry
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Trimmed
from twisted_mail.values import AccountId, DeliveryId, ModSeq

APART = 300.0
RETENTION = 3_000.0


class Nodes(House):
    """Nodes whose clocks are five minutes ahead and five behind, and one that is right."""

    def __init__(self, retention: float = RETENTION) -> None:
        super().__init__(AccountSettings(checkpoint_entries=4, retention_seconds=retention))
        self.nodes = [self.at(skew) for skew in (APART, -APART, 0.0)]
        self.accounts: list[Account] = []

    def at(self, skew: float) -> AccountService:
        service = self.node()
        service.wall = lambda: START + self.clock.seconds() + skew
        return service

    def everywhere(self) -> AccountId:
        account = self.open(service=self.nodes[2])
        self.accounts = [self.open(account.id, service) for service in self.nodes[:2]] + [account]
        return account.id


def first_kept(house: House, id: AccountId, at: int = 1) -> int:
    """The number of the oldest entry that is in the log, which is *at* or above."""
    log = house.engine.account_log
    at -= 1
    while True:
        try:
            now(log.read(id, ModSeq(at), 1))
        except Trimmed:
            at += 1
        else:
            return at + 1


def test_the_pointer_only_ascends_and_every_state_is_read_again_as_it_was() -> None:
    house = Nodes()
    id = house.everywhere()
    chance = random.Random(1)
    model = Model()
    seen = pointer = 0
    for _ in range(300):
        house.clock.advance(chance.choice((1.0, 30.0, 200.0)))
        add(chance.choice(house.accounts), message(flags=chance.choice(((), ("\\Seen",)))))
        for logged in now(house.engine.account_log.read(id, ModSeq(seen))):
            model.apply(decode_entry(logged.data))
            seen = logged.modseq
        checkpoint = now(house.engine.account_log.load_checkpoint(id, ()))
        if checkpoint is not None:
            assert checkpoint.modseq >= pointer
            pointer = checkpoint.modseq
    assert pointer > 250
    for service in [house.at(APART), house.at(-APART)]:
        account = house.open(id, service)
        assert uids(account) == list(range(1, 301))
        assert_same(account.state, model.shape())


def test_what_is_kept_of_the_log_is_wrong_by_no_more_than_the_clocks() -> None:
    house = Nodes()
    id = house.everywhere()
    made: dict[int, float] = {}
    chance = random.Random(2)
    trimmed, first = 0, 1
    for _ in range(400):
        house.clock.advance(60.0)
        account = chance.choice(house.accounts)
        made[add(account, message()).modseq] = house.clock.seconds()
        first = first_kept(house, id, first)
        gone = [at for modseq, at in made.items() if modseq < first]
        trimmed = max(trimmed, len(gone))
        if gone:
            assert house.clock.seconds() - max(gone) >= RETENTION - 2 * APART
    assert trimmed > 100
    # one checkpoint an hour is remembered, so as much is kept beyond
    assert house.clock.seconds() - made[first_kept(house, id)] <= RETENTION + 2 * APART + 2 * 3_600


def test_a_delivery_is_known_again_by_every_node_for_as_long_as_a_queue_keeps_it() -> None:
    house = Nodes()
    id = house.everywhere()
    house.clock.advance(86_400 - START % 86_400 - 60)  # a minute before midnight: for one node it is tomorrow
    ids = [DeliveryId.new().octets for _ in house.accounts]
    for account, delivery in zip(house.accounts, ids, strict=True):
        assert len(add(account, message(), delivery=delivery).uids) == 1
    for day in range(DELIVERED_DAYS):
        for account in house.accounts:
            for _ in range(5):
                add(account, message())
        for account in (*house.accounts, house.open(id, house.at(APART)), house.open(id, house.at(-APART))):
            for delivery in ids:
                assert not add(account, message(), delivery=delivery, repeated=True).uids, f"day {day}"
        house.clock.advance(86_400 - 600)


def test_uidvalidities_ascend_whatever_the_clocks_say() -> None:
    house = Nodes()
    house.everywhere()
    for at in range(9):
        create(house.accounts[at % 3], f"box{at}")
    validities: list[Any] = [
        change.uid_validity
        for logged in log_of(house, house.accounts[0])
        for change in decode_entry(logged.data).changes
        if hasattr(change, "uid_validity")
    ]
    assert validities == sorted(set(validities))
