"""What a node holds in memory, and what it asks the log to take at once, has bounds in octets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.account.house import House, now
from tests.account.simulation import Shared
from tests.account.test_intents import add, message, uids
from tests.account.test_machine import Node
from tests.account.test_rules import ask, finish
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import AddedMessage
from twisted_mail.account.errors import LimitReached
from twisted_mail.account.footprint import octets_of_state
from twisted_mail.account.intents import AddMessages
from twisted_mail.account.service import AccountSettings
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.storage.interfaces import NewEntry
from twisted_mail.values import AccountId, MailboxId

# --- in memory


def test_a_states_octets_are_estimated_by_its_columns() -> None:
    empty, full = AccountState(), AccountState()
    columns = Columns()
    columns.add(1, tuple(AddedMessage(os.urandom(16), 0, 1, 1, 0, 1, ("\\Seen",)) for _ in range(10_000)), 1, 1)
    full.mailboxes[MailboxId.new()] = Mailbox(MailboxId.new(), "INBOX", 1, (), 1, columns)
    assert octets_of_state(empty) < 10_000
    # 4 + 8 + 8 + 8 + 2 + 8 + 4 + 4 + 16 octets a message
    assert 620_000 < octets_of_state(full) < 800_000


def test_idle_accounts_are_let_go_by_what_they_take() -> None:
    house = House(AccountSettings(cache_bytes=1_000_000))
    service: Any = house.service
    ids: list[AccountId] = []
    for _ in range(6):
        account = house.open()
        ids.append(account.id)
        add(account, *(message() for _ in range(5_000)))
        house.service.release(account)
    assert list(service._idle) == ids[-2:], "two of some 370 kB each"
    assert service._idle_bytes == sum(service._idle.values()) <= 1_000_000
    assert uids(house.open(ids[0])) == list(range(1, 5_001))
    house.service.forget(ids[-1])
    assert list(service._idle) == ids[-2:-1]
    now(house.service.stop())
    assert service._idle_bytes == 0


def test_who_comes_back_is_not_counted_as_idle() -> None:
    house = House()
    service: Any = house.service
    account = house.open()
    for _ in range(3):
        house.service.release(account)
        assert service._idle_bytes == octets_of_state(account.state)
        assert house.open(account.id) is account
        assert service._idle_bytes == 0


# --- in one append


class Bounded(Shared):
    """Remembers how large appends were."""

    def append(self, expected: int, new: Sequence[NewEntry]) -> None:
        super().append(expected, new)
        self.octets.append(sum(len(entry.data) + 64 for entry in new))

    def __init__(self) -> None:
        super().__init__()
        self.octets: list[int] = []


def bounded(append: int, entry: int) -> tuple[Node, Bounded]:
    shared = Bounded()
    node = Node(shared, Clock(), every=10_000)
    node.service.max_append_bytes, node.service.max_entry_bytes = append, entry
    finish(node)
    ask(node, CreateMailbox.of("INBOX", 1))
    finish(node)
    return node, shared


def test_a_group_ends_before_it_is_more_than_the_log_takes() -> None:
    node, shared = bounded(1000, 1000)
    inbox = node.account.state.inbox.id
    ended = [ask(node, AddMessages(mailbox=inbox, messages=(message(),))) for _ in range(30)]
    assert finish(node) < 30
    assert [end[0].uids[0] for end in ended] == list(range(1, 31)), "in their order"
    assert max(shared.octets) <= 1000
    assert len(shared.octets) <= 2 + 30 // (1000 // 220)


def test_a_conflict_between_the_parts_of_a_group_changes_nothing() -> None:
    node, shared = bounded(700, 1000)
    inbox = node.account.state.inbox.id
    other = Node(shared, Clock(), by_hand=False)
    ended = [ask(node, AddMessages(mailbox=inbox, messages=(message(),))) for _ in range(12)]
    while node.log.steps:
        step = node.log.steps[0]
        if step.name == "append" and shared.head in (3, 6):
            ask(other, AddMessages(mailbox=inbox, messages=(message(),)))
        step.go()
        node.service.clock.advance(1)
    for _ in range(20):
        finish(node)
        node.service.clock.advance(1)
    told = [end[0].uids[0] for end in ended]
    assert len(set(told)) == 12
    assert told == sorted(told)
    assert node.account.state.inbox.messages == shared.head - 1


def test_one_entry_may_have_more_than_a_group_and_less_than_what_no_log_takes() -> None:
    node, shared = bounded(500, 5000)
    inbox = node.account.state.inbox.id
    many = ask(node, AddMessages(mailbox=inbox, messages=tuple(message() for _ in range(40))))
    too_many = ask(node, AddMessages(mailbox=inbox, messages=tuple(message() for _ in range(400))))
    after = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    finish(node)
    assert many[0].uids == range(1, 41)
    assert isinstance(too_many[0].value, LimitReached)
    assert after[0].uids == range(41, 42)
    assert 500 < max(shared.octets) < 5000


def test_the_bounds_are_the_logs_own() -> None:
    house = House()
    assert house.service.max_append_bytes is None
    log: Any = house.engine.account_log

    class Says:
        max_append_bytes = 300
        max_entry_bytes = 400

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    service = house.node(log=Says())
    assert (service.max_append_bytes, service.max_entry_bytes) == (300, 400)
    with pytest.raises(LimitReached):  # the default mailboxes are more than that in one entry
        now(service.open(AccountId.new()))
