"""Every engine of ours runs the suite of every interface that it has."""

from __future__ import annotations

from hashlib import sha256

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.storage.engines import EngineCase
from twisted_mail.storage import testing
from twisted_mail.storage.interfaces import (
    AccountLog,
    Allowances,
    Blobs,
    Bus,
    Cache,
    Directory,
    Leases,
    Lists,
    Members,
    Messages,
    NotFound,
    Queue,
    QueueFilter,
    QueueItem,
    Record,
    Records,
    References,
    Refused,
    SearchShards,
)
from twisted_mail.storage.memory import (
    MemoryAccountLog,
    MemoryAllowances,
    MemoryBlobs,
    MemoryBus,
    MemoryCache,
    MemoryDirectory,
    MemoryLeases,
    MemoryLists,
    MemoryMembers,
    MemoryMessages,
    MemoryQueue,
    MemoryRecords,
    MemoryReferences,
    MemorySearchShards,
)
from twisted_mail.storage.testing.base import Suite, fails
from twisted_mail.values import AccountId, BlobRef, DeliveryId, ModSeq


class MemoryCase(Suite, TestCase):
    """Engines in memory run on a clock that stands still."""

    def setUp(self) -> None:
        self.clock = Clock()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def deliver(self) -> None:
        self.clock.advance(0)


class MemoryAccountLogTests(testing.AccountLogContract, MemoryCase):
    async def build(self) -> AccountLog:
        return MemoryAccountLog()


class MemoryMessagesTests(testing.MessagesContract, MemoryCase):
    async def build(self) -> Messages:
        return MemoryMessages()


class MemoryListsTests(testing.ListsContract, MemoryCase):
    async def build(self) -> Lists:
        return MemoryLists()


class MemoryBlobsTests(testing.BlobsContract, MemoryCase):
    async def build(self) -> Blobs:
        return MemoryBlobs()


class MemoryReferencesTests(MemoryCase, testing.ReferencesContract):
    async def build(self) -> References:
        return MemoryReferences(self.clock.seconds)

    async def now(self) -> float:
        return float(self.clock.seconds())


class MemoryDirectoryTests(testing.DirectoryContract, MemoryCase):
    async def build(self) -> Directory:
        return MemoryDirectory()


class MemoryQueueTests(MemoryCase, testing.QueueContract):
    async def build(self) -> Queue:
        return MemoryQueue(self.clock)


class MemoryBusTests(MemoryCase, testing.BusContract):
    async def build(self) -> Bus:
        return MemoryBus(self.clock)


class MemoryCacheTests(MemoryCase, testing.CacheContract):
    async def build(self) -> Cache:
        return MemoryCache(self.clock)

    async def test_a_full_cache_loses_what_runs_out_first(self) -> None:
        cache = MemoryCache(self.clock, limit=20)
        for number in range(20):
            await cache.set(f"k{number}", b"v", 100 + number)
        await cache.set("new", b"v", 100)
        self.assertEqual(await cache.get("new"), b"v")
        self.assertIsNone(await cache.get("k0"))
        self.assertEqual(await cache.get("k19"), b"v")


class MemoryLeasesTests(MemoryCase, testing.LeasesContract):
    async def build(self) -> Leases:
        return MemoryLeases(self.clock)


class MemoryAllowancesTests(testing.AllowancesContract, MemoryCase):
    async def build(self) -> Allowances:
        return MemoryAllowances()


class MemoryRecordsTests(MemoryCase, testing.RecordsContract):
    async def build(self) -> Records:
        return MemoryRecords(self.clock)


class MemoryMembersTests(testing.MembersContract, MemoryCase):
    async def build(self) -> Members:
        return MemoryMembers()


class MemorySearchShardsTests(testing.SearchShardsContract, MemoryCase):
    async def build(self) -> SearchShards:
        return MemorySearchShards()


# --- SQLite: the process that writes


class SQLiteAccountLogTests(testing.AccountLogContract, EngineCase):
    async def build(self) -> AccountLog:
        return (await self.sqlite()).account_log


class SQLiteMessagesTests(testing.MessagesContract, EngineCase):
    async def build(self) -> Messages:
        return (await self.sqlite()).messages


class SQLiteListsTests(testing.ListsContract, EngineCase):
    async def build(self) -> Lists:
        return (await self.sqlite()).lists


class SQLiteReferencesTests(EngineCase, testing.ReferencesContract):
    async def build(self) -> References:
        return (await self.sqlite()).references

    async def now(self) -> float:
        return float(self.reactor.wall())


class SQLiteDirectoryTests(testing.DirectoryContract, EngineCase):
    async def build(self) -> Directory:
        return (await self.sqlite()).directory


class SQLiteQueueTests(EngineCase, testing.QueueContract):
    async def build(self) -> Queue:
        return (await self.sqlite()).queue


class SQLiteCacheTests(EngineCase, testing.CacheContract):
    async def build(self) -> Cache:
        return (await self.sqlite()).cache


class SQLiteLeasesTests(EngineCase, testing.LeasesContract):
    async def build(self) -> Leases:
        return (await self.sqlite()).leases


class SQLiteAllowancesTests(testing.AllowancesContract, EngineCase):
    async def build(self) -> Allowances:
        return (await self.sqlite()).allowances


class SQLiteBodiesTests(testing.BlobsContract, EngineCase):
    async def build(self) -> Blobs:
        return (await self.sqlite()).queue_bodies

    async def test_what_is_too_large_is_refused(self) -> None:
        writer = (await self.build()).writer()
        await writer.write(bytes(1 << 20))
        await fails(Refused, writer.write(b"x"))

    async def test_a_body_comes_and_goes_with_its_item(self) -> None:
        engine = await self.sqlite()
        bodies, queue = engine.queue_bodies, engine.queue
        content = b"a message"
        ref = BlobRef(sha256(content).hexdigest(), len(content))
        item = QueueItem(DeliveryId.new(), "outbound", b"envelope", ref, "example.net", "ann@example.org")
        self.assertTrue(await bodies.put_with(item, ref, content))
        self.assertFalse(await bodies.put_with(item, ref, content), "an id is put once")
        [leased] = await queue.lease("outbound", 10, 60)
        self.assertEqual(leased.item.body, ref)
        self.assertEqual(await read_all(bodies, ref), content)
        self.assertFalse(await bodies.ack_with("somebody else's", ref))
        self.assertEqual(await read_all(bodies, ref), content, "it stays with its item")
        self.assertTrue(await bodies.ack_with(leased.token, ref))
        self.assertEqual(await queue.list(QueueFilter()), [])
        await fails(NotFound, read_all(bodies, ref))


async def read_all(blobs: Blobs, ref: BlobRef) -> bytes:
    return b"".join([chunk async for chunk in blobs.open(ref)])


class SQLiteRecordsTests(EngineCase, testing.RecordsContract):
    async def build(self) -> Records:
        return (await self.sqlite()).records

    async def test_many_are_put_together(self) -> None:
        records = (await self.sqlite()).records
        await records.put("s", "a", b"old")
        await records.put_many([("s", "a", b"1", None), ("s", "b", b"2", 30.0), ("t", "c", b"3", 30.0)])
        self.assertEqual(list(await records.list("s")), [Record("a", b"1"), Record("b", b"2")])
        await fails(ValueError, records.put_many([("s", "d", b"4", None), ("s", "", b"no key", None)]))
        self.assertIsNone(await records.get("s", "d"), "all of them or none")
        await self.advance(31)
        self.assertEqual(list(await records.list("t")), [])


class SQLiteBusTests(EngineCase, testing.BusContract):
    async def build(self) -> Bus:
        return (await self.sqlite()).bus

    async def deliver(self) -> None:
        await deferLater(self.reactor, 0, lambda: None)


class SQLiteMembersTests(testing.MembersContract, EngineCase):
    async def build(self) -> Members:
        return (await self.sqlite()).members


# --- SQLite: a process that hands its writes to another


class LinkedAccountLogTests(testing.AccountLogContract, EngineCase):
    async def build(self) -> AccountLog:
        return (await self.linked()).account_log


class LinkedMessagesTests(testing.MessagesContract, EngineCase):
    async def build(self) -> Messages:
        return (await self.linked()).messages


class LinkedListsTests(testing.ListsContract, EngineCase):
    async def build(self) -> Lists:
        return (await self.linked()).lists


class LinkedReferencesTests(EngineCase, testing.ReferencesContract):
    async def build(self) -> References:
        return (await self.linked()).references

    async def now(self) -> float:
        return float(self.reactor.wall())


class LinkedDirectoryTests(testing.DirectoryContract, EngineCase):
    async def build(self) -> Directory:
        return (await self.linked()).directory


class LinkedQueueTests(EngineCase, testing.QueueContract):
    async def build(self) -> Queue:
        return (await self.linked()).queue


class LinkedCacheTests(EngineCase, testing.CacheContract):
    async def build(self) -> Cache:
        return (await self.linked()).cache


class LinkedLeasesTests(EngineCase, testing.LeasesContract):
    async def build(self) -> Leases:
        return (await self.linked()).leases


class LinkedAllowancesTests(testing.AllowancesContract, EngineCase):
    async def build(self) -> Allowances:
        return (await self.linked()).allowances


class LinkedRecordsTests(EngineCase, testing.RecordsContract):
    async def build(self) -> Records:
        return (await self.linked()).records


class LinkedMembersTests(testing.MembersContract, EngineCase):
    async def build(self) -> Members:
        return (await self.linked()).members


class LinkedBusTests(EngineCase, testing.BusContract):
    async def build(self) -> Bus:
        return (await self.linked()).bus

    async def deliver(self) -> None:
        await deferLater(self.reactor, 0, lambda: None)

    async def test_notices_pass_between_processes_and_do_not_come_back(self) -> None:
        from twisted_mail.values import ModSeq

        folder, account = self.folder(), AccountId.new()
        engines = [await self.sqlite(folder) for _ in range(3)]
        for publisher in engines:
            others = [engine for engine in engines if engine is not publisher]
            heard: list[Deferred[ModSeq]] = [Deferred() for _ in others]
            ends = [e.bus.subscribe(account, d.callback) for e, d in zip(others, heard, strict=True)]
            publisher.bus.publish(account, ModSeq(9))
            self.assertEqual([await d for d in heard], [9, 9])
            for end in ends:
                end()


# --- files


class FileBlobsTests(testing.BlobsContract, EngineCase):
    async def build(self) -> Blobs:
        return await self.files()
