"""The audit of the queue: what holds an object for an item that never came to be is found, and nothing that may yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.account.house import now
from tests.account.test_graves import Cellar, add
from twisted_mail.account.audit import Audit, AuditReport
from twisted_mail.account.sweeping import Sweeper
from twisted_mail.delivery import Bodies
from twisted_mail.delivery.auditing import QueueAudit
from twisted_mail.delivery.bodies import Body, holder_of
from twisted_mail.delivery.items import Copy, Place, queue_item
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.storage.memory.blobs import MemoryBlobs
from twisted_mail.values import AccountId, BlobRef, DeliveryId

HOUR = 3600.0


class PostOffice(Cellar):
    """A house with a queue that has bodies of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = MemoryBlobs()
        self.queue: Any = self.engine.queue

    def keep(self, place: Place = "blobs", text: bytes = b"text") -> tuple[DeliveryId, Body]:
        """A body and its holder, and no item yet."""
        id = DeliveryId.new()

        async def octets() -> AsyncIterator[bytes]:
            yield text + b"x" * 100_000

        down = "down" if place == "queue" else None
        bodies = Bodies(
            self.engine.blobs, self.engine.references, self.clock, overflow=self.own, trouble=lambda: down
        )
        return id, now(bodies.keep(octets, [id]))[id]

    def put(self, id: DeliveryId, body: Body) -> None:
        copy = Copy(delivery=id, account=AccountId.new(), address="ann@example.org")
        item = queue_item(
            copy, body.ref, sender="", received=1, repeated=False, place=body.place, created=self.wall()
        )
        now(self.engine.queue.put(item))

    def audit(self, *, repair: bool = False, still: Callable[[], None] = lambda: None) -> AuditReport:
        async def nobody() -> AsyncIterator[AccountId]:
            return
            yield

        async def known(id: AccountId) -> bool:
            return True

        async def pause() -> None:
            pass

        engine = self.engine
        audit = Audit(
            log=engine.account_log,
            messages=engine.messages,
            blobs=engine.blobs,
            references=engine.references,
            wall=self.wall,
            pause=pause,
            repair=repair,
            still=still,
            others=QueueAudit(self.queue, self.own, engine.records, wall=self.wall, repair=repair, still=still),
        )
        return now(audit.run(nobody(), known))

    def bodies(self) -> list[BlobRef]:
        async def stored() -> list[BlobRef]:
            return [ref async for ref in self.own.iterate()]

        return now(stored())

    def sweep(self) -> None:
        for _ in range(3):
            self.clock.advance(2 * HOUR)
            engine = self.engine
            sweeper = Sweeper(engine.references, engine.blobs, engine.leases, clock=self.clock, wall=self.wall)
            now(sweeper.run_once())


def judged(report: AuditReport) -> tuple[int, int, int]:
    return report.unproven, report.stray_holders, report.stray_bodies


def test_holders_and_bodies_without_items_go_when_they_are_seen_again_an_hour_later() -> None:
    house = PostOffice()
    for place in ("blobs", "queue"):
        house.put(*house.keep(place, b"has an item"))
        house.keep(place, b"its item never came")
    for repair in (False, True, True):
        found = house.audit(repair=repair)
        assert (judged(found), found.items, found.garbage) == ((2, 0, 0), 2, 0)
        house.clock.advance(HOUR / 3)
    house.clock.advance(HOUR / 3)
    found = house.audit()
    assert judged(found) == (0, 1, 1) and found.garbage == 2
    assert len(house.bodies()) == 2, "without --repair nothing is taken away"
    found = house.audit(repair=True)
    assert judged(found) == (0, 1, 1) and found.stray_objects == 1, "listed with its size for the sweeper"
    house.sweep()
    assert len(house.refs()) == len(house.bodies()) == 1
    assert house.audit().garbage == 0


def test_one_whose_item_comes_in_between_is_left_alone() -> None:
    house = PostOffice()
    late = [house.keep("blobs"), house.keep("queue")]
    house.audit(repair=True)
    house.clock.advance(2 * HOUR)
    for each in late:
        house.put(*each)
    assert judged(house.audit(repair=True)) == (0, 0, 0)
    assert len(house.refs()) == len(house.bodies()) == 1


def test_an_item_that_comes_while_the_audit_runs_is_seen() -> None:
    """Noted long ago, put just after the queue was listed: it is looked for again before anything is taken away."""
    house = PostOffice()
    late = [house.keep("blobs"), house.keep("queue")]
    house.audit(repair=True)
    house.clock.advance(2 * HOUR)
    queue = house.engine.queue

    class Slow:
        looks = 0

        async def list(self, *arguments: Any) -> Sequence[Any]:
            found: Sequence[Any] = await queue.list(*arguments)
            Slow.looks += 1
            if Slow.looks == 1:
                for each in late:
                    house.put(*each)
            return found

    house.queue = Slow()
    assert judged(house.audit(repair=True)) == (0, 0, 0)
    assert Slow.looks > 1 and len(house.refs()) == len(house.bodies()) == 1
    body = late[0][1]
    assert house.holders(body.ref) == [holder_of(late[0][0])]


def test_items_that_can_only_be_named_count() -> None:
    """A newer version's items cannot be read, and are not listed; the queue says their ids all the same."""
    house = PostOffice()
    id, body = house.keep()

    class Newer:
        async def list(self, *arguments: Any) -> Sequence[QueueItem]:
            return []

        async def ids(self) -> AsyncIterator[Sequence[DeliveryId]]:
            yield [id]

    house.queue = Newer()
    house.audit(repair=True)
    house.clock.advance(2 * HOUR)
    assert judged(house.audit(repair=True)) == (0, 0, 0)
    assert house.holders(body.ref) == [holder_of(id)]


def test_nothing_is_written_when_a_copy_may_have_begun() -> None:
    house = PostOffice()
    account = house.open()
    add(house, account)
    house.keep("blobs", b"one")
    house.audit(repair=True)
    house.clock.advance(2 * HOUR)
    house.keep("queue", b"two")
    writes: list[str] = []

    def lost() -> None:
        writes.append("asked")
        raise RuntimeError("the lease was lost")

    with pytest.raises(RuntimeError, match="lost"):
        house.audit(repair=True, still=lost)
    assert writes == ["asked"]
    assert judged(house.audit()) == (1, 1, 0), "all of it is there still"
