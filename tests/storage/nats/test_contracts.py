"""The suites of the interfaces, on a real server."""

from __future__ import annotations

from tests.storage.nats.engines import NATSCase
from twisted_mail.storage import testing
from twisted_mail.storage.interfaces import Blobs, Bus, Cache, Members, Queue


class NATSQueueTests(NATSCase, testing.QueueContract):
    async def build(self) -> Queue:
        return (await self.nats()).queue


class NATSBusTests(NATSCase, testing.BusContract):
    async def build(self) -> Bus:
        return (await self.nats()).bus

    async def deliver(self) -> None:
        await self.turn()


class NATSCacheTests(NATSCase, testing.CacheContract):
    async def build(self) -> Cache:
        return (await self.nats()).cache


class NATSMembersTests(testing.MembersContract, NATSCase):
    async def build(self) -> Members:
        return (await self.nats()).members


class QueueBodiesTests(testing.BlobsContract, NATSCase):
    async def build(self) -> Blobs:
        return (await self.nats()).queue_bodies
