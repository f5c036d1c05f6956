"""The queue on JetStream: a work-queue stream for each use, whose subjects say where an item stands (`items`).

- A consumer for each shard hands items out; a lease is what it has handed out, kept alive by signs of life while it has
  not run out by this process's clock, and given again by this process if it has. Whoever dies gives no signs, and the
  servers hand its items to others after `ack_wait`.
- Done is the removal of that very message, by its number: it succeeds once, whoever tries.
- Whatever moves an item writes the new message on the condition that the old one is still the item's last. From ``wait``
  and ``held`` the old one goes in the same step. From ``due`` it goes in a second step; should that not come, the next
  who is given the item finds that it is no longer the last, and only removes it.
- The stream has no limits: one with schedules may not refuse, and would drop what it has acknowledged. `put` counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from os import urandom
from typing import Final

from twisted.logger import Logger

from twisted_mail.storage.interfaces import (
    USES,
    Corrupt,
    LeasedItem,
    QueueFilter,
    QueueItem,
    QueueStatus,
    Refused,
    Unavailable,
)
from twisted_mail.storage.nats.items import (
    DUE,
    HELD,
    WAIT,
    Entry,
    Place,
    expecting,
    scheduled,
)
from twisted_mail.storage.nats.jetstream import WRONG_SEQUENCE, JetStream, JetStreamError, Written
from twisted_mail.storage.nats.leases import Lease, LeaseTable
from twisted_mail.storage.nats.listing import QueueListing
from twisted_mail.storage.nats.operations import QueueOperations
from twisted_mail.storage.nats.pulls import Delivery, Pulls
from twisted_mail.storage.nats.streams import QueueStreams, consumer
from twisted_mail.values import DeliveryId

__all__ = ["NATSQueue", "Shards"]

COUNT_SECONDS: Final = 2.0
"""How old the count of items may be by which `put` decides."""
SEEN_SECONDS: Final = 0.02
"""How long a consumer may need to hear of a new message."""
OTHERS_SECONDS: Final = 30.0
"""Between two looks into shards that another process should take from, for the case that it does not."""

Leases = list[Lease]
"""A name for it where `list` is a method."""
Shards = Callable[[str, int], Collection[int] | None]
"""Which of so many shards of a use this process should take from; None: all."""


@dataclass(slots=True)
class _Count:
    """How many items a stream has, as it was a moment ago, and what was put since."""

    items: int = 0
    at: float = float("-inf")
    trouble: str | None = None


class NATSQueue:
    """Implements `Queue`."""

    _log = Logger()

    def __init__(self, jetstream: JetStream, clock: Callable[[], float], preferred: Shards) -> None:
        self._js = jetstream
        self._link = jetstream.link
        self.streams = QueueStreams(jetstream)
        self._preferred = preferred
        self._pulls = Pulls(self._link)
        self._leases = LeaseTable(self._link, self._pulls, clock)
        self._operations = QueueOperations(self.streams, self._leases)
        self._listing = QueueListing(self.streams, self._leases)
        self._counts: dict[str, _Count] = {use: _Count() for use in USES}
        self._taking: dict[str, asyncio.Lock] = {use: asyncio.Lock() for use in USES}
        self._turn = 0
        self._looked_elsewhere = float("-inf")

    async def start(self) -> None:
        """Make what is missing. Within asyncio. Raises: StorageError."""
        await self._pulls.start()
        await self._leases.start_answering()
        await self.streams.start()
        self._leases.start()

    async def stop(self) -> None:
        """Within asyncio. What is still leased goes back."""
        await self.streams.stop()
        await self._leases.stop()

    # --- put

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        return await self._link.run(self._put(item, delay))

    async def _put(self, item: QueueItem, delay: float) -> bool:
        await self._count(item.use)
        now = self._link.now()
        entry = Entry(item, now + max(0.0, delay), urandom(8))
        place = Place.of(self.streams.prefix, item, WAIT if delay > 0 else DUE, self.streams.shards)
        headers = dict(expecting(0, place.any))
        if delay > 0:
            headers |= scheduled(place, entry.due)
        id = str(item.id)
        while True:
            try:
                written = await self._js.write(place.subject, entry.encode(), headers, id)
            except JetStreamError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
                return error.tries > 1 and await self._put_before(place, entry.mark)
            if not written.duplicate:
                self._counts[item.use].items += 1
                self.streams.made_due = asyncio.get_running_loop().time()
                return True
            mine = await self._whose(item, written, entry.mark)
            if mine is not None:
                return mine
            # it was there and is gone: what was acknowledged is forgotten
            id = f"{item.id}.{entry.mark.hex()}"

    async def _put_before(self, place: Place, mark: bytes) -> bool:
        """Whether an earlier try of this very `put` brought the item, and its answer was lost."""
        stored = await self._js.last(self.streams.name(place.use), place.any)
        return stored is None or Entry.decode(stored.data).mark == mark

    async def _whose(self, item: QueueItem, written: Written, mark: bytes) -> bool | None:
        """Of an item that the servers know: whether this very `put` brought it; None if it is there no more."""
        stored = await self._js.at(self.streams.name(item.use), written.sequence)
        if stored is None:
            for place in await self.streams.find(item.id):
                stored = await self._js.last(self.streams.name(place.use), place.subject) or stored
        if stored is not None:
            return Entry.decode(stored.data).mark == mark
        # put by a try of ours whose answer was lost, and done already: or long ago by another
        return True if written.tries > 1 else None

    async def _count(self, use: str) -> None:
        """Raises: Refused when the queue is full."""
        count, loop = self._counts[use], asyncio.get_running_loop()
        if loop.time() - count.at > COUNT_SECONDS:
            count.at = loop.time()
            try:
                count.items = (await self._js.info(self.streams.name(use)))["state"]["messages"]
                account = await self._js.api("INFO")
            except Unavailable as error:
                raise Refused(str(error)) from error
            most = account.get("limits", {}).get("max_storage", -1)
            full = most > 0 and account.get("storage", 0) > 0.9 * most
            count.trouble = "the account's storage on the NATS servers is nearly full" if full else None
        if count.items >= self._link.settings.items:
            raise Refused(f"the queue has its {self._link.settings.items} items")
        if count.trouble is not None:
            raise Refused(count.trouble)

    # --- lease

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        self.streams.name(use)
        return await self._link.run(self._lease(use, limit, seconds))

    async def _lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        if limit <= 0:
            return []
        # one at a time: what comes says which consumer sent it, but not which request it answers
        async with self._taking[use]:
            return await self._lease_alone(use, limit, seconds)

    async def _lease_alone(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        leases = await self._again(use, limit, seconds)
        try:
            preferred = self._preferred(use, self.streams.shards)
            shards = list(range(self.streams.shards)) if preferred is None else sorted(preferred)
            await self._take(use, shards, limit, seconds, leases)
            loop = asyncio.get_running_loop()
            if len(leases) < limit and loop.time() - self.streams.made_due < SEEN_SECONDS:
                # consumers hear a moment later than the writer of what was written
                await asyncio.sleep(SEEN_SECONDS / 2)
                await self._take(use, shards, limit, seconds, leases)
            if not leases and preferred is not None and loop.time() - self._looked_elsewhere > OTHERS_SECONDS:
                self._looked_elsewhere = loop.time()
                others = set(range(self.streams.shards)) - set(shards)
                await self._take(use, sorted(others), limit, seconds, leases)
        except BaseException:
            for lease in leases:
                self._leases.drop(lease)
                await self._pulls.give_back(lease.delivery)
            raise
        leases.sort(key=lambda lease: (lease.entry.due, lease.delivery.sequence))
        return [LeasedItem(lease.entry.item, lease.token, lease.expires) for lease in leases]

    async def _again(self, use: str, limit: int, seconds: float) -> Leases:
        """Leases of this process that ran out; the servers would not give them to anybody yet."""
        found = []
        for lease in self._leases.run_out(use, limit):
            self._leases.drop(lease)
            again = await self._grant(lease.delivery, lease.entry, seconds)
            if again is not None:
                await self._pulls.progress(lease.delivery)
                found.append(again)
        return found

    async def _take(self, use: str, shards: Sequence[int], limit: int, seconds: float, leases: Leases) -> None:
        """Ask as many shards at a time as there are items wanted, so that no more comes than that."""
        stream = self.streams.name(use)
        self._turn += 1
        turn = self._turn % len(shards) if shards else 0
        asked = [*shards[turn:], *shards[:turn]]
        while asked and (left := limit - len(leases)) > 0:
            now, asked = asked[:left], asked[left:]
            each = left // len(now)
            got = await self._pulls.fetch(stream, {consumer(shard): each for shard in now})
            missing = False
            deliveries: list[Delivery] = []
            for shard in now:
                found = got[consumer(shard)]
                missing = missing or found is None
                deliveries += found or ()
                if found is not None and len(found) == each:
                    asked.append(shard)  # it may have more
            try:
                granted = await asyncio.gather(*(self._first(delivery, seconds) for delivery in deliveries))
            except BaseException:
                for delivery in deliveries:
                    self._leases.revoke(Place.parse(delivery.subject).id)
                    await self._pulls.give_back(delivery)
                raise
            leases += [lease for lease in granted if lease is not None]
            if missing:
                await self.streams.mend(use)

    async def _first(self, delivery: Delivery, seconds: float) -> Lease | None:
        try:
            entry = Entry.decode(delivery.data)
            item = entry.item
            if delivery.deliveries > 1:
                entry = entry.with_item(attempts=item.attempts + delivery.deliveries - 1)
            return await self._grant(delivery, entry, seconds, check=delivery.deliveries > 1)
        except Corrupt as error:
            # nobody can work on it, and it must not come again and again: `held` takes it as it is
            self._log.error("an item of the queue is put aside: {error}", error=error)
            place = Place.parse(delivery.subject)
            await self.streams.move(place, place.moved(HELD), delivery.data, delivery.sequence)
            return None

    async def _grant(self, delivery: Delivery, entry: Entry, seconds: float, check: bool = True) -> Lease | None:
        """Lease it, unless it is there no more. *check*: somebody has had it before, and may have moved it."""
        place = Place.parse(delivery.subject)
        if check:
            last = await self._js.last(self.streams.name(place.use), place.any)
            if last is None or last.sequence != delivery.sequence:
                await self._js.delete(self.streams.name(place.use), delivery.sequence)
                return None
        entry = entry.with_item(attempts=entry.item.attempts + 1)
        most = self._link.settings.attempts
        if check and most and entry.item.attempts > most and entry.item.attempts % most == 1:
            self._log.warn("item {id} is held: {most} attempts", id=str(place.id), most=most)
            held = entry.with_item(last_reply=entry.item.last_reply or f"nobody finished it in {most} attempts")
            await self.streams.move(place, place.moved(HELD), held.encode(), delivery.sequence)
            return None
        self.streams.remember(place)
        return self._leases.grant(place, delivery, entry, seconds)

    async def extend(self, token: str, seconds: float) -> bool:
        lease = self._leases.of(token)
        return lease is not None and await self._link.run(self._extend(lease, seconds))

    async def _extend(self, lease: Lease, seconds: float) -> bool:
        asked = self._link.loop_time()
        if asked > lease.alive_until:
            return False  # it ran out so long ago that another process may have the item
        # who is told that the lease holds goes on: the servers must know it first
        await self._pulls.confirm(lease.delivery)
        return self._leases.extend(lease, seconds, asked)

    # --- the end of a lease

    async def ack(self, token: str) -> bool:
        lease = self._leases.of(token)
        return lease is not None and await self._link.run(self._ack(lease))

    async def _ack(self, lease: Lease) -> bool:
        try:
            done = await self._js.delete(self.streams.name(lease.place.use), lease.delivery.sequence)
        except Refused:
            raise
        except Unavailable:
            lease.unsure = True
            raise
        # if it is gone, it was by an earlier try that nobody answered
        done = done or lease.unsure
        self._leases.drop(lease)
        self._counts[lease.place.use].items -= done
        return done

    async def retry(
        self, token: str, delay: float, last_reply: str, *, envelope: bytes | None = None, attempted: bool = True
    ) -> bool:
        lease = self._leases.of(token)
        if lease is None:
            return False
        changes: dict[str, object] = {"last_reply": last_reply}
        if envelope is not None:
            changes["envelope"] = envelope
        if not attempted:
            changes["attempts"] = lease.entry.item.attempts - 1
        return await self._link.run(self._retry(lease, delay, changes))

    async def _retry(self, lease: Lease, delay: float, changes: dict[str, object]) -> bool:
        due = self._link.now() + max(0.0, delay)
        entry = lease.entry.with_item(due, **changes)
        most, before = self._link.settings.attempts, lease.entry.item.attempts - 1
        state = HELD if most and entry.item.attempts % most == 0 and entry.item.attempts > before else WAIT
        moved = await self.streams.move(
            lease.place, lease.place.moved(state), entry.encode(), lease.delivery.sequence, due
        )
        self._leases.drop(lease)
        return moved

    # --- what operators do

    async def hold(self, item: DeliveryId) -> bool:
        return await self._link.run(self._operations.hold(item))

    async def release(self, item: DeliveryId) -> bool:
        return await self._link.run(self._operations.release(item))

    async def delete(self, item: DeliveryId) -> bool:
        return await self._link.run(self._operations.delete(item))

    async def ids(self) -> AsyncIterator[Sequence[DeliveryId]]:
        """The ids of all items, shard by shard; of those too that `list` leaves out, since this version cannot read them."""
        for use in USES:
            for shard in range(self.streams.shards):
                pattern = f"{self.streams.prefix}.{use}.*.{shard:02d}.>"
                subjects = await self._link.run(self._js.subjects(self.streams.name(use), pattern))
                yield [Place.parse(subject).id for subject in subjects]

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        return await self._link.run(self._listing.page(filter, after, limit))
