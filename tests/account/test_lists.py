"""The read and unread lists follow the account, whoever finds them behind (rule 8)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tests.account.house import House, now, put
from twisted_mail.account import columns as columns_module
from twisted_mail.account import lists as lists_module
from twisted_mail.account.buckets import buckets_of
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import AddMessages, ChangeFlags, CopyMessages, Expunge, new_message
from twisted_mail.account.lists import MessageLists
from twisted_mail.account.service import AccountSettings
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import ListName, Unavailable


def deliver(house: House, account: Account, number: int) -> None:
    stored = put(house, account, b"From: A%d <a@x>\r\nSubject: s%d\r\n\r\nbody %d\r\n" % (number, number, number))
    message = new_message(stored, 1000 + number)
    now(account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(message,))))


def flag(account: Account, uids: set[int], mode: Any, name: str = "\\Seen") -> None:
    now(
        account.commit(
            ChangeFlags(mailbox=account.state.inbox.id, uids=pack_uids(BitMap(uids)), mode=mode, flags=(name,))
        )
    )


def shown(lists: MessageLists, account: Account, name: ListName, mailbox: str = "INBOX") -> list[tuple[int, str]]:
    rows = now(lists.page(account, name, account.state.mailbox(mailbox).id, None, 1000))
    return [(row.uid, row.subject) for row in rows]


def wanted(account: Account, seen: bool, mailbox: str = "INBOX") -> list[int]:
    columns = now(account.columns(account.state.mailbox(mailbox)))
    marked = columns.with_flag("\\Seen")
    return [
        uid
        for _, uid in sorted(
            ((columns.received[slot], uid) for uid, slot in columns.iterate() if (slot in marked) == seen), reverse=True
        )
    ]


def test_a_message_is_in_the_list_that_it_belongs_to() -> None:
    house = House()
    account, lists = house.open(), MessageLists(house.engine.lists)
    for number in range(1, 4):
        deliver(house, account, number)
    assert shown(lists, account, "unread") == [(3, "s3"), (2, "s2"), (1, "s1")]
    flag(account, {2}, "add")
    assert shown(lists, account, "unread") == [(3, "s3"), (1, "s1")]
    assert shown(lists, account, "read") == [(2, "s2")]
    (row,) = now(lists.page(account, "read", account.state.inbox.id, None, 9))
    assert (row.preview, row.flags, row.received) == ("body 2", ("\\Seen",), 1_002_000)
    assert "A2" in row.sender
    page = now(lists.page(account, "unread", account.state.inbox.id, (1_003_000, 3), 9))
    assert [row.uid for row in page] == [1]


@pytest.mark.parametrize("rebuild", [False, True])
def test_lines_are_not_missed_when_the_columns_are_compacted_in_between(monkeypatch: Any, rebuild: bool) -> None:
    monkeypatch.setattr(lists_module, "_BATCH", 2)
    house = House()
    account, lists = house.open(), MessageLists(house.engine.lists)
    for number in range(1, 6):
        deliver(house, account, number)
    rows = account.rows

    def compacting(*arguments: Any) -> Any:
        account.rows = rows  # type: ignore[method-assign]
        columns = account.state.inbox.columns
        assert columns is not None
        columns.generation += 1
        return rows(*arguments)

    account.rows = compacting  # type: ignore[method-assign, assignment]
    if rebuild:
        now(lists.rebuild(account))
    assert [uid for uid, _ in shown(lists, account, "unread")] == [5, 4, 3, 2, 1]


def test_lines_are_not_missed_when_bringing_up_to_date_is_cut_off(monkeypatch: Any) -> None:
    monkeypatch.setattr(lists_module, "_BATCH", 2)
    house = House()
    account, store = house.open(), house.engine.lists
    for number in range(1, 6):
        deliver(house, account, number)
    apply, calls = store.apply, []

    async def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise Unavailable("down")
        await apply(*arguments)

    monkeypatch.setattr(store, "apply", failing)
    lists = MessageLists(store)
    with pytest.raises(Unavailable):
        shown(lists, account, "unread")
    assert [uid for uid, _ in shown(lists, account, "unread")] == [5, 4, 3, 2, 1]


def test_lists_are_rebuilt_when_the_vanished_were_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(columns_module, "VANISHED_LENGTH", 10)
    house = House()
    account, lists = house.open(), MessageLists(house.engine.lists)
    for number in range(1, 31):
        deliver(house, account, number)
    assert len(shown(lists, account, "unread")) == 30
    for uid in range(1, 29):
        intent = Expunge(mailbox=account.state.inbox.id, uids=pack_uids(BitMap([uid])), only_deleted=False)
        now(account.commit(intent))
    assert [uid for uid, _ in shown(lists, account, "unread")] == [30, 29]
    assert [period.bucket for period in buckets_of(account.state).periods] == [1]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "see", "unsee", "star", "expunge", "move", "look", "other looks"]),
        st.sets(st.integers(1, 8), min_size=1, max_size=4),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_however_late_and_by_whichever_node_they_are_brought_up_to_date(steps: list[tuple[str, set[int]]]) -> None:
    house = House(AccountSettings(checkpoint_entries=3))
    account, lists = house.open(), MessageLists(house.engine.lists)
    other = house.open(account.id, house.node())
    for number, (step, uids) in enumerate(steps):
        chosen = pack_uids(BitMap(uids))
        inbox, trash = account.state.inbox.id, account.state.mailbox("Trash").id
        if step == "deliver":
            deliver(house, account, number)
        elif step in ("see", "unsee"):
            flag(account, uids, "add" if step == "see" else "remove")
        elif step == "star":
            flag(account, uids, "add", "\\Flagged")
        elif step == "expunge":
            now(account.commit(Expunge(mailbox=inbox, uids=chosen, only_deleted=False)))
        elif step == "move":
            now(account.commit(CopyMessages(mailbox=inbox, uids=chosen, target=trash, move=True)))
        elif step == "look":
            now(lists.bring_up_to_date(account))
        else:
            now(lists.bring_up_to_date(other))  # which may be behind
    names: tuple[ListName, ListName] = ("read", "unread")
    for mailbox in ("INBOX", "Trash"):
        for name in names:
            found = [uid for uid, _ in shown(lists, account, name, mailbox)]
            assert found == wanted(account, name == "read", mailbox)
