"""What operators do with items of the queue by their ids: hold, release, delete, and look."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from twisted_mail.storage.interfaces import USES, Corrupt, ItemState, QueueFilter, QueueStatus, Unavailable
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
from twisted_mail.storage.nats.jetstream import Stored
from twisted_mail.storage.nats.leases import Held, LeaseTable
from twisted_mail.storage.nats.streams import QueueStreams
from twisted_mail.values import DeliveryId

__all__ = ["QueueOperations"]

STATES: Final = {DUE: ItemState.DUE, WAIT: ItemState.WAITING, HELD: ItemState.HELD}
LEASABLE: Final = (None, ItemState.DUE, ItemState.LEASED)
"""Filters by state for which it matters who has leased what."""
SCHEDULES_FIRE_SECONDS: Final = 1.0
"""How late a schedule may fire (seen: 0.26 s)."""
LISTED_AT_ONCE: Final = 50_000
"""Items of a stream, up to which one answer names them all."""
RACES: Final = 20
"""Moves that others may make of an item before we give up moving it."""


Places = list[Place]
"""A name for it where `list` is a method."""


class QueueOperations:
    """That part of `NATSQueue`. All of it within asyncio."""

    def __init__(self, streams: QueueStreams, leases: LeaseTable) -> None:
        self._streams = streams
        self._js = streams.js
        self._leases = leases

    async def hold(self, id: DeliveryId) -> bool:
        for _ in range(RACES):
            places = {place.state: place for place in await self._streams.find(id)}
            if HELD in places:
                for state in (WAIT, DUE):
                    if state in places:
                        await self._js.purge(self._streams.name(places[state].use), places[state].subject)
                await self._leases.tell_revoked(id)
                return True
            source = places.get(WAIT) or places.get(DUE)
            if source is None:
                return False
            stored = await self._js.last(self._streams.name(source.use), source.subject)
            if stored is not None and await self._hold_from(source, stored):
                await self._leases.tell_revoked(id)
                return True
        raise Unavailable("the item is moved all the time")

    async def _hold_from(self, source: Place, stored: Stored) -> bool:
        """False: look again."""
        stream, held = self._streams.name(source.use), source.moved(HELD)
        headers = {**expecting(stored.sequence, source.subject), **scheduled(held, NEVER)}
        if source.state == WAIT:
            headers |= in_place_of(source)
        written = await self._streams.write_if(held, stored.data, headers)
        if written is None:
            return False
        if source.state == DUE:
            if await self._js.delete(stream, stored.sequence):
                return True
            # it was finished, or moved, between the two steps
            await self._js.delete(stream, written.sequence)
            return False
        if abs(_due(stored) - self._streams.link.now()) < 2 * SCHEDULES_FIRE_SECONDS:
            await asyncio.sleep(SCHEDULES_FIRE_SECONDS / 4)  # it may have been on its way already
            await self._js.purge(stream, source.moved(DUE).subject)
        return True

    async def release(self, id: DeliveryId) -> bool:
        for _ in range(RACES):
            held = next((place for place in await self._streams.find(id) if place.state == HELD), None)
            if held is None:
                return False
            stored = await self._js.last(self._streams.name(held.use), held.subject)
            if stored is None:
                continue
            entry = Entry.decode(stored.data).with_item(self._streams.link.now())
            headers = {**expecting(stored.sequence, held.subject), **in_place_of(held)}
            if await self._streams.write_if(held.moved(DUE), entry.encode(), headers) is not None:
                self._streams.made_due = asyncio.get_running_loop().time()
                return True
        raise Unavailable("the item is moved all the time")

    async def delete(self, id: DeliveryId) -> bool:
        found = False
        for _ in range(RACES):
            places = await self._streams.find(id)
            if not places:
                await self._leases.tell_revoked(id)
                return found
            for place in places:
                found = bool(await self._js.purge(self._streams.name(place.use), place.subject)) or found
        raise Unavailable("the item comes back all the time")

    # --- lists

    async def list(self, filter: QueueFilter, after: DeliveryId | None, limit: int) -> Sequence[QueueStatus]:
        uses = [use for use in USES if filter.use in (None, use)]
        places = [(place.id, use, place) for use in uses for place in await self._matching(use, filter, after)]
        found: list[QueueStatus] = []
        leased = await self._leases.everywhere() if places and filter.state in LEASABLE else {}
        heapq.heapify(places)
        while places and len(found) < limit:
            # more than are wanted, for what hashes let through that does not match
            page = [heapq.heappop(places)[2] for _ in range(min(len(places), limit - len(found) + 8))]
            for use in uses:
                stored = await self._js.last_of_many(
                    self._streams.name(use), [place.subject for place in page if place.use == use]
                )
                found += _statuses(filter, leased, stored)
            found.sort(key=lambda status: status.item.id)
        return found[:limit]

    async def _matching(self, use: str, filter: QueueFilter, after: DeliveryId | None) -> Places:
        """Where the items stand that may match; shard by shard where there are many."""
        states = {ItemState.WAITING: WAIT, ItemState.HELD: HELD, None: "*"}
        state = states.get(filter.state, DUE)
        domain = "*" if filter.domain is None else hashed(filter.domain)
        sender = "*" if filter.sender is None else hashed(filter.sender)
        shards = ["*"]
        if use != "inbound" and filter.domain is not None:
            shards = [f"{int(domain, 16) % self._streams.shards:02d}"]
        elif (await self._js.info(self._streams.name(use)))["state"]["messages"] > LISTED_AT_ONCE:
            shards = [f"{shard:02d}" for shard in range(self._streams.shards)]
        found: dict[DeliveryId, Place] = {}
        for shard in shards:
            pattern = f"{self._streams.prefix}.{use}.{state}.{shard}.{domain}.{sender}.*"
            for subject in await self._js.subjects(self._streams.name(use), pattern):
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


def _statuses(
    filter: QueueFilter, leased: Mapping[DeliveryId, Held], stored: Mapping[str, Stored]
) -> list[QueueStatus]:
    """What the messages say, as far as it matches; what cannot be read is left out."""
    found = []
    for subject, message in stored.items():
        place = Place.parse(subject)
        try:
            entry = Entry.decode(message.data)
        except Corrupt:
            continue
        item, state, due = entry.item, STATES[place.state], entry.due
        held = leased.get(place.id) if state is ItemState.DUE else None
        if held is not None:
            item, state, due = replace(item, attempts=held.attempts), ItemState.LEASED, held.expires
        wanted = (filter.state, state), (filter.domain, item.domain), (filter.sender, item.sender)
        if all(value in (None, of_item) for value, of_item in wanted):
            found.append(QueueStatus(item, state, due))
    return found
