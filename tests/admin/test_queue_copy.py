"""What waits in a queue moves to another store: each item once, held or waiting as it was, with its body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.account.house import now
from tests.admin.calling import Mailctl
from tests.admin.test_queue import waiting
from tests.storage.nats.engines import NATSCase
from twisted_mail.admin.alone import COPYING, alone
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem
from twisted_mail.admin.queue_copying import QueueCopy, check_nobody_works
from twisted_mail.delivery import Bodies
from twisted_mail.delivery.bodies import holder_of
from twisted_mail.delivery.items import Copy, Place, inbound_of, queue_item
from twisted_mail.storage import Backend, compose
from twisted_mail.storage.interfaces import (
    EngineContext,
    ItemState,
    QueueFilter,
    QueueItem,
    QueueStatus,
    Refused,
    Unavailable,
)
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.storage.memory.blobs import MemoryBlobs
from twisted_mail.values import AccountId, BlobRef, DeliveryId

USER = "ann@example.org"
TEXT = b"Subject: waiting\r\n\r\ntext\r\n"


def backend(clock: Any, *, bodies: bool = False) -> Backend:
    made = compose(MemoryEngine(EngineContext(clock, Path("/nonexistent"))))
    return replace(made, queue_bodies=MemoryBlobs()) if bodies else made


def copying(source: Backend, target: Backend, clock: Any) -> QueueCopy:
    return QueueCopy(source, target, clock, clock.seconds)


async def put(
    store: Backend, clock: Any, *, text: bytes = TEXT, delay: float = 0.0, place: Place = "blobs", attempts: int = 0
) -> DeliveryId:
    """An inbound item."""
    id = DeliveryId.new()

    async def octets() -> AsyncIterator[bytes]:
        yield text

    down = "the blob store is down" if place == "queue" else None
    bodies = Bodies(store.blobs, store.references, clock, overflow=store.queue_bodies, trouble=lambda: down)
    kept = (await bodies.keep(octets, [id]))[id]
    assert kept.place == place
    copy = Copy(delivery=id, account=AccountId.new(), address=USER)
    item = queue_item(copy, kept.ref, sender="b@x.example", received=5, repeated=False, place=place, created=7.5)
    await store.queue.put(replace(item, attempts=attempts), delay=delay)
    return id


async def put_outbound(store: Backend, *, apart: bool = False) -> DeliveryId:
    """An outbound item, whose envelope says nothing to us."""
    id = DeliveryId.new()
    blobs = store.queue_bodies if apart else store.blobs
    assert blobs is not None
    writer = blobs.writer()
    await writer.write((id.octets if apart else b"") + TEXT)
    ref = await writer.finish()
    if not apart:
        await store.references.add(ref, holder_of(id))
    await store.queue.put(QueueItem(id, "outbound", b"\0opaque", ref, "x.example", "ann@example.org", 3, "451 later", 9.0))
    return id


async def listed(store: Backend) -> dict[DeliveryId, QueueStatus]:
    return {status.item.id: status for status in await store.queue.list(QueueFilter(), None, 1000)}


async def octets_of(store: Backend, item: QueueItem) -> bytes:
    assert item.body is not None
    return b"".join([chunk async for chunk in store.blobs.open(item.body)])


def test_items_come_as_they_were_and_only_once() -> None:
    clock = Clock()
    clock.advance(1000)
    one, other = backend(clock), backend(clock)

    async def main() -> None:
        due, later, held = [await put(one, clock, delay=delay) for delay in (0.0, 500.0, 600.0)]
        tried = await put(one, clock, attempts=4)
        await one.queue.hold(held)
        out = await put_outbound(one)
        report = await copying(one, other, clock).run()
        assert (report.inbound, report.outbound, report.held, report.present, report.failed) == (4, 1, 1, 0, [])
        assert (report.source, report.target) == (5, 5)
        there = await listed(other)
        assert {id: status.state for id, status in there.items()} == {
            due: ItemState.DUE,
            later: ItemState.WAITING,
            held: ItemState.HELD,
            tried: ItemState.DUE,
            out: ItemState.DUE,
        }
        assert there[later].due == 1500.0
        assert there[out].item == (await listed(one))[out].item
        for id in (due, later, held, tried):
            item, was = there[id].item, (await listed(one))[id].item
            assert replace(item, envelope=b"") == replace(was, envelope=b"")
            assert inbound_of(item).repeated, "it may stand in the account already"
            assert await octets_of(other, item) == TEXT
        body = there[due].item.body
        assert body is not None
        assert sorted(await other.references.holders(body, 10)) == sorted(map(holder_of, (due, later, held, tried, out)))
        # one is done there, and all of it once more
        assert await other.queue.delete(out)
        again = await copying(one, other, clock).run()
        assert (again.inbound, again.outbound, again.present, again.target, again.failed) == (0, 0, 5, 5, [])
        assert out not in await listed(other), "what was sent from there is not put again"

    now(main())


def test_bodies_in_the_queues_own_store_go_where_they_belong() -> None:
    clock = Clock()

    async def main() -> None:
        one, other = backend(clock, bodies=True), backend(clock, bodies=True)
        inbound, outbound = await put(one, clock, place="queue"), await put_outbound(one, apart=True)
        assert (await copying(one, other, clock).run()).failed == []
        there = await listed(other)
        assert inbound_of(there[inbound].item).place == "blobs"
        assert await octets_of(other, there[inbound].item) == TEXT
        bodies = other.queue_bodies
        assert bodies is not None and there[outbound].item.body is not None
        assert [ref async for ref in bodies.iterate()] == [there[outbound].item.body]
        bare = backend(clock)
        report = await copying(one, bare, clock).run()
        assert [str(outbound) in text for text in report.failed] == [True, True] and report.target == 1

    now(main())


def test_a_body_that_is_gone_and_a_condemned_one_are_noticed() -> None:
    clock = Clock()

    async def main() -> None:
        one, other = backend(clock), backend(clock)
        whole, lost = await put(one, clock), await put(one, clock, text=b"gone")
        items = await listed(one)
        lost_ref, ref = items[lost].item.body, items[whole].item.body
        assert lost_ref is not None and ref is not None
        await one.blobs.delete(lost_ref)
        await other.references.condemn(ref)
        report = await copying(one, other, clock).run()
        assert (report.source, report.target) == (2, 1) and "gone" in report.failed[0]
        body = (await listed(other))[whole].item.body
        assert body == BlobRef(ref.hash, ref.size, 1), "a generation on its way out is not used"
        assert await octets_of(other, (await listed(other))[whole].item) == TEXT

    now(main())


def test_one_that_broke_off_anywhere_is_done_again() -> None:
    """After each write of the target in turn it fails, once before and once after it was carried out."""
    clock = Clock()

    async def main(step: int, late: bool) -> bool:
        one, other = backend(clock), backend(clock)
        ids = [await put(one, clock), await put(one, clock, delay=50.0), await put_outbound(one)]
        await one.queue.hold(ids[1])
        count = 0

        class Failing:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __getattr__(self, name: str) -> Any:
                call = getattr(self.inner, name)
                if name not in ("put", "hold", "add"):
                    return call

                async def counted(*arguments: Any, **named: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == step and not late:
                        raise Refused("not now")
                    result = await call(*arguments, **named)
                    if count == step:
                        raise Refused("the answer was lost")
                    return result

                return counted

        broken: Any = replace(
            other,
            queue=Failing(other.queue),
            references=Failing(other.references),
            records=Failing(other.records),
        )
        try:
            await copying(one, broken, clock).run()
        except Unavailable:
            report = await copying(one, other, clock).run()
            assert (report.source, report.target, report.failed) == (3, 3, []), (step, late)
        states = {id: status.state for id, status in (await listed(other)).items()}
        assert states == dict(zip(ids, (ItemState.DUE, ItemState.HELD, ItemState.DUE), strict=True)), (step, late)
        return count >= step

    for late in (False, True):
        step = 1
        while now(main(step, late)):
            step += 1
        assert step > 9


def test_a_queue_that_somebody_works_on_is_not_copied() -> None:
    clock = Clock()

    async def main() -> None:
        one, other = backend(clock), backend(clock)
        await check_nobody_works(("source", one), ("target", other))
        await put(one, clock)
        await one.queue.lease("inbound", 1, 60)
        with pytest.raises(Problem, match="worker"):
            await check_nobody_works(("source", one), ("target", other))
        clock.advance(61)
        await check_nobody_works(("source", one), ("target", other))

        async def serve(account: AccountId, request: bytes) -> bytes:
            return b""

        for name, store in (("source", one), ("target", other)):
            await store.members.join("mx1", frozenset({"smtp"}), serve)
            with pytest.raises(Problem, match=f"{name} are running .mx1"):
                await check_nobody_works(("source", one), ("target", other))
            await store.members.leave()

    now(main())


def test_one_copy_at_a_time_and_it_stops_when_its_lease_is_lost() -> None:
    clock = Clock()
    clock.advance(1000)

    async def main() -> None:
        store = backend(clock)
        async with alone(store.leases, COPYING, clock, "busy") as held:
            with pytest.raises(Problem, match="busy"):
                async with alone(store.leases, COPYING, clock, "busy"):
                    pass
            for _ in range(20):
                clock.advance(20)
                held.check()
            renew = store.leases.renew

            async def deaf(name: str, number: int, ttl: float) -> bool:
                raise Unavailable("no answer")

            store.leases.renew = deaf  # type: ignore[method-assign]  # as when the store does not answer
            for _ in range(5):
                clock.advance(20)
                held.check()
            clock.advance(20)
            with pytest.raises(Problem, match="lost"):
                held.check()
            store.leases.renew = renew  # type: ignore[method-assign]  # back
        async with alone(store.leases, COPYING, clock, "busy") as held:
            held.check()

    now(main())


class OnServersTests(NATSCase):
    async def test_to_jetstream_and_back(self) -> None:
        engine = await self.nats()
        first, back = backend(self.reactor), backend(self.reactor)
        there = replace(compose(MemoryEngine(EngineContext(self.reactor, Path("/nonexistent")))), queue=engine.queue)
        due, later, held = [await put(first, self.reactor, delay=delay) for delay in (0.0, 500.0, 600.0)]
        await first.queue.hold(held)
        out = await put_outbound(first)
        expected = {
            due: ItemState.DUE,
            later: ItemState.WAITING,
            held: ItemState.HELD,
            out: ItemState.DUE,
        }
        wall = self.reactor.wall
        # the queue in memory counts in this process's seconds, the servers since 1970
        report = await QueueCopy(first, there, self.reactor, self.reactor.seconds).run()
        self.assertEqual((report.source, report.target, report.failed), (4, 4, []))
        found = await listed(there)
        self.assertEqual({id: status.state for id, status in found.items()}, expected)
        self.assertTrue(400 < found[later].due - wall() < 501)
        self.assertEqual((await QueueCopy(first, there, self.reactor, self.reactor.seconds).run()).present, 4)
        report = await QueueCopy(there, back, self.reactor, wall).run()
        self.assertEqual((report.source, report.target, report.failed), (4, 4, []))
        self.assertEqual({id: status.state for id, status in (await listed(back)).items()}, expected)
        self.assertEqual(await octets_of(back, (await listed(back))[held].item), TEXT)


def test_the_command_copies_the_queue_when_it_is_asked_to(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = Mailctl(tmp_path / "old").with_user(), Mailctl(tmp_path / "new")
    ids = [waiting(old), waiting(old, delay=0.0)]
    old.good("queue", "hold", ids[0])
    told = old.run("storage", "copy", "--to", new.config)
    assert told.status == 0 and "2 items wait in the source's queue" in told.err
    assert new.json("queue", "list") == []
    done = old.json("storage", "copy", "--to", new.config, "--queue")
    assert done["queue"]["inbound"] == 2 and done["queue"]["held"] == 1
    assert {row["id"]: row["state"] for row in new.json("queue", "list")} == {ids[0]: "held", ids[1]: "due"}
    assert new.json("queue", "show", ids[1])["may_be_delivered_already"] is True
    assert old.run("storage", "copy", "--to", new.config, "--queue", USER).status == 2

    async def busy(store: Store) -> int | None:
        return await store.backend.leases.acquire(COPYING, 60.0)

    assert new.inside(busy) is not None
    refused = old.run("storage", "copy", "--to", new.config, "--json")
    assert (refused.status, refused.error()["code"]) == (4, "not-alone")
    refused = new.run("storage", "gc", "--audit", "--repair", "--json")
    assert (refused.status, refused.error()["code"]) == (4, "not-alone")
    assert new.json("storage", "gc", "--audit")["audit"]["items"] == 2, "to look is no harm"
