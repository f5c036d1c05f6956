"""Notices, cache and bodies between processes on a real server, and without it."""

from __future__ import annotations

import asyncio
import time

from twisted.internet.defer import Deferred

from tests.storage.nats.engines import NATSCase
from twisted_mail.storage.interfaces import Refused
from twisted_mail.storage.nats import NATSEngine
from twisted_mail.storage.testing.base import collect, fails, together
from twisted_mail.values import AccountId, ModSeq


class BusTests(NATSCase):
    async def test_notices_pass_between_processes_and_do_not_come_back(self) -> None:
        engines, account = [await self.nats() for _ in range(3)], AccountId.new()
        for publisher in engines:
            heard: dict[NATSEngine, list[int]] = {engine: [] for engine in engines}
            ends = [engine.bus.subscribe(account, heard[engine].append) for engine in engines]
            for engine in engines:
                await engine._link.run(settled(engine))
            publisher.bus.publish(account, ModSeq(8))
            publisher.bus.publish(account, ModSeq(9))
            while not all(heard.values()):
                await self.turn(0.005)
            await self.turn(0.02)
            self.assertEqual(list(heard.values()), [[9]] * 3)
            for end in ends:
                end()

    async def test_an_account_is_subscribed_to_only_while_it_is_watched(self) -> None:
        engine, account = await self.nats(), AccountId.new()
        before = len(engine._link._subscribed)
        ends = [engine.bus.subscribe(account, lambda modseq: None) for _ in range(3)]
        await engine._link.run(settled(engine))
        self.assertEqual(len(engine._link._subscribed), before + 1)
        for end in ends:
            end()
        await engine._link.run(settled(engine))
        self.assertEqual(len(engine._link._subscribed), before)
        # one who comes while it ends is not forgotten
        engine.bus.subscribe(account, lambda modseq: None)()
        heard: Deferred[int] = Deferred()
        engine.bus.subscribe(account, heard.callback)
        await engine._link.run(settled(engine))
        other = await self.nats()
        other.bus.publish(account, ModSeq(4))
        self.assertEqual(await heard, 4)


async def settled(engine: NATSEngine) -> None:
    """The server knows what is subscribed to."""
    await asyncio.sleep(0.01)
    assert engine._link._client is not None
    await engine._link._client.flush()


class CacheTests(NATSCase):
    async def test_processes_share_values_and_counters(self) -> None:
        a, b = await self.nats(), await self.nats()
        await a.cache.set("k", b"value", 60)
        self.assertEqual(await b.cache.get("k"), b"value")
        sums = await together(*(engine.cache.increment("n", 60, 2) for engine in (a, b) * 20))
        self.assertEqual(sorted(s for s in sums if isinstance(s, int)), list(range(2, 82, 2)))

    async def test_keys_may_be_any_text(self) -> None:
        engine = await self.nats()
        for key in ("", "a.b *>", "zoë\n", "k" * 5000, "\udcff"):
            await engine.cache.set(key, key.encode("utf-8", "replace")[:100], 60)
            self.assertEqual(await engine.cache.get(key), key.encode("utf-8", "replace")[:100])
            self.assertEqual(await engine.cache.increment(key, 60), 1)

    async def test_nodes_whose_clocks_differ_agree_how_long_a_value_lives(self) -> None:
        a, b = await self.nats(), await self.nats()
        b._link.machine = b._link.wall = lambda: time.time() + 300
        await b._link.run(b.jetstream.info(b.queue.streams.name("inbound")))
        await a.cache.set("k", b"value", 60)
        self.assertEqual(await b.cache.get("k"), b"value")
        await b.cache.increment("n", 60)
        self.assertEqual(await a.cache.increment("n", 60), 2)


class BodiesTests(NATSCase):
    async def test_there_is_room_for_so_much_and_then_it_is_refused(self) -> None:
        engine = await self.nats(bodies=3_000_000)
        bodies = engine.queue_bodies
        kept = bodies.writer()
        await kept.write(b"a" * 1_000_000)
        ref = await kept.finish()
        writer = bodies.writer()
        started = self.reactor.seconds()

        async def write_much() -> None:
            for _ in range(40):
                await writer.write(b"b" * 100_000)

        await fails(Refused, write_much())
        self.assertGreater(2, self.reactor.seconds() - started)
        await writer.abort()
        self.assertEqual(b"".join(await collect(bodies.open(ref))), b"a" * 1_000_000)
        # what was given up has left its room
        again = bodies.writer()
        await again.write(b"c" * 1_500_000)
        self.assertEqual(len(b"".join(await collect(bodies.open(await again.finish())))), 1_500_000)

    async def test_a_generation_is_a_blob_of_its_own(self) -> None:
        bodies = (await self.nats()).queue_bodies
        refs = []
        for generation in (0, 2):
            writer = bodies.writer()
            await writer.write(b"content")

            async def choose(ref: object, generation: int = generation) -> int:
                return generation

            refs.append(await writer.finish(choose))
        self.assertEqual([ref.generation for ref in refs], [0, 2])
        await bodies.delete(refs[0])
        self.assertEqual(b"".join(await collect(bodies.open(refs[1]))), b"content")
        self.assertEqual(await collect(bodies.iterate()), [refs[1]])

    async def test_what_an_interrupted_write_left_is_removed_a_day_later(self) -> None:
        engine = await self.nats()
        bodies = engine.queue_bodies
        left, whole = bodies.writer(), bodies.writer()
        await left.write(bytes(600_000))
        await whole.write(b"x" * 600_000)
        ref = await whole.finish()
        pattern = f"{self.prefix}.body.part.>"

        async def parts() -> int:
            return len(await engine._link.run(engine.jetstream.subjects(bodies.stream, pattern)))

        self.assertEqual(await parts(), 5)
        await (await self.nats())._link.run(engine.queue_bodies.start())
        self.assertEqual(await parts(), 5, "it may still be written")
        self.reactor.offset += 90_000
        await engine._link.run(bodies._remove_left_overs())
        self.assertEqual(await parts(), 3)
        self.assertEqual(len(b"".join(await collect(bodies.open(ref)))), 600_000)
        await fails(ValueError, whole.write(b"more"))
