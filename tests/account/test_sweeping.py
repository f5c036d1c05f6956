"""The sweeper against deliveries, with every step of both in every order: nothing goes that an entry names."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.account.house import now, put
from tests.account.test_graves import BIG, Cellar
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.manifests import refs_of
from twisted_mail.account.references import claim, hold, message_holder
from twisted_mail.account.sweeping import Sweeper, SweepSettings, Swept, is_mark
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import BlobWriter, Unavailable
from twisted_mail.storage.memory.small import MemoryLeases
from twisted_mail.values import BlobRef, DeliveryId, MessageId, MessageKey

HOUR = 3600.0


class Gate:
    """Where one actor waits before each of its steps."""

    def __init__(self) -> None:
        self.waiting: Deferred[None] | None = None
        self.ended = False
        self.result: Any = None

    async def step(self) -> None:
        self.waiting = Deferred()
        await self.waiting

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        def end(result: Any) -> None:
            self.ended = True
            self.result = result

        Deferred.fromCoroutine(work).addBoth(end)

    def go(self) -> None:
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        waiting.callback(None)


class Gated:
    """A store whose operations *steps* wait at the gate; a writer waits before its blob gets its name."""

    def __init__(self, store: Any, gate: Gate, *steps: str) -> None:
        self._store, self._gate, self._steps = store, gate, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "writer":
            return lambda: _GatedWriter(found(), self._gate)
        if name not in self._steps:
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._gate.step()
            return await found(*arguments, **named)

        return call


class _GatedWriter:
    def __init__(self, inner: BlobWriter, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    async def write(self, chunk: bytes) -> None:
        await self._inner.write(chunk)

    async def abort(self) -> None:
        await self._inner.abort()

    async def finish(self, generation: Any = None) -> BlobRef:
        async def choose(ref: BlobRef) -> int:
            chosen: int = await generation(ref)
            await self._gate.step()
            return chosen

        return await self._inner.finish(choose)


class World:
    """An account that once had a message, whose blob nobody holds any more; the same content is about to come again."""

    def __init__(self) -> None:
        self.house = Cellar()
        account = self.house.open()
        put(self.house, account, BIG)
        self.house.service.release(account)
        (self.old,) = self.house.refs()
        assert self.house.lost() == [self.old]
        self.house.clock.advance(HOUR)
        self.gates = [Gate(), Gate()]
        self.house.settings = replace(self.house.settings, commit_seconds=1e9)  # the hours below pass for the sweeper
        engine = self.house.engine
        self.service = self.house.node(
            references=Gated(engine.references, self.gates[0], "add", "condemned", "remove"),
            blobs=Gated(engine.blobs, self.gates[0]),
            messages=Gated(engine.messages, self.gates[0], "put"),
            log=Gated(engine.account_log, self.gates[0], "append"),
        )
        self.account: Account = now(self.service.open(account.id))
        self.named: list[Any] = []

    def sweeper(self, gate: Gate | None = None) -> Sweeper:
        engine = self.house.engine
        references: Any = engine.references
        blobs: Any = engine.blobs
        if gate is not None:
            references = Gated(references, gate, "condemned", "holders", "condemn", "add", "remove", "settled")
            blobs = Gated(blobs, gate, "delete")
        leases: Any = MemoryLeases(self.house.clock)  # its own: two at once are to be seen
        return Sweeper(references, blobs, leases, clock=self.house.clock, wall=self.house.wall)

    async def deliver(self) -> None:
        writer = self.service.writer(self.account.id)
        await writer.write(BIG)
        stored = await self.account.store(await writer.finish())
        inbox = self.account.state.inbox.id
        await self.account.commit(AddMessages(mailbox=inbox, messages=(new_message(stored, 1),)))

    async def sweep(self, gate: Gate | None) -> None:
        await self.sweeper(gate).run_once()
        self.house.clock.advance(2 * HOUR)
        await self.sweeper(gate).run_once()

    def check(self) -> None:
        """No row that an entry names lacks a blob."""
        blobs = set(self.house.refs())
        columns = now(self.account.columns(self.account.state.inbox))
        for key in map(columns.key, columns.live):
            for ref in refs_of(now(self.manifest(key))):
                assert ref in blobs, "a blob of a message is gone"
                assert message_holder(self.account.id, key.id) in self.house.holders(ref)

    async def manifest(self, key: MessageKey) -> bytes:
        async for batch in self.house.engine.messages.get_many(self.account.id, [key], ("manifest",)):
            for row in batch:
                assert row is not None
                return row[0]
        raise AssertionError("no row")

    def settle(self) -> None:
        """Sweepers with nobody beside them leave no garbage."""
        for _ in range(4):
            self.house.clock.advance(2 * HOUR)
            now(self.sweeper().run_once())
        assert not self.house.lost()
        for ref in self.house.refs():
            assert any(not is_mark(holder) for holder in self.house.holders(ref))


def orders(make: Callable[[], tuple[World, list[Gate]]]) -> Iterator[World]:
    """Every order in which the actors can take their steps; the world after each step, and at the end of each order."""
    prefix: list[int] = []
    while True:
        world, gates = make()
        taken: list[tuple[int, int]] = []
        while ready := [gate for gate in gates if gate.waiting is not None]:
            choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((choice, len(ready)))
            ready[choice].go()
            if len(taken) >= len(prefix):
                world.check()
        for gate in gates:
            assert gate.ended
        yield world
        while taken and taken[-1][0] + 1 >= taken[-1][1]:
            taken.pop()
        if not taken:
            return
        prefix = [choice for choice, _ in taken[:-1]] + [taken[-1][0] + 1]


def test_a_delivery_and_a_sweeper_in_every_order() -> None:
    def make() -> tuple[World, list[Gate]]:
        world = World()
        world.gates[0].start(world.deliver())
        world.gates[1].start(world.sweep(world.gates[1]))
        return world, world.gates

    generations: set[int] = set()
    count = 0
    for world in orders(make):
        count += 1
        assert [gate.result for gate in world.gates] == [None, None]
        assert world.account.state.messages == 1
        world.settle()
        world.check()
        generations |= {ref.generation for ref in world.house.refs()}
    assert generations == {0, 1} and count > 1000


def pick(draw: random.Random, world: World, gates: list[Gate], stop: float = 0.0) -> None:
    """The actors take steps in an order by chance, until none is left; each may stop for good with the chance *stop*."""
    gates = list(gates)
    while ready := [gate for gate in gates if gate.waiting is not None]:
        chosen = draw.choice(ready)
        if draw.random() < stop:
            gates.remove(chosen)
            continue
        chosen.go()
        world.check()


@pytest.mark.parametrize("stop", [0.0, 0.08])
def test_two_sweepers_at_once_and_some_that_die(stop: float) -> None:
    draw = random.Random(8)
    for _ in range(300):
        world = World()
        gates = [world.gates[0], Gate(), Gate(), Gate()]
        gates[0].start(world.deliver())
        for gate in gates[1:]:
            gate.start(world.sweep(gate))
        pick(draw, world, gates, stop)
        if gates[0].ended:
            assert world.account.state.messages == 1
            world.settle()
        world.house.clock.advance(HOUR)
        now(world.sweeper().run_once())
        world.check()


def test_stopped_at_every_step_the_sweeper_is_followed_by_another() -> None:
    for delivered in (0, 1, 2, 3, 4, 5):
        steps = 0
        while True:
            world = World()
            world.gates[0].start(world.deliver())
            for _ in range(delivered):
                world.gates[0].go()
            gate = Gate()
            gate.start(world.sweep(gate))
            for _ in range(steps):
                if gate.waiting is not None:
                    gate.go()
            done = gate.ended
            while world.gates[0].waiting is not None:
                world.gates[0].go()
                world.check()
            assert world.account.state.messages == 1
            world.settle()
            world.check()
            steps += 1
            if done:
                break
        assert steps > (3 if delivered else 9)


async def queued_item(world: World, gate: Gate, held: list[BlobRef]) -> None:
    """A body comes, waits in the queue, and becomes a message."""
    engine = world.house.engine
    references: Any = Gated(engine.references, gate, "add", "condemned", "remove")
    name = f"q/{DeliveryId.new()}"
    writer = Gated(engine.blobs, gate).writer()
    await writer.write(BIG)
    ref = await writer.finish(lambda ref: claim(references, ref, name))
    held.append(ref)
    await gate.step()  # it waits
    await hold(references, [ref], message_holder(world.account.id, MessageId.new()))
    await gate.step()  # the row and the entry are written
    await references.remove([ref], name)


def test_a_queued_item_hands_its_blob_on_to_a_message() -> None:
    draw = random.Random(9)
    for _ in range(400):
        world = World()
        gate, sweeper = world.gates
        held: list[BlobRef] = []
        gate.start(queued_item(world, gate, held))
        sweeper.start(world.sweep(sweeper))
        while ready := [each for each in (gate, sweeper) if each.waiting is not None]:
            draw.choice(ready).go()
            assert set(held) <= set(world.house.refs())
        assert gate.result is None and sweeper.result is None
        world.settle()
        assert world.house.refs() == held and len(world.house.holders(held[0])) == 1


def test_what_is_on_its_way_out_cannot_be_held_any_more_and_is_stored_anew() -> None:
    world = World()
    references = world.house.engine.references
    now(world.sweeper().run_once())
    with pytest.raises(Unavailable):
        now(hold(references, [world.old], "m/1"))
    assert not [holder for holder in world.house.holders(world.old) if not is_mark(holder)]
    assert now(claim(references, world.old, "m/2")) == 1
    world.settle()
    assert world.house.holders(world.old) == []


def test_a_pass_says_what_it_did_and_waits_between_condemning_and_deleting() -> None:
    house = Cellar()
    account = house.open()
    for number in range(3):
        put(house, account, BIG + bytes((number,)))
    kept = put(house, account, BIG + b"x")
    now(account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(new_message(kept, 1),))))
    house.service.release(account)
    engine = house.engine
    wait = SweepSettings(wait_seconds=600, margin_seconds=60)
    sweeper = Sweeper(
        engine.references, engine.blobs, engine.leases, clock=house.clock, wall=house.wall, settings=wait
    )
    assert now(sweeper.run_once()) == Swept()  # it was listed just now
    house.clock.advance(61)
    told: list[int] = []
    assert now(sweeper.run_once(lambda swept: told.append(swept.listed))) == Swept(listed=3, condemned=3)
    assert told == [1, 2, 3]
    house.clock.advance(599)
    assert now(sweeper.run_once()) == Swept(listed=3, waiting=3)
    house.clock.advance(2)
    size = len(house.refs()) and max(ref.size for ref in house.refs())
    assert now(sweeper.run_once()) == Swept(listed=3, deleted=3, deleted_bytes=3 * size)
    assert len(house.refs()) == 1 and house.lost() == []
    assert now(sweeper.run_once()) == Swept()


def test_one_sweeper_at_a_time_and_none_beyond_its_lease() -> None:
    house = Cellar()
    account = house.open()
    for number in range(3):
        put(house, account, BIG + bytes((number,)))
    house.service.release(account)
    house.clock.advance(HOUR)
    engine = house.engine
    sweeper = Sweeper(engine.references, engine.blobs, engine.leases, clock=house.clock, wall=house.wall)
    lease = now(engine.leases.acquire("sweep:blobs", 100))
    assert lease is not None and now(sweeper.run_once()) is None
    now(engine.leases.release("sweep:blobs", lease))
    slow = now(sweeper.run_once(lambda swept: house.clock.advance(115)))
    assert slow is not None and slow.listed == 1


def test_an_object_that_cannot_be_deleted_holds_up_no_other() -> None:
    world = World()
    put(world.house, world.house.open(world.account.id), BIG + b"2")
    world.house.service.release(world.house.open(world.account.id))
    world.house.service.release(world.account)
    engine: Any = world.house.engine
    delete = engine.blobs.delete

    async def sometimes(ref: BlobRef) -> None:
        if ref == world.old:
            raise Unavailable("not this one")
        await delete(ref)

    engine.blobs.delete = sometimes
    for _ in range(3):
        world.house.clock.advance(2 * HOUR)
        swept = now(world.sweeper().run_once())
    assert swept is not None and swept.failed == 1
    assert world.house.refs() == [world.old] and world.house.lost() == [world.old]
    engine.blobs.delete = delete
    world.settle()
    assert world.house.refs() == []
