"""Items as operators list them, page by page.

Items are listed by id, and a subject ends with it: no server can be asked for the next hundred. So all subjects that match
are looked at, shard by shard, and the first so many of them are kept for the pages that follow: of a million items each
page would otherwise cost such a look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from twisted_mail.storage.interfaces import USES, Corrupt, ItemState, QueueFilter, QueueStatus
from twisted_mail.storage.nats.items import DUE, HELD, WAIT, Entry, Place, hashed
from twisted_mail.storage.nats.jetstream import Stored
from twisted_mail.storage.nats.leases import Held, LeaseTable
from twisted_mail.storage.nats.streams import QueueStreams
from twisted_mail.values import DeliveryId

__all__ = ["QueueListing"]

STATES: Final = {DUE: ItemState.DUE, WAIT: ItemState.WAITING, HELD: ItemState.HELD}
LEASABLE: Final = (None, ItemState.DUE, ItemState.LEASED)
"""Filters by state for which it matters who has leased what."""
AHEAD: Final = 100_000
"""Subjects that are kept for the next pages (16 MB)."""
KEPT_SECONDS: Final = 60.0
"""How long they are kept for a page that does not come. What was put meanwhile is seen by the next look."""
_ID: Final = 32
"""Characters that a subject ends with."""


@dataclass(slots=True)
class _Look:
    """What was found by looking at all subjects."""

    filter: QueueFilter
    reached: DeliveryId | None
    """The last that has been listed."""
    at: float
    """When it was last used, by asyncio's clock."""
    ahead: deque[str] = field(default_factory=deque)
    """Subjects, by id, of items behind `reached`."""
    complete: bool = True
    """There are no others."""


class QueueListing:
    """That part of `NATSQueue`. All of it within asyncio."""

    def __init__(self, streams: QueueStreams, leases: LeaseTable) -> None:
        self._streams = streams
        self._js = streams.js
        self._leases = leases
        self._kept: _Look | None = None

    async def page(self, filter: QueueFilter, after: DeliveryId | None, limit: int) -> Sequence[QueueStatus]:
        """See `Queue.list`."""
        if limit == 1 and after is not None and filter == QueueFilter():
            # who looks for one item asks for what follows the number before its own
            places = await self._streams.find(_next(after))
            if places:
                return await self._statuses(filter, [_newest(places).subject])
        look = self._continued(filter, after) or await self._look(filter, after)
        found: list[QueueStatus] = []
        while len(found) < limit:
            if not look.ahead:
                if look.complete:
                    break
                look = await self._look(filter, look.reached)
                continue
            subjects = [look.ahead.popleft() for _ in range(min(len(look.ahead), limit - len(found)))]
            look.reached = DeliveryId.parse(subjects[-1][-_ID:])
            found += await self._statuses(filter, subjects)
        look.at = asyncio.get_running_loop().time()
        self._kept = look if found else None  # who asks again after the end looks anew
        return found

    def _continued(self, filter: QueueFilter, after: DeliveryId | None) -> _Look | None:
        """The look from which the page before was taken; nobody else has it meanwhile."""
        look, self._kept = self._kept, None
        fresh = look is not None and asyncio.get_running_loop().time() - look.at < KEPT_SECONDS
        if look is not None and fresh and after is not None and (look.filter, look.reached) == (filter, after):
            return look
        return None

    async def _look(self, filter: QueueFilter, after: DeliveryId | None) -> _Look:
        """At the subjects of all items that may match."""
        look = _Look(filter, after, 0.0)
        first = "" if after is None else str(after)
        found: list[str] = []
        for use in (use for use in USES if filter.use in (None, use)):
            for pattern in await self._patterns(use, filter):
                subjects = await self._js.subjects(self._streams.name(use), pattern)
                found += [subject for subject in subjects if subject[-_ID:] > first]
                if len(found) > 2 * AHEAD:
                    found, look.complete = sorted(found, key=_by_id)[:AHEAD], False
        found.sort(key=_by_id)
        if len(found) > AHEAD:
            found, look.complete = found[:AHEAD], False
        # while an item moves it may stand in two places: the one it moves to counts, which is never ``due``
        for subject in found:
            if not look.ahead or look.ahead[-1][-_ID:] != subject[-_ID:]:
                look.ahead.append(subject)
        return look

    async def _patterns(self, use: str, filter: QueueFilter) -> list[str]:
        states = {ItemState.WAITING: WAIT, ItemState.HELD: HELD, None: "*"}
        state = states.get(filter.state, DUE)
        domain = "*" if filter.domain is None else hashed(filter.domain)
        sender = "*" if filter.sender is None else hashed(filter.sender)
        if use != "inbound" and filter.domain is not None:
            shards = [f"{int(domain, 16) % self._streams.shards:02d}"]
        else:
            shards = await self._streams.parts(use)
        return [f"{self._streams.prefix}.{use}.{state}.{shard}.{domain}.{sender}.*" for shard in shards]

    async def _statuses(self, filter: QueueFilter, subjects: Sequence[str]) -> list[QueueStatus]:
        """What is there of the items with these *subjects*, as far as it matches, by id; what cannot be read is left out."""
        stored: dict[DeliveryId, tuple[Place, Stored]] = {}
        for use in USES:
            places = [place for place in map(Place.parse, subjects) if place.use == use]
            for subject, message in (await self._messages(self._streams.name(use), places)).items():
                place = Place.parse(subject)
                if place.state != DUE or place.id not in stored:
                    stored[place.id] = place, message
        leasable = filter.state in LEASABLE and any(place.state == DUE for place, _ in stored.values())
        leased = await self._leases.everywhere() if leasable else {}
        found: list[QueueStatus] = []
        for place, message in stored.values():
            status = _status(place, message, leased)
            if status is not None and _matches(filter, status):
                self._streams.remember(place)
                found.append(status)
        found.sort(key=lambda status: status.item.id)
        return found

    async def _messages(self, stream: str, places: Sequence[Place]) -> Mapping[str, Stored]:
        """By subject; of an item that has moved since it was seen, by its new one."""
        if not places:
            return {}
        stored = await self._js.last_of_many(stream, [place.subject for place in places])
        moved = [place.any for place in places if place.subject not in stored]  # or done
        return stored | await self._js.last_of_many(stream, moved) if moved else stored


def _by_id(subject: str) -> tuple[str, bool]:
    return subject[-_ID:], f".{DUE}." in subject


def _newest(places: Sequence[Place]) -> Place:
    """Of the two where an item stands while it moves: the one it moves to."""
    return min(places, key=lambda place: place.state == DUE)


def _next(id: DeliveryId) -> DeliveryId:
    return DeliveryId(((int.from_bytes(id.octets, "big") + 1) % (1 << 128)).to_bytes(16, "big"))


def _status(place: Place, message: Stored, leased: Mapping[DeliveryId, Held]) -> QueueStatus | None:
    try:
        entry = Entry.decode(message.data)
    except Corrupt:
        return None
    held = leased.get(place.id) if place.state == DUE else None
    if held is not None:
        return QueueStatus(replace(entry.item, attempts=held.attempts), ItemState.LEASED, held.expires)
    return QueueStatus(entry.item, STATES[place.state], entry.due)


def _matches(filter: QueueFilter, status: QueueStatus) -> bool:
    """Hashes let through what does not, and an item may have moved since its subject was seen."""
    item = status.item
    wanted = (filter.state, status.state), (filter.domain, item.domain), (filter.sender, item.sender)
    return all(value in (None, of_item) for value, of_item in wanted)
