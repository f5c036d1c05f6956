"""All items of a JetStream queue by their ids, wherever they stand, and readable or not."""

from __future__ import annotations

from os import urandom

from tests.storage.nats.engines import NATSCase
from twisted_mail.storage.interfaces import QueueFilter, QueueItem
from twisted_mail.storage.nats.items import DUE, Place
from twisted_mail.values import DeliveryId


class IdsTests(NATSCase):
    async def test_items_that_cannot_be_read_are_named_too(self) -> None:
        engine = await self.nats()
        queue = engine.queue
        items = [QueueItem(DeliveryId.new(), use, b"", None) for use in ("inbound", "inbound", "outbound")]
        for item, delay in zip(items, (0.0, 100.0, 0.0), strict=True):
            await queue.put(item, delay=delay)
        await queue.hold(items[2].id)
        newer = QueueItem(DeliveryId.new(), "inbound", b"", None)
        place = Place.of(self.prefix, newer, DUE, 2)
        await engine._link.run(engine.jetstream.write(place.subject, urandom(40), {}))
        self.assertEqual(len(await queue.list(QueueFilter())), 3)
        found = [id async for ids in queue.ids() for id in ids]
        self.assertEqual(sorted(found), sorted([*(item.id for item in items), newer.id]))
