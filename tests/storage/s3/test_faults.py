"""A store that answers wrongly, slowly or not at all: what is stored gets through or fails cleanly, and nothing wrong is read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import cycle, repeat
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.services.s3_proxy import Fault, S3Proxy, in_turn
from tests.storage.s3.support import KEYS, S3Case
from tests.storage.s3.test_objects import LARGE, octets
from twisted_mail.storage.interfaces import BlobWriter, Corrupt, Refused, Unavailable
from twisted_mail.storage.s3 import S3Blobs, S3Engine
from twisted_mail.storage.s3.sealing import Keyring, seal
from twisted_mail.storage.testing.base import collect, fails, together
from twisted_mail.values import BlobRef

PASSING = (Fault.ERROR, Fault.BUSY, Fault.RESET, Fault.LOST, Fault.HIDDEN, Fault.TRUNCATED)
SEALED = {"encryption": f"keys:{KEYS[0]}"}


class S3FaultTests(S3Case):
    async def pair(self, **options: Any) -> tuple[S3Proxy, S3Engine, S3Blobs]:
        """A proxy, an engine through it whose repetitions do not wait long, and blobs straight from the store."""
        straight = await self.blobs(**options)
        proxy = await self.proxy()
        engine = await self.engine(through=proxy, **{"timeout": 5, **options})
        engine.blobs._calls._draw = lambda: 0.1
        return proxy, engine, straight

    async def test_reads_get_through_whatever_passes(self) -> None:
        for options in ({}, SEALED):
            proxy, engine, straight = await self.pair(**options)
            for size in (150_000, 1_200_000):
                content = octets(size)
                ref = await self.store(straight, content)
                proxy.choose = in_turn(PASSING)
                self.assertEqual(await self.content(engine.blobs, ref) == content, True)
                proxy.choose = in_turn(PASSING)
                self.assertEqual(
                    await self.content(engine.blobs, ref, 70_000, 140_001) == content[70_000:140_001], True
                )
                self.assertIsNone(engine.health())
            proxy.choose = in_turn(PASSING)
            self.assertEqual(len(await collect(engine.blobs.iterate())), 2)
            await straight.delete_many([ref async for ref in straight.iterate()])

    async def test_an_answer_that_breaks_off_is_resumed_where_it_ended(self) -> None:
        proxy, engine, straight = await self.pair()
        content = octets(500_000)
        ref = await self.store(straight, content)
        proxy.choose = in_turn([Fault.TRUNCATED] * 3, "GET")
        client, ranges = engine.blobs._calls._client, []
        real = client.get_object

        def noted(**wanted: Any) -> Any:
            ranges.append(wanted["Range"])
            return real(**wanted)

        client.get_object = noted
        self.assertEqual(await self.content(engine.blobs, ref) == content, True)
        begins = [int(wanted[6:].partition("-")[0]) for wanted in ranges]
        self.assertEqual(begins, [0, 250_000, 375_000, 437_500])

    async def test_parts_of_two_versions_of_an_object_are_never_put_together(self) -> None:
        proxy, engine, straight = await self.pair(**SEALED)
        content = octets(500_000)
        ref = await self.store(straight, content)
        keyring = Keyring.parse(KEYS[0])
        header, cipher = keyring.new_header()
        other = b"".join([header, *seal(cipher, 0, content, True)])
        client = engine.blobs._calls._client
        answers: list[str] = []
        real = client.get_object

        def replaced(**wanted: Any) -> Any:
            if len(answers) == 1:  # deleted and stored again, under another key of its own, after half was read
                client.put_object(Bucket=wanted["Bucket"], Key=wanted["Key"], Body=other)
            answers.append(wanted["Range"])
            return real(**wanted)

        proxy.choose = in_turn([Fault.TRUNCATED], "GET")
        with patch.object(client, "get_object", replaced):
            self.assertEqual(await self.content(engine.blobs, ref) == content, True)
        self.assertEqual(len(answers), 3, "half, the rest of another, and the whole of that")

    async def test_a_small_put_gets_through_whatever_passes_and_is_there_once(self) -> None:
        for options in ({}, SEALED):
            proxy, engine, straight = await self.pair(**options)
            for fault in PASSING:
                content = os.urandom(5000)
                proxy.choose = in_turn([fault, fault], "PUT")
                ref = await self.store(engine.blobs, content)
                self.assertEqual(await self.content(straight, ref), content)
            self.assertEqual(len(await collect(straight.iterate())), len(PASSING))
            await straight.delete_many([ref async for ref in straight.iterate()])

    async def test_a_large_put_gets_through_whatever_passes_and_leaves_nothing_else(self) -> None:
        for fault in (Fault.ERROR, Fault.LOST, Fault.TRUNCATED):
            proxy, engine, straight = await self.pair(**SEALED)
            content = octets(LARGE)
            # every request of it once, the one that begins it too (which may begin it twice)
            proxy.choose = in_turn(cycle([fault, Fault.NONE]))
            ref = await self.store(engine.blobs, content)
            self.assertGreater(len(proxy.seen), 8)
            self.assertEqual(await self.content(straight, ref) == content, True)
            self.assertEqual(await self.names(straight), [straight.name_of(ref)])
            straight._wall = lambda: self.reactor.wall() + 90_000
            await straight.remove_leftovers()
            self.assertEqual(await self.uploads(straight), [])
            await straight.delete(ref)

    @patch("twisted_mail.storage.s3.calls.OCTETS_PER_SECOND", 1e9)
    async def test_a_put_that_never_gets_through_fails_cleanly_and_leaves_nothing(self) -> None:
        proxy, engine, straight = await self.pair(timeout=0.6)
        for fault in (Fault.ERROR, Fault.RESET, Fault.HANG):
            for size in (100, LARGE):
                engine.blobs._calls._trouble = None
                methods = "PUT" if fault is not Fault.HANG or size == 100 else "POST"
                proxy.choose = in_turn(repeat(fault), methods)
                await fails(Unavailable, self.store(engine.blobs, octets(size)))
                self.assertTrue("blobs" in (engine.health() or "") or size == LARGE)
                self.assertEqual((await self.names(straight), await self.uploads(straight)), ([], []), (fault, size))

    async def test_it_is_refused_where_it_is_certain_that_nothing_is_stored(self) -> None:
        proxy, engine, straight = await self.pair()
        for fault, certain in ((Fault.BUSY, True), (Fault.ERROR, False), (Fault.RESET, False), (Fault.HIDDEN, False)):
            engine.blobs._calls._trouble = "so one attempt is all"
            proxy.choose = in_turn([fault], "PUT")
            error = await fails(Unavailable, self.store(engine.blobs, b"content"))
            self.assertEqual(isinstance(error, Refused), certain, fault)
            self.assertEqual(len(await self.names(straight)), fault is Fault.HIDDEN)

    async def test_reads_that_never_get_through_are_unavailable(self) -> None:
        proxy, engine, straight = await self.pair(timeout=0.5)
        ref = await self.store(straight, octets(300_000))
        for fault in (Fault.RESET, Fault.HANG, Fault.SLOW):
            engine.blobs._calls._trouble = None
            proxy.choose = in_turn(repeat(fault))
            before = self.reactor.seconds()
            await fails(Unavailable, self.content(engine.blobs, ref))
            self.assertGreater(10.0, self.reactor.seconds() - before)

    async def test_an_answer_that_comes_in_drops_is_waited_for_while_it_flows(self) -> None:
        proxy, engine, straight = await self.pair()
        proxy.drop_octets, proxy.drop_seconds = 20_000, 0.01
        content = octets(300_000)
        ref = await self.store(straight, content)
        proxy.choose = in_turn(repeat(Fault.SLOW))
        self.assertEqual(await self.content(engine.blobs, ref) == content, True)

    async def test_what_is_damaged_on_its_way_is_never_given_as_whole(self) -> None:
        for options in ({}, SEALED):
            proxy, engine, straight = await self.pair(**options)
            content = octets(300_000)
            ref = await self.store(straight, content)
            proxy.choose = in_turn([Fault.DAMAGED], "GET")
            await fails(Corrupt, self.content(engine.blobs, ref))
            self.assertEqual(await self.content(engine.blobs, ref) == content, True)
            if options:
                proxy.choose = in_turn([Fault.DAMAGED], "GET")
                await fails(Corrupt, self.content(engine.blobs, ref, 100_000, 200_000))
            await straight.delete(ref)

    async def test_a_store_that_is_away_refuses_at_once_and_is_well_when_it_is_back(self) -> None:
        proxy, engine, straight = await self.pair(timeout=1)
        ref = await self.store(straight, b"content")
        await proxy.stop()
        await fails(Refused, self.store(engine.blobs, b"other"))
        self.assertTrue("reached" in (engine.health() or ""))
        client, asked = engine.blobs._calls._client, []
        real = client.get_object

        def counted(**wanted: Any) -> Any:
            asked.append(wanted)
            return real(**wanted)

        with patch.object(client, "get_object", counted):
            outcomes = await together(*(self.content(engine.blobs, ref) for _ in range(50)))
        self.assertTrue(all(isinstance(outcome, Unavailable) for outcome in outcomes))
        self.assertEqual(len(asked), 50, "each is tried once")
        await proxy.start()
        await engine.blobs._calls._ask()
        self.assertIsNone(engine.health())
        self.assertEqual(await self.content(engine.blobs, ref), b"content")

    @patch("twisted_mail.storage.s3.calls.QUICK_SECONDS", 0.2)
    async def test_the_store_is_asked_whether_it_is_back_though_nobody_wants_anything(self) -> None:
        proxy, engine, _ = await self.pair(timeout=0.5)
        proxy.choose = in_turn(repeat(Fault.ERROR))
        await fails(Unavailable, collect(engine.blobs.iterate()))
        self.assertTrue(engine.health())
        proxy.choose = lambda method, path: Fault.NONE
        asking = engine.blobs._calls._probe()
        assert asking is not None
        await asking
        self.assertIsNone(engine.health())
        self.assertIsNone(engine.blobs._calls._probe())
        self.reactor.offset += 31
        proxy.choose = in_turn(repeat(Fault.ERROR))
        asking = engine.blobs._calls._probe()
        assert asking is not None
        await asking
        self.assertTrue(engine.health())

    async def test_a_crowd_of_our_own_is_refused_and_not_taken_for_a_store_that_is_down(self) -> None:
        engine = await self.engine(threads=1, timeout=0.5)
        leave = threading.Event()
        holding = engine.blobs._calls.threads.run(lambda: leave.wait(30))
        error = await fails(Refused, self.store(engine.blobs, b"content"))
        self.assertTrue("too many" in str(error))
        self.assertIsNone(engine.health())
        leave.set()
        self.assertTrue(await holding)
        self.assertEqual(await collect(engine.blobs.iterate()), [])

    # --- cancelled in the middle

    async def cancelled(self, work: Any, reached: Callable[[], bool]) -> None:
        """Cancel *work* once *reached* says so; it must end by that."""
        working: Deferred[Any] = Deferred.fromCoroutine(work)
        while not reached():
            await deferLater(self.reactor, 0.005)
        working.cancel()
        await fails(CancelledError, working)

    async def test_whoever_is_cancelled_waits_no_longer_and_no_thread_stays(self) -> None:
        proxy, engine, straight = await self.pair(timeout=2)
        ref = await self.store(straight, octets(3_000_000))
        for method, work in (("GET", lambda: self.content(engine.blobs, ref)), ("PUT", lambda: self.put(b"x"))):
            self.writing = engine.blobs.writer()
            proxy.seen.clear()
            proxy.choose = in_turn(repeat(Fault.HANG), method)
            before = self.reactor.seconds()
            await self.cancelled(work(), lambda: bool(proxy.seen))
            self.assertGreater(1.0, self.reactor.seconds() - before, "it would hang for longer")
        await engine.stop()
        self.assertFalse(
            [t for t in threading.enumerate() if t.name in [w.name for w in engine.blobs._calls.threads._threads]]
        )
        self.assertEqual(await collect(straight.iterate()), [ref])

    async def put(self, content: bytes) -> BlobRef:
        writer: BlobWriter = self.writing
        try:
            await writer.write(content)
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    async def test_a_large_put_that_is_cancelled_in_a_part_leaves_nothing(self) -> None:
        proxy, engine, straight = await self.pair()
        proxy.drop_octets, proxy.drop_seconds = 50, 0.05
        for method in ("POST", "PUT"):
            self.writing = engine.blobs.writer()
            proxy.seen.clear()
            # the store does it, and the answer takes its time
            proxy.choose = in_turn([Fault.SLOW], method)
            await self.cancelled(self.put(octets(LARGE)), lambda: Fault.SLOW in [fault for _, _, fault in proxy.seen])
            self.assertEqual((await self.names(straight), await self.uploads(straight)), ([], []), method)

    async def test_a_reader_that_stops_early_leaves_nothing_running(self) -> None:
        _, engine, straight = await self.pair()
        ref = await self.store(straight, octets(5_000_000))
        reading = engine.blobs.open(ref)
        await anext(reading)
        await reading.aclose()  # type: ignore[attr-defined]  # an async generator
        while engine.blobs._calls.threads._busy:
            await deferLater(self.reactor, 0.005)
