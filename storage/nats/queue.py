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
import heapq
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import urandom
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.storage.interfaces import (
    Corrupt,
    ItemState,
    LeasedItem,
    QueueFilter,
    QueueItem,
    QueueStatus,
    Refused,
    StorageError,
    Unavailable,
)
from twisted_mail.storage.nats.items import (
    DUE,
    HELD,
    NEVER,
    WAIT,
    Entry,
    Place,
    expecting,
    hashed,
    in_place_of,
    scheduled,
)
from twisted_mail.storage.nats.jetstream import WRONG_SEQUENCE, JetStream, JetStreamError, Stored, Written
from twisted_mail.storage.nats.leases import Lease, LeaseTable
from twisted_mail.storage.nats.pulls import Delivery, Pulls
from twisted_mail.values import DeliveryId

__all__ = ["USES", "NATSQueue", "Shards"]

USES: Final = ("inbound", "outbound")
STATES: Final = {DUE: ItemState.DUE, WAIT: ItemState.WAITING, HELD: ItemState.HELD}
COUNT_SECONDS: Final = 2.0
"""How old the count of items may be by which `put` decides."""
MENDING_SECONDS: Final = 5.0
"""Between two looks whether all consumers are there."""
CLOCK_SECONDS: Final = 30.0
"""Between two looks at the servers' clock."""
SEEN: Final = 10_000
"""Items whose subjects are remembered."""
SEEN_SECONDS: Final = 0.02
"""How long a consumer may need to hear of a new message."""
SCHEDULES_FIRE_SECONDS: Final = 1.0
"""How late a schedule may fire (seen: 0.26 s)."""
LISTED_AT_ONCE: Final = 50_000
"""Items of a stream, up to which one answer names them all."""
OTHERS_SECONDS: Final = 30.0
"""Between two looks into shards that another process should take from, for the case that it does not."""
RACES: Final = 20
"""Moves that others may make of an item before we give up moving it."""

Places = list[Place]
"""A name for it where `list` is a method."""
Leases = list[Lease]
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
        self._prefix = self._link.settings.prefix
        self.shards = self._link.settings.shards
        """Once started: as many as the streams were made with."""
        self._preferred = preferred
        self._pulls = Pulls(self._link)
        self._leases = LeaseTable(self._link, self._pulls, clock)
        self._counts = {use: _Count() for use in USES}
        self._taking = {use: asyncio.Lock() for use in USES}
        self._turn = 0
        self._mended = float("-inf")
        self._looked_elsewhere = float("-inf")
        self._made_due = float("-inf")
        """When this process last made an item due."""
        self._looking: asyncio.Task[None] | None = None
        self._seen: OrderedDict[DeliveryId, Place] = OrderedDict()
        """Places of items that were leased lately."""

    # --- streams and consumers

    def stream(self, use: str) -> str:
        if use not in USES:
            raise ValueError(f"no such use of the queue: {use!r}")
        return f"{self._prefix}-{use}"

    async def start(self) -> None:
        """Make what is missing. Within asyncio. Raises: StorageError."""
        await self._pulls.start()
        await self._link.subscribe(f"{self._prefix}.revoked", self._revoked)
        for use in USES:
            metadata = await self._js.make_stream(
                self.stream(use),
                {
                    "description": f"{use} mail",
                    "subjects": [f"{self._prefix}.{use}.*.*.*.*.*"],
                    "retention": "workqueue",
                    "max_msgs_per_subject": 1,
                    "discard": "old",
                    "allow_direct": True,
                    "allow_rollup_hdrs": True,
                    "allow_msg_schedules": True,
                    "duplicate_window": int(self._link.settings.duplicates * 1e9),
                },
                {"shards": str(self._link.settings.shards)},
            )
            self.shards = _shards(metadata)
            await self._make_consumers(use)
        self._leases.start()
        self._looking = self._link.spawn(self._look_at_the_clock())

    async def stop(self) -> None:
        """Within asyncio. What is still leased goes back."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        await self._leases.stop()

    async def _look_at_the_clock(self) -> None:
        """The time at which an item is due is the servers', whatever this machine thinks of it."""
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            with suppress(JetStreamError, StorageError):
                await self._js.info(self.stream(USES[0]))

    async def _make_consumers(self, use: str) -> None:
        stream = self.stream(use)
        there: set[str] = set()
        while True:
            page = await self._js.api(f"CONSUMER.NAMES.{stream}", {"offset": len(there)})
            there |= set(page.get("consumers") or ())
            if not page.get("consumers") or len(there) >= page["total"]:
                break
        missing = [shard for shard in range(self.shards) if _consumer(shard) not in there]
        await asyncio.gather(*(self._make_consumer(use, stream, shard) for shard in missing))

    async def _make_consumer(self, use: str, stream: str, shard: int) -> None:
        subject = f"{self._prefix}.{use}.{DUE}.{shard:02d}.>"
        config = {
            "name": _consumer(shard),
            "durable_name": _consumer(shard),
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": int(self._link.settings.ack_wait * 1e9),
            "deliver_policy": "all",
            "max_deliver": -1,
            "max_ack_pending": 10_000,
            "num_replicas": 0,
        }
        what = f"CONSUMER.CREATE.{stream}.{_consumer(shard)}.{subject}"
        try:
            await self._js.api(what, {"stream_name": stream, "config": config})
        except JetStreamError as error:
            raise StorageError(f"NATS: consumer {shard} of {stream} cannot be made: {error}") from error

    async def _mend(self, use: str) -> None:
        """Consumers were missing (somebody removed them, or they have no leader just now)."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._mended >= MENDING_SECONDS:
            self._mended = loop.time()
            await self._make_consumers(use)

    # --- put

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        return await self._link.run(self._put(item, delay))

    async def _put(self, item: QueueItem, delay: float) -> bool:
        await self._count(item.use)
        now = self._link.now()
        entry = Entry(item, now + max(0.0, delay), urandom(8))
        place = Place.of(self._prefix, item, WAIT if delay > 0 else DUE, self.shards)
        headers = dict(expecting(0, place.any))
        if delay > 0:
            headers |= scheduled(place, entry.due)
        id = str(item.id)
        while True:
            try:
                written = await self._js.write(place.subject, entry.encode(), headers, id)
            except JetStreamError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise Refused(f"NATS: {error}") from error
                return error.tries > 1 and await self._put_before(place, entry.mark)
            if not written.duplicate:
                self._counts[item.use].items += 1
                self._made_due = asyncio.get_running_loop().time()
                return True
            mine = await self._whose(item, written, entry.mark)
            if mine is not None:
                return mine
            # it was there and is gone: what was acknowledged is forgotten
            id = f"{item.id}.{entry.mark.hex()}"

    async def _put_before(self, place: Place, mark: bytes) -> bool:
        """Whether an earlier try of this very `put` brought the item, and its answer was lost."""
        stored = await self._js.last(self.stream(place.use), place.any)
        return stored is None or Entry.decode(stored.data).mark == mark

    async def _whose(self, item: QueueItem, written: Written, mark: bytes) -> bool | None:
        """Of an item that the servers know: whether this very `put` brought it; None if it is there no more."""
        stored = await self._js.at(self.stream(item.use), written.sequence)
        if stored is None:
            for place in await self._find(item.id):
                stored = await self._js.last(self.stream(place.use), place.subject) or stored
        if stored is not None:
            return Entry.decode(stored.data).mark == mark
        # put by a try of ours whose answer was lost, and done already: or long ago by another
        return True if written.tries > 1 else None

    async def _count(self, use: str) -> None:
        """Raises: Refused when the queue is full."""
        count, loop = self._counts[use], asyncio.get_running_loop()
        if loop.time() - count.at > COUNT_SECONDS:
            count.at = loop.time()
            state = (await self._js.info(self.stream(use)))["state"]
            count.items = state["messages"]
            account = await self._js.api("INFO")
            most = account.get("limits", {}).get("max_storage", -1)
            full = most > 0 and account.get("storage", 0) > 0.9 * most
            count.trouble = "the account's storage on the NATS servers is nearly full" if full else None
        if count.items >= self._link.settings.items:
            raise Refused(f"the queue has its {self._link.settings.items} items")
        if count.trouble is not None:
            raise Refused(count.trouble)

    # --- lease

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        self.stream(use)
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
            preferred = self._preferred(use, self.shards)
            shards = list(range(self.shards)) if preferred is None else sorted(preferred)
            await self._take(use, shards, limit, seconds, leases)
            loop = asyncio.get_running_loop()
            if len(leases) < limit and loop.time() - self._made_due < SEEN_SECONDS:
                # consumers hear a moment later than the writer of what was written
                await asyncio.sleep(SEEN_SECONDS / 2)
                await self._take(use, shards, limit, seconds, leases)
            if not leases and preferred is not None and loop.time() - self._looked_elsewhere > OTHERS_SECONDS:
                self._looked_elsewhere = loop.time()
                others = set(range(self.shards)) - set(shards)
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
        stream = self.stream(use)
        self._turn += 1
        turn = self._turn % len(shards) if shards else 0
        asked = [*shards[turn:], *shards[:turn]]
        while asked and (left := limit - len(leases)) > 0:
            now, asked = asked[:left], asked[left:]
            each = left // len(now)
            got = await self._pulls.fetch(stream, {_consumer(shard): each for shard in now})
            missing = False
            deliveries: list[Delivery] = []
            for shard in now:
                found = got[_consumer(shard)]
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
                await self._mend(use)

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
            await self._move(place, place.moved(HELD), delivery.data, delivery.sequence)
            return None

    async def _grant(self, delivery: Delivery, entry: Entry, seconds: float, check: bool = True) -> Lease | None:
        """Lease it, unless it is there no more. *check*: somebody has had it before, and may have moved it."""
        place = Place.parse(delivery.subject)
        if check:
            last = await self._js.last(self.stream(place.use), place.any)
            if last is None or last.sequence != delivery.sequence:
                await self._js.delete(self.stream(place.use), delivery.sequence)
                return None
        entry = entry.with_item(attempts=entry.item.attempts + 1)
        most = self._link.settings.attempts
        if check and most and entry.item.attempts > most and entry.item.attempts % most == 1:
            self._log.warn("item {id} is held: {most} attempts", id=str(place.id), most=most)
            held = entry.with_item(last_reply=entry.item.last_reply or f"nobody finished it in {most} attempts")
            await self._move(place, place.moved(HELD), held.encode(), delivery.sequence)
            return None
        self._seen[place.id] = place
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return self._leases.grant(place, delivery, entry, seconds)

    async def extend(self, token: str, seconds: float) -> bool:
        lease = self._leases.of(token)
        if lease is None or not self._leases.extend(lease, seconds):
            return False
        await self._link.run(self._pulls.progress(lease.delivery))
        return True

    # --- the end of a lease

    async def ack(self, token: str) -> bool:
        lease = self._leases.of(token)
        return lease is not None and await self._link.run(self._ack(lease))

    async def _ack(self, lease: Lease) -> bool:
        done = await self._js.delete(self.stream(lease.place.use), lease.delivery.sequence)
        self._leases.drop(lease)
        self._counts[lease.place.use].items -= done
        return done

    async def retry(self, token: str, delay: float, last_reply: str) -> bool:
        lease = self._leases.of(token)
        return lease is not None and await self._link.run(self._retry(lease, delay, last_reply))

    async def _retry(self, lease: Lease, delay: float, last_reply: str) -> bool:
        due = self._link.now() + max(0.0, delay)
        entry = lease.entry.with_item(due, last_reply=last_reply)
        most = self._link.settings.attempts
        state = HELD if most and entry.item.attempts % most == 0 else WAIT
        moved = await self._move(lease.place, lease.place.moved(state), entry.encode(), lease.delivery.sequence, due)
        self._leases.drop(lease)
        return moved

    async def _move(self, old: Place, new: Place, data: bytes, sequence: int, at: float = NEVER) -> bool:
        """From ``due`` to a schedule, if *sequence* is still the due one. Within the loss of this process: both, for a while."""
        headers = {**expecting(sequence, old.subject), **scheduled(new, NEVER if new.state == HELD else at)}
        if await self._write_if(new, data, headers) is None:
            return False
        await self._js.delete(self.stream(old.use), sequence)
        return True

    async def _write_if(self, place: Place, data: bytes, headers: dict[str, str]) -> Written | None:
        """None when the condition in *headers* does not hold. Raises: Refused, Unavailable."""
        id = urandom(12).hex()
        try:
            return await self._js.write(place.subject, data, headers, id)
        except JetStreamError as error:
            if error.number not in WRONG_SEQUENCE:
                raise Refused(f"NATS: {error}") from error
            if error.tries > 1:
                # an earlier try of ours may have done it, and its answer was lost
                last = await self._js.last(self.stream(place.use), place.subject)
                if last is not None and last.headers.get("Nats-Msg-Id") == id:
                    return Written(last.sequence, False, error.tries)
            return None

    # --- what operators do

    async def _find(self, id: DeliveryId) -> Places:
        """Where an item stands: once, or twice for a moment. Costs a look at all subjects unless it was leased here."""
        known = self._seen.get(id)
        if known is not None:
            there = await self._js.subjects(self.stream(known.use), known.any)
            if there:
                return [Place.parse(subject) for subject in there]
        uses = await asyncio.gather(
            *(self._js.subjects(self.stream(use), f"{self._prefix}.{use}.*.*.*.*.{id}") for use in USES)
        )
        return [Place.parse(subject) for use in uses for subject in use]

    async def hold(self, item: DeliveryId) -> bool:
        return await self._link.run(self._hold(item))

    async def _hold(self, id: DeliveryId) -> bool:
        for _ in range(RACES):
            places = {place.state: place for place in await self._find(id)}
            if HELD in places:
                for state in (WAIT, DUE):
                    if state in places:
                        await self._js.purge(self.stream(places[state].use), places[state].subject)
                await self._revoke(id)
                return True
            source = places.get(WAIT) or places.get(DUE)
            if source is None:
                return False
            stored = await self._js.last(self.stream(source.use), source.subject)
            if stored is not None and await self._hold_from(source, stored):
                await self._revoke(id)
                return True
        raise Unavailable("the item is moved all the time")

    async def _hold_from(self, source: Place, stored: Stored) -> bool:
        """False: look again."""
        stream, held = self.stream(source.use), source.moved(HELD)
        headers = {**expecting(stored.sequence, source.subject), **scheduled(held, NEVER)}
        if source.state == WAIT:
            headers |= in_place_of(source)
        written = await self._write_if(held, stored.data, headers)
        if written is None:
            return False
        if source.state == DUE:
            if await self._js.delete(stream, stored.sequence):
                return True
            # it was finished, or moved, between the two steps
            await self._js.delete(stream, written.sequence)
            return False
        if abs(_due(stored) - self._link.now()) < 2 * SCHEDULES_FIRE_SECONDS:
            await asyncio.sleep(SCHEDULES_FIRE_SECONDS / 4)  # it may have been on its way already
            await self._js.purge(stream, source.moved(DUE).subject)
        return True

    async def release(self, item: DeliveryId) -> bool:
        return await self._link.run(self._release(item))

    async def _release(self, id: DeliveryId) -> bool:
        for _ in range(RACES):
            held = next((place for place in await self._find(id) if place.state == HELD), None)
            if held is None:
                return False
            stored = await self._js.last(self.stream(held.use), held.subject)
            if stored is None:
                continue
            entry = Entry.decode(stored.data).with_item(self._link.now())
            headers = {**expecting(stored.sequence, held.subject), **in_place_of(held)}
            if await self._write_if(held.moved(DUE), entry.encode(), headers) is not None:
                self._made_due = asyncio.get_running_loop().time()
                return True
        raise Unavailable("the item is moved all the time")

    async def delete(self, item: DeliveryId) -> bool:
        return await self._link.run(self._delete(item))

    async def _delete(self, id: DeliveryId) -> bool:
        found = False
        for _ in range(RACES):
            places = await self._find(id)
            if not places:
                await self._revoke(id)
                return found
            for place in places:
                found = bool(await self._js.purge(self.stream(place.use), place.subject)) or found
        raise Unavailable("the item comes back all the time")

    async def _revoke(self, id: DeliveryId) -> None:
        """Whoever has a lease of it should know soon; that it finds out at the end is certain."""
        self._leases.revoke(id)
        await self._link.publish(f"{self._prefix}.revoked", id.octets)

    async def _revoked(self, message: Any) -> None:
        if len(message.data) == 16:
            self._leases.revoke(DeliveryId(message.data))

    # --- lists

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        return await self._link.run(self._list(filter, after, limit))

    async def _list(self, filter: QueueFilter, after: DeliveryId | None, limit: int) -> Sequence[QueueStatus]:
        uses = [use for use in USES if filter.use in (None, use)]
        places = [(place.id, use, place) for use in uses for place in await self._matching(use, filter, after)]
        found: list[QueueStatus] = []
        heapq.heapify(places)
        while places and len(found) < limit:
            # more than are wanted, for what hashes let through that does not match
            page = [heapq.heappop(places)[2] for _ in range(min(len(places), limit - len(found) + 8))]
            for use in uses:
                stored = await self._js.last_of_many(
                    self.stream(use), [place.subject for place in page if place.use == use]
                )
                found += filter_statuses(filter, self._leases, stored)
            found.sort(key=lambda status: status.item.id)
        return found[:limit]

    async def _matching(self, use: str, filter: QueueFilter, after: DeliveryId | None) -> Places:
        """Where the items stand that may match; shard by shard where there are many."""
        states = {ItemState.WAITING: WAIT, ItemState.HELD: HELD, None: "*"}
        state = states.get(filter.state, DUE)
        domain = "*" if filter.domain is None else hashed(filter.domain)
        sender = "*" if filter.sender is None else hashed(filter.sender)
        shards = ["*"]
        if use == "outbound" and filter.domain is not None:
            shards = [f"{int(domain, 16) % self.shards:02d}"]
        elif (await self._js.info(self.stream(use)))["state"]["messages"] > LISTED_AT_ONCE:
            shards = [f"{shard:02d}" for shard in range(self.shards)]
        found: dict[DeliveryId, Place] = {}
        for shard in shards:
            pattern = f"{self._prefix}.{use}.{state}.{shard}.{domain}.{sender}.*"
            for subject in await self._js.subjects(self.stream(use), pattern):
                place = Place.parse(subject)
                # while it moves it may stand in two places: the one it moves to counts
                if (after is None or place.id > after) and (place.state != DUE or place.id not in found):
                    found[place.id] = place
        return list(found.values())


def _due(stored: Stored) -> float:
    try:
        return Entry.decode(stored.data).due
    except Corrupt:
        return 0.0  # whatever it is, it can be put aside


def _shards(metadata: Mapping[str, str]) -> int:
    """Raises: StorageError."""
    text = metadata.get("shards", "")
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise StorageError(
            "NATS: the queue's stream was not made by this suite: it does not say how many shards it has"
        )
    return int(text)


def _consumer(shard: int) -> str:
    return f"shard-{shard:02d}"


def filter_statuses(filter: QueueFilter, leases: LeaseTable, stored: dict[str, Stored]) -> list[QueueStatus]:
    """What the messages say, as far as it matches."""
    found = []
    for subject, message in stored.items():
        place = Place.parse(subject)
        entry = Entry.decode(message.data)
        item, state, due = entry.item, STATES[place.state], entry.due
        lease = leases.holder(place.id) if state is ItemState.DUE else None
        if lease is not None:
            item, state, due = lease.entry.item, ItemState.LEASED, lease.expires
        wanted = (filter.state, state), (filter.domain, item.domain), (filter.sender, item.sender)
        if all(value in (None, of_item) for value, of_item in wanted):
            found.append(QueueStatus(item, state, due))
    return found
