"""The suites of `Messages` and `Lists`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_mail.storage.interfaces import (
    COLUMNS,
    ListDelete,
    ListPut,
    ListRow,
    Lists,
    MessageRow,
    Messages,
)
from twisted_mail.storage.testing.base import Suite, collect, fails
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq

__all__ = ["ListsContract", "MessagesContract", "message_row"]


def message_row(bucket: int = 0, number: int = 0) -> MessageRow:
    """A row with something in every column, some of it long, some of it hard to compress."""
    cells = {column: f"{column} {number} ".encode() * (1 + number % 5) for column in COLUMNS}
    cells["inline"] = bytes(range(256)) * (number % 7)
    cells["search_text"] = b"the same words again and again " * (40 * (number % 3))
    return MessageRow(MessageKey(bucket, MessageId.new()), cells)


class MessagesContract(Suite):
    """An engine is a `Messages` if it passes."""

    async def build(self) -> Messages:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def _get(
        self, store: Messages, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> list[tuple[bytes, ...] | None]:
        return [row for batch in await collect(store.get_many(account, keys, columns)) for row in batch]

    async def _filled(self, count: int, buckets: int = 1) -> tuple[Messages, AccountId, list[MessageRow]]:
        store, account = await self.build(), AccountId.new()
        rows = [message_row(number % buckets, number) for number in range(count)]
        await store.put(account, rows)
        return store, account, rows

    async def test_every_column_comes_back_as_written(self) -> None:
        store, account, rows = await self._filled(30)
        found = await self._get(store, account, [row.key for row in rows], COLUMNS)
        self.assertEqual(found, [tuple(row.cells[column] for column in COLUMNS) for row in rows])
        for column in COLUMNS:
            found = await self._get(store, account, [row.key for row in rows], [column])
            self.assertEqual(found, [(row.cells[column],) for row in rows])

    async def test_columns_come_in_the_order_asked_for(self) -> None:
        store, account, rows = await self._filled(6)
        for columns in (["inline", "envelope", "facts"], ["preview", "header"], ["body", "body"], []):
            found = await self._get(store, account, [row.key for row in rows], columns)
            self.assertEqual(found, [tuple(row.cells[column] for column in columns) for row in rows])

    async def test_a_column_that_was_left_out_is_empty(self) -> None:
        store, account = await self.build(), AccountId.new()
        key = MessageKey(3, MessageId.new())
        await store.put(account, [MessageRow(key, {"envelope": b"(NIL)"})])
        self.assertEqual(await self._get(store, account, [key], ["header", "envelope"]), [(b"", b"(NIL)")])

    async def test_a_row_that_does_not_exist_is_none(self) -> None:
        store, account, rows = await self._filled(20)
        missing = [MessageKey(0, MessageId.new()) for _ in range(20)]
        keys = [key for pair in zip((row.key for row in rows), missing, strict=True) for key in pair]
        for columns in (["envelope"], ["inline"], ["envelope", "inline"]):
            found = await self._get(store, account, keys, columns)
            self.assertEqual(found[0::2], [tuple(row.cells[c] for c in columns) for row in rows])
            self.assertEqual(found[1::2], [None] * 20)
        self.assertEqual(await self._get(store, AccountId.new(), [rows[0].key], ["envelope"]), [None])
        self.assertEqual(await self._get(store, account, [MessageKey(9, rows[0].key.id)], ["envelope"]), [None])

    async def test_keys_may_come_in_any_order_and_from_any_bucket(self) -> None:
        store, account, rows = await self._filled(300, buckets=3)
        for step in (1, -1, 7, -31, 2):
            wanted = rows[::step]
            for columns in (["envelope"], ["search_text"], ["structure", "layout"]):
                found = await self._get(store, account, [row.key for row in wanted], columns)
                self.assertEqual(found, [tuple(row.cells[c] for c in columns) for row in wanted])

    async def test_a_key_that_is_named_twice_comes_twice(self) -> None:
        store, account, rows = await self._filled(9)
        wanted = [*rows, *rows, rows[4]]
        found = await self._get(store, account, [row.key for row in wanted], ["envelope"])
        self.assertEqual(found, [(row.cells["envelope"],) for row in wanted])

    async def test_many_rows_come_in_batches(self) -> None:
        store, account, rows = await self._filled(5000)
        batches = await collect(store.get_many(account, [row.key for row in rows], ["common_header"]))
        self.assertGreater(len(batches), 1)
        self.assertEqual([row for batch in batches for row in batch], [(r.cells["common_header"],) for r in rows])

    async def test_reading_may_end_early(self) -> None:
        store, account, rows = await self._filled(3000)
        async for batch in store.get_many(account, [row.key for row in rows], ["inline"]):
            self.assertEqual(batch[0], (rows[0].cells["inline"],))
            break
        self.assertEqual(await self._get(store, account, [], ["inline"]), [])

    async def test_a_column_that_does_not_exist_is_an_error_of_the_caller(self) -> None:
        store, account, rows = await self._filled(1)
        await fails(ValueError, self._get(store, account, [rows[0].key], ["colour"]))
        await fails(ValueError, store.put(account, [MessageRow(rows[0].key, {"colour": b"red"})]))

    async def test_putting_a_row_again_is_harmless(self) -> None:
        store, account, rows = await self._filled(3)
        await store.put(account, rows)
        found = await self._get(store, account, [row.key for row in rows], ["inline", "body"])
        self.assertEqual(found, [(row.cells["inline"], row.cells["body"]) for row in rows])

    async def test_rows_are_deleted_one_by_one(self) -> None:
        store, account, rows = await self._filled(8)
        await store.delete_many(account, [row.key for row in rows[::2]])
        await store.delete_many(account, [rows[0].key, MessageKey(7, MessageId.new())])
        await store.delete_many(AccountId.new(), [rows[1].key])
        found = await self._get(store, account, [row.key for row in rows], ["facts", "layout"])
        self.assertEqual([row is None for row in found], [True, False] * 4)

    async def test_every_key_of_an_account_is_found_ascending(self) -> None:
        store, account, rows = await self._filled(2500, buckets=2)
        await store.put(AccountId.new(), [message_row()])
        keys = [key for batch in await collect(store.iterate(account)) for key in batch]
        self.assertEqual(keys, sorted(row.key for row in rows))
        self.assertEqual(await collect(store.iterate(AccountId.new())), [])


class ListsContract(Suite):
    """An engine is a `Lists` if it passes."""

    async def build(self) -> Lists:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    def _row(self, folder: MailboxId, received: int, uid: int, subject: str = "s") -> ListRow:
        key = MessageKey(0, MessageId.new())
        return ListRow(folder, received, uid, key, "Zoë <zoe@example.org>", subject, "…", ("\\Seen", "$work"), 1234)

    async def test_a_page_has_the_newest_first_and_the_next_goes_on_below(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        rows = [self._row(folder, 1000 + number // 3, number) for number in range(1, 11)]
        await lists.apply(account, [ListPut("unread", 0, row) for row in rows], ModSeq(7))
        rows.reverse()
        self.assertEqual(list(await lists.page(account, "unread", 0, folder, None, 4)), rows[:4])
        before = (rows[3].received, rows[3].uid)
        self.assertEqual(list(await lists.page(account, "unread", 0, folder, before, 100)), rows[4:])
        self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 100)), [])
        self.assertEqual(list(await lists.page(account, "unread", 1, folder, None, 100)), [])
        self.assertEqual(list(await lists.page(account, "unread", 0, MailboxId.new(), None, 100)), [])
        self.assertEqual(list(await lists.page(AccountId.new(), "unread", 0, folder, None, 100)), [])

    async def test_a_row_moves_from_one_list_to_the_other(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        row = self._row(folder, 5, 1)
        await lists.apply(account, [ListPut("unread", 0, row)], ModSeq(1))
        await lists.apply(account, [ListDelete("unread", 0, folder, 5, 1), ListPut("read", 0, row)], ModSeq(2))
        self.assertEqual(list(await lists.page(account, "unread", 0, folder, None, 9)), [])
        self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 9)), [row])

    async def test_changes_converge_in_whatever_order_and_however_often_they_come(self) -> None:
        lists, folder = await self.build(), MailboxId.new()
        first, second = self._row(folder, 5, 1, "first"), self._row(folder, 5, 1, "second")
        steps: list[tuple[int, ListPut | ListDelete]] = [
            (1, ListPut("read", 0, first)),
            (2, ListDelete("read", 0, folder, 5, 1)),
            (3, ListPut("read", 0, second)),
        ]
        orders: Sequence[tuple[int, ...]] = ((0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1, 2, 0), (0, 2, 1))
        for order in orders:
            account = AccountId.new()
            for at in order:
                await lists.apply(account, [steps[at][1]], ModSeq(steps[at][0]))
            self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 9)), [second], order)
        for order in [(0, 1), (1, 0), (1, 0, 1, 0)]:
            account = AccountId.new()
            for at in order:
                await lists.apply(account, [steps[at][1]], ModSeq(steps[at][0]))
            self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 9)), [], order)

    async def test_at_one_modseq_a_delete_wins(self) -> None:
        lists, folder = await self.build(), MailboxId.new()
        put, delete = ListPut("read", 0, self._row(folder, 5, 1)), ListDelete("read", 0, folder, 5, 1)
        cases: list[list[list[ListPut | ListDelete]]] = [
            [[put, delete]],
            [[delete, put]],
            [[put], [delete]],
            [[delete], [put]],
        ]
        for changes in cases:
            account = AccountId.new()
            for some in changes:
                await lists.apply(account, some, ModSeq(4))
            self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 9)), [], changes)

    async def test_a_bucket_knows_how_far_it_has_come(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        self.assertEqual(await lists.reached(account, 0), 0)
        await lists.apply(account, [ListPut("read", 0, self._row(folder, 1, 1))], ModSeq(5))
        self.assertEqual(await lists.reached(account, 0), 0, "there may be more to come")
        await lists.mark_reached(account, 0, ModSeq(5))
        await lists.mark_reached(account, 1, ModSeq(9))
        await lists.mark_reached(account, 1, ModSeq(8))
        self.assertEqual((await lists.reached(account, 0), await lists.reached(account, 1)), (5, 9))

    async def test_a_bucket_is_dropped_whole(self) -> None:
        lists, account, folder = await self.build(), AccountId.new(), MailboxId.new()
        row = self._row(folder, 1, 1)
        changes = [ListPut("read", 0, row), ListPut("unread", 0, row), ListPut("read", 1, row)]
        await lists.apply(account, changes, ModSeq(5))
        for bucket in (0, 1):
            await lists.mark_reached(account, bucket, ModSeq(5))
        await lists.drop(account, 0)  # for ever: its number is not used again
        await lists.drop(account, 0)
        self.assertEqual(list(await lists.page(account, "read", 0, folder, None, 9)), [])
        self.assertEqual(list(await lists.page(account, "unread", 0, folder, None, 9)), [])
        self.assertEqual(list(await lists.page(account, "read", 1, folder, None, 9)), [row])
        self.assertEqual((await lists.reached(account, 0), await lists.reached(account, 1)), (0, 5))
