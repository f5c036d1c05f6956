"""The lists in CQL: the contract on a real cluster, and what is said to it."""

from __future__ import annotations

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.storage import testing
from twisted_mail.storage.cql.lists import BATCH_BYTES, BATCH_ROWS, LONGEST_TEXT, CQLLists
from twisted_mail.storage.interfaces import ListDelete, ListPut, ListRow, Lists
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq


class CQLListsTests(testing.ListsContract, ClusterCase):
    async def build(self) -> Lists:
        return CQLLists(await self.session())

    async def test_long_lines_are_cut_and_large_differences_go_in_several_batches(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        rows = [
            ListRow(folder, 7, uid, MessageKey(0, MessageId.new()), "s", "ö" * 5000, "\0" * 3000, (), 1)
            for uid in range(1, 301)
        ]
        await lists.apply(account, [ListPut("read", 3, row) for row in rows], ModSeq(1))
        found = await lists.page(account, "read", 3, folder, None, 1000)
        self.assertEqual([row.uid for row in found], list(range(300, 0, -1)))
        self.assertEqual({(len(row.subject), len(row.preview)) for row in found}, {(LONGEST_TEXT, LONGEST_TEXT)})
        self.assertTrue(BATCH_ROWS * 64 < BATCH_BYTES)
        deletes = [ListDelete("read", 3, folder, 7, uid) for uid in range(2, 301)]
        await lists.apply(account, deletes, ModSeq(2))
        self.assertEqual([row.uid for row in await lists.page(account, "read", 3, folder, None, 1000)], [1])

    async def test_dates_far_away_come_back(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        for received in (-62_135_596_800_000, -1, 0, 253_402_300_799_999):
            row = ListRow(folder, received, 1, MessageKey(0, MessageId.new()), "", "", "", ("\\Seen",), 1)
            await lists.apply(account, [ListPut("read", 0, row)], ModSeq(1))
            found = await lists.page(account, "read", 0, folder, None, 10)
            self.assertTrue(row in found)
