"""Rows of messages that left: swept after the retention window, and only those that nothing names any more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyroaring import BitMap
from twisted.internet.defer import Deferred

from tests.account.house import House, now, put
from twisted_mail.account.checkpoint import decode_graves, grave_chunks
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.errors import AccountUnavailable, OverQuota
from twisted_mail.account.graves import BATCH
from twisted_mail.account.intents import AddMessages, CopyMessages, Expunge, SetSetting, new_message
from twisted_mail.account.references import message_holder
from twisted_mail.account.service import AccountSettings
from twisted_mail.account.sweeping import sweep_accounts
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.values import AccountId, BlobRef, MailboxId, MessageKey

DAY = 86_400.0
BIG = b"Subject: big\r\nContent-Type: application/x\r\n\r\n" + b"0123456789" * 9000


class Cellar(House):
    """A house whose checkpoints are made by hand, with references."""

    def __init__(self, **replaced: Any) -> None:
        super().__init__(AccountSettings(checkpoint_entries=10**9, checkpoint_bytes=10**9), **replaced)

    def checkpoint(self, account: Account) -> None:
        made: Any = account
        now(made.checkpoint())

    def keys(self, account: Account) -> set[MessageKey]:
        async def all_of_them() -> set[MessageKey]:
            return {key async for some in self.engine.messages.iterate(account.id) for key in some}

        return now(all_of_them())

    def holders(self, ref: BlobRef) -> list[str]:
        return list(now(self.engine.references.holders(ref, 100)))

    def lost(self) -> list[BlobRef]:
        async def listed() -> list[BlobRef]:
            return [ref async for ref in self.engine.references.lost(1e12)]

        return now(listed())

    def refs(self) -> list[BlobRef]:
        async def stored() -> list[BlobRef]:
            return [ref async for ref in self.engine.blobs.iterate()]

        return now(stored())

    def graves(self, account: Account) -> list[MessageKey]:
        found = now(self.engine.account_log.load_checkpoint(account.id, None))
        assert found is not None
        return [key for name in grave_chunks(found.manifest) for key in decode_graves(found.chunks[name])]


def add(house: House, account: Account, mailbox: str = "INBOX", octets: bytes = BIG) -> MessageKey:
    stored = put(house, account, octets)
    now(account.commit(AddMessages(mailbox=account.state.mailbox(mailbox).id, messages=(new_message(stored, 1),))))
    key: MessageKey = stored.key
    return key


def expunge(account: Account, mailbox: str = "INBOX", *uids: int) -> None:
    box = account.state.mailbox(mailbox)
    which = pack_uids(BitMap(uids or range(1, box.uid_next)))
    now(account.commit(Expunge(mailbox=box.id, uids=which, only_deleted=False)))


def copy(account: Account, source: str, target: str, *, move: bool = False) -> None:
    box = account.state.mailbox(source)
    which = pack_uids(BitMap(range(1, box.uid_next)))
    into = account.state.mailbox(target).id
    now(account.commit(CopyMessages(mailbox=box.id, uids=which, target=into, move=move)))


def later(house: Cellar, account: Account, days: float) -> None:
    """So many days on somebody changes something, and a checkpoint is made: what is ripe is swept."""
    house.clock.advance(days * DAY)
    now(account.commit(SetSetting(name="day", value=str(house.clock.seconds()))))
    house.checkpoint(account)


def test_rows_and_references_go_when_the_log_does_not_reach_back_any_more() -> None:
    house = Cellar()
    account = house.open()
    gone, stays = add(house, account), add(house, account, octets=BIG + b"other")
    (ref, _), holder = house.refs(), message_holder(account.id, gone.id)
    assert house.holders(ref) == [holder] and not house.lost()
    expunge(account, "INBOX", 1)
    house.checkpoint(account)
    assert house.graves(account) == [gone]
    for _ in range(6):
        later(house, account, 1)
        assert house.keys(account) == {gone, stays} and house.holders(ref) == [holder]
    later(house, account, 1.1)
    assert house.keys(account) == {stays} and house.holders(ref) == [] and house.lost() == [ref]
    assert house.graves(account) == [gone]  # until the next checkpoint
    later(house, account, 0.1)
    assert house.graves(account) == []


def test_a_copy_keeps_the_row_and_a_younger_grave_keeps_it_for_its_own_time() -> None:
    house = Cellar()
    account = house.open()
    key = add(house, account)
    copy(account, "INBOX", "Archive")
    expunge(account)
    house.checkpoint(account)
    later(house, account, 4)
    expunge(account, "Archive")
    house.checkpoint(account)
    later(house, account, 4)
    later(house, account, 0.1)
    assert house.keys(account) == {key}  # it left the other mailbox four days ago
    later(house, account, 3)
    later(house, account, 0.1)
    assert house.keys(account) == set()


def test_what_was_moved_stays() -> None:
    house = Cellar()
    account = house.open()
    key = add(house, account)
    copy(account, "INBOX", "Trash", move=True)
    house.checkpoint(account)
    for _ in range(10):
        later(house, account, 1)
    assert house.keys(account) == {key} and not house.lost() and house.graves(account) == []


@pytest.mark.parametrize("loaded", [True, False])
def test_a_deleted_mailbox_takes_its_messages_along_whether_its_columns_were_loaded_or_not(loaded: bool) -> None:
    house = Cellar()
    account = house.open()
    now(account.commit(CreateMailbox(name="Old", ids=(MailboxId.new(),), uid_validity=1_800_000_000)))
    before, expunged = add(house, account, "Old"), add(house, account, "Old")
    shared = add(house, account)
    copy(account, "INBOX", "Old")
    house.checkpoint(account)
    if not loaded:
        account = house.open(account.id, house.node())
        assert account.state.mailbox("Old").columns is None
    after = add(house, account, "Old")
    if loaded:
        expunge(account, "Old", 2)
    now(account.commit(DeleteMailbox(name="Old")))
    house.checkpoint(account)
    assert set(house.graves(account)) == {before, expunged, shared, after}
    later(house, account, 8)
    later(house, account, 0.1)
    assert house.keys(account) == {shared}


def test_mailboxes_that_are_not_loaded_are_looked_through_too() -> None:
    house = Cellar()
    account = house.open()
    key = add(house, account)
    copy(account, "INBOX", "Archive")
    later(house, account, 0)
    expunge(account)
    later(house, account, 0.1)
    other = house.open(account.id, house.node())
    house.clock.advance(8 * DAY)
    now(other.commit(SetSetting(name="a", value="b")))
    house.checkpoint(other)
    assert other.state.mailbox("Archive").columns is None and not house.graves(other) == []
    later(house, other, 0.1)
    assert house.keys(account) == {key} and house.graves(other) == []
    copy(other, "Archive", "Trash")
    third = house.open(account.id, house.node())  # which has the copy in a backlog only
    later(house, third, 9)
    assert house.keys(account) == {key}


def test_a_sweep_that_fails_is_done_again() -> None:
    house = Cellar()
    account = house.open()
    key = add(house, account)
    expunge(account)
    house.checkpoint(account)
    references: Any = house.engine.references
    broken = True
    remove = references.remove

    async def failing(*arguments: Any) -> None:
        if broken:
            raise Unavailable("down")
        await remove(*arguments)

    references.remove = failing
    later(house, account, 8)
    later(house, account, 0.1)
    assert house.keys(account) == {key} and house.graves(account) == [key]
    broken = False
    opened: Any = account
    assert now(opened.sweep()) == 1
    assert house.keys(account) == set() and len(house.lost()) == 1
    assert now(opened.sweep()) == 0


@pytest.mark.parametrize("way", ["expunged", "dropped"])
@pytest.mark.parametrize("loaded", [True, False])
def test_what_left_its_last_mailbox_behind_the_checkpoint_can_still_be_seen(way: str, loaded: bool) -> None:
    house = Cellar()
    account = house.open()
    key = add(house, account)
    copy(account, "INBOX", "Archive")
    expunge(account)
    house.checkpoint(account)
    later(house, account, 8)
    opened: Any = house.open(account.id, house.node())  # which does not know that those graves have been looked at
    doer = opened if loaded else account
    if way == "expunged":
        expunge(doer, "Archive")
    else:
        now(doer.columns(doer.state.mailbox("Archive")))
        now(doer.commit(DeleteMailbox(name="Archive")))
    if not loaded:
        now(opened.refresh())
        assert not any(mailbox.columns for mailbox in opened.state.mailboxes.values())
    assert now(opened.sweep()) == 0 and house.keys(account) == {key}


def test_who_stops_does_not_wait_for_all_that_could_be_swept() -> None:
    house = Cellar()
    account = house.open()
    for number in range(BATCH + 1):
        add(house, account, octets=b"Subject: %d\r\n\r\n" % number)
    expunge(account)
    house.checkpoint(account)
    messages: Any = house.engine.messages
    delete = messages.delete_many
    going: Deferred[None] = Deferred()

    async def slowly(*arguments: Any) -> None:
        await going
        await delete(*arguments)

    messages.delete_many = slowly
    later(house, account, 8)
    stopping = Deferred.fromCoroutine(house.service.stop())
    assert not stopping.called
    going.callback(None)
    assert stopping.called and len(house.keys(account)) == 1


def test_a_node_that_follows_adds_no_graves_that_another_has_written() -> None:
    house = Cellar()
    account = house.open()
    keys = [add(house, account) for _ in range(3)]
    other = house.open(account.id, house.node())
    now(other.columns(other.state.inbox))
    expunge(account, "INBOX", 1)
    house.checkpoint(account)
    now(other.refresh())
    expunge(other, "INBOX", 2)
    house.checkpoint(other)
    if sorted(house.graves(account)) != keys[:2]:  # the first try may find that there is a newer checkpoint
        expunge(other, "INBOX", 3)
        house.checkpoint(other)
        assert sorted(house.graves(account)) == keys


def test_what_a_refused_or_forgotten_message_holds_is_given_back() -> None:
    house = Cellar()
    account = house.open()
    stored = put(house, account, BIG)
    refused = AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1),), quota_bytes=1000)
    with pytest.raises(OverQuota):
        now(account.commit(refused))
    assert house.keys(account) == set() and len(house.lost()) == 1
    put(house, account, BIG + b"2")
    assert len(house.keys(account)) == 1
    house.service.release(account)
    assert house.keys(account) == set() and len(house.lost()) == 2


def test_an_aborted_message_gives_back_what_it_has_stored() -> None:
    house = Cellar()
    account = house.open()

    async def begin_and_stop() -> None:
        writer = house.service.writer(account.id)
        await writer.write(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" + BIG + b"\r\n--x\r\n")
        await writer.abort()

    now(begin_and_stop())
    (ref,) = house.refs()
    assert house.holders(ref) == [] and house.lost() == [ref]


def test_who_aborts_behind_the_end_takes_nothing_from_a_row() -> None:
    house = Cellar()
    account, other = house.open(), house.open()

    async def prepare(first: Account) -> tuple[Any, Any]:
        writer = house.service.writer(first.id)
        await writer.write(BIG)
        return writer, await writer.finish()

    writer, prepared = now(prepare(account))
    key = now(account.store(prepared)).key
    now(writer.abort())
    (ref,) = house.refs()
    assert house.holders(ref) == [message_holder(account.id, key.id)] and not house.lost()
    writer, prepared = now(prepare(account))  # nobody stores it in the account that it was meant for
    second = now(other.store(prepared)).key
    now(writer.abort())
    assert set(house.holders(ref)) == {message_holder(account.id, key.id), message_holder(other.id, second.id)}
    assert house.lost() == [ref]
    third = now(account.store(prepared)).key
    assert message_holder(account.id, third.id) in house.holders(ref)


def test_a_row_that_could_not_be_written_holds_nothing() -> None:
    house = Cellar()
    account = house.open()
    messages: Any = house.engine.messages

    async def failing(*arguments: Any) -> None:
        raise Unavailable("down")

    put_rows, messages.put = messages.put, failing
    with pytest.raises(AccountUnavailable):
        put(house, account, BIG)
    messages.put = put_rows
    (ref,) = house.refs()
    assert house.holders(ref) == [] and house.lost() == [ref]


def test_an_erased_account_leaves_nothing() -> None:
    house = Cellar()
    account = house.open()
    for number in range(3):
        add(house, account, octets=BIG + bytes((number,)))

    async def erase() -> int:
        return sum([count async for count in house.service.store.erase(account.id)])

    assert now(erase()) == 3
    assert house.keys(account) == set() and len(house.lost()) == 3
    assert not any(house.holders(ref) for ref in house.refs())


def test_the_second_account_holds_the_blobs_in_its_own_name() -> None:
    house = Cellar()
    first, second = house.open(), house.open()

    async def store() -> tuple[Any, Any]:
        writer = house.service.writer(first.id)
        await writer.write(BIG)
        prepared = await writer.finish()
        return await first.store(prepared), await second.store(prepared)

    one, two = now(store())
    (ref,) = house.refs()
    assert set(house.holders(ref)) == {message_holder(first.id, one.key.id), message_holder(second.id, two.key.id)}
    assert not house.lost()


def test_accounts_that_nobody_opens_are_swept_when_somebody_asks_for_it() -> None:
    house = Cellar()
    account, idle = house.open(), house.open()
    key = add(house, account)
    add(house, idle)
    expunge(idle)
    house.service.release(idle)

    async def ids() -> AsyncIterator[AccountId]:
        yield account.id
        yield idle.id

    async def swept() -> list[tuple[AccountId, int, str]]:
        return [each async for each in sweep_accounts(house.service, ids())]

    assert now(swept()) == [(account.id, 0, ""), (idle.id, 0, "")]
    house.clock.advance(8 * DAY)
    assert now(swept()) == [(account.id, 0, ""), (idle.id, 1, "")]
    assert house.keys(account) == {key} and house.keys(idle) == set()
    house.service = house.node(log=Unreadable())
    assert [bool(trouble) for _, _, trouble in now(swept())] == [True, True]


class Unreadable:
    """A store that does not answer."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*arguments: Any, **named: Any) -> Any:
            raise Unavailable("down")

        return fail


def test_at_random_nothing_that_can_be_seen_is_swept_and_all_else_is_in_the_end() -> None:
    for seed in range(12):
        draw = random.Random(seed)
        house = Cellar()
        first = house.open()
        nodes = [first, house.open(first.id, house.node())]
        last_seen: dict[MessageKey, float] = {}
        made = 0
        for _ in range(draw.randint(10, 60)):
            account = draw.choice(nodes)
            now(account.refresh())
            names = list(account.state.by_name)
            match draw.choice(["add", "add", "copy", "move", "expunge", "delete", "create", "time", "reopen", "check"]):
                case "add":
                    add(house, account, draw.choice(names), BIG + str(draw.randint(0, 5)).encode())
                case "copy" | "move" as kind:
                    source, target = draw.choice(names), draw.choice(names)
                    if source != target and account.state.mailbox(source).messages:
                        copy(account, source, target, move=kind == "move")
                case "expunge":
                    name = draw.choice(names)
                    if account.state.mailbox(name).messages:
                        expunge(account, name, *draw.sample(range(1, account.state.mailbox(name).uid_next), 1))
                case "delete":
                    if (name := draw.choice(names)) != "INBOX":
                        now(account.commit(DeleteMailbox(name=name)))
                case "create":
                    made += 1
                    id, validity = MailboxId.new(), 1_800_000_000 + made
                    now(account.commit(CreateMailbox(name=f"new {made}", ids=(id,), uid_validity=validity)))
                case "time":
                    later(house, account, draw.choice([0.1, 1, 3, 6]))
                case "reopen":
                    nodes[nodes.index(account)] = house.open(first.id, house.node())
                case "check":
                    house.checkpoint(account)
            now(account.refresh())
            for key in seen_in(house.open(first.id, house.node())):  # so that the node's own columns stay unloaded
                last_seen[key] = house.clock.seconds()
            rows = house.keys(account)
            for key, seen in last_seen.items():
                assert key in rows or seen < house.clock.seconds() - 7 * DAY, seed
        account = house.open(first.id, house.node())
        for _ in range(3):
            later(house, account, 8)
        assert house.keys(account) == seen_in(account) and house.graves(account) == [], seed
        held = {holder for ref in house.refs() for holder in house.holders(ref)}
        assert held == {message_holder(account.id, key.id) for key in seen_in(account)}


def seen_in(account: Account) -> set[MessageKey]:
    """The messages in its mailboxes."""
    found: set[MessageKey] = set()
    for mailbox in account.state.mailboxes.values():
        columns = now(account.columns(mailbox))
        found |= {columns.key(slot) for slot in columns.live}
    return found
