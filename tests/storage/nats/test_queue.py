"""The queue on a real server beyond its contract: several processes, races, lost answers, limits, long lists."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, Literal

from twisted.internet.defer import Deferred

from tests.storage.nats.engines import NATSCase
from twisted_mail.storage.interfaces import ItemState, LeasedItem, QueueFilter, QueueItem, Refused, Unavailable
from twisted_mail.storage.nats import NATSEngine
from twisted_mail.storage.nats.items import DUE, Entry, Place
from twisted_mail.storage.nats.jetstream import JetStream
from twisted_mail.storage.testing.base import fails, together
from twisted_mail.values import DeliveryId


def an_item(domain: str = "example.org", use: Literal["inbound", "outbound"] = "outbound") -> QueueItem:
    return QueueItem(DeliveryId.new(), use, b"envelope", None, domain, "ann@example.net", created=1.0)


class QueueCase(NATSCase):
    async def states(self, engine: NATSEngine) -> list[tuple[DeliveryId, ItemState]]:
        return [(status.item.id, status.state) for status in await engine.queue.list(QueueFilter(), limit=1000)]

    async def messages(self, engine: NATSEngine, use: str = "outbound") -> int:
        """How many messages the stream has: an item in two places would be two."""
        info = await engine._link.run(engine.jetstream.info(engine.queue.streams.name(use)))
        return int(info["state"]["messages"])

    async def leased(self, engine: NATSEngine, seconds: float = 60.0, within: float = 5.0) -> LeasedItem:
        """An item, as soon as there is one."""
        ends = self.reactor.seconds() + within
        while self.reactor.seconds() < ends:
            for leased in await engine.queue.lease("outbound", 1, seconds):
                return leased
            await self.turn(0.05)
        raise AssertionError("no item came")

    def die(self, engine: NATSEngine) -> None:
        """The process gives no more signs of life."""
        beating = engine.queue._leases._beating
        assert beating is not None
        beating.cancel()


class TwoProcessTests(QueueCase):
    async def test_each_item_has_one_holder_among_both(self) -> None:
        a, b = await self.nats(), await self.nats()
        items = [an_item(f"d{number}.example") for number in range(30)]
        await together(*(a.queue.put(item) for item in items))
        leases = await together(*(engine.queue.lease("outbound", 5, 60) for engine in (a, b) * 5))
        ids = [leased.item.id for outcome in leases if not isinstance(outcome, BaseException) for leased in outcome]
        self.assertEqual((len(ids), set(ids)), (30, {item.id for item in items}))

    async def test_what_a_dead_process_had_comes_to_another_with_its_attempt_counted(self) -> None:
        a, b = await self.nats(ack_wait=0.4), await self.nats()
        await a.queue.put(an_item())
        first = await self.leased(a)
        self.assertEqual(list(await b.queue.lease("outbound", 1, 60)), [])
        self.die(a)
        second = await self.leased(b)
        self.assertEqual((second.item.id, second.item.attempts), (first.item.id, 2))
        # who comes first has finished it; the other one learns that it has lost it
        self.assertTrue(await b.queue.ack(second.token))
        self.assertFalse(await a.queue.ack(first.token))
        self.assertFalse(await a.queue.extend(first.token, 60))
        self.assertFalse(await a.queue.retry(first.token, 1, "late"))
        self.assertEqual(await self.messages(a), 0)

    async def test_a_process_that_lives_keeps_its_leases_longer_than_the_servers_wait(self) -> None:
        a, b = await self.nats(ack_wait=0.4), await self.nats()
        await a.queue.put(an_item())
        first = await self.leased(a)
        await self.turn(1.0)
        self.assertEqual(list(await b.queue.lease("outbound", 1, 60)), [])
        self.assertTrue(await a.queue.extend(first.token, 60))
        self.assertTrue(await a.queue.ack(first.token))

    async def test_a_process_that_stops_gives_its_items_back_at_once(self) -> None:
        a, b = await self.nats(), await self.nats()
        await a.queue.put(an_item())
        await self.leased(a)
        await a.queue._link.run(a.queue.stop())
        self.assertEqual((await self.leased(b, within=2.0)).item.attempts, 2)

    async def test_who_died_between_the_two_steps_of_a_retry_leaves_one_item(self) -> None:
        a, b = await self.nats(ack_wait=0.4), await self.nats()
        item = an_item()
        await a.queue.put(item)
        first = await self.leased(a)

        async def dies(stream: str, sequence: int) -> bool:
            self.die(a)
            raise Unavailable("gone")

        self.patch(a.jetstream, "delete", dies)  # type: ignore[no-untyped-call]  # of trial
        await fails(Unavailable, a.queue.retry(first.token, 3600, "451 later"))
        self.assertEqual(await self.messages(b), 2)
        self.assertEqual(await self.states(b), [(item.id, ItemState.WAITING)])
        ends = self.reactor.seconds() + 5
        while await self.messages(b) > 1 and self.reactor.seconds() < ends:
            self.assertEqual(list(await b.queue.lease("outbound", 9, 60)), [])
            await self.turn(0.05)
        self.assertEqual(await self.messages(b), 1)
        [status] = await b.queue.list(QueueFilter())
        self.assertEqual(
            (status.state, status.item.attempts, status.item.last_reply), (ItemState.WAITING, 1, "451 later")
        )

    async def test_another_process_revokes_a_lease(self) -> None:
        a, b = await self.nats(), await self.nats()
        for end in (b.queue.hold, b.queue.delete):
            item = an_item()
            await a.queue.put(item)
            leased = await self.leased(a)
            self.assertTrue(await end(item.id))
            self.assertFalse(await a.queue.ack(leased.token))
            self.assertFalse(await a.queue.retry(leased.token, 1, "late"))
        self.assertEqual([state for _, state in await self.states(b)], [ItemState.HELD])

    async def test_lists_say_what_other_processes_have_leased(self) -> None:
        a, b = await self.nats(), await self.nats()
        for _ in range(2):
            await a.queue.put(an_item())
        leased = await self.leased(a)
        [status] = await b.queue.list(QueueFilter(state=ItemState.LEASED))
        self.assertEqual((status.item, round(status.due - leased.expires)), (leased.item, 0))
        [due] = await b.queue.list(QueueFilter(state=ItemState.DUE))
        self.assertFalse(due.item.id == leased.item.id)

    async def test_shards_are_shared_among_those_who_work_on_a_use(self) -> None:
        a, b, c = await self.nats(shards=8), await self.nats(), await self.nats()

        async def serve(account: Any, request: bytes) -> bytes:
            return request

        await a.members.join("a", frozenset({"relay"}), serve)
        await b.members.join("b", frozenset({"relay", "delivery"}), serve)
        await c.members.join("c", frozenset({"smtp"}), serve)
        while len(await a.members.alive()) < 3 or len(await b.members.alive()) < 3:
            await self.turn(0.02)
        shards_a, shards_b = a._shards("outbound", 8), b._shards("outbound", 8)
        assert shards_a is not None and shards_b is not None
        self.assertEqual(sorted([*shards_a, *shards_b]), list(range(8)))
        self.assertEqual(b._shards("inbound", 8), list(range(8)))
        self.assertIsNone(c._shards("outbound", 8), "who does not share them may ask for any")
        items = [an_item(f"d{number}.example") for number in range(40)]
        await together(*(a.queue.put(item) for item in items))
        for engine in (a, b):
            engine.queue._looked_elsewhere = engine._link.loop_time()
        of_a, of_b = [await engine.queue.lease("outbound", 100, 60) for engine in (a, b)]
        self.assertEqual(len(of_a) + len(of_b), 40)
        domains_a, domains_b = ({leased.item.domain for leased in each} for each in (of_a, of_b))
        self.assertEqual(domains_a & domains_b, set())
        self.assertTrue(domains_a and domains_b)


class RaceTests(QueueCase):
    async def test_a_hold_and_an_acknowledgement_agree_about_who_was_first(self) -> None:
        a, b = await self.nats(), await self.nats()
        outcomes, choose = set(), random.Random(3)
        for _ in range(40):
            item = an_item()
            await a.queue.put(item)
            leased = await self.leased(a)
            held, acked = await together(
                b.queue.hold(item.id), self.later(a.queue.ack(leased.token), choose.random() * 8)
            )
            self.assertTrue(held is not acked, (held, acked))
            left = [ItemState.HELD] if held else []
            self.assertEqual([state for _, state in await self.states(b)], left)
            await b.queue.delete(item.id)
            outcomes.add(held)
        self.assertEqual(outcomes, {True, False})

    async def later(self, work: Any, milliseconds: float) -> Any:
        await self.turn(milliseconds / 1000)
        return await work

    async def test_whatever_happens_at_once_an_item_is_in_one_place_or_gone(self) -> None:
        a, b = await self.nats(), await self.nats()
        choose = random.Random(7)
        for _ in range(40):
            item = an_item()
            await a.queue.put(item, delay=choose.choice([0.0, 0.0, 0.02]))
            token = next((each.token for each in await a.queue.lease("outbound", 1, 60)), "")
            what = [
                lambda token=token: a.queue.retry(token, choose.choice([0.01, 3600.0]), "451 later"),
                lambda token=token: a.queue.ack(token),
                lambda id=item.id: b.queue.hold(id),
                lambda id=item.id: b.queue.release(id),
                lambda id=item.id: b.queue.delete(id),
            ]
            chosen: list[Any] = choose.sample(what, 3)
            await together(*(self.later(each(), choose.random() * 4) for each in chosen))
            self.assertTrue(await self.messages(a) <= 1)
            await a.queue.delete(item.id)
            self.assertEqual(await self.messages(a), 0)

    async def test_an_item_that_becomes_due_while_it_is_held_is_held(self) -> None:
        engine = await self.nats()
        items = [an_item() for _ in range(12)]
        for number, item in enumerate(items):
            await engine.queue.put(item, delay=0.1 + number * 0.03)
        await self.turn(0.2)
        held = await together(*(engine.queue.hold(item.id) for item in items))
        self.assertEqual(held, [True] * 12)
        await self.turn(0.5)
        self.assertEqual(await self.states(engine), [(id, ItemState.HELD) for id in sorted(item.id for item in items)])
        self.assertEqual(await self.messages(engine), 12)
        self.assertEqual(list(await engine.queue.lease("outbound", 12, 60)), [])

    async def test_what_is_put_by_two_at_once_is_there_once(self) -> None:
        a, b = await self.nats(), await self.nats()
        for delay in (0.0, 100.0):
            item = an_item()
            outcomes = await together(*(engine.queue.put(item, delay=delay) for engine in (a, b) * 3))
            self.assertEqual(sorted(map(str, outcomes)), ["False"] * 5 + ["True"])
            self.assertEqual([id for id, _ in await self.states(a)].count(item.id), 1)


class LostAnswerTests(QueueCase):
    async def lose(self, engine: NATSEngine, subject: str) -> list[str]:
        """The answer to the next request whose subject begins so is lost."""
        real, lost = engine._link.request, list[str]()

        async def request(to: str, *arguments: Any) -> Any:
            answer = await real(to, *arguments)
            if to.startswith(subject) and not lost:
                lost.append(to)
                raise TimeoutError("lost")
            return answer

        self.patch(engine._link, "request", request)  # type: ignore[no-untyped-call]  # of trial
        return lost

    async def test_an_item_whose_put_was_not_answered_is_there_once_and_ours(self) -> None:
        engine, item = await self.nats(), an_item()
        lost = await self.lose(engine, f"{self.prefix}.outbound.")
        self.assertTrue(await engine.queue.put(item))
        self.assertEqual(len(lost), 1)
        self.assertFalse(await engine.queue.put(item))
        self.assertEqual(await self.messages(engine), 1)

    async def test_an_acknowledgement_that_was_not_answered_is_one(self) -> None:
        engine = await self.nats()
        await engine.queue.put(an_item())
        leased = await self.leased(engine)
        await self.lose(engine, "$JS.API.STREAM.MSG.DELETE")
        self.assertTrue(await engine.queue.ack(leased.token))
        self.assertEqual(await self.messages(engine), 0)

    async def test_a_release_and_a_hold_that_were_not_answered_are_done(self) -> None:
        engine, item = await self.nats(), an_item()
        await engine.queue.put(item, delay=3600)
        await self.lose(engine, f"{self.prefix}.outbound.held")
        self.assertTrue(await engine.queue.hold(item.id))
        await self.lose(engine, f"{self.prefix}.outbound.due")
        self.assertTrue(await engine.queue.release(item.id))
        self.assertEqual(await self.states(engine), [(item.id, ItemState.DUE)])
        self.assertEqual(await self.messages(engine), 1)

    async def test_a_retry_that_was_not_answered_is_one(self) -> None:
        engine = await self.nats()
        await engine.queue.put(an_item())
        leased = await self.leased(engine)
        await self.lose(engine, f"{self.prefix}.outbound.wait")
        self.assertTrue(await engine.queue.retry(leased.token, 3600, "451"))
        self.assertEqual([state for _, state in await self.states(engine)], [ItemState.WAITING])
        self.assertEqual(await self.messages(engine), 1)


class DeadLetterTests(QueueCase):
    async def test_after_so_many_attempts_an_item_is_held_with_its_last_reply(self) -> None:
        engine, item = await self.nats(attempts=2), an_item()
        await engine.queue.put(item)
        for number in (1, 2):
            leased = await self.leased(engine)
            self.assertEqual(leased.item.attempts, number)
            self.assertTrue(await engine.queue.retry(leased.token, 0.01, f"451 attempt {number}"))
        [status] = await engine.queue.list(QueueFilter(state=ItemState.HELD))
        self.assertEqual((status.item.id, status.item.last_reply), (item.id, "451 attempt 2"))
        self.assertTrue(await engine.queue.release(item.id))
        leased = await self.leased(engine)
        self.assertEqual(leased.item.attempts, 3)
        await engine.queue.retry(leased.token, 3600, "451 again")
        self.assertEqual(await self.states(engine), [(item.id, ItemState.WAITING)])

    async def test_an_item_on_which_every_process_dies_is_held(self) -> None:
        engine, item = await self.nats(attempts=2), an_item()
        await engine.queue.put(item)
        for _ in range(2):
            await self.leased(engine, seconds=30)
            await self.advance(31)
        self.assertEqual(list(await engine.queue.lease("outbound", 1, 30)), [])
        [status] = await engine.queue.list(QueueFilter())
        self.assertEqual((status.state, status.item.attempts), (ItemState.HELD, 3))
        self.assertTrue("nobody finished it" in status.item.last_reply, status.item.last_reply)

    async def test_what_cannot_be_read_is_put_aside(self) -> None:
        engine, item = await self.nats(), an_item()
        place = Place.of(self.prefix, item, DUE, 2)
        await engine._link.run(engine.jetstream.write(place.subject, b"\xc1nonsense", {}))
        good = an_item()
        await engine.queue.put(good)
        self.assertEqual([leased.item.id for leased in await engine.queue.lease("outbound", 9, 60)], [good.id])
        subjects = await engine._link.run(engine.jetstream.subjects(engine.queue.streams.name("outbound"), ">"))
        self.assertTrue(place.moved("held").subject in subjects)
        self.assertTrue(await engine.queue.delete(item.id))


class BoundTests(QueueCase):
    async def test_a_full_queue_takes_no_more_and_says_so(self) -> None:
        engine = await self.nats(items=3)
        for _ in range(3):
            self.assertTrue(await engine.queue.put(an_item()))
        error = await fails(Refused, engine.queue.put(an_item()))
        self.assertTrue("3 items" in str(error), str(error))
        self.assertTrue(await engine.queue.put(an_item(use="inbound")))
        leased = await self.leased(engine)
        await engine.queue.ack(leased.token)
        self.assertTrue(await engine.queue.put(an_item()))

    async def test_ten_thousand_items_are_listed_in_pages_by_id(self) -> None:
        real = JetStream.make_stream

        async def in_memory(self: JetStream, name: str, config: dict[str, Any], *metadata: Any) -> Any:
            return await real(self, name, {**config, "storage": "memory"}, *metadata)

        # what is listed is not how fast a disk is
        self.patch(JetStream, "make_stream", in_memory)  # type: ignore[no-untyped-call]  # of trial
        engine = await self.nats(shards=8)
        items = [replace(an_item(f"d{number % 100}.example"), sender=f"s{number % 7}") for number in range(10_000)]
        await engine._link.run(self.send_all(engine, items))
        while await self.messages(engine) < 10_000:
            await self.turn(0.05)
        ids = sorted(item.id for item in items)
        started = self.reactor.seconds()
        page = await engine.queue.list(QueueFilter())
        self.assertEqual([status.item.id for status in page], ids[:100])
        page = await engine.queue.list(QueueFilter(), after=ids[4_999], limit=300)
        self.assertEqual([status.item.id for status in page], ids[5_000:5_300])
        page = await engine.queue.list(QueueFilter(domain="d7.example"), limit=1000)
        self.assertEqual([s.item.id for s in page], sorted(item.id for item in items if item.domain == "d7.example"))
        page = await engine.queue.list(QueueFilter(domain="d7.example", sender="s3"), limit=1000)
        self.assertEqual({(s.item.domain, s.item.sender) for s in page}, {("d7.example", "s3")})
        self.assertGreater(10, self.reactor.seconds() - started)

    async def send_all(self, engine: NATSEngine, items: list[QueueItem]) -> None:
        """Without the conditions and the answers of a `put`, which are not what is tested."""
        for item in items:
            place = Place.of(self.prefix, item, DUE, 8)
            await engine._link.publish(place.subject, Entry(item, 1.0, b"").encode())

    async def test_the_number_of_shards_is_the_streams(self) -> None:
        a = await self.nats(shards=2)
        b = await self.nats(shards=5)
        self.assertEqual((a.queue.streams.shards, b.queue.streams.shards), (2, 2))

    async def test_consumers_that_were_removed_are_made_again(self) -> None:
        engine = await self.nats(shards=2)
        for shard in range(2):
            await engine._link.run(engine.jetstream.api(f"CONSUMER.DELETE.{self.prefix}-outbound.shard-{shard:02d}"))
        await engine.queue.put(an_item())
        await self.leased(engine)

    async def test_a_lease_call_that_is_given_up_keeps_nothing(self) -> None:
        engine = await self.nats()
        await engine.queue.put(an_item())
        real = engine.queue._first
        gone: Deferred[None] = Deferred()

        async def slow(*arguments: Any) -> Any:
            lease = await real(*arguments)
            gone.callback(None)
            await asyncio.sleep(5)
            return lease

        self.patch(engine.queue, "_first", slow)  # type: ignore[no-untyped-call]  # of trial
        waiting = Deferred.fromCoroutine(engine.queue.lease("outbound", 1, 60))
        await gone
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.patch(engine.queue, "_first", real)  # type: ignore[no-untyped-call]  # of trial
        self.assertEqual((await self.leased(engine, within=2.0)).item.attempts, 2)
