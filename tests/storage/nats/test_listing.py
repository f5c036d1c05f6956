"""Listing a long queue on JetStream: how often all its subjects are looked at, and what becomes of items that move meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from twisted_mail.storage.interfaces import ItemState, QueueFilter, QueueItem, QueueStatus
from twisted_mail.storage.nats import listing
from twisted_mail.storage.nats.items import DUE, HELD, WAIT, Entry, Place
from twisted_mail.storage.nats.jetstream import Stored
from twisted_mail.storage.nats.listing import QueueListing
from twisted_mail.values import DeliveryId


class Servers:
    """What a listing asks of streams, servers and leases."""

    prefix, shards = "mail", 2

    def __init__(self) -> None:
        self.js = self
        self.there: dict[str, Stored] = {}
        self.looks = self.fetches = 0
        self.remembered: list[DeliveryId] = []

    def put(self, state: str, domain: str = "a.example", id: DeliveryId | None = None) -> Place:
        item = QueueItem(id or DeliveryId.new(), "outbound", b"", None, domain, "ann@example.org")
        place = Place.of(self.prefix, item, state, self.shards)
        self.there[place.subject] = Stored(place.subject, 1, Entry(item, 5.0, b"").encode(), {}, 0.0)
        return place

    def move(self, place: Place, state: str) -> None:
        stored = self.there.pop(place.subject)
        subject = place.moved(state).subject
        self.there[subject] = Stored(subject, 2, stored.data, {}, 0.0)

    def _matching(self, pattern: str) -> list[str]:
        wanted = re.compile(re.escape(pattern).replace(r"\*", "[^.]*"))
        return [subject for subject in self.there if wanted.fullmatch(subject)]

    def name(self, use: str) -> str:
        return f"mail-{use}"

    async def parts(self, use: str) -> list[str]:
        return ["00", "01"]

    async def subjects(self, name: str, pattern: str) -> list[str]:
        self.looks += name == "mail-outbound"
        return self._matching(pattern)

    async def last_of_many(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        self.fetches += 1
        return {subject: self.there[subject] for pattern in subjects for subject in self._matching(pattern)}

    async def find(self, id: DeliveryId) -> list[Place]:
        return [Place.parse(subject) for subject in self.there if subject.endswith(str(id))]

    def remember(self, place: Place) -> None:
        self.remembered.append(place.id)

    async def everywhere(self) -> dict[DeliveryId, Any]:
        return {}


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def queue(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> QueueListing:
    monkeypatch.setattr(listing, "AHEAD", 10)
    made: Any = servers
    return QueueListing(made, made)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 10))


async def pages(queue: QueueListing, filter: QueueFilter, limit: int) -> list[Sequence[QueueStatus]]:
    found: list[Sequence[QueueStatus]] = []
    while page := await queue.page(filter, found[-1][-1].item.id if found else None, limit):
        found.append(page)
    return found


def ids(page: Sequence[QueueStatus]) -> list[DeliveryId]:
    return [status.item.id for status in page]


def test_all_items_are_looked_at_once_for_many_pages(servers: Servers, queue: QueueListing) -> None:
    places = [servers.put(WAIT if number % 3 else DUE) for number in range(25)]

    async def listed() -> None:
        found = await pages(queue, QueueFilter(use="outbound"), 2)
        assert [id for page in found for id in ids(page)] == sorted(place.id for place in places)
        # two shards, and three looks that keep ten each; page by page there were 26
        assert servers.looks == 2 * 3
        assert set(servers.remembered) == {place.id for place in places}

    run(listed)


def test_an_item_that_has_moved_since_is_listed_where_it_stands(servers: Servers, queue: QueueListing) -> None:
    places = [servers.put(WAIT) for _ in range(6)]

    async def listed() -> None:
        first = await queue.page(QueueFilter(), None, 2)
        servers.move(places[2], DUE)
        servers.move(places[3], HELD)
        del servers.there[places[4].subject]
        rest = await queue.page(QueueFilter(), first[-1].item.id, 9)
        assert [(status.item.id, status.state) for status in rest] == [
            (places[2].id, ItemState.DUE),
            (places[3].id, ItemState.HELD),
            (places[5].id, ItemState.WAITING),
        ]

    run(listed)


def test_an_item_that_has_left_the_state_that_is_asked_for_is_not_listed(servers: Servers, queue: QueueListing) -> None:
    places = [servers.put(WAIT) for _ in range(5)]

    async def listed() -> None:
        wanted = QueueFilter(state=ItemState.WAITING)
        first = await queue.page(wanted, None, 1)
        servers.move(places[1], DUE)
        assert ids(await queue.page(wanted, first[-1].item.id, 2)) == [places[2].id, places[3].id], (
            "and the page is full"
        )

    run(listed)


def test_in_two_places_it_is_listed_once_where_it_moves_to(servers: Servers, queue: QueueListing) -> None:
    place = servers.put(DUE)
    servers.put(HELD, id=place.id)

    async def listed() -> None:
        [status] = await queue.page(QueueFilter(), None, 9)
        assert status.state is ItemState.HELD

    run(listed)


def test_what_is_not_the_next_page_is_looked_for_anew(servers: Servers, queue: QueueListing) -> None:
    places = [servers.put(WAIT) for _ in range(8)]

    async def listed() -> None:
        for filter, after in (
            (QueueFilter(), None),
            (QueueFilter(), None),
            (QueueFilter(use="outbound"), places[1].id),
            (QueueFilter(use="outbound"), places[4].id),
        ):
            before = servers.looks
            page = await queue.page(filter, after, 2)
            assert servers.looks > before
            later = [place.id for place in places if after is None or place.id > after]
            assert ids(page) == later[:2]

    run(listed)


def test_one_item_is_found_by_its_id_without_a_look_at_all(servers: Servers, queue: QueueListing) -> None:
    places = [servers.put(WAIT) for _ in range(8)]

    async def listed() -> None:
        before = DeliveryId((int.from_bytes(places[5].id.octets, "big") - 1).to_bytes(16, "big"))
        assert ids(await queue.page(QueueFilter(), before, 1)) == [places[5].id]
        assert servers.looks == 0
        del servers.there[places[5].subject]
        assert ids(await queue.page(QueueFilter(), before, 1)) == [places[6].id], "as of any list: the next"

    run(listed)
