"""Bodies of queued mail: what was put a moment ago is read from memory, within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from tests.relay.kept import now as run
from twisted_mail.delivery.bodies import RECENT_EACH, Bodies, Body
from twisted_mail.storage.interfaces import EngineContext, NotFound, QueueItem
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import BlobRef, DeliveryId

RECENT = 100_000


def kept(bodies: Bodies, octets: bytes) -> Body:
    async def read() -> AsyncIterator[bytes]:
        for at in range(0, len(octets), 1000):
            yield octets[at : at + 1000]

    id = DeliveryId.new()
    return run(bodies.keep(read, [id]))[id]


async def read(bodies: Bodies, body: Body) -> bytes:
    return b"".join([chunk async for chunk in bodies.open(body)])


def lost(engine: MemoryEngine, bodies: Bodies, octets: bytes) -> bool:
    """Whether *octets* can be had no more when the store has lost them."""
    body = kept(bodies, octets)
    assert run(read(bodies, body)) == octets
    run(engine.blobs.delete(body.ref))
    try:
        return run(read(bodies, body)) != octets
    except NotFound:
        return True


def build(recent_bytes: int) -> tuple[MemoryEngine, Bodies]:
    engine = MemoryEngine(EngineContext(Clock(), Path("/nonexistent")))
    return engine, Bodies(engine.blobs, engine.references, Clock(), recent_bytes=recent_bytes)


def test_what_was_kept_last_is_read_from_memory() -> None:
    engine, bodies = build(RECENT)
    assert not lost(engine, bodies, b"small" * 100)


def test_nothing_is_unless_asked_for_and_nothing_large() -> None:
    engine, bodies = build(0)
    assert lost(engine, bodies, b"small")
    engine, bodies = build(10 * RECENT)
    assert lost(engine, bodies, b"x" * (RECENT_EACH + 1))
    assert not lost(engine, bodies, b"x" * RECENT_EACH)


def test_the_oldest_make_room() -> None:
    engine, bodies = build(RECENT)
    several = [kept(bodies, bytes((at,)) * 30_000) for at in range(4)]
    for body in several:
        run(engine.blobs.delete(body.ref))
    found = []
    for at, body in enumerate(several):
        try:
            assert run(read(bodies, body)) == bytes((at,)) * 30_000
            found.append(at)
        except NotFound:
            pass
    assert found == [1, 2, 3]


class Beside:
    """A queue's own store for bodies, in the place of the queue; keeps what it was given."""

    small_bytes = 100

    def __init__(self) -> None:
        self.put: list[tuple[QueueItem, BlobRef, bytes]] = []
        self.acknowledged: list[tuple[str, BlobRef]] = []

    async def put_with(self, item: QueueItem, ref: BlobRef, octets: bytes, *, delay: float = 0.0) -> bool:
        self.put.append((item, ref, octets))
        return True

    async def ack_with(self, token: str, ref: BlobRef) -> bool:
        self.acknowledged.append((token, ref))
        return True


def test_a_small_body_for_one_waits_for_its_item_and_goes_with_it() -> None:
    engine = MemoryEngine(EngineContext(Clock(), Path("/nonexistent")))
    store: Any = Beside()
    bodies = Bodies(engine.blobs, engine.references, Clock(), overflow=store)

    async def octets() -> AsyncIterator[bytes]:
        yield b"hello"

    id = DeliveryId.new()
    body = run(bodies.keep(octets, [id], 5, together=True))[id]
    assert (body.place, body.waiting, store.put) == ("queue", id.octets + b"hello", [])
    item = QueueItem(id, "outbound", b"", body.ref)
    assert run(bodies.puts(engine.queue, body).put(item))
    assert store.put == [(item, body.ref, id.octets + b"hello")]
    assert run(bodies.acknowledge(engine.queue, "token", body, id))
    assert store.acknowledged == [("token", body.ref)]


def test_a_body_for_several_is_durable_before_their_items() -> None:
    engine = MemoryEngine(EngineContext(Clock(), Path("/nonexistent")))
    store: Any = Beside()
    bodies = Bodies(engine.blobs, engine.references, Clock(), overflow=store)

    async def octets() -> AsyncIterator[bytes]:
        yield b"hello"

    ids = [DeliveryId.new(), DeliveryId.new()]
    body = run(bodies.keep(octets, ids, 5, together=True))[ids[0]]
    assert (body.place, body.waiting) == ("blobs", None)
    assert bodies.puts(engine.queue, body) is engine.queue
    assert run(read(bodies, body)) == b"hello"
