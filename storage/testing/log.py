"""The suite of `AccountLog`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_mail.storage.interfaces import AccountLog, Conflict, NewEntry, Trimmed
from twisted_mail.storage.testing.base import Suite, fails, together
from twisted_mail.values import AccountId, EntryId, ModSeq

__all__ = ["AccountLogContract", "new_entries"]


def new_entries(count: int, size: int = 20) -> list[NewEntry]:
    """*count* entries that differ."""
    return [NewEntry(EntryId.new(), f"{number:0{size}}".encode()) for number in range(count)]


class AccountLogContract(Suite):
    """An engine is an `AccountLog` if it passes."""

    async def build(self) -> AccountLog:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def _filled(self, count: int) -> tuple[AccountLog, AccountId, list[NewEntry]]:
        log, account, entries = await self.build(), AccountId.new(), new_entries(count)
        if entries:
            await log.append(account, ModSeq(0), entries)
        return log, account, entries

    async def test_a_log_can_begin_at_the_state_it_had_elsewhere(self) -> None:
        log, account = await self.build(), AccountId.new()
        await log.start_at(account, ModSeq(40), {"head": b"state", "box/1": b"x" * 700_000})
        self.assertEqual(await log.head(account), 40)
        checkpoint = await log.load_checkpoint(account, None)
        assert checkpoint is not None
        self.assertEqual((checkpoint.modseq, dict(checkpoint.manifest)), (40, {"head": 40, "box/1": 40}))
        self.assertEqual(dict(checkpoint.chunks), {"head": b"state", "box/1": b"x" * 700_000})
        self.assertEqual(list(await log.read(account, ModSeq(40))), [])
        await fails(Trimmed, log.read(account, ModSeq(39)))
        first = new_entries(2)
        await fails(Conflict, log.append(account, ModSeq(0), first))
        self.assertEqual(await log.append(account, ModSeq(40), first), 42)
        self.assertEqual([entry.modseq for entry in await log.read(account, ModSeq(40))], [41, 42])
        await fails(Conflict, log.start_at(account, ModSeq(99), {}))
        await log.save_checkpoint(account, ModSeq(40), ModSeq(42), {"head": b"later"}, {"box/1": ModSeq(40)})
        later = await log.load_checkpoint(account, ["head", "box/1"])
        assert later is not None
        self.assertEqual((later.modseq, later.chunks["head"], len(later.chunks["box/1"])), (42, b"later", 700_000))

    async def test_an_account_begins_at_0(self) -> None:
        log, account, _ = await self._filled(0)
        self.assertEqual(await log.head(account), 0)
        self.assertEqual(list(await log.read(account, ModSeq(0))), [])
        self.assertIsNone(await log.load_checkpoint(account, None))
        self.assertFalse(await log.settle(account, ModSeq(0), [EntryId.new()]))

    async def test_entries_are_numbered_without_a_gap_and_come_back_as_written(self) -> None:
        log, account, first = await self._filled(3)
        second = [NewEntry(EntryId.new(), bytes(range(256)) * 300), NewEntry(EntryId.new(), b"")]
        self.assertEqual(await log.append(account, ModSeq(3), second), 5)
        self.assertEqual(await log.head(account), 5)
        read = await log.read(account, ModSeq(0))
        self.assertEqual([entry.modseq for entry in read], [1, 2, 3, 4, 5])
        self.assertEqual([(entry.id, entry.data) for entry in read], [(e.id, e.data) for e in first + second])
        self.assertEqual([entry.modseq for entry in await log.read(account, ModSeq(3))], [4, 5])
        self.assertEqual([entry.modseq for entry in await log.read(account, ModSeq(1), 2)], [2, 3])
        self.assertEqual(list(await log.read(account, ModSeq(5))), [])
        self.assertEqual(list(await log.read(account, ModSeq(9))), [])

    async def test_a_writer_behind_the_head_is_refused_and_leaves_no_trace(self) -> None:
        log, account, entries = await self._filled(1)
        late = new_entries(2)
        await fails(Conflict, log.append(account, ModSeq(0), late))
        self.assertEqual([e.id for e in await log.read(account, ModSeq(0))], [entries[0].id])
        self.assertFalse(await log.settle(account, ModSeq(0), [e.id for e in late]))

    async def test_a_writer_ahead_of_the_head_is_refused_and_leaves_no_trace(self) -> None:
        log, account, _ = await self._filled(1)
        await fails(Conflict, log.append(account, ModSeq(4), new_entries(1)))
        await fails(Conflict, log.append(AccountId.new(), ModSeq(1), new_entries(1)))
        self.assertEqual(await log.head(account), 1)

    async def test_accounts_do_not_see_each_other(self) -> None:
        log, account, _ = await self._filled(2)
        other = AccountId.new()
        await log.append(other, ModSeq(0), new_entries(1))
        self.assertEqual((await log.head(account), await log.head(other)), (2, 1))

    async def test_of_many_writers_at_one_number_one_wins(self) -> None:
        log, account, _ = await self._filled(1)
        rivals = [new_entries(2) for _ in range(12)]
        outcomes = await together(*(log.append(account, ModSeq(1), entries) for entries in rivals))
        won = [at for at, outcome in enumerate(outcomes) if outcome == 3]
        self.assertEqual(len(won), 1)
        self.assertEqual(sum(isinstance(outcome, Conflict) for outcome in outcomes), 11)
        self.assertEqual(
            [e.id for e in await log.read(account, ModSeq(1))], [e.id for e in rivals[won[0]]], "the winner's, whole"
        )
        for at, entries in enumerate(rivals):
            self.assertEqual(await log.settle(account, ModSeq(1), [e.id for e in entries]), at == won[0])

    async def test_a_head_that_is_read_after_an_append_returned_is_not_older(self) -> None:
        log, account, _ = await self._filled(0)
        for number in range(20):
            await log.append(account, ModSeq(number), new_entries(1))
            self.assertEqual(await log.head(account), number + 1)

    async def test_settling_says_whose_the_slots_are(self) -> None:
        log, account, entries = await self._filled(3)
        ids = [entry.id for entry in entries]
        self.assertTrue(await log.settle(account, ModSeq(0), ids))
        self.assertTrue(await log.settle(account, ModSeq(1), ids[1:]))
        self.assertFalse(await log.settle(account, ModSeq(0), [ids[0], EntryId.new(), ids[2]]))
        self.assertFalse(await log.settle(account, ModSeq(2), [ids[2], EntryId.new()]))
        self.assertFalse(await log.settle(account, ModSeq(3), [EntryId.new()]))

    async def test_the_newest_checkpoint_comes_back_with_the_chunks_that_are_asked_for(self) -> None:
        log, account, _ = await self._filled(9)
        head, big = b"h" * 10, bytes(range(256)) * 1200
        await log.save_checkpoint(account, ModSeq(0), ModSeq(3), {"head": head, "m/1": big, "m/2": b""}, {})
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(found.modseq, 3)
        self.assertEqual(dict(found.manifest), {"head": 3, "m/1": 3, "m/2": 3})
        self.assertEqual(dict(found.chunks), {"head": head, "m/1": big, "m/2": b""})
        some = await log.load_checkpoint(account, ["head", "not there"])
        assert some is not None
        self.assertEqual(dict(some.chunks), {"head": head})
        self.assertEqual(dict(some.manifest), dict(found.manifest))
        none = await log.load_checkpoint(account, [])
        assert none is not None
        self.assertEqual(dict(none.chunks), {})

    async def _checkpoints(self, log: AccountLog, account: AccountId, numbers: Sequence[int]) -> None:
        """One chunk kept from the first on, one written anew each time."""
        previous = 0
        for number in numbers:
            changed = {"head": b"%d" % number} if previous else {"head": b"%d" % number, "old": b"kept"}
            kept = {"old": ModSeq(numbers[0])} if previous else {}
            await log.save_checkpoint(account, ModSeq(previous), ModSeq(number), changed, kept)
            previous = number

    async def test_a_chunk_that_is_kept_is_named_by_the_checkpoint_that_wrote_it(self) -> None:
        log, account, _ = await self._filled(9)
        await self._checkpoints(log, account, [2, 4, 6, 8])
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(found.modseq, 8)
        self.assertEqual(dict(found.manifest), {"head": 8, "old": 2})
        self.assertEqual(dict(found.chunks), {"head": b"8", "old": b"kept"})

    async def test_a_chunk_that_is_neither_changed_nor_kept_is_gone(self) -> None:
        log, account, _ = await self._filled(9)
        await self._checkpoints(log, account, [2, 4])
        await log.save_checkpoint(account, ModSeq(4), ModSeq(5), {"head": b"5"}, {})
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(dict(found.chunks), {"head": b"5"})

    async def test_the_checkpoint_moves_by_compare_and_set_and_only_forward(self) -> None:
        log, account, _ = await self._filled(9)
        await self._checkpoints(log, account, [2, 4])
        for previous, number in ((0, 5), (2, 5), (3, 5), (5, 6), (4, 4), (4, 3)):
            await fails(
                Conflict, log.save_checkpoint(account, ModSeq(previous), ModSeq(number), {"head": b"wrong"}, {})
            )
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual((found.modseq, found.chunks["head"], found.chunks["old"]), (4, b"4", b"kept"))

    async def test_of_two_checkpoints_at_once_one_is_made(self) -> None:
        log, account, _ = await self._filled(9)
        outcomes = await together(
            log.save_checkpoint(account, ModSeq(0), ModSeq(5), {"head": b"5"}, {}),
            log.save_checkpoint(account, ModSeq(0), ModSeq(6), {"head": b"6"}, {}),
        )
        self.assertEqual(sum(outcome is None for outcome in outcomes), 1)
        found = await log.load_checkpoint(account, None)
        assert found is not None
        self.assertEqual(found.chunks["head"], b"%d" % found.modseq)
        self.assertIsNone(outcomes[found.modseq - 5])

    async def test_entries_are_trimmed_up_to_the_older_of_two_checkpoints(self) -> None:
        log, account, entries = await self._filled(9)
        await log.trim(account, ModSeq(5))
        self.assertEqual(len(await log.read(account, ModSeq(0))), 9, "without a checkpoint nothing may go")
        await self._checkpoints(log, account, [2, 4, 6])
        await log.trim(account, ModSeq(9))
        self.assertEqual(await log.head(account), 9)
        self.assertEqual([e.modseq for e in await log.read(account, ModSeq(4))], [5, 6, 7, 8, 9])
        await fails(Trimmed, log.read(account, ModSeq(3)))
        await fails(Trimmed, log.read(account, ModSeq(0), 1))
        await fails(Trimmed, log.settle(account, ModSeq(3), [entries[3].id]))
        self.assertTrue(await log.settle(account, ModSeq(4), [entries[4].id]))
        await log.trim(account, ModSeq(1))
        self.assertEqual(len(await log.read(account, ModSeq(4))), 5)
        self.assertEqual(await log.append(account, ModSeq(9), new_entries(1)), 10)

    async def test_a_log_that_is_trimmed_whole_keeps_its_head(self) -> None:
        log, account, _ = await self._filled(4)
        await log.save_checkpoint(account, ModSeq(0), ModSeq(4), {"head": b"4"}, {})
        await log.trim(account, ModSeq(4))
        self.assertEqual(await log.head(account), 4)
        self.assertEqual(list(await log.read(account, ModSeq(4))), [])
        await fails(Trimmed, log.read(account, ModSeq(0)))
        await fails(Conflict, log.append(account, ModSeq(0), new_entries(1)))
        self.assertEqual(await log.append(account, ModSeq(4), new_entries(2)), 6)

    async def test_an_account_that_is_erased_begins_anew(self) -> None:
        log, account, _ = await self._filled(4)
        other = AccountId.new()
        await log.append(other, ModSeq(0), new_entries(2))
        await log.save_checkpoint(account, ModSeq(0), ModSeq(4), {"head": b"4"}, {})
        await log.erase(account)
        self.assertEqual(await log.head(account), 0)
        self.assertEqual(list(await log.read(account, ModSeq(0))), [])
        self.assertIsNone(await log.load_checkpoint(account, None))
        self.assertEqual(await log.append(account, ModSeq(0), new_entries(1)), 1)
        self.assertEqual(await log.head(other), 2)
        await log.erase(AccountId.new())
