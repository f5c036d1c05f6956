"""While the store has no quorum: reads from any copy, changes refused soon or settled without limit, and the way back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.account.house import House, now
from tests.account.test_intents import add, message, uids
from tests.account.test_rules import a_node, ask, finish
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import AddMessages
from twisted_mail.account.service import AccountSettings
from twisted_mail.storage.interfaces import Checkpoint, LogEntry, Refused, Unavailable
from twisted_mail.values import AccountId, ModSeq

EAGER = AccountSettings(checkpoint_entries=4, idle_accounts=0)


class Degradable:
    """Implements `AccountLog` and `DegradedReads` over a memory log: `behind` is the copy that answers without a quorum."""

    def __init__(self) -> None:
        self.log: Any = House().engine.account_log
        self.lost = False
        self.copy: tuple[int, Checkpoint | None, list[LogEntry]] | None = None
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        if not self.lost:
            return getattr(self.log, name)

        async def fails(*arguments: Any) -> Any:
            self.refused += 1
            raise Refused("no quorum") if name == "append" else Unavailable("no quorum")

        return fails

    def keep(self, account: AccountId) -> None:
        """From here on the copy is behind."""
        trimmed = self.log._account(account).trimmed
        self.copy = (trimmed, now(self.log.load_checkpoint(account, None)), list(now(self.log.read(account, trimmed))))

    async def load_checkpoint_stale(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        if self.copy is None:
            found: Checkpoint | None = await self.log.load_checkpoint(account, chunks)
            return found
        whole = self.copy[1]
        if whole is None or chunks is None:
            return whole
        wanted = {name: whole.chunks[name] for name in chunks if name in whole.chunks}
        return Checkpoint(whole.modseq, whole.manifest, wanted)

    async def read_stale(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        if self.copy is None:
            found: Sequence[LogEntry] = await self.log.read(account, after, limit)
            return found
        return [entry for entry in self.copy[2] if entry.modseq > after][:limit]


def degradable(messages: int = 6) -> tuple[House, Degradable, AccountId]:
    log = Degradable()
    house = House(EAGER, log=log)
    account = house.open()
    for _ in range(messages):
        add(account, message())
    return house, log, account.id


# --- reading


def test_an_account_is_opened_and_looked_into_without_a_quorum() -> None:
    house, log, id = degradable()
    log.lost = True
    account = house.open(id, house.node())
    assert account.stale  # type: ignore[attr-defined]  # the one kind of account there is has it
    assert uids(account) == list(range(1, 7))
    with pytest.raises(AccountUnavailable):
        now(account.refresh())
    log.lost = False
    now(account.refresh())
    assert not account.stale  # type: ignore[attr-defined]  # as above
    assert add(account, message()).uids == range(7, 8)


def test_a_copy_that_is_behind_is_a_beginning_of_the_log_and_is_read_on_from_when_the_quorum_is_back() -> None:
    house, log, id = degradable()
    log.keep(id)
    other = house.open(id)
    for _ in range(3):
        add(other, message())
    log.lost = True
    account = house.open(id, house.node())
    assert uids(account) == list(range(1, 7))
    log.copy = None  # another copy answers, which has more
    with pytest.raises(AccountUnavailable):
        now(account.refresh())
    assert uids(account) == list(range(1, 10)), "the newest state that can be read"
    log.lost = False
    now(account.refresh())
    assert uids(account) == list(range(1, 10))


def test_nobody_is_shown_less_than_before() -> None:
    house, log, id = degradable()
    log.keep(id)
    account = house.open(id)
    add(account, message())
    house.service.release(account)
    house.service.release(account)
    assert house.service._open == {}
    log.lost = True
    opening: list[Any] = []
    Deferred.fromCoroutine(house.service.open(id)).addBoth(opening.append)
    assert isinstance(opening[0].value, AccountUnavailable)
    log.lost = False
    assert uids(house.open(id)) == list(range(1, 8))


def test_a_state_in_memory_is_not_put_back_by_an_older_copy() -> None:
    house, log, id = degradable()
    log.keep(id)
    account = house.open(id)
    add(account, message())
    log.lost = True
    with pytest.raises(AccountUnavailable):
        now(account.refresh())
    assert uids(account) == list(range(1, 8))


def test_columns_of_another_checkpoint_than_the_states_are_not_taken() -> None:
    house, log, id = degradable(2)
    log.keep(id)
    other = house.open(id)
    for _ in range(6):
        add(other, message())
    account = house.open(id, house.node())
    log.lost = True
    with pytest.raises(AccountUnavailable):
        now(account.columns(account.state.inbox))
    log.copy = None
    assert uids(account) == list(range(1, 9))


def test_what_has_no_copy_that_answers_is_unavailable() -> None:
    house = House(EAGER)
    account = house.open()

    class Down:
        def __getattr__(self, name: str) -> Any:
            async def fails(*arguments: Any) -> Any:
                raise Unavailable("down")

            return fails

    for able in (True, False):
        service = house.node(log=Down())
        if not able:
            service.degraded = None
        opening: list[Any] = []
        Deferred.fromCoroutine(service.open(account.id)).addBoth(opening.append)
        assert isinstance(opening[0].value, AccountUnavailable)


# --- changing


def test_changes_are_refused_at_once_where_the_store_says_that_it_cannot() -> None:
    house, log, id = degradable()
    log.lost = True
    account = house.open(id)
    with pytest.raises(AccountUnavailable):
        add(account, message())
    log.lost = False
    assert len(add(account, message()).uids) == 1, "it recovers by itself"


def test_what_waits_behind_an_unsettled_change_is_refused_within_five_seconds_and_the_change_is_settled() -> None:
    node = a_node()
    clock: Any = node.service.clock
    inbox = node.account.state.inbox.id
    proposed = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    behind = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    node.log.steps[0].go("hidden")
    for _ in range(52):
        clock.advance(0.1)
        while node.log.steps:
            node.log.steps[0].go("lost")  # the settling reads fail
    assert isinstance(behind[0].value, AccountUnavailable)
    assert not proposed
    started = clock.seconds()
    reading = [Deferred.fromCoroutine(node.account.refresh()) for _ in range(2)]
    failed: list[Any] = []
    for each in reading:
        each.addErrback(failed.append)
    assert [type(each.value) for each in failed] == [AccountUnavailable] * 2, "readers do not wait for it"
    assert clock.seconds() == started
    for _ in range(400):
        clock.advance(0.1)
        while node.log.steps:
            node.log.steps[0].go("lost")
    assert isinstance(proposed[0].value, OutcomeUnknown)
    for _ in range(40):
        clock.advance(0.1)
        finish(node)
    assert node.account.state.inbox.messages == 1, "settled without limit"
    added = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    finish(node)
    assert added[0].uids == range(2, 3)


def test_who_began_to_read_while_a_change_was_under_way_waits_a_while_only() -> None:
    node = a_node()
    clock: Any = node.service.clock
    ask(node, AddMessages(mailbox=node.account.state.inbox.id, messages=(message(),)))
    ended: list[Any] = []
    Deferred.fromCoroutine(node.account.refresh()).addBoth(ended.append)
    clock.advance(3.9)
    assert not ended
    clock.advance(0.2)
    assert isinstance(ended[0].value, AccountUnavailable)
    finish(node)
    reached: list[Any] = []
    Deferred.fromCoroutine(node.account.refresh()).addBoth(reached.append)
    finish(node)
    assert reached == [node.account.state.modseq]


def test_a_long_queue_that_moves_is_not_sent_away() -> None:
    node = a_node()
    clock: Any = node.service.clock
    inbox = node.account.state.inbox.id
    box = [ask(node, AddMessages(mailbox=inbox, messages=(message(),), delivery=b"d" * 16)) for _ in range(4)]
    for _ in range(4):  # the same id: one after the other
        clock.advance(2.5)
        node.log.steps[0].go()
    finish(node)
    assert [len(ended[0].uids) for ended in box] == [1, 0, 0, 0]
