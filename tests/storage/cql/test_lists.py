"""The lists in CQL: the contract on a real cluster, and what is said to it."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch
from uuid import UUID

from pyroaring import BitMap
from twisted.internet.threads import deferToThread

from tests.account.test_list_buckets import Bare
from tests.storage.cql.cluster import ClusterCase
from twisted_mail.account import lists as lists_module
from twisted_mail.account.buckets import buckets_of
from twisted_mail.account.lists import MessageLists
from twisted_mail.storage import testing
from twisted_mail.storage.cql.lists import BATCH_BYTES, BATCH_ROWS, LONGEST_TEXT, CQLLists
from twisted_mail.storage.cql.session import ClusterSession
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

    async def test_an_inbox_that_is_emptied_daily_is_never_read_through_many_tombstones(self) -> None:
        session, account = await self.session(), Bare()
        opened: Any = account  # all that `MessageLists` asks of an Account
        limits = {"RENEW_AT": 50, "SPLIT_NEWEST": 100, "KEPT_NEWEST": 20, "MERGE_ROWS": 20}
        wall = [1_700_000_000.0]
        lists = MessageLists(CQLLists(session), lambda: wall[0])
        inbox, most = account.state.inbox.id, 0
        with patch.multiple(lists_module, **limits):  # type: ignore[call-overload]  # values of any constant
            for day in range(30):
                wall[0] += 86_400
                account.deliver([day * 86_400 + second for second in range(10)])
                uids = BitMap(range(day * 10 + 1, day * 10 + 11))
                self.assertEqual(len(await lists.page(opened, "unread", inbox, None, 50)), 10)
                account.flag(uids)
                self.assertEqual(len(await lists.page(opened, "read", inbox, None, 50)), 10)
                account.expunge(uids)
                self.assertEqual(len(await lists.page(opened, "read", inbox, None, 50)), 0)
                if day % 6 == 5:
                    buckets = [period.bucket for period in buckets_of(account.state).periods]
                    for table in ("read_emails", "unread_emails"):
                        for bucket in buckets:
                            found = await _tombstones(session, table, account.id, bucket, inbox)
                            self.assertTrue(found <= 50, found)
                            most = max(most, found)
        self.assertGreater(most, 0, "the trace tells of tombstones")


async def _tombstones(session: ClusterSession, table: str, account: AccountId, bucket: int, folder: MailboxId) -> int:
    """How many the server says that it met in a read of the whole list."""

    def traced() -> int:
        text = f"SELECT uid FROM {session.options.keyspace}.{table} WHERE user_id = %s AND bucket = %s AND folder = %s"
        place = (UUID(bytes=account.octets), bucket, UUID(bytes=folder.octets))
        future = session._driver.execute_async(text, place, trace=True)
        future.result()
        events = [event.description for event in future.get_query_trace(max_wait=20).events]
        counts = [int(found[1]) for event in events if (found := re.search(r"and (\d+) tombstone", event))]
        assert counts, events
        return max(counts)

    return int(await deferToThread(traced))
