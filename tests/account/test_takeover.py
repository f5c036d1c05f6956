"""A home that is gone: what came of the log before is kept, nothing is shown under an old UID, and nobody goes on with the old."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap
from twisted.internet.task import Clock

from tests.account.house import START, now
from tests.account.test_machine import NoBus
from tests.storage.cql.fakes import FakeSession
from twisted_mail.account.committer import OpenAccount
from twisted_mail.account.entries import decode_entry, pack_uids
from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.homes import HOME_SETTING
from twisted_mail.account.intents import AddMessages, ChangeFlags, CopyMessages, new_message
from twisted_mail.account.service import DEFAULT_MAILBOXES, AccountService, AccountSettings
from twisted_mail.account.takeover import ABOVE, AnotherHome, TakenOver, Takeover
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.storage.cql.heads import of
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.cql.takeover import Remains
from twisted_mail.storage.interfaces import Conflict, EngineContext, Unavailable
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import AccountId, DeliveryId, MailboxId, ModSeq


class Two:
    """Nodes of dc1 and dc2 over one keyspace in memory: what dc2 did not get is taken out of it before dc1 is gone."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.session = FakeSession()
        self.engine = MemoryEngine(EngineContext(self.clock, Path("/nonexistent")))
        self.one, self.two = self.node("dc1"), self.node("dc2")
        self.id = AccountId.new()

    def wall(self) -> float:
        return START + self.clock.seconds()

    def node(self, datacenter: str) -> AccountService:
        return AccountService(
            log=CQLAccountLog(self.session),
            messages=self.engine.messages,
            blobs=self.engine.blobs,
            leases=self.engine.leases,
            references=self.engine.references,
            bus=NoBus(),
            clock=self.clock,
            settings=AccountSettings(checkpoint_entries=10**9, checkpoint_bytes=10**9),
            wall=self.wall,
            node=datacenter,
            datacenter=datacenter,
        )

    def open(self, service: AccountService) -> OpenAccount:
        return now(service.open(self.id))

    def add(self, account: OpenAccount, text: bytes, mailbox: str = "INBOX") -> DeliveryId:
        id = DeliveryId.new()

        async def put() -> None:
            writer = self.one.writer(self.id)
            await writer.write(b"Subject: " + text + b"\r\n\r\n")
            stored = await account.store(await writer.finish())
            new = new_message(stored, 1_700_000_000)
            box = account.state.mailbox(mailbox).id
            await account.commit(AddMessages(mailbox=box, messages=(new,), delivery=id.octets))

        now(put())
        return id

    def lose(self, *numbers: int) -> None:
        """These entries never came."""
        for number in numbers:
            self.session.store.carry_out(
                "DELETE FROM account_log WHERE user_id = ? AND modseq = ?", (of(self.id), number)
            )

    def take(self, recorded: str = "dc1") -> TakenOver:
        takeover = Takeover(
            Remains(self.session),
            self.engine.messages,
            lost="dc1",
            here="dc2",
            mailboxes=DEFAULT_MAILBOXES,
            wall=self.wall,
        )
        return now(takeover.take(self.id, recorded))

    def subjects(self, account: OpenAccount, mailbox: str = "INBOX") -> dict[int, str]:
        """By UID."""

        async def read() -> dict[int, str]:
            columns = await account.columns(account.state.mailbox(mailbox))
            found = {}
            for uid, slot in columns.iterate():
                octets = b"".join([chunk async for chunk in account.octets(columns.key(slot))])
                found[uid] = octets.split()[1].decode()
            return found

        return now(read())


def validities(account: OpenAccount) -> dict[str, int]:
    return {mailbox.name: mailbox.uid_validity for mailbox in account.state.in_order()}


def flag(account: OpenAccount, uid: int, name: str = "\\Flagged") -> None:
    inbox = account.state.inbox
    now(account.commit(ChangeFlags(mailbox=inbox.id, uids=pack_uids(BitMap([uid])), flags=(name,), mode="add")))


def test_where_everything_came_only_uidvalidity_and_the_home_are_others() -> None:
    world = Two()
    first = world.open(world.one)
    world.add(first, b"one")
    now(first.checkpoint())
    world.add(first, b"two")
    flag(first, 2)
    watching = world.open(world.two)
    now(watching.refresh())
    assert world.subjects(watching) == {1: "one", 2: "two"}
    with pytest.raises(AccountUnavailable):
        flag(watching, 1)
    before = validities(watching)
    head = int(watching.state.modseq)

    report = world.take()
    assert (report.head, report.applied, report.missing, report.messages) == (head, 2, 0, 2)
    assert report.modseq == head + ABOVE and not report.rows_missing
    now(watching.refresh())
    fresh = world.open(world.node("dc2"))
    for account in (watching, fresh):
        assert account.state.settings[HOME_SETTING] == "dc2"
        assert world.subjects(account) == {1: "one", 2: "two"}
        after = validities(account)
        assert set(after) == set(before) and min(after.values()) > max(before.values())
        assert len(set(after.values())) == len(after)
        columns = now(account.columns(account.state.inbox))
        assert "\\Flagged" in columns.flags_of(columns.slot_of(2) or 0)
        assert account.state.inbox.highest_modseq == report.modseq
    flag(fresh, 1)
    world.add(fresh, b"three")
    assert fresh.state.modseq == report.modseq + 2
    now(watching.refresh())
    assert world.subjects(watching) == {1: "one", 2: "two", 3: "three"}
    assert world.take("dc2").done_before


def test_behind_a_gap_messages_are_rescued_and_nothing_else_is_believed() -> None:
    world = Two()
    first = world.open(world.one)
    world.add(first, b"one")
    lost = int(first.state.modseq) + 1
    world.add(first, b"lost")
    flag(first, 1)
    flag(first, 2)
    kept = world.add(first, b"rescued")
    now(first.commit(CreateMailbox(name="Later", ids=(MailboxId.new(),), uid_validity=int(world.wall()))))
    world.add(first, b"elsewhere", "Later")
    inbox, later = first.state.inbox.id, first.state.mailbox("Later").id
    now(first.commit(CopyMessages(mailbox=inbox, uids=pack_uids(BitMap([1])), target=later, move=False)))
    gone = world.add(first, b"gone")
    rowless = decode_entry(now(world.one.log.read(world.id, ModSeq(first.state.modseq - 1)))[0].data)
    keys = [key for some in _keys(world) for key in some]
    now(world.engine.messages.delete_many(world.id, keys[-1:]))
    assert rowless.delivery == gone.octets
    world.lose(lost)

    account = world.open(world.node("dc2"))
    assert account.stale and world.subjects(account) == {1: "one"}, "as far as it goes without a gap"
    report = world.take()
    assert (report.missing, report.rescued, report.rows_missing) == (1, 2, 1)
    assert report.left_out >= 3, "two flags and a mailbox, at least"
    now(account.refresh())
    assert sorted(world.subjects(account).values()) == ["elsewhere", "one", "rescued"]
    assert "Later" not in account.state.by_name
    columns = now(account.columns(account.state.inbox))
    assert all(not columns.flags_of(slot) for _, slot in columns.iterate()), "flags by UID may be of other messages"
    counts = account.state.inbox
    assert (counts.messages, counts.unseen, account.state.messages) == (3, 3, 3)
    # a delivery that is tried again is known, and one that was lost is not
    assert kept.octets in now(_deliveries(account))
    assert gone.octets not in now(_deliveries(account))


def _keys(world: Two) -> Sequence[Any]:
    async def listed() -> Sequence[Any]:
        return [keys async for keys in world.engine.messages.iterate(world.id)]

    return now(listed())


async def _deliveries(account: OpenAccount) -> set[bytes]:
    return await account._older_deliveries() | set(account.state.delivered)


def test_what_comes_late_from_the_lost_home_is_never_read() -> None:
    world = Two()
    first = world.open(world.one)
    world.add(first, b"one")
    report = world.take()
    account = world.open(world.two)
    late = "INSERT INTO account_log (user_id, modseq, entry_id, entry) VALUES (?, ?, ?, ?)"
    for number in range(report.head + 1, report.head + 5):
        world.session.store.carry_out(late, (of(world.id), number, of(AccountId.new()), b"late"))
    world.add(account, b"two")
    assert world.subjects(world.open(world.node("dc2"))) == {1: "one", 2: "two"}
    # and its own node, should it be started, finds that it is not the home any more
    now(first.refresh())
    with pytest.raises(AccountUnavailable):
        flag(first, 1)


def test_an_account_of_which_nothing_or_only_a_middle_came() -> None:
    world = Two()
    assert world.take().nothing
    first = world.open(world.one)
    world.add(first, b"one")
    world.lose(1)
    report = world.take()
    assert (report.applied, report.rescued, report.messages) == (0, 1, 1)
    account = world.open(world.two)
    assert world.subjects(account) == {1: "one"}
    assert set(validities(account)) == {mailbox.name for mailbox in DEFAULT_MAILBOXES}


def test_accounts_at_home_elsewhere_are_left_alone() -> None:
    world = Two()
    first = world.open(world.two)
    head = first.state.modseq
    assert world.take("dc1").done_before, "the directory is behind: its log has it here"
    other = Takeover(Remains(world.session), world.engine.messages, lost="dc3", here="dc1", mailboxes=())
    with pytest.raises(AnotherHome, match="dc2"):
        now(other.take(world.id, "dc3"))
    assert now(world.two.log.head(world.id)) == head


def test_two_at_once_one_wins_and_a_broken_off_one_is_done_again() -> None:
    world = Two()
    world.add(world.open(world.one), b"one")
    remains = Remains(world.session)
    left = now(remains.left(world.id))
    assert left is not None
    report = world.take()
    with pytest.raises(Conflict):
        now(remains.begin_anew(world.id, left, ModSeq(left.head + ABOVE + 7), {"head": b"another"}))
    assert now(world.two.log.head(world.id)) == report.modseq
    for fault in ("refused", "lost", "hidden", "denied"):
        world = Two()
        world.add(world.open(world.one), b"one")
        world.session.script = iter([fault])
        try:
            first = world.take()
            assert fault == "denied" and first.messages == 1, "it was carried out, whatever the answer"
        except Unavailable:
            again = world.take()
            assert again.done_before == (fault == "hidden")
        assert world.subjects(world.open(world.two)) == {1: "one"}
