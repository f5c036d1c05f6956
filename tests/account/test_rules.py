"""The rules of the log (docs/explanation: one log per account), a test for each. Rules 5 and 8 also have tests of
their own in `test_messages` and `test_lists`; rule 7 is what `test_machine` is about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pyroaring import BitMap
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.account.house import START, House, now
from tests.account.model import Model, assert_same
from tests.account.simulation import Shared
from tests.account.test_intents import add, create, message, store, uids
from tests.account.test_machine import NoBus, Node
from twisted_mail.account.apply import apply
from twisted_mail.account.entries import decode_entry, describe_entry, encode_entry, pack_uids
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import AddMessages, ChangeFlags, CopyMessages, Expunge, SetSetting
from twisted_mail.account.service import AccountSettings
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Checkpoint, Corrupt
from twisted_mail.storage.interfaces import Refused as StoreRefused
from twisted_mail.values import AccountId, DeliveryId, ModSeq

EAGER = AccountSettings(checkpoint_entries=4, retention_seconds=1000.0)


def log_of(house: House, account: Account) -> list[Any]:
    return list(now(house.engine.account_log.read(account.id, ModSeq(0))))


# --- 1: intents, group commit, one intent one modseq


def a_node() -> Node:
    node = Node(Shared(), Clock(), every=1000)
    for _ in range(3):
        for step in list(node.log.steps):
            step.go()
    for name in ("INBOX", "Other"):
        ask(node, CreateMailbox.of(name, 1))
        finish(node)
    return node


def ask(node: Node, intent: Any) -> list[Any]:
    ended: list[Any] = []
    Deferred.fromCoroutine(node.account.commit(intent)).addBoth(ended.append)
    return ended


def finish(node: Node) -> int:
    """Let everything go; returns how many appends there were."""
    appends = 0
    while node.log.steps:
        step = node.log.steps[0]
        appends += step.name == "append"
        step.go()
    return appends


def test_rule_1_what_waits_during_an_append_goes_out_together_each_under_its_own_modseq() -> None:
    node = a_node()
    inbox = node.account.state.inbox.id
    ended = [ask(node, AddMessages(mailbox=inbox, messages=(message(),))) for _ in range(100)]
    assert finish(node) == 2
    added = [end[0] for end in ended]
    assert [result.uids[0] for result in added] == list(range(1, 101))
    assert len({result.modseq for result in added}) == 100


def test_rule_1_intents_that_meet_wait_for_each_other_and_keep_their_order() -> None:
    node = a_node()
    inbox = node.account.state.inbox.id
    ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    finish(node)
    one = pack_uids(BitMap([1]))
    ended = [
        ask(node, ChangeFlags(mailbox=inbox, uids=one, mode=mode, flags=("\\Seen",)))
        for mode in ("add", "remove", "add")
    ]
    assert finish(node) == 3
    assert [end[0].changed for end in ended] == [BitMap([1])] * 3


def test_rule_1_after_a_conflict_the_intent_runs_again_on_the_newer_state() -> None:
    house = House()
    first = house.open()
    other = house.open(first.id, house.node())
    add(first, message())
    assert add(other, message()).uids == range(2, 3)  # the other had not seen the first one's message
    assert uids(other) == [1, 2]
    create(first, "Both")
    with pytest.raises(Exception, match="exists"):
        create(other, "Both")


def test_rule_1_intents_are_values_that_travel() -> None:
    intents = [
        CreateMailbox.of("a/b", 7, ("\\Flagged",)),
        AddMessages(mailbox=create(House().open(), "x"), messages=(message(),), delivery=b"d" * 16, repeated=True),
        DeleteMailbox(name="x"),
        SetSetting(name="a", value="b"),
    ]
    for intent in intents:
        wire = msgspec.msgpack.encode(intent)
        assert msgspec.msgpack.decode(wire, type=type(intent)) == intent


# --- 2: state and apply


def test_rule_2_replaying_the_log_from_nothing_equals_the_state_and_the_model() -> None:
    house = House()
    account = house.open()
    add(account, message(), message(flags=("\\Deleted", "key")))
    store(account, [1], "replace", "\\Seen", "x")
    create(account, "a/b")
    now(
        account.commit(
            CopyMessages(
                mailbox=account.state.inbox.id, uids=pack_uids(BitMap([1])), target=account.state.mailbox("a/b").id
            )
        )
    )
    now(account.commit(Expunge(mailbox=account.state.inbox.id)))
    replayed, model = AccountState(), Model()
    for logged in log_of(house, account):
        entry = decode_entry(logged.data)
        assert decode_entry(encode_entry(entry)) == entry
        apply(replayed, logged.modseq, entry)
        model.apply(entry)
    assert_same(replayed, model.shape())
    assert_same(account.state, model.shape())


def test_rule_2_apply_refuses_an_entry_that_is_not_the_next() -> None:
    house = House()
    account = house.open()
    entry = decode_entry(log_of(house, account)[0].data)
    with pytest.raises(ValueError, match="does not follow"):
        apply(AccountState(), ModSeq(2), entry)


# --- 3: a delivery reads the head and the tail, never the columns


def test_rule_3_a_cold_delivery_takes_two_reads_and_never_the_columns() -> None:
    house = House(EAGER)
    account = house.open()
    for _ in range(9):
        add(account, message())
    reads: list[Any] = []
    log: Any = house.engine.account_log

    class Counting:
        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                if name in ("load_checkpoint", "read", "head"):
                    reads.append((name, arguments[1:]))
                return getattr(log, name)(*arguments)

            return call

    cold = house.open(account.id, house.node(log=Counting()))
    add(cold, message())
    assert [name for name, _ in reads] == ["load_checkpoint", "read"]
    assert reads[0][1] == (("head",),)
    assert cold.state.inbox.columns is None
    assert (cold.state.inbox.messages, cold.state.inbox.uid_next) == (10, 11)
    assert uids(cold) == list(range(1, 11))


# --- 4: UIDs, UIDVALIDITY, HIGHESTMODSEQ


def test_rule_4_uids_and_uidvalidity_only_ascend_and_highestmodseq_is_the_mailboxes_own() -> None:
    account = House().open()
    add(account, message(flags=("\\Deleted",)))
    now(account.commit(Expunge(mailbox=account.state.inbox.id)))
    assert add(account, message()).uids == range(2, 3)
    seen = account.state.inbox.highest_modseq
    add(account, message(), to="Trash")
    assert account.state.inbox.highest_modseq == seen < account.state.modseq
    validities = []
    for _ in range(3):
        create(account, "again")
        validities.append(account.state.mailbox("again").uid_validity)
        now(account.commit(DeleteMailbox(name="again")))
    assert validities == sorted(set(validities))


# --- 6: exactly once


def test_rule_6_a_repeated_delivery_is_found_in_the_tail_and_in_older_checkpoints() -> None:
    house = House(EAGER)
    account = house.open()
    id = DeliveryId.new().octets
    add(account, message(), delivery=id)
    assert add(account, message(), delivery=id, repeated=True).uids == range(0)
    for _ in range(10):
        add(account, message())
    cold = house.open(account.id, house.node())
    assert id not in cold.state.delivered
    assert add(cold, message(), delivery=id, repeated=True).uids == range(0)
    assert add(cold, message(), delivery=DeliveryId.new().octets, repeated=True).uids == range(12, 13)
    house.clock.advance(86_400 * 12)
    for _ in range(5):
        add(cold, message())
    later = house.open(account.id, house.node())
    assert len(add(later, message(), delivery=id, repeated=True).uids) == 1, "forgotten after ten days"


def test_rule_6_two_attempts_at_once_deliver_once() -> None:
    node = a_node()
    inbox = node.account.state.inbox.id
    intents = [
        AddMessages(mailbox=inbox, messages=(message(),), delivery=b"d" * 16, repeated=repeated)
        for repeated in (False, True, True)
    ]
    ended = [ask(node, intent) for intent in intents]
    finish(node)
    assert [len(end[0].uids) for end in ended] == [1, 0, 0]


# --- 7: an unknown outcome stays unknown until it is settled


def test_rule_7_whoever_waits_too_long_for_a_proposed_entry_is_told_that_it_is_unknown() -> None:
    node = a_node()
    inbox = node.account.state.inbox.id
    proposed = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    queued = ask(node, AddMessages(mailbox=inbox, messages=(message(),)))
    while node.log.steps[0].name != "append":
        node.log.steps[0].go()
    node.log.steps[0].go("late")
    node.service.clock.advance(25)
    assert isinstance(proposed[0].value, OutcomeUnknown)
    assert isinstance(queued[0].value, AccountUnavailable)
    node.log.steps[0].go()  # the settling read completes it after all
    finish(node)
    assert node.account.state.inbox.messages == 1


def test_rule_7_a_waiter_that_leaves_does_not_take_its_entry_along() -> None:
    node = a_node()
    inbox = node.account.state.inbox.id
    waiting = Deferred.fromCoroutine(node.account.commit(AddMessages(mailbox=inbox, messages=(message(),))))
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    finish(node)
    assert node.account.state.inbox.messages == 1
    assert not [call for call in node.service.clock.getDelayedCalls() if call.active()]


# --- 9: checkpoints


def test_rule_9_a_checkpoint_writes_only_what_changed_and_the_log_is_trimmed_by_age() -> None:
    house = House(EAGER)
    account = house.open()
    log = house.engine.account_log
    for name in ("INBOX", "INBOX", "INBOX", "Trash", "Trash", "Trash", "Trash"):
        add(account, message(), to=name)
        house.clock.advance(300)
    checkpoint = now(log.load_checkpoint(account.id, None))
    assert checkpoint is not None
    inbox, trash = (f"box/{account.state.mailbox(name).id}/0" for name in ("INBOX", "Trash"))
    assert checkpoint.manifest[inbox] < checkpoint.manifest[trash]
    written = checkpoint.manifest[inbox]
    for _ in range(12):
        add(account, message(), to="Trash")
        house.clock.advance(300)
    checkpoint = now(log.load_checkpoint(account.id, None))
    assert checkpoint is not None and checkpoint.manifest[inbox] == written
    first = log_after_trimming(house, account)
    assert first > 1, "entries older than the retention window are gone"
    cold = house.open(account.id, house.node())
    assert (uids(cold), uids(cold, "Trash")) == (uids(account), uids(account, "Trash"))


def log_after_trimming(house: House, account: Account) -> int:
    for number in range(100):
        try:
            entries = now(house.engine.account_log.read(account.id, ModSeq(number)))
        except Exception:
            continue
        return int(entries[0].modseq)
    raise AssertionError("nothing is left")


def test_rule_9_a_node_that_was_left_behind_the_trimmed_log_starts_from_the_checkpoint() -> None:
    house = House(EAGER)
    account = house.open()
    other = house.open(account.id, house.node())
    assert uids(other) == []
    for _ in range(20):
        add(account, message())
        house.clock.advance(1000)
    assert log_after_trimming(house, account) > other.state.modseq + 1
    now(other.refresh())
    assert uids(other) == list(range(1, 21))


# --- what is around the rules


def test_watchers_hear_of_what_other_nodes_did() -> None:
    house = House()
    account = house.open()
    other = house.open(account.id, house.node())
    heard: list[int] = []
    end = other.watch(heard.append)
    add(account, message())
    house.clock.advance(0)
    assert heard == [account.state.modseq] and other.state.inbox.messages == 1
    end()
    add(account, message())
    house.clock.advance(10)
    assert len(heard) == 1
    assert not house.clock.getDelayedCalls()


def test_a_lost_notice_costs_no_more_than_the_polling_interval() -> None:
    class Deaf:
        def publish(self, account: AccountId, modseq: ModSeq) -> None: ...

        def subscribe(self, account: AccountId, moved: Any) -> Any:
            return lambda: None

    house = House(bus=Deaf())
    account = house.open()
    other = house.open(account.id, house.node())
    heard: list[int] = []
    end = other.watch(heard.append)
    add(account, message())
    house.clock.advance(4.9)
    assert heard == []
    house.clock.advance(0.2)
    assert heard == [account.state.modseq]
    end()


def test_who_watches_is_told_of_what_was_learnt_while_columns_were_read() -> None:
    house = House(EAGER)
    first = house.open()
    add(first, message())
    now(first.checkpoint())  # type: ignore[attr-defined]  # of the committer
    other = house.open(first.id, house.node(bus=NoBus()))
    heard: list[int] = []
    other.watch(heard.append)
    for _ in range(8):
        add(first, message())
    now(first.checkpoint())  # type: ignore[attr-defined]  # of the committer
    now(other.columns(other.state.inbox))
    assert other.state.modseq == first.state.modseq
    assert heard == [first.state.modseq]


def test_one_state_per_account_and_node_and_idle_ones_are_evicted() -> None:
    house = House(AccountSettings(idle_accounts=1))
    first = house.open()
    assert house.open(first.id) is first
    house.service.release(first)
    assert house.open(first.id) is first, "somebody still has it"
    house.service.release(first)
    house.service.release(first)
    second = house.open()
    house.service.release(second)
    assert house.open(second.id) is second
    assert house.open(first.id) is not first


def test_pop3s_lock_is_held_by_one_and_runs_out_with_its_node() -> None:
    house = House()
    account = house.open()
    lock = now(house.service.lock(account.id, "pop3"))
    assert lock is not None and now(house.node().lock(account.id, "pop3")) is None
    for _ in range(10):
        house.clock.advance(30)
    assert lock.still_held()
    now(lock.release())
    assert not lock.still_held()
    again = now(house.node().lock(account.id, "pop3"))
    assert again is not None
    now(again.release())


def test_entries_are_readable() -> None:
    house = House()
    account = house.open()
    add(account, message(12, ("\\Seen",)), delivery=b"d" * 16)
    store(account, [1], "add", "\\Flagged")
    shown = [describe_entry(decode_entry(logged.data)) for logged in log_of(house, account)]
    assert shown[0]["cause"] == "initialise"
    assert shown[1]["delivery"] == "64" * 16
    assert shown[1]["changes"][0]["messages"][0]["flags"] == ["\\Seen"]
    assert shown[2]["changes"] == [
        {
            "change": "flag-changed",
            "mailbox": str(account.state.inbox.id),
            "flag": "\\Flagged",
            "set": "1",
            "cleared": "",
        }
    ]
    assert shown[0]["time"].startswith("2023-11-14T") and START


def test_an_account_whose_first_entry_failed_gets_its_inbox_when_it_is_opened_again() -> None:
    house = House()
    id, log = AccountId.new(), house.engine.account_log

    class Down:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        async def append(self, *arguments: Any) -> Any:
            raise StoreRefused("down")

    house.service.log = Down()
    with pytest.raises(AccountUnavailable):
        house.open(id)
    house.service.log = log
    assert house.open(id).state.inbox.uid_next == 1


def test_an_account_that_is_being_made_is_given_to_nobody_before_its_inbox_is_there() -> None:
    shared = Shared()
    node = Node(shared, Clock())
    seen: list[Any] = []
    id = AccountId.new()
    for _ in range(3):
        Deferred.fromCoroutine(node.service.open(id)).addCallback(lambda a: a.state.inbox).addBoth(seen.append)
    for _ in range(100):
        Deferred.fromCoroutine(node.service.open(id)).addCallback(lambda a: a.state.inbox).addBoth(seen.append)
        if not node.log.steps:
            break
        node.log.steps[0].go()
    assert len(seen) > 3 and all(isinstance(each, Mailbox) for each in seen)


def test_rule_7_what_was_proposed_is_not_called_unchanged_when_it_cannot_be_settled() -> None:
    node = a_node()

    async def settle(*arguments: Any) -> bool:
        raise Corrupt("a damaged page")

    node.log.settle = settle  # type: ignore[method-assign, assignment]
    ended = ask(node, SetSetting(name="a", value="b"))
    node.log.steps[0].go("hidden")
    finish(node)
    assert isinstance(ended[0].value, OutcomeUnknown)


def test_what_cannot_be_run_fails_alone() -> None:
    node = a_node()

    class Defect(SetSetting, frozen=True, kw_only=True):
        def run(self, state: AccountState) -> Any:
            raise KeyError("a defect")

    first = ask(node, SetSetting(name="a", value="1"))  # while this is in flight the others queue up
    others = [ask(node, SetSetting(name="b", value="1")), ask(node, Defect(name="x", value="1"))]
    others += [ask(node, SetSetting(name=name, value="1")) for name in ("c", "c")]
    finish(node)
    assert [first, others[0], *others[2:]] == [[None]] * 4
    assert isinstance(others[1][0].value, KeyError)


def test_a_damaged_checkpoint_makes_an_account_unavailable() -> None:
    house = House(EAGER)
    account = house.open()
    for _ in range(8):
        add(account, message())
    stored = house.engine.account_log

    class Damaged:
        def __getattr__(self, name: str) -> Any:
            return getattr(stored, name)

        async def load_checkpoint(self, id: AccountId, chunks: Any) -> Any:
            found = await stored.load_checkpoint(id, chunks)
            assert found is not None
            return Checkpoint(found.modseq, found.manifest, dict.fromkeys(found.chunks, b"\x01damaged"))

    with pytest.raises(AccountUnavailable):
        house.open(account.id, house.node(log=Damaged()))
