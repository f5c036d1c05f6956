"""Checkpoints: what they cost, what crashes leave of them, and what is read while no quorum answers."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import TestCase

from tests.account.house import House, now, put
from tests.storage.cql.fakes import FakeSession
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.storage.cql.checkpoint import GARBAGE_SECONDS, MANIFEST_BYTES, NEAR_BYTES, SAVE_SECONDS
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.cql.messages import CQLMessages
from twisted_mail.storage.interfaces import Conflict, Corrupt, MessageRow, Trimmed, Unavailable
from twisted_mail.storage.testing.base import Suite, collect, fails
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.values import AccountId, MessageId, MessageKey, ModSeq


class CheckpointCase(Suite, TestCase):
    async def filled(
        self, script: list[str] | None = None, **options: Any
    ) -> tuple[FakeSession, CQLAccountLog, AccountId]:
        session, account = FakeSession(), AccountId.new()
        log = CQLAccountLog(session, **options)
        for number in range(20):
            await log.append(account, ModSeq(number), new_entries(1))
        session.script = iter(script or ())
        session.counts.clear()
        return session, log, account

    def chunks(self, session: FakeSession, account: AccountId) -> set[tuple[str, int]]:
        table = session.store.tables["account_checkpoint"]
        return {(row[0], row[1]) for _, row, _ in table.found(lambda partition, row: True)}


class SavingTests(CheckpointCase):
    async def test_only_what_changed_is_written_and_what_nobody_names_is_deleted(self) -> None:
        session, log, account = await self.filled()
        await log.save_checkpoint(account, ModSeq(0), ModSeq(1), {"head": b"1", "a": b"a1", "b": b"b1"}, {})
        self.assertEqual(self.chunks(session, account), {("a", 1), ("b", 1)})
        for number in range(2, 6):
            kept = {"a": ModSeq(1)}
            await log.save_checkpoint(account, ModSeq(number - 1), ModSeq(number), {"head": b"h", "b": b"b"}, kept)
        self.assertEqual(self.chunks(session, account), {("a", 1), ("b", 4), ("b", 5)})

    async def test_no_cell_is_larger_than_512_kib(self) -> None:
        session, log, account = await self.filled()
        large = os.urandom(3_000_000)
        await log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"h" * 70_000, "box": large}, {})
        sizes = [
            len(value)
            for table in session.store.tables.values()
            for _, _, cells in table.found(lambda partition, row: True)
            for _, value in cells.values()
            if isinstance(value, bytes)
        ]
        assert max(sizes) < 512 * 1024 and sum(sizes) > 3_000_000
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(dict(found.chunks), {"head": b"h" * 70_000, "box": large})

    async def test_a_manifest_of_very_many_chunks_lies_beside_the_others_and_goes_with_them(self) -> None:
        session, log, account = await self.filled()
        names = {os.urandom(1500).hex(): b"x" for _ in range(150)}
        await log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5", **names}, {})
        assert ("", 5) in self.chunks(session, account)
        kept = dict.fromkeys(names, ModSeq(5))
        await log.save_checkpoint(account, ModSeq(5), ModSeq(6), {"head": b"6"}, kept)
        found = await CQLAccountLog(session).load_checkpoint(account, ["head", next(iter(names))])
        assert found is not None
        self.assertEqual((len(found.manifest), found.chunks["head"]), (151, b"6"))
        for number in (7, 8):
            await log.save_checkpoint(account, ModSeq(number - 1), ModSeq(number), {"head": b"7"}, {})
        self.assertEqual(self.chunks(session, account), set())
        cells = session.store.tables["account_log"].found(lambda partition, row: row == (0,))[0][2]
        assert len(cells["manifest"][1]) < MANIFEST_BYTES + NEAR_BYTES

    async def test_two_that_save_the_same_number_do_not_mix_their_chunks(self) -> None:
        session, log, account = await self.filled()
        other = CQLAccountLog(session)
        race = other.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"other", "a": b"other"}, {})
        apply = session.apply

        async def first(*arguments: Any) -> bool:
            session.apply = apply  # type: ignore[method-assign]
            await race
            return await apply(*arguments)

        session.apply = first  # type: ignore[method-assign, assignment]
        await fails(Conflict, log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"mine", "a": b"mine"}, {}))
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(dict(found.chunks), {"head": b"other", "a": b"other"})
        self.assertEqual(len(session.store.tables["account_checkpoint"].found(lambda partition, row: True)), 1)

    async def test_a_pointer_of_which_it_is_not_known_whether_it_moved(self) -> None:
        for fault, outcome in (("hidden", None), ("denied", None), ("lost", Unavailable), ("late", Unavailable)):
            _, log, account = await self.filled([fault])
            save = log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5", "a": b"first"}, {})
            if outcome is None:
                await save
            else:
                await fails(outcome, save)
                second = log.save_checkpoint(account, ModSeq(0), ModSeq(6), {"head": b"6", "a": b"second"}, {})
                if fault == "late":  # the first one comes in between
                    await fails(Conflict, second)
                else:
                    await second
            for _ in range(5):
                await log.head(account)
            found = await log.load_checkpoint(account, None)
            assert found is not None
            expected = (6, b"second") if fault == "lost" else (5, b"first")
            self.assertEqual((found.modseq, found.chunks["a"]), expected, fault)

    async def test_who_takes_too_long_gives_up(self) -> None:
        clock = iter([0.0, SAVE_SECONDS + 1])
        _, log, account = await self.filled(clock=lambda: next(clock))
        await fails(Unavailable, log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5"}, {}))
        self.assertIsNone(await log.load_checkpoint(account, None))

    async def test_what_a_crash_left_is_swept_once_its_writer_must_have_given_up(self) -> None:
        wall = [0.0]
        session, log, account = await self.filled(["refused"], wall=lambda: wall[0])
        import time

        wall[0] = time.time()
        await fails(
            Unavailable, log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"a": b"a", "b": b"b" * 300_000}, {})
        )
        await log.save_checkpoint(account, ModSeq(0), ModSeq(6), {"head": b"6", "a": b"6"}, {})
        self.assertEqual(self.chunks(session, account), {("a", 5), ("b", 5), ("a", 6)})
        self.assertEqual(await log.sweep(account), 0)
        wall[0] += GARBAGE_SECONDS + 60
        self.assertEqual(await log.sweep(account), 2)
        self.assertEqual(self.chunks(session, account), {("a", 6)})

    async def test_a_chunk_that_is_missing_is_corruption_unless_a_newer_checkpoint_explains_it(self) -> None:
        session, log, account = await self.filled()
        await log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5", "a": b"5"}, {})
        execute_many = session.execute_many

        async def meanwhile(*arguments: Any) -> Any:
            session.execute_many = execute_many  # type: ignore[method-assign]
            other = CQLAccountLog(session)
            for number in (6, 7):
                changed = {"head": b"n", "a": b"%d" % number}
                await other.save_checkpoint(account, ModSeq(number - 1), ModSeq(number), changed, {})
            return await execute_many(*arguments)

        session.execute_many = meanwhile  # type: ignore[method-assign, assignment]
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual((found.modseq, found.chunks["a"]), (7, b"7"))
        session.store.tables["account_checkpoint"].rows.clear()
        await fails(Corrupt, log.load_checkpoint(account, None))


class ColdTests(CheckpointCase):
    def test_a_cold_delivery_costs_two_reads_of_at_most_64_kib_and_a_warm_one_none(self) -> None:
        session = FakeSession()

        def house() -> House:
            return House(log=CQLAccountLog(session), messages=CQLMessages(session))

        warm = house()
        account: Any = warm.open()

        def deliver(where: House, target: Any, number: int) -> None:
            stored = put(where, target, b"Subject: %d\r\n\r\n" % number + b"body\r\n" * 50)
            now(target.commit(AddMessages(mailbox=target.state.inbox.id, messages=(new_message(stored, 1),))))

        for number in range(300):
            deliver(warm, account, number)
            if number == 250:
                now(account.checkpoint())
        session.counts.clear()
        session.read_octets = 0
        deliver(warm, account, 300)
        reads = {name: count for name, count in session.counts.items() if name.startswith("SELECT")}
        self.assertEqual(reads, {}, "warm")
        self.assertEqual(dict(session.counts), {"INSERT message": 1, "UPDATE account_log": 1})
        cold = house()
        session.counts.clear()
        again = cold.open(account.id)
        deliver(cold, again, 301)
        reads = {name: count for name, count in session.counts.items() if name.startswith("SELECT")}
        self.assertEqual(reads, {"SELECT account_log": 2}, "head row with manifest and head chunk, and the tail")
        assert session.read_octets < 64 * 1024, session.read_octets
        self.assertEqual(again.state.messages, 302)

    async def test_a_read_never_starts_in_what_was_trimmed_away(self) -> None:
        session, log, account = await self.filled()
        for number in (10, 12):
            await log.save_checkpoint(
                account, ModSeq(number - 2 if number > 10 else 0), ModSeq(number), {"head": b""}, {}
            )
        await log.trim(account, ModSeq(12))
        other = CQLAccountLog(session)
        asked: list[Any] = []
        pages = session.pages

        def watched(statement: Any, parameters: Any, size: int) -> Any:
            asked.append(parameters[1])
            return pages(statement, parameters, size)

        session.pages = watched  # type: ignore[method-assign, assignment]
        for reader in (log, other):
            await fails(Trimmed, reader.read(account, ModSeq(0)))
            await fails(Trimmed, reader.read(account, ModSeq(9), 1))
        self.assertEqual(asked, [])
        self.assertEqual(len(await other.read(account, ModSeq(10))), 10)

    async def test_a_gap_is_never_read_over(self) -> None:
        session, log, account = await self.filled()
        rows = session.store.tables["account_log"].rows
        del next(iter(rows.values()))[15,]
        await fails(Unavailable, log.read(account, ModSeq(0)))
        self.assertEqual(len(await log.read(account, ModSeq(0), 14)), 14)
        await fails(Unavailable, log.read(account, ModSeq(14)))


class DegradedTests(CheckpointCase):
    async def test_without_a_quorum_one_replica_says_what_it_has(self) -> None:
        session, log, account = await self.filled()
        await log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5", "a": b"far"}, {})
        session.quorum = False
        await fails(Unavailable, log.load_checkpoint(account, None))
        await fails(Unavailable, log.read(account, ModSeq(5)))
        found = await log.load_checkpoint_stale(account, None)
        assert found is not None
        self.assertEqual(dict(found.chunks), {"head": b"5", "a": b"far"})
        entries = await log.read_stale(account, found.modseq)
        self.assertEqual([entry.modseq for entry in entries], list(range(6, 21)))
        del next(iter(session.store.tables["account_log"].rows.values()))[15,]
        entries = await log.read_stale(account, found.modseq)
        self.assertEqual([entry.modseq for entry in entries], list(range(6, 15)), "up to the gap")
        session.missing = lambda text: "account_checkpoint" in text
        await fails(Unavailable, log.load_checkpoint_stale(account, None))

    async def test_it_can_be_switched_off(self) -> None:
        _, log, account = await self.filled(stale_reads=False)
        await fails(Unavailable, log.read_stale(account, ModSeq(0)))
        await fails(Unavailable, log.load_checkpoint_stale(account, None))

    async def test_a_message_row_that_one_replica_has_is_right_and_one_that_it_lacks_is_an_error(self) -> None:
        session, account = FakeSession(), AccountId.new()
        store = CQLMessages(session)
        key = MessageKey(0, MessageId.new())
        large = os.urandom(400_000)
        await store.put(account, [MessageRow(key, {"envelope": b"()", "inline": large})])
        session.quorum = False
        self.assertEqual(await collect(store.get_many(account, [key], ["envelope"])), [[(b"()",)]])
        self.assertEqual(await collect(store.get_many(account, [key], ["inline"])), [[(large,)]])
        other = MessageKey(0, MessageId.new())
        await fails(Unavailable, collect(store.get_many(account, [key, other], ["envelope"])))
        session.missing = lambda text: "message_part" in text
        await fails(Unavailable, collect(store.get_many(account, [key], ["inline"])))
        strict = CQLMessages(session, stale_reads=False)
        await fails(Unavailable, collect(strict.get_many(account, [key], ["envelope"])))
