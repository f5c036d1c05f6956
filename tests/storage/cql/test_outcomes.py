"""Whatever goes wrong: what was acknowledged stands, what was refused never appears, and what is settled stays so."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.storage.cql.fakes import FAULTS, LATE, FakeSession
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.interfaces import Conflict, NewEntry, Refused, StorageError, Trimmed, Unavailable
from twisted_mail.storage.testing.base import Suite, fails
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.values import AccountId, EntryId, ModSeq

R = TypeVar("R")


def now(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that does not wait."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    result: R = results[0]
    return result


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "save", "trim", "read"]),
        st.integers(0, 1),  # which node
        st.integers(1, 3),  # how many entries
        st.booleans(),  # whether that node looks at the head first
    ),
    min_size=3,
    max_size=25,
)


class Recorder:
    """Two nodes over one store, and what they were told."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.nodes = [CQLAccountLog(session), CQLAccountLog(session)]
        self.account = AccountId.new()
        self.seen = [ModSeq(0), ModSeq(0)]
        self.stands: dict[int, EntryId] = {}
        self.never: set[EntryId] = set()

    async def settle(self, node: CQLAccountLog, expected: ModSeq, entries: list[NewEntry]) -> bool | None:
        for _ in range(50):
            try:
                return await node.settle(self.account, expected, [entry.id for entry in entries])
            except Trimmed:
                return None
            except Unavailable:
                continue
        raise AssertionError("it is never settled")

    async def append(self, which: int, count: int) -> None:
        node, expected, entries = self.nodes[which], self.seen[which], new_entries(count)
        applied: bool | None
        try:
            await node.append(self.account, expected, entries)
            applied = True
        except (Conflict, Refused):
            applied = False
        except Unavailable:
            applied = await self.settle(node, expected, entries)
        if applied:
            for number, entry in enumerate(entries, expected + 1):
                assert number not in self.stands, "two stand at one number"
                self.stands[number] = entry.id
            self.seen[which] = ModSeq(expected + count)
        elif applied is False:
            self.never.update(entry.id for entry in entries)
            await self.look(which)

    async def look(self, which: int) -> None:
        try:
            self.seen[which] = await self.nodes[which].head(self.account)
        except Unavailable:
            pass

    async def checkpoint(self, which: int) -> None:
        node = self.nodes[which]
        try:
            base = await node.load_checkpoint(self.account, None)
            at = await node.head(self.account)
            previous = base.modseq if base else ModSeq(0)
            if at > previous:
                await node.save_checkpoint(self.account, previous, at, {"head": b"%d" % at, f"at/{at}": b"x"}, {})
        except (Conflict, Unavailable):
            pass

    async def trim(self, which: int) -> None:
        try:
            await self.nodes[which].trim(self.account, ModSeq(2**40))
        except Unavailable:
            pass

    async def read(self, which: int) -> None:
        try:
            after = self.seen[which]
            entries = await self.nodes[which].read(self.account, ModSeq(max(0, after - 2)))
        except StorageError:
            return
        for entry in entries:
            assert self.stands.get(entry.modseq, entry.id) == entry.id
            assert entry.id not in self.never

    async def judge(self) -> None:
        """After everything that was late has come."""
        self.session.script = iter(())
        for _ in range(LATE + 1):
            await self.look(0)
        log = CQLAccountLog(self.session)
        head = await log.head(self.account)
        assert head == max(self.stands, default=0), (head, self.stands)
        trimmed = (await log._heads.look(self.account)).trimmed
        entries = await log.read(self.account, ModSeq(trimmed))
        assert [entry.modseq for entry in entries] == list(range(trimmed + 1, head + 1))
        assert {entry.modseq: entry.id for entry in entries}.items() <= self.stands.items()
        assert not {entry.id for entry in entries} & self.never
        checkpoint = await log.load_checkpoint(self.account, None)
        if checkpoint is not None:
            assert checkpoint.chunks["head"] == b"%d" % checkpoint.modseq
            assert trimmed <= checkpoint.modseq


class OutcomeTests(Suite, TestCase):
    @settings(max_examples=250, deadline=None)
    @given(
        steps=STEPS,
        faults=st.lists(st.sampled_from(FAULTS), max_size=30),
        form=st.sampled_from(["scylla", "cassandra"]),
    )
    def test_whatever_is_lost_late_or_denied(
        self, steps: list[tuple[str, int, int, bool]], faults: list[str], form: str
    ) -> None:
        async def run() -> None:
            recorder = Recorder(FakeSession(form, faults))
            for name, which, count, looks in steps:
                if looks:
                    await recorder.look(which)
                if name == "append":
                    await recorder.append(which, count)
                elif name == "save":
                    await recorder.checkpoint(which)
                elif name == "trim":
                    await recorder.trim(which)
                else:
                    await recorder.read(which)
            await recorder.judge()

        now(run())

    async def test_an_append_that_is_carried_out_after_it_was_settled_does_nothing(self) -> None:
        session = FakeSession()
        log, account = CQLAccountLog(session), AccountId.new()
        for expected in (0, 1):  # the head row is not there yet, and it is
            session.script = iter(["late"])
            entries = new_entries(1)
            await fails(Unavailable, log.append(account, ModSeq(expected), entries))
            self.assertEqual(await log.settle(account, ModSeq(expected), [entries[0].id]), False)
            for _ in range(LATE + 1):
                self.assertEqual(await log.head(account), expected)
            await log.append(account, ModSeq(expected), new_entries(1))
            self.assertEqual(await log.head(account), expected + 1)

    async def test_a_node_that_knows_an_old_fence_is_told_the_new_one_and_appends(self) -> None:
        session = FakeSession()
        one, other, account = CQLAccountLog(session), CQLAccountLog(session), AccountId.new()
        await one.append(account, ModSeq(0), new_entries(1))
        self.assertEqual(await other.settle(account, ModSeq(1), [EntryId.new()]), False)
        self.assertEqual(await one.append(account, ModSeq(1), new_entries(2)), 3)

    async def test_an_append_that_answers_not_applied_but_was_is_a_success(self) -> None:
        session = FakeSession(script=["denied", "denied"])
        log, account = CQLAccountLog(session), AccountId.new()
        self.assertEqual(await log.append(account, ModSeq(0), new_entries(2)), 2)
        self.assertEqual(await log.append(account, ModSeq(2), new_entries(1)), 3)

    async def test_without_a_quorum_nothing_is_proposed_once_the_store_seems_down(self) -> None:
        session = FakeSession()
        log, account = CQLAccountLog(session), AccountId.new()
        await log.append(account, ModSeq(0), new_entries(1))
        session.quorum = False
        entries = new_entries(1)
        error = await fails(Unavailable, log.append(account, ModSeq(1), entries))
        assert not isinstance(error, Refused), "it was proposed"
        await fails(Unavailable, log.settle(account, ModSeq(1), [entries[0].id]))
        session.seems_down = True
        before = dict(session.counts)
        await fails(Refused, log.append(account, ModSeq(1), entries))
        self.assertEqual(session.counts["UPDATE account_log"], before["UPDATE account_log"])
        session.quorum = True
        self.assertEqual(await log.append(account, ModSeq(1), entries), 2)

    async def test_an_append_that_is_too_large_for_the_server_is_refused(self) -> None:
        session = FakeSession()
        log = CQLAccountLog(session, max_append_bytes=1000, max_entry_bytes=3000)
        account = AccountId.new()
        await fails(Refused, log.append(account, ModSeq(0), new_entries(5, 200)))
        self.assertEqual(await log.head(account), 0)
        self.assertEqual(await log.append(account, ModSeq(0), new_entries(3, 200)), 3)
        await fails(Refused, log.append(account, ModSeq(3), new_entries(1, 3000)))
        self.assertEqual(await log.append(account, ModSeq(3), new_entries(1, 2900)), 4)


class RowsTests(Suite, TestCase):
    """Entries of one append lie together in rows."""

    async def test_an_append_of_many_is_few_rows_and_is_read_from_anywhere(self) -> None:
        session = FakeSession()
        log, account = CQLAccountLog(session), AccountId.new()
        entries = [NewEntry(EntryId.new(), bytes([number]) * size) for number, size in enumerate([100] * 60 + [9000] * 3)]
        await log.append(account, ModSeq(0), entries)
        rows = session.store.tables["account_log"].rows.popitem()
        session.store.tables["account_log"].rows[rows[0]] = rows[1]
        self.assertEqual(len(rows[1]), 1 + 3)
        for after in range(64):
            found = await log.read(account, ModSeq(after))
            self.assertEqual([(e.modseq, e.id, e.data) for e in found], [
                (number, entry.id, entry.data) for number, entry in enumerate(entries, 1) if number > after
            ])
        self.assertEqual([e.modseq for e in await log.read(account, ModSeq(58), 3)], [59, 60, 61])

    async def test_a_trim_into_a_row_leaves_what_is_above(self) -> None:
        log, account = CQLAccountLog(FakeSession()), AccountId.new()
        entries = new_entries(10)
        await log.append(account, ModSeq(0), entries)
        await log.save_checkpoint(account, ModSeq(0), ModSeq(4), {"head": b"4"}, {})
        await log.trim(account, ModSeq(4))
        self.assertEqual([e.id for e in await log.read(account, ModSeq(4))], [e.id for e in entries[4:]])
        await fails(Trimmed, log.read(account, ModSeq(3)))
        self.assertTrue(await log.settle(account, ModSeq(4), [e.id for e in entries[4:]]))

    async def test_another_group_that_begins_alike_is_not_ours(self) -> None:
        one, other, account = CQLAccountLog(session := FakeSession()), CQLAccountLog(session), AccountId.new()
        entries = new_entries(3)
        await one.head(account)
        await other.append(account, ModSeq(0), entries[:2])
        await fails(Conflict, one.append(account, ModSeq(0), entries))
        self.assertFalse(await one.settle(account, ModSeq(0), [e.id for e in entries]))
