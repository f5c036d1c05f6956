"""Buckets of the lists: split, renewed and dropped, so that no read meets many tombstones, whatever users do.

Over a store that counts what a store with tombstones would have to read through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from twisted.internet.defer import Deferred

from tests.account.house import House, now, put
from twisted_mail.account import columns as columns_module
from twisted_mail.account import lists as lists_module
from twisted_mail.account.apply import apply
from twisted_mail.account.buckets import LOWEST, Buckets, Period, buckets_of, every_bucket
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import Entry, pack_uids
from twisted_mail.account.intents import (
    AddMessages,
    ChangeFlags,
    CopyMessages,
    Expunge,
    Intent,
    NewMessage,
    new_message,
)
from twisted_mail.account.lists import (
    GARBAGE_SECONDS,
    MAKING_SECONDS,
    RUN_SECONDS,
    MessageLists,
    read_page,
)
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.account.tree import CreateMailbox, Initialise, NewMailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import ListDelete, ListName, ListPut, ListRow, Unavailable
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq

NAMES: tuple[ListName, ListName] = ("read", "unread")
DAY = 86_400


class CountingLists:
    """Implements `Lists` as a store with tombstones does; a dropped bucket swallows what comes later."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[ListName, int, MailboxId], dict[tuple[int, int], tuple[int, ListRow | None]]] = {}
        self.marks: dict[int, int] = {}
        self.dropped: set[int] = set()
        self.puts = self.deletes = self.pages = 0
        self.most_tombstones = self.most_rows = 0
        self._sorted: dict[tuple[ListName, int, MailboxId], list[tuple[int, int]]] = {}

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        self.pages += 1
        partition = self.partitions.get((name, bucket, folder), {})
        order = self._sorted.get((name, bucket, folder))
        if order is None:
            order = self._sorted[name, bucket, folder] = sorted(partition, reverse=True)
        found: list[ListRow] = []
        tombstones = 0
        for place in order:
            if before is None or place < before:
                row = partition[place][1]
                if row is None:
                    tombstones += 1
                else:
                    found.append(row)
                    if len(found) == limit:
                        break
        self.most_tombstones = max(self.most_tombstones, tombstones)
        return found

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        for change in changes:
            if change.bucket in self.dropped:
                continue
            at, row = (change.row, change.row) if isinstance(change, ListPut) else (change, None)
            self.puts += row is not None
            self.deletes += row is None
            key = (change.name, change.bucket, at.folder)
            partition = self.partitions.setdefault(key, {})
            place = (at.received, at.uid)
            if place not in partition:
                self._sorted.pop(key, None)
            standing = partition.get(place)
            if standing is None or standing[0] < modseq or (standing[0] == modseq and standing[1] is not None):
                partition[place] = (modseq, row)

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        return ModSeq(self.marks.get(bucket, 0))

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        self.marks[bucket] = max(modseq, self.marks.get(bucket, 0))

    async def drop(self, account: AccountId, bucket: int) -> None:
        self.dropped.add(bucket)
        self.marks.pop(bucket, None)
        for key in [key for key in self.partitions if key[1] == bucket]:
            del self.partitions[key]
            self._sorted.pop(key, None)

    def rows_of(self, name: ListName, bucket: int) -> int:
        """Rows, deleted ones included, of one partition."""
        return sum(len(rows) for key, rows in self.partitions.items() if key[:2] == (name, bucket))


class Bare:
    """An account without a log: what is committed is applied. As large and as fast as a test wants."""

    def __init__(self) -> None:
        self.id = AccountId.new()
        self.state = AccountState()
        inbox = (NewMailbox(name="INBOX"),)
        now(self.commit(Initialise(mailboxes=inbox, ids=(MailboxId.new(),), uid_validity=1)))

    async def commit(self, intent: Intent[Any]) -> Any:
        plan = intent.run(self.state)
        applied = None
        if plan.changes:
            applied = apply(self.state, ModSeq(self.state.modseq + 1), Entry(0, intent.cause, plan.changes))
        return intent.result(self.state, plan, applied)

    async def columns(self, mailbox: Mailbox) -> Columns:
        assert mailbox.columns is not None
        return mailbox.columns

    async def rows(self, keys: Sequence[MessageKey], columns: Sequence[str]) -> AsyncIterator[list[None]]:
        yield [None] * len(keys)

    def deliver(self, received: Sequence[int], mailbox: str = "INBOX") -> None:
        messages = tuple(NewMessage(MessageId.new().octets, 0, 100, 0, when) for when in received)
        now(self.commit(AddMessages(mailbox=self.state.mailbox(mailbox).id, messages=messages)))

    def flag(self, uids: BitMap, mode: Any = "add") -> None:
        inbox = self.state.inbox.id
        now(self.commit(ChangeFlags(mailbox=inbox, uids=pack_uids(uids), mode=mode, flags=("\\Seen",))))

    def expunge(self, uids: BitMap) -> None:
        now(self.commit(Expunge(mailbox=self.state.inbox.id, uids=pack_uids(uids), only_deleted=False)))


class Scene:
    """A bare account, its lists in a counting store, and a clock."""

    def __init__(self) -> None:
        self.account: Any = Bare()  # all that `MessageLists` asks of an Account
        self.store = CountingLists()
        self.time = 1_700_000_000.0
        self.lists = MessageLists(self.store, lambda: self.time, lambda: self.time)

    def look(self, name: ListName = "unread", limit: int = 50) -> list[int]:
        rows = now(self.lists.page(self.account, name, self.account.state.inbox.id, None, limit))
        return [row.uid for row in rows]

    def check(self) -> None:
        """Both lists are right from end to end, and nothing was larger than it may be."""
        account, store = self.account, self.store
        buckets = now(self.lists.bring_up_to_date(account))
        for mailbox in account.state.mailboxes.values():
            columns = mailbox.columns
            seen = columns.with_flag("\\Seen")
            for name in NAMES:
                slots = columns.live & seen if name == "read" else columns.live - seen
                wanted = sorted(((columns.received[s] * 1000, columns.uids[s]) for s in slots), reverse=True)
                found: list[tuple[int, int]] = []
                while True:
                    before = found[-1] if found else None
                    page = now(read_page(store, account.id, buckets, name, mailbox.id, before, 1000))
                    found += [(row.received, row.uid) for row in page]
                    if len(page) < 1000:
                        break
                assert found == wanted
        for period in buckets.periods:
            for name in NAMES:
                assert store.rows_of(name, period.bucket) <= lists_module.PERIOD_ROWS + lists_module.RENEW_AT
        assert store.most_tombstones <= lists_module.RENEW_AT
        assert len(account.state.settings["lists.buckets"]) < 16_384


# --- what users do; all figures are a tenth of those in life, the limits too

TENTH = {
    "RENEW_AT": 100,
    "RENEW_ENTRIES": 5000,
    "PERIOD_ROWS": 5000,
    "SPLIT_NEWEST": 1000,
    "KEPT_NEWEST": 200,
    "MERGE_ROWS": 200,
}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name, value in TENTH.items():
        assert value * 10 == getattr(lists_module, name)
        monkeypatch.setattr(lists_module, name, value)
    monkeypatch.setattr(columns_module, "VANISHED_LENGTH", columns_module.VANISHED_LENGTH // 10)
    return Scene()


def test_many_are_marked_as_read_at_once(scene: Scene) -> None:
    for day in range(50):
        scene.account.deliver([day * DAY + second for second in range(100)])
    assert len(scene.look()) == 50
    scene.account.flag(BitMap(range(1, 5001)))
    assert scene.look() == []
    assert scene.look("read")[:2] == [5000, 4999]
    scene.check()
    assert scene.store.deletes == 0, "everything was written anew"
    assert scene.store.puts == 10_000


def test_an_inbox_is_emptied_daily_for_a_year(scene: Scene) -> None:
    for day in range(365):
        scene.time += DAY
        scene.account.deliver([day * DAY + second for second in range(3)])
        uids = range(day * 3 + 1, day * 3 + 4)
        assert scene.look() == list(reversed(uids))
        scene.account.flag(BitMap(uids[:2]))
        assert scene.look("read") == list(reversed(uids[:2]))
        scene.account.expunge(BitMap(uids))
        assert scene.look() == []
    scene.check()
    assert len(buckets_of(scene.account.state).periods) == 1
    assert len(scene.store.partitions) <= 6, "replaced partitions are dropped"
    assert scene.store.puts < 365 * 3 * 3


def test_flag_changes_of_one_message_without_end_do_not_wear_a_bucket_out(scene: Scene) -> None:
    scene.account.deliver(range(500))
    for turn in range(10_000):
        scene.account.flag(BitMap([250]), "remove" if turn % 2 else "add")
        if turn % 5 == 0:
            scene.look()
    scene.check()
    assert max(every_bucket(scene.account.state)) <= 4, "the number of entries alone makes it new now and then"


def test_many_of_one_date_are_imported_and_drained(scene: Scene) -> None:
    for part in range(200):
        scene.account.deliver([1_000_000] * 100)
        if part % 50 == 10:
            assert len(scene.look()) == 50
    scene.check()
    assert len(buckets_of(scene.account.state).periods) >= 4
    assert scene.store.puts <= 3 * 20_000
    for start in range(1, 20_001, 2000):
        scene.account.expunge(BitMap(range(start, start + 2000)))
        scene.look("unread", 10)
    assert scene.look() == []
    scene.check()
    assert len(buckets_of(scene.account.state).periods) <= 3, "emptied periods go together"


def test_mail_that_comes_one_by_one_is_written_a_few_times_only(scene: Scene) -> None:
    for number in range(3000):
        scene.account.deliver([number * 600])
        if number % 10 == 9:
            scene.look("unread", 10)
    scene.check()
    assert scene.store.puts < 10 * 3000
    assert scene.store.deletes == 0, "what is new was in no other list"


# --- crashes, and two nodes


SMALL: dict[str, Any] = {
    "RENEW_AT": 4,
    "PERIOD_ROWS": 5,
    "SPLIT_NEWEST": 6,
    "KEPT_NEWEST": 2,
    "MERGE_ROWS": 3,
    "_BATCH": 2,
}


@contextmanager
def small() -> Iterator[None]:
    """Buckets of a few lines."""
    with patch.multiple(lists_module, **SMALL):
        yield


def shown(lists: MessageLists, account: Account, name: ListName, mailbox: str) -> list[int]:
    box = account.state.mailbox(mailbox).id
    found: list[ListRow] = []
    while True:
        before = (found[-1].received, found[-1].uid) if found else None
        page = now(lists.page(account, name, box, before, 3))
        found += page
        if len(page) < 3:
            return [row.uid for row in found]


def wanted(account: Account, name: ListName, mailbox: str) -> list[int]:
    columns = now(account.columns(account.state.mailbox(mailbox)))
    seen = columns.with_flag("\\Seen")
    slots = columns.live & seen if name == "read" else columns.live - seen
    return [uid for _, uid in sorted(((columns.received[s], columns.uids[s]) for s in slots), reverse=True)]


def act(house: House, account: Account, step: str, uids: set[int]) -> None:
    chosen, inbox = pack_uids(BitMap(uids)), account.state.inbox.id
    if step == "deliver":
        for uid in sorted(uids):
            stored = put(house, account, b"Subject: s\r\n\r\nb\r\n")
            # some of one time, some in the past
            now(account.commit(AddMessages(mailbox=inbox, messages=(new_message(stored, 1000 + uid % 5),))))
    elif step in ("see", "unsee"):
        mode: Any = "add" if step == "see" else "remove"
        now(account.commit(ChangeFlags(mailbox=inbox, uids=chosen, mode=mode, flags=("\\Seen",))))
    elif step == "expunge":
        now(account.commit(Expunge(mailbox=inbox, uids=chosen, only_deleted=False)))
    elif step == "copy":
        target = account.state.mailbox("Trash").id
        now(account.commit(CopyMessages(mailbox=inbox, uids=chosen, target=target, move=False)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "deliver", "see", "unsee", "expunge", "copy", "look", "other", "crash", "hour"]),
        st.sets(st.integers(1, 20), min_size=1, max_size=8),
    ),
    max_size=20,
)


@given(STEPS)
@settings(max_examples=120, deadline=None)
def test_lists_are_right_whoever_follows_and_whoever_dies(steps: list[tuple[str, set[int]]]) -> None:
    house, store, time = House(), CountingLists(), [0.0]
    account = house.open()
    other = house.open(account.id, house.node())
    nodes = [MessageLists(store, lambda: time[0], lambda: time[0]) for _ in range(2)]
    with small():
        for step, uids in steps:
            if step == "look":
                now(nodes[0].bring_up_to_date(account))
            elif step == "other":
                now(nodes[1].bring_up_to_date(other))  # which may be behind
            elif step == "hour":
                time[0] += MAKING_SECONDS + 1
            elif step == "crash":
                left = [len(uids)]

                async def dies(*arguments: Any, left: list[int] = left) -> None:
                    left[0] -= 1
                    if left[0] < 0:
                        raise Unavailable("killed")
                    await CountingLists.apply(store, *arguments)

                with patch.object(store, "apply", dies):
                    try:
                        now(nodes[0].bring_up_to_date(account))
                    except Unavailable:
                        nodes[0] = MessageLists(store, lambda: time[0], lambda: time[0])
            else:
                act(house, account, step, uids)
        for lists, seen_by in ((nodes[0], account), (nodes[1], other)):
            now(seen_by.refresh())
            for mailbox in ("INBOX", "Trash"):
                for name in NAMES:
                    assert shown(lists, seen_by, name, mailbox) == wanted(account, name, mailbox)
    assert store.most_tombstones <= SMALL["RENEW_AT"]


class Paused(CountingLists):
    """A store that can be stopped at an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.stop_at: int | None = None
        self.stopped: Deferred[None] | None = None

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        if self.stop_at is not None:
            self.stop_at -= 1
            if self.stop_at < 0:
                self.stop_at = None  # of one operation only
                self.stopped = Deferred()
                await self.stopped
        await super().apply(account, changes, modseq)


@pytest.mark.parametrize("stop_at", range(12))
def test_of_two_nodes_that_renew_at_once_one_comes_first_and_the_lists_are_right(stop_at: int) -> None:
    house, store = House(), Paused()
    account = house.open()
    other = house.open(account.id, house.node())
    one, two = MessageLists(store, lambda: 0.0, lambda: 0.0), MessageLists(store, lambda: 0.0, lambda: 0.0)
    with small():
        act(house, account, "deliver", set(range(1, 13)))
        now(one.bring_up_to_date(account))
        act(house, account, "see", set(range(2, 12)))
        store.stop_at = stop_at
        slow = Deferred.fromCoroutine(one.bring_up_to_date(account))
        store.stop_at = None
        now(other.refresh())
        act(house, other, "see", {12})
        now(two.bring_up_to_date(other))
        act(house, other, "unsee", {3})
        assert shown(two, other, "unread", "INBOX") == wanted(other, "unread", "INBOX")
        if store.stopped is not None:
            store.stopped.callback(None)
        assert slow.called
        slow.addErrback(lambda failure: failure.trap(Unavailable))
        for lists, seen_by in ((one, account), (two, other)):
            now(seen_by.refresh())
            for name in NAMES:
                assert shown(lists, seen_by, name, "INBOX") == wanted(other, name, "INBOX")


def test_what_was_written_by_the_old_assignment_while_the_new_one_was_made_is_not_missed() -> None:
    house, store = House(), Paused()
    account = house.open()
    other = house.open(account.id, house.node())
    one, two = MessageLists(store, lambda: 0.0, lambda: 0.0), MessageLists(store, lambda: 0.0, lambda: 0.0)
    act(house, account, "deliver", {1, 2})
    now(one.bring_up_to_date(account))
    store.stop_at = 0
    slow = Deferred.fromCoroutine(one.rebuild(account))
    now(other.refresh())
    act(house, other, "deliver", {3})
    assert shown(two, other, "unread", "INBOX") == [3, 2, 1]
    assert store.stopped is not None
    store.stopped.callback(None)
    assert slow.called
    for lists, seen_by in ((one, account), (two, other)):
        now(seen_by.refresh())
        assert [period.bucket for period in buckets_of(seen_by.state).periods] == [1]
        assert shown(lists, seen_by, "unread", "INBOX") == [3, 2, 1]


def test_who_made_buckets_for_an_assignment_that_is_gone_gives_them_up() -> None:
    house, store, time = House(), Paused(), [0.0]
    account = house.open()
    other = house.open(account.id, house.node())
    one, two = (MessageLists(store, lambda: time[0], lambda: time[0]) for _ in range(2))
    with small():
        for uid in range(1, 13):
            stored = put(house, account, b"Subject: s\r\n\r\nb\r\n")
            message = new_message(stored, 1000 + uid)
            now(account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(message,))))
        assert [period.start[1] for period in now(one.bring_up_to_date(account)).periods] == [0, 6, 11]
        act(house, account, "see", {1, 2, 3, 4, 5})
        store.stop_at = 1
        slow = Deferred.fromCoroutine(one.bring_up_to_date(account))  # makes the oldest period anew
        now(other.refresh())
        act(house, other, "see", {6, 7, 8, 9, 10})
        now(two.bring_up_to_date(other))  # makes the oldest two anew
        assert store.stopped is not None
        store.stopped.callback(None)
        assert slow.called
        for _ in range(2):
            for lists, seen_by in ((one, account), (two, other)):
                now(seen_by.refresh())
                for name in NAMES:
                    assert shown(lists, seen_by, name, "INBOX") == wanted(other, name, "INBOX")
            time[0] += GARBAGE_SECONDS + 1
        buckets = buckets_of(account.state)
        assert (buckets.making, buckets.garbage) == ((), ())
        assert {key[1] for key in store.partitions} == {period.bucket for period in buckets.periods}


def test_a_line_that_a_node_wrote_before_it_died_leaves_the_list_when_the_message_is_read() -> None:
    house, store = House(), CountingLists()
    account, lists = house.open(), MessageLists(store)
    act(house, account, "deliver", {1, 2})
    with patch.object(store, "mark_reached", lambda *_: (_ for _ in ()).throw(Unavailable("killed"))):
        with pytest.raises(Unavailable):
            now(lists.bring_up_to_date(account))
    act(house, account, "see", {2})
    assert shown(lists, account, "unread", "INBOX") == [1]
    assert shown(lists, account, "read", "INBOX") == [2]


def test_a_node_that_has_not_heard_of_a_switch_finds_the_old_bucket_for_an_hour() -> None:
    house, store, time = House(), CountingLists(), [0.0]
    account = house.open()
    lists = MessageLists(store, lambda: time[0], lambda: time[0])
    with small():
        act(house, account, "deliver", {1, 2, 3})
        old = now(lists.bring_up_to_date(account))
        box = account.state.inbox.id
        now(lists.rebuild(account))
        now(lists.bring_up_to_date(account))
        assert buckets_of(account.state) != old
        assert len(now(read_page(store, account.id, old, "unread", box, None, 9))) == 3
        time[0] = GARBAGE_SECONDS + 1
        assert shown(lists, account, "unread", "INBOX") == [3, 2, 1]
        assert store.dropped == {0}
        assert len(every_bucket(account.state)) == 1


def test_what_a_node_that_died_was_making_goes_after_some_hours() -> None:
    house, store, time = House(), CountingLists(), [0.0]
    account = house.open()
    lists = MessageLists(store, lambda: time[0], lambda: time[0])
    act(house, account, "deliver", {1, 2, 3})
    with patch.object(store, "mark_reached", lambda *_: (_ for _ in ()).throw(Unavailable("killed"))):
        with pytest.raises(Unavailable):
            now(lists.rebuild(account))
    assert len(store.partitions) == 1
    time[0] = MAKING_SECONDS + 1
    now(lists.bring_up_to_date(account))
    time[0] += GARBAGE_SECONDS + 1
    now(lists.bring_up_to_date(account))
    assert store.dropped == {1}
    assert every_bucket(account.state) == [0]


def test_a_run_that_takes_too_long_writes_no_more() -> None:
    scene = Scene()
    scene.account.deliver(range(900))
    store, calls = scene.store, [0]

    async def slow(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 1:
            scene.time += RUN_SECONDS + 1
        await CountingLists.apply(store, *arguments)

    with patch.object(store, "apply", slow):
        scene.look()
    assert calls[0] == 1 + 2, "after the first the run began anew"
    assert len(scene.look("unread", 1000)) == 900


def test_messages_of_one_place_in_several_mailboxes_are_not_parted() -> None:
    scene = Scene()
    with small():
        for number in range(4):
            now(scene.account.commit(CreateMailbox(name=f"box{number}", ids=(MailboxId.new(),), uid_validity=2)))
            for _ in range(2):
                scene.account.deliver([77], f"box{number}")
        buckets = now(scene.lists.bring_up_to_date(scene.account))
        assert [period.start for period in buckets.periods] == [LOWEST, (77_000, 2)]
        for number in range(4):
            assert shown(scene.lists, scene.account, "unread", f"box{number}") == [2, 1]


def test_an_assignment_is_written_and_read() -> None:
    buckets = Buckets((Period(LOWEST, 3, 9), Period((5, 6), 7, 8)), 7, ((9, 100),), ((1, 50),), 10)
    scene = Scene()
    scene.account.state.settings["lists.buckets"] = buckets.encode()
    assert buckets_of(scene.account.state) == buckets
    assert every_bucket(scene.account.state) == [1, 3, 7, 9]
    assert [buckets.at(place) for place in ((0, 1), (5, 5), (5, 6), (6, 0))] == [0, 0, 1, 1]
