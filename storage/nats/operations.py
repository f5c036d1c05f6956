"""What operators do with items of the queue by their ids: hold, release, delete."""

from __future__ import annotations

import asyncio
from typing import Final

from twisted_mail.storage.interfaces import Corrupt, Unavailable
from twisted_mail.storage.nats.items import (
    DUE,
    HELD,
    NEVER,
    WAIT,
    Entry,
    Place,
    expecting,
    in_place_of,
    scheduled,
)
from twisted_mail.storage.nats.jetstream import Stored
from twisted_mail.storage.nats.leases import LeaseTable
from twisted_mail.storage.nats.streams import QueueStreams
from twisted_mail.values import DeliveryId

__all__ = ["QueueOperations"]

SCHEDULES_FIRE_SECONDS: Final = 1.0
"""How late a schedule may fire (seen: 0.26 s)."""
RACES: Final = 20
"""Moves that others may make of an item before we give up moving it."""


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


def _due(stored: Stored) -> float:
    try:
        return Entry.decode(stored.data).due
    except Corrupt:
        return 0.0  # whatever it is, it can be put aside
