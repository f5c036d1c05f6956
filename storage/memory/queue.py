"""The queue in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime

from twisted_mail.storage.interfaces import ItemState, LeasedItem, QueueFilter, QueueItem, QueueStatus
from twisted_mail.values import DeliveryId

__all__ = ["MemoryQueue"]


@dataclass(slots=True)
class _Place:
    """An item and where it stands; `due` is the end of the lease while there is a token."""

    item: QueueItem
    due: float
    token: str | None = None
    held: bool = False

    def state(self, now: float) -> ItemState:
        if self.held:
            return ItemState.HELD
        if self.due <= now:
            return ItemState.DUE
        return ItemState.WAITING if self.token is None else ItemState.LEASED


class MemoryQueue:
    """Implements `Queue`. A lease that ran out stays its holder's until another takes the item."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._places: dict[DeliveryId, _Place] = {}

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        if item.id in self._places:
            return False
        self._places[item.id] = _Place(item, self._clock.seconds() + delay)
        return True

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        now = self._clock.seconds()
        due = [p for p in self._places.values() if p.item.use == use and p.state(now) is ItemState.DUE]
        due.sort(key=lambda place: (place.due, place.item.id))
        leased = []
        for place in due[:limit]:
            place.item = replace(place.item, attempts=place.item.attempts + 1)
            place.token, place.due = uuid4().hex, now + seconds
            leased.append(LeasedItem(place.item, place.token, place.due))
        return leased

    def _held_by(self, token: str) -> _Place | None:
        return next((place for place in self._places.values() if place.token == token), None)

    async def extend(self, token: str, seconds: float) -> bool:
        place = self._held_by(token)
        if place is None:
            return False
        place.due = self._clock.seconds() + seconds
        return True

    async def ack(self, token: str) -> bool:
        place = self._held_by(token)
        if place is None:
            return False
        del self._places[place.item.id]
        return True

    async def retry(
        self, token: str, delay: float, last_reply: str, *, envelope: bytes | None = None, attempted: bool = True
    ) -> bool:
        place = self._held_by(token)
        if place is None:
            return False
        place.item = replace(
            place.item,
            last_reply=last_reply,
            envelope=place.item.envelope if envelope is None else envelope,
            attempts=place.item.attempts - (not attempted),
        )
        place.token, place.due = None, self._clock.seconds() + delay
        return True

    async def hold(self, item: DeliveryId) -> bool:
        place = self._places.get(item)
        if place is None:
            return False
        place.held, place.token = True, None
        return True

    async def release(self, item: DeliveryId) -> bool:
        place = self._places.get(item)
        if place is None or not place.held:
            return False
        place.held, place.due = False, self._clock.seconds()
        return True

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        now = self._clock.seconds()
        found = []
        for id in sorted(self._places):
            place = self._places[id]
            item, state = place.item, place.state(now)
            if (
                (after is None or id > after)
                and filter.use in (None, item.use)
                and filter.state in (None, state)
                and filter.domain in (None, item.domain)
                and filter.sender in (None, item.sender)
            ):
                found.append(QueueStatus(item, state, place.due))
                if len(found) == limit:
                    break
        return found

    async def delete(self, item: DeliveryId) -> bool:
        return self._places.pop(item, None) is not None
