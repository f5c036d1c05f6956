"""Message rows on a real cluster."""

from __future__ import annotations

import os

import pytest

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.storage import testing
from twisted_mail.storage.cql.messages import CQLMessages
from twisted_mail.storage.interfaces import MessageRow, Messages
from twisted_mail.storage.testing.base import collect
from twisted_mail.values import AccountId, MessageId, MessageKey

pytestmark = pytest.mark.cluster


class CQLMessagesTests(testing.MessagesContract, ClusterCase):
    async def build(self) -> Messages:
        return CQLMessages(await self.session())

    async def test_large_cells_come_back_whole_and_go_with_their_row(self) -> None:
        session, account = await self.session(), AccountId.new()
        store = CQLMessages(session)
        cells = {"search_text": os.urandom(3_000_000), "inline": os.urandom(200_000), "preview": b"short"}
        rows = [MessageRow(MessageKey(0, MessageId.new()), cells), MessageRow(MessageKey(0, MessageId.new()), {})]
        await store.put(account, rows)
        columns = ("preview", "search_text", "inline")
        keys = [row.key for row in rows]
        found = await collect(store.get_many(account, keys, columns))
        self.assertEqual(found, [[tuple(cells[column] for column in columns), (b"", b"", b"")]])
        count = "SELECT count(*) AS n FROM message_part WHERE user_id = %s ALLOW FILTERING"
        from twisted_mail.storage.cql.heads import of

        self.assertEqual((await session.run(count, (of(account),)))[0]["n"], 13)
        await store.delete_many(account, keys)
        self.assertEqual(await collect(store.get_many(account, keys, columns)), [[None, None]])
        self.assertEqual((await session.run(count, (of(account),)))[0]["n"], 0)
