"""The suite of `Queue`."""

from __future__ import annotations

from dataclasses import replace

from twisted_mail.storage.interfaces import ItemState, Queue, QueueFilter, QueueItem, Use
from twisted_mail.storage.testing.base import Suite, together
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["QueueContract"]


class QueueContract(Suite):
    """An engine is a `Queue` if it passes."""

    async def build(self) -> Queue:
        """A started, empty store whose clock `advance` moves; clean up by `addCleanup`."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let *seconds* go by on the store's clock."""
        raise NotImplementedError

    def _item(self, domain: str = "example.org", use: Use = "outbound") -> QueueItem:
        body = BlobRef("ab" * 32, 1234, 2)
        return QueueItem(
            DeliveryId.new(), use, bytes(range(256)), body, domain, "zoë@example.net", 0, "", 1_700_000_000.5
        )

    async def test_an_item_is_leased_whole_with_its_attempt_counted(self) -> None:
        queue, item = await self.build(), self._item()
        bare = QueueItem(DeliveryId.new(), "inbound", b"", None)
        self.assertTrue(await queue.put(item))
        self.assertTrue(await queue.put(bare))
        [leased] = await queue.lease("outbound", 10, 60)
        self.assertEqual(leased.item, replace(item, attempts=1))
        [other] = await queue.lease("inbound", 10, 60)
        self.assertEqual(other.item, replace(bare, attempts=1))
        self.assertTrue(await queue.ack(leased.token))
        self.assertEqual([s.item.id for s in await queue.list(QueueFilter())], [bare.id])

    async def test_each_use_is_leased_by_itself(self) -> None:
        queue, bulk = await self.build(), [self._item(use="bulk") for _ in range(3)]
        for item in bulk:
            await queue.put(item)
        one = self._item()
        await queue.put(one)
        self.assertEqual([leased.item.id for leased in await queue.lease("outbound", 2, 60)], [one.id])
        [leased] = await queue.lease("bulk", 1, 60)
        self.assertTrue(await queue.retry(leased.token, 5, "later"))
        await self.advance(10)
        self.assertEqual({each.item.id for each in await queue.lease("bulk", 9, 60)}, {item.id for item in bulk})
        found = await queue.list(QueueFilter(use="bulk", domain="example.org"))
        self.assertEqual({status.item.id for status in found}, {item.id for item in bulk})

    async def test_an_id_is_put_once(self) -> None:
        queue, item = await self.build(), self._item()
        self.assertTrue(await queue.put(item))
        self.assertFalse(await queue.put(replace(item, domain="b.example")))
        [leased] = await queue.lease("outbound", 10, 60)
        self.assertFalse(await queue.put(item), "also while it is leased")
        self.assertEqual(leased.item.domain, "example.org")
        await queue.ack(leased.token)
        self.assertTrue(await queue.put(item), "what was acknowledged is forgotten")

    async def test_oldest_due_first_and_not_before_it_is_due(self) -> None:
        queue = await self.build()
        items = [self._item() for _ in range(5)]
        for item, delay in zip(items, (4.0, 2.0, 0.0, 3.0, 1.0), strict=True):
            await queue.put(item, delay=delay)
        self.assertEqual([leased.item.id for leased in await queue.lease("outbound", 9, 60)], [items[2].id])
        await self.advance(10)
        some = await queue.lease("outbound", 2, 60)
        self.assertEqual([leased.item.id for leased in some], [items[4].id, items[1].id])
        rest = await queue.lease("outbound", 9, 60)
        self.assertEqual([leased.item.id for leased in rest], [items[3].id, items[0].id])
        self.assertEqual(list(await queue.lease("outbound", 9, 60)), [])

    async def test_of_many_workers_each_item_has_one(self) -> None:
        queue = await self.build()
        for _ in range(20):
            await queue.put(self._item())
        outcomes = await together(*(queue.lease("outbound", 3, 60) for _ in range(10)))
        ids = [leased.item.id for outcome in outcomes if not isinstance(outcome, BaseException) for leased in outcome]
        self.assertEqual((len(ids), len(set(ids))), (20, 20))

    async def test_an_item_whose_lease_ran_out_comes_back_and_its_old_holder_has_lost_it(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        [first] = await queue.lease("outbound", 1, 30)
        await self.advance(29)
        self.assertEqual(list(await queue.lease("outbound", 1, 30)), [])
        await self.advance(2)
        [second] = await queue.lease("outbound", 1, 30)
        self.assertEqual((second.item.id, second.item.attempts), (first.item.id, 2))
        self.assertFalse(first.token == second.token)
        self.assertFalse(await queue.ack(first.token))
        self.assertFalse(await queue.extend(first.token, 30))
        self.assertFalse(await queue.retry(first.token, 1, "late"))
        self.assertTrue(await queue.ack(second.token))

    async def test_a_lease_that_ran_out_is_still_acknowledged_while_nobody_else_has_the_item(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        [leased] = await queue.lease("outbound", 1, 30)
        await self.advance(31)
        self.assertTrue(await queue.ack(leased.token))
        self.assertEqual(list(await queue.lease("outbound", 1, 30)), [])

    async def test_a_lease_is_extended_from_now(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        [leased] = await queue.lease("outbound", 1, 30)
        await self.advance(20)
        self.assertTrue(await queue.extend(leased.token, 30))
        await self.advance(29)
        self.assertEqual(list(await queue.lease("outbound", 1, 30)), [])
        await self.advance(2)
        self.assertEqual(len(await queue.lease("outbound", 1, 30)), 1)

    async def test_what_is_given_back_waits_with_its_last_reply(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertTrue(await queue.retry(leased.token, 1800, "451 4.3.0 später"))
        self.assertFalse(await queue.ack(leased.token))
        [status] = await queue.list(QueueFilter())
        self.assertEqual((status.state, status.item.last_reply), (ItemState.WAITING, "451 4.3.0 später"))
        await self.advance(1799)
        self.assertEqual(list(await queue.lease("outbound", 1, 30)), [])
        await self.advance(2)
        [again] = await queue.lease("outbound", 1, 30)
        self.assertEqual((again.item.attempts, again.item.last_reply), (2, "451 4.3.0 später"))

    async def test_what_is_given_back_may_have_another_envelope(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertTrue(await queue.retry(leased.token, 10, "451 4.7.1 greylisted", envelope=b"changed"))
        await self.advance(11)
        [again] = await queue.lease("outbound", 1, 30)
        self.assertEqual(
            again.item, replace(leased.item, attempts=2, envelope=b"changed", last_reply="451 4.7.1 greylisted")
        )

    async def test_what_was_put_off_without_being_tried_has_no_attempt_counted(self) -> None:
        queue = await self.build()
        await queue.put(self._item())
        for _ in range(3):
            [leased] = await queue.lease("outbound", 1, 30)
            self.assertEqual(leased.item.attempts, 1)
            self.assertTrue(await queue.retry(leased.token, 5, "over its limit", attempted=False))
            await self.advance(6)
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertTrue(await queue.retry(leased.token, 5, "451 4.0.0 no"))
        await self.advance(6)
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertEqual(leased.item.attempts, 2)

    async def test_a_held_item_is_not_leased_until_it_is_released(self) -> None:
        queue, item = await self.build(), self._item()
        await queue.put(item, delay=100)
        self.assertFalse(await queue.release(item.id), "not held")
        self.assertTrue(await queue.hold(item.id))
        self.assertTrue(await queue.hold(item.id))
        await self.advance(200)
        self.assertEqual(list(await queue.lease("outbound", 1, 30)), [])
        self.assertTrue(await queue.release(item.id))
        self.assertEqual(len(await queue.lease("outbound", 1, 30)), 1)
        self.assertFalse(await queue.hold(DeliveryId.new()))
        self.assertFalse(await queue.release(DeliveryId.new()))

    async def test_holding_revokes_a_lease(self) -> None:
        queue, item = await self.build(), self._item()
        await queue.put(item)
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertTrue(await queue.hold(item.id))
        self.assertFalse(await queue.extend(leased.token, 30))
        self.assertFalse(await queue.ack(leased.token))
        self.assertTrue(await queue.release(item.id))
        self.assertEqual(len(await queue.lease("outbound", 1, 30)), 1)

    async def test_items_are_listed_by_id_with_their_state(self) -> None:
        queue = await self.build()
        due, waiting, leased, held = (self._item() for _ in range(4))
        await queue.put(leased)
        await queue.lease("outbound", 1, 1000)
        await queue.put(due)
        await queue.put(waiting, delay=500)
        await queue.put(held)
        await queue.hold(held.id)
        expected = {
            due.id: ItemState.DUE,
            waiting.id: ItemState.WAITING,
            leased.id: ItemState.LEASED,
            held.id: ItemState.HELD,
        }
        listed = await queue.list(QueueFilter())
        self.assertEqual([(s.item.id, s.state) for s in listed], sorted(expected.items()))
        for id, state in expected.items():
            self.assertEqual([s.item.id for s in await queue.list(QueueFilter(state=state))], [id])
        ids = sorted(expected)
        self.assertEqual([s.item.id for s in await queue.list(QueueFilter(), limit=2)], ids[:2])
        self.assertEqual([s.item.id for s in await queue.list(QueueFilter(), after=ids[1])], ids[2:])

    async def test_filters_are_combined(self) -> None:
        queue = await self.build()
        one = self._item("a.example")
        two = self._item("b.example")
        three = replace(self._item("a.example", "inbound"), sender="")
        for item in (one, two, three):
            await queue.put(item)

        async def found(**filter: str) -> set[DeliveryId]:
            return {s.item.id for s in await queue.list(QueueFilter(**filter))}  # type: ignore[arg-type]  # no state

        self.assertEqual(await found(domain="a.example"), {one.id, three.id})
        self.assertEqual(await found(domain="a.example", use="outbound"), {one.id})
        self.assertEqual(await found(sender=""), {three.id})
        self.assertEqual(await found(sender="zoë@example.net"), {one.id, two.id})
        self.assertEqual(await found(domain="c.example"), set())

    async def test_an_item_is_deleted_whatever_its_state(self) -> None:
        queue, item = await self.build(), self._item()
        await queue.put(item)
        [leased] = await queue.lease("outbound", 1, 30)
        self.assertTrue(await queue.delete(item.id))
        self.assertFalse(await queue.delete(item.id))
        self.assertFalse(await queue.ack(leased.token))
        self.assertEqual(list(await queue.list(QueueFilter())), [])
