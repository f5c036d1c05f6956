"""Forwarding within one data centre: when a delivery goes to the owner, and what becomes of it when that goes wrong."""

from __future__ import annotations

import os
import random
from typing import Any, cast

import pytest
from pyroaring import BitMap
from twisted.internet.defer import Deferred

from tests.account.house import House, now, put
from tests.account.network import Network
from tests.account.test_intents import add, create, message, uids
from twisted_mail.account import buckets, delivering, errors, homes, intents, tree
from twisted_mail.account.buckets import ReserveBuckets, SwitchBuckets
from twisted_mail.account.delivering import Delivered, DeliverMessage, Place, Remember
from twisted_mail.account.entries import FlagChanged, decode_entry, pack_uids
from twisted_mail.account.errors import NoSuchMailbox, OutcomeUnknown, OverQuota
from twisted_mail.account.forwarding import (
    CONTENTION_SECONDS,
    RESULTS,
    VERSION,
    TurnedDown,
    decode_result,
    encode_result,
    refusal_of,
)
from twisted_mail.account.homes import MoveHome
from twisted_mail.account.intents import (
    Added,
    AddMessages,
    ChangeFlags,
    Copied,
    CopyMessages,
    Expunge,
    FlagsChanged,
    Intent,
    Replaced,
    ReplaceMessage,
    SetSetting,
    new_message,
)
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Refused
from twisted_mail.values import DeliveryId, MailboxId, ModSeq, UIDValidity

EAGER = AccountSettings(checkpoint_entries=4)


class Pair(House):
    """Two nodes of one data centre, one account open on both; `owner` commits for everybody."""

    def __init__(self, settings: AccountSettings | None = None, **replaced: Any) -> None:
        super().__init__(settings, **replaced)
        self.network = Network()
        self.sender_node, self.owner_node = self.joined("sender"), self.joined("owner")
        self.network.owner = "owner"
        self.sender = self.open(service=self.sender_node)
        self.owner = self.open(self.sender.id, self.owner_node)

    def joined(self, name: str) -> AccountService:
        members = self.network.end(name)
        service = self.node(members=members, node=name)
        now(members.join(name, frozenset(), service.serve))
        return service

    def contend(self) -> None:
        """The sender meets a conflict."""
        add(self.owner, message())
        add(self.sender, message())

    def flags(self, account: Account | None = None) -> dict[int, set[str]]:
        """The flags of each message in INBOX, by UID."""
        account = account or self.sender
        now(account.refresh())
        columns = now(account.columns(account.state.inbox))
        return {columns.uids[slot]: set(columns.flags_of(slot)) for slot in columns.live}

    def deliver(self, **options: Any) -> Added:
        return add(self.sender, message(), delivery=DeliveryId.new().octets, **options)


    def flag(self, name: str, *which: int, **options: Any) -> ChangeFlags:
        """Change the flag *name* of messages in INBOX."""
        options = {"mode": "add", **options}
        return ChangeFlags(mailbox=self.sender.state.inbox.id, uids=pack_uids(BitMap(which)), flags=(name,), **options)


def messages_of(account: Account) -> int:
    now(account.refresh())
    return len(uids(account))


# --- on the wire

BOX, VALIDITY = MailboxId(b"m" * 16), UIDValidity(7)
SAMPLES: list[tuple[Intent[Any], Any]] = [
    (AddMessages(mailbox=BOX, messages=(message(),), delivery=b"d" * 16), Added(BOX, VALIDITY, range(3, 5), 9)),
    (ChangeFlags(mailbox=BOX, uids=b"", mode="add", flags=("x",)), FlagsChanged(BitMap([1, 5]), BitMap([2]), 4)),
    (Expunge(mailbox=BOX), BitMap([1, 2, 90_000])),
    (ReserveBuckets(count=2, now=1), (7, 8)),
    (SwitchBuckets(seen=0, periods=((1, 2, 3, 4),), marker=3, now=1), True),
    (CopyMessages(mailbox=BOX, uids=b"", target=BOX), Copied(VALIDITY, (4, 6), range(1, 3), 8)),
    (
        ReplaceMessage(mailbox=BOX, uid=1, target=BOX, message=message()),
        Replaced(Added(BOX, VALIDITY, range(1, 2), 1), 7),
    ),
    (CreateMailbox.of("a/b", 1), BOX),
    (MoveHome(to="dc2"), None),
    (
        DeliverMessage(
            delivery=b"d" * 16,
            message=message(),
            places=(Place(BOX, ("x",)), Place(create=CreateMailbox.of("a/b", 1))),
            answers=(Remember("k", 9),),
        ),
        Delivered(("k",), True, (BOX,), 3),
    ),
]


@pytest.mark.parametrize(("intent", "result"), SAMPLES, ids=lambda value: type(value).__name__)
def test_results_travel(intent: Intent[Any], result: Any) -> None:
    there = decode_result(intent, encode_result(result))
    assert there == result
    assert type(there) is type(result)


def test_every_intent_is_known_to_travel_with_the_result_that_it_declares() -> None:
    declared: dict[Any, Any] = {
        kind: kind.__orig_bases__[0].__args__[0]  # type: ignore[attr-defined]  # what Generic leaves there
        for module in (buckets, delivering, homes, intents, tree)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Intent) and kind.__struct_config__.tag
    }
    assert {kind: type(None) if result is None else result for kind, result in RESULTS.items()} == declared


@pytest.mark.parametrize("name", [n for n in errors.__all__ if issubclass(getattr(errors, n), errors.Refused)])
def test_a_refusal_comes_back_as_the_same_exception(name: str) -> None:
    refusal = refusal_of(TurnedDown(3, name, "because"))
    assert (type(refusal).__name__, str(refusal)) == (name, "because")


def test_a_refusal_that_is_not_known_here_is_a_refusal_still() -> None:
    for name in ("Refurbished", "AccountUnavailable", "__all__"):
        assert type(refusal_of(TurnedDown(3, name, "because"))) is errors.Refused


# --- when


def test_deliveries_go_to_the_owner_after_a_conflict_and_only_then() -> None:
    pair = Pair()
    pair.deliver()
    assert not pair.network.sent, "nobody contends: a local append costs less than the way to the owner"
    pair.contend()
    assert pair.deliver().uids == range(4, 5)
    assert [each[:2] for each in pair.network.sent] == [("sender", "owner")]
    pair.clock.advance(CONTENTION_SECONDS + 1)
    pair.deliver()
    assert len(pair.network.sent) == 1, "it has become quiet"
    assert messages_of(pair.sender) == messages_of(pair.owner) == 5


def test_one_that_loses_twice_to_others_goes_to_the_owner_and_what_comes_after_it_at_once() -> None:
    pair = Pair()
    log = pair.engine.account_log
    overtaken = [0]

    class Overtaken:
        """The owner is always a little faster."""

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        async def append(self, *arguments: Any) -> Any:
            overtaken[0] += 1
            add(pair.owner, message())
            return await log.append(*arguments)

    stores: Any = Overtaken()
    pair.sender_node.log = stores
    assert len(pair.deliver().uids) == 1
    assert (overtaken[0], len(pair.network.sent)) == (2, 1)
    assert len(pair.deliver().uids) == 1
    assert (overtaken[0], len(pair.network.sent)) == (2, 2)


def test_it_goes_on_while_others_append_to_the_account() -> None:
    pair = Pair()
    pair.contend()
    for _ in range(4):
        add(pair.owner, message())
        pair.deliver()
        pair.clock.advance(CONTENTION_SECONDS * 0.7)
    assert len(pair.network.sent) == 4


def test_what_clients_do_goes_there_too_and_is_seen_here_before_it_is_answered() -> None:
    pair = Pair()
    pair.contend()
    sender = pair.sender
    box = create(sender, "There")
    assert sender.state.mailboxes[box].name == "There"
    added = add(sender, message())
    assert (added.uids, uids(sender)) == (range(3, 4), [1, 2, 3])
    marked = now(sender.commit(pair.flag("x", 1, 3)))
    assert (marked.changed, marked.modseq) == (BitMap([1, 3]), sender.state.modseq)
    assert pair.flags() == {1: {"x"}, 2: set(), 3: {"x"}}
    moved = now(
        sender.commit(
            CopyMessages(mailbox=sender.state.inbox.id, uids=pack_uids(BitMap([2])), target=box, move=True)
        )
    )
    assert (moved.source_uids, moved.target_uids, uids(sender)) == ((2,), range(1, 2), [1, 3])
    gone = now(sender.commit(Expunge(mailbox=sender.state.inbox.id, uids=pack_uids(BitMap([3])), only_deleted=False)))
    assert (gone, uids(sender)) == (BitMap([3]), [1])
    now(sender.commit(SetSetting(name="colour", value="red")))
    assert sender.state.settings["colour"] == "red"
    assert len(pair.network.sent) == 6
    assert messages_of(pair.owner) == 1


def test_what_the_owner_does_stays_there() -> None:
    pair = Pair()
    pair.network.owner = "sender"
    pair.contend()
    now(pair.sender.commit(pair.flag("x", 1)))
    pair.deliver()
    assert not pair.network.sent


def test_when_it_has_become_calm_clients_are_answered_from_here_again() -> None:
    pair = Pair()
    pair.contend()
    for number in range(5):
        pair.clock.advance(CONTENTION_SECONDS * 0.3)
        now(pair.sender.commit(pair.flag(f"k{number}", 1)))
    assert len(pair.network.sent) == 3, "only this node has written since"


def test_it_is_not_calm_while_others_are_read_to_append() -> None:
    pair = Pair()
    pair.contend()
    for number in range(5):
        pair.clock.advance(CONTENTION_SECONDS * 0.6)
        add(pair.owner, message())
        now(pair.sender.refresh())
        now(pair.sender.commit(pair.flag(f"k{number}", 1)))
    assert len(pair.network.sent) == 5


def test_a_refusal_of_the_owner_is_one_here() -> None:
    pair = Pair()
    pair.contend()
    with pytest.raises(OverQuota):
        pair.deliver(quota_bytes=1)
    with pytest.raises(NoSuchMailbox):
        now(pair.sender.commit(AddMessages(mailbox=BOX, messages=(message(),), delivery=b"x" * 16)))
    assert len(pair.network.sent) == 2


# --- what can go wrong


@pytest.mark.parametrize("fate", ["refused", "lost", "hidden", "late"])
@pytest.mark.parametrize("between", [0, 9])
def test_exactly_once_whatever_becomes_of_what_was_sent(fate: str, between: int) -> None:
    pair = Pair(EAGER)
    pair.contend()
    pair.network.fate = lambda sender, receiver: fate
    pair.deliver()
    assert messages_of(pair.owner) == 3
    for _ in range(between):  # checkpoints, so that the id is not in the tail any more
        add(pair.owner, message())
    now(pair.network.arrive())
    assert messages_of(pair.owner) == messages_of(pair.sender) == 3 + between
    pair.network.fate = lambda sender, receiver: "ok"
    sent = len(pair.network.sent)
    pair.deliver()
    assert len(pair.network.sent) == sent, "not that way again for a while"


@pytest.mark.parametrize("fate", ["refused", "lost", "hidden", "late"])
@pytest.mark.parametrize("between", [0, 9])
def test_a_clients_change_is_made_once_whatever_becomes_of_what_was_sent(fate: str, between: int) -> None:
    pair = Pair(EAGER)
    pair.contend()
    pair.network.fate = lambda sender, receiver: fate
    done = now(pair.sender.commit(pair.flag("x", 1)))
    assert (done.changed, done.modseq) == (BitMap([1]), pair.sender.state.modseq)
    head = int(pair.sender.state.modseq)
    now(pair.owner.commit(pair.flag("x", 1, mode="remove")))
    for _ in range(between):  # checkpoints, so that the owner may not remember
        add(pair.owner, message())
    if between:
        pair.owner_node.release(pair.owner)
        pair.owner_node.forget(pair.owner.id)
    now(pair.network.arrive())
    assert pair.flags()[1] == set(), "the late one must not set it again"
    assert pair.sender.state.modseq == head + 1 + between


def test_two_attempts_in_one_group_are_one_entry() -> None:
    pair = Pair()
    pair.contend()
    sent: list[bytes] = []
    pair.network.rewrite = lambda request: sent.append(request) or request  # type: ignore[func-returns-value]
    add(pair.sender, message())
    before = int(pair.owner.state.modseq)
    held: Deferred[None] = Deferred()
    log: Any = pair.owner_node.log

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        async def append(self, *arguments: Any) -> Any:
            await held
            return await log.append(*arguments)

    slow: Any = Slow()
    pair.owner_node.log = slow
    Deferred.fromCoroutine(pair.owner.commit(SetSetting(name="a", value="b")))
    again = sent[0].replace(sent[0][-16:], b"another attempt!")
    answers = [Deferred.fromCoroutine(pair.owner_node.serve(pair.owner.id, again)) for _ in range(2)]
    held.callback(None)
    first, second = (cast(bytes, each.result) for each in answers)  # of Deferreds that have fired
    assert b"done" in first
    assert b"standing" in second
    assert pair.owner.state.modseq == before + 2


def test_a_refusal_after_an_unknown_outcome_is_certain() -> None:
    pair = Pair()
    pair.contend()
    pair.network.fate = lambda sender, receiver: "late"
    with pytest.raises(OverQuota):
        add(pair.sender, message(), quota_bytes=1)
    before = messages_of(pair.owner)
    assert [answer for answer in now(pair.network.arrive()) if b"standing" not in answer] == []
    assert messages_of(pair.owner) == before


def test_that_nothing_is_to_be_done_after_an_unknown_outcome_stays_so() -> None:
    pair = Pair()
    pair.contend()
    now(pair.owner.commit(pair.flag("x", 1)))
    pair.network.fate = lambda sender, receiver: "late"
    done = now(pair.sender.commit(pair.flag("x", 1)))
    assert (done.changed, done.modseq) == (BitMap(), 0)
    now(pair.owner.commit(pair.flag("x", 1, mode="remove")))
    now(pair.network.arrive())
    assert pair.flags()[1] == set()


def test_an_owner_that_dies_half_way_leaves_nothing_open() -> None:
    pair = Pair()
    pair.contend()

    def dies(sender: str, receiver: str) -> str:
        pair.network.fate = lambda *_: "refused"
        return "hidden"

    pair.network.fate = dies
    assert now(pair.sender.commit(pair.flag("x", 2))).changed == BitMap([2])
    pair.network.fate = lambda *_: "lost"
    pair.clock.advance(CONTENTION_SECONDS)
    assert now(pair.sender.commit(pair.flag("y", 2))).changed == BitMap([2])
    assert pair.flags()[2] == {"x", "y"}


def test_what_was_asked_while_the_modseq_was_older_fails_there_as_it_would_here() -> None:
    pair = Pair()
    pair.contend()
    now(pair.sender.commit(pair.flag("x", 2)))
    seen = int(pair.sender.state.modseq) - 1
    done = now(pair.sender.commit(pair.flag("y", 1, 2, unchanged_since=seen)))
    assert (done.changed, done.failed) == (BitMap([1]), BitMap([2]))
    pair.network.fate = lambda *_: "hidden"
    done = now(pair.sender.commit(pair.flag("z", 1, 2, unchanged_since=int(pair.sender.state.modseq) - 1)))
    assert (done.changed, done.failed) == (BitMap([2]), BitMap([1]))


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_of_losses_is_each_change_once(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(EAGER)
    pair.contend()
    pair.network.fate = lambda *_: chance.choice(["ok", "ok", "ok", "refused", "lost", "hidden", "late"])
    nodes = (pair.sender, pair.owner)
    made: list[str] = []
    for number in range(150):
        who = chance.choice(nodes)
        match chance.randrange(6):
            case 0:
                add(who, message())
            case 1:
                now(pair.network.arrive())
            case 2:
                pair.clock.advance(chance.choice([0.1, CONTENTION_SECONDS]))
            case 3 if chance.random() < 0.3:
                pair.network.owner = chance.choice(["sender", "owner"])
            case _:
                name = f"k{number}"
                done = now(who.commit(pair.flag(name, *chance.sample(range(1, 4), 2))))
                made += [name] * len(done.changed)
                assert who.state.modseq >= done.modseq
    now(pair.network.arrive())
    found = sorted(name for names in pair.flags().values() for name in names)
    assert found == sorted(made)
    now(pair.sender.refresh())
    now(pair.owner.refresh())
    assert pair.flags(pair.owner) == pair.flags()
    causes: list[str] = []
    for logged in now(pair.engine.account_log.read(pair.sender.id, ModSeq(0))):
        entry = decode_entry(logged.data)
        causes += [change.flag for change in entry.changes if isinstance(change, FlagChanged)]
    assert len(causes) == len(set(causes)), "one entry for each change"


def test_a_late_one_that_overtakes_a_checkpoint_costs_a_look_and_one_in_time_does_not() -> None:
    loads: list[Any] = []
    log: Any = House().engine.account_log

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        async def load_checkpoint(self, account: Any, chunks: Any) -> Any:
            loads.extend(name for name in chunks if name.startswith("delivered/"))
            return await log.load_checkpoint(account, chunks)

    pair = Pair(EAGER, log=Counting())
    for _ in range(5):
        pair.deliver()
    pair.contend()
    for _ in range(3):
        pair.deliver()
    assert len(pair.network.sent) == 3
    assert loads == []
    pair.network.fate = lambda sender, receiver: "late"
    pair.deliver()
    loads.clear()
    for _ in range(5):
        add(pair.owner, message())
    now(pair.network.arrive())
    assert loads, "it may be below the checkpoint"


def test_what_may_come_to_stand_elsewhere_is_not_called_refused() -> None:
    pair = Pair()
    pair.contend()
    pair.network.fate = lambda sender, receiver: "late"
    log: Any = pair.sender_node.log

    class Down:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        async def append(self, *arguments: Any) -> Any:
            raise Refused("no quorum")

    down: Any = Down()
    pair.sender_node.log = down
    with pytest.raises(OutcomeUnknown):
        pair.deliver()
    pair.sender_node.log = log
    pair.clock.advance(CONTENTION_SECONDS)
    with pytest.raises(NoSuchMailbox):
        now(pair.sender.commit(AddMessages(mailbox=BOX, messages=(message(),), delivery=b"x" * 16)))


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda request: bytes((VERSION + 1,)) + request[1:],
        lambda request: request.replace(b"add-messages", b"new-messages"),
        lambda request: request.replace(b"\xa8delivery", b"\xa8xelivery"),
        lambda request: request.replace(b"\xa6commit", b"\xa6settle"),
        lambda request: request[:20],
        lambda request: b"",
    ],
    ids=["version", "tag", "field", "request", "cut", "empty"],
)
def test_what_the_owner_does_not_understand_is_committed_here(rewrite: Any) -> None:
    pair = Pair()
    pair.contend()
    pair.network.rewrite = rewrite
    assert pair.deliver().uids == range(3, 4)
    assert len(pair.network.sent) == 1
    assert messages_of(pair.owner) == 3


def test_an_answer_of_another_version_says_that_nothing_was_done() -> None:
    pair = Pair()
    pair.contend()
    member, _ = pair.network.joined["owner"]

    async def newer(account: Any, request: bytes) -> bytes:
        return bytes((VERSION + 1, 0)) + b"whatever it says"

    pair.network.joined["owner"] = (member, newer)
    assert pair.deliver().uids == range(3, 4)


def test_what_is_too_large_is_committed_here() -> None:
    pair = Pair()
    pair.contend()
    # names of flags that no compression makes short, in messages enough
    many = tuple(message(flags=tuple(os.urandom(5000).hex() for _ in range(8))) for _ in range(40))
    assert add(pair.sender, *many, delivery=b"d" * 16).uids == range(3, 43)
    assert not pair.network.sent


def test_the_owner_not_being_there_is_no_trouble() -> None:
    pair = Pair()
    pair.contend()
    pair.network.joined.clear()
    assert pair.deliver().uids == range(3, 4)


def test_rows_are_written_before_the_intent_is_sent() -> None:
    class WithRows:
        """A log that writes rows with its entries."""

        def __init__(self) -> None:
            self.log = House().engine.account_log
            self.rows: list[Any] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.log, name)

        async def append_with_rows(self, account: Any, expected: ModSeq, entries: Any, rows: Any) -> ModSeq:
            self.rows += rows
            await self.messages.put(account, rows)
            return await self.log.append(account, expected, entries)

    log = WithRows()
    messages = House().engine.messages
    log.messages = messages  # type: ignore[attr-defined]  # named last: it is the ability's mark
    pair = Pair(log=log, messages=messages)
    pair.contend()
    stored = put(pair, pair.sender, b"Subject: x\r\n\r\ntext\r\n")
    there: list[Any] = []

    def look(sender: str, receiver: str) -> str:
        async def keys() -> None:
            async for batch in messages.iterate(pair.sender.id):
                there.extend(batch)

        now(keys())
        return "ok"

    pair.network.fate = look
    added = add(pair.sender, new_message(stored, 1), delivery=b"d" * 16)
    assert there == [stored.key]
    assert log.rows == []
    assert added.uids == range(3, 4)


def test_a_node_that_stops_waits_for_what_it_has_sent() -> None:
    pair = Pair()
    pair.contend()
    member, serve = pair.network.joined["owner"]
    held: Deferred[None] = Deferred()

    async def slowly(account: Any, request: bytes) -> bytes:
        await held
        answer: bytes = await serve(account, request)
        return answer

    pair.network.joined["owner"] = (member, slowly)
    intent = AddMessages(mailbox=pair.sender.state.inbox.id, messages=(message(),), delivery=b"d" * 16)
    done = Deferred.fromCoroutine(pair.sender.commit(intent))
    stopped: list[None] = []
    Deferred.fromCoroutine(pair.sender_node.stop()).addCallback(stopped.append)
    assert not stopped
    held.callback(None)
    assert stopped
    assert done.result.uids == range(3, 4)  # type: ignore[attr-defined]  # of a Deferred that has fired


def test_uids_are_told_as_they_were_given() -> None:
    pair = Pair()
    pair.contend()
    for at in range(3, 9):
        assert pair.deliver().uids == range(at, at + 1)
    assert pack_uids(BitMap(uids(pair.owner))) == pack_uids(BitMap(range(1, 9)))
