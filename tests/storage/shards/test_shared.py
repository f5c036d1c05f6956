"""Search shards in an object store: what nodes see of each other, what is fetched and kept, and what is cleared away."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from tests.storage.shards.support import ShardsCase, documents, tantivy_index
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.shards import WordIndex
from twisted_mail.storage.shards.manifest import Manifest, decode, folder_of
from twisted_mail.storage.shards.shared import GRACE_SECONDS
from twisted_mail.storage.shards.states import FRESH_SECONDS
from twisted_mail.storage.testing.base import collect, fails, together
from twisted_mail.values import AccountId, ModSeq


def octets_below(folder: Path) -> int:
    """Of files, each counted once however many names it has."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(path, name))
            found[status.st_ino] = status.st_size
    return sum(found.values())


class SharedShardsTests(ShardsCase):
    keeps_first_files = False

    @property
    def prefix(self) -> str:
        return folder_of(self.account, self.index().kind)

    async def manifest(self) -> Manifest:
        stored = await self.objects.inner.get(self.prefix + "manifest")
        assert stored is not None
        return decode(stored.data, self.account, self.index().kind)

    async def parts(self) -> set[str]:
        """Names of the parts that lie in the store."""
        names = [name.removeprefix(self.prefix) for name, _ in await collect(self.objects.inner.list(self.prefix))]
        return {name for name in names if name != "manifest"}

    async def test_what_one_node_writes_the_others_find(self) -> None:
        one, other = await self.node(), await self.node()
        first = await self.filled(one, "word", modseq=3)
        self.assertEqual(await self.found(other, "word"), first)
        second = await self.filled(one, "word", modseq=4)
        self.assertEqual(await self.found(other, "word"), first, "it has asked a moment ago")
        await self.advance(FRESH_SECONDS + 1)
        self.assertEqual(await self.found(other, "word"), [*second, *first])
        third = await self.filled(other, "word", modseq=5)
        self.assertEqual(await one.reached(self.account), 5, "asked for, it is told at once")
        self.assertEqual(await self.found(one, "word"), [*third, *second, *first])
        await one.remove(self.account, second, ModSeq(6))
        await other.reached(self.account)
        self.assertEqual(await self.found(other, "word"), [*third, *first])

    async def test_only_what_is_missing_is_fetched_and_stored(self) -> None:
        one, other = await self.node(), await self.node()
        # so many that no merge takes the first files along
        await one.add(self.account, documents(*(f"word {number}" for number in range(400))), ModSeq(1))
        await self.found(other, "word")
        for turn in range(2, 4):
            self.objects.seen.clear()
            await self.filled(one, "other word", modseq=turn)
            sent = self.objects.parts("put")
            self.objects.seen.clear()
            await other.reached(self.account)
            self.assertEqual(len(await self.found(other, "word")), 399 + turn)
            files = len((await self.manifest()).files)
            self.assertTrue(0 < self.objects.parts("get") <= sent < files, (self.objects.parts("get"), sent, files))
        self.objects.seen.clear()
        await self.found(other, "word")
        self.assertEqual(self.objects.seen, [])
        await self.advance(FRESH_SECONDS + 1)
        await self.found(other, "word")
        self.assertEqual(self.objects.seen, [("get", self.prefix + "manifest")])

    async def test_a_node_that_starts_again_uses_what_it_has_and_checks_it(self) -> None:
        cache = self.folder()
        one = await self.node()
        await one.add(self.account, documents(*(f"word {number}" for number in range(20))), ModSeq(1))
        spoils = ("new", None, "truncated", "other octets", "gone")
        for spoil, following in zip(spoils, (*spoils[1:], None)):
            node = await self.node(cache=cache)
            self.objects.seen.clear()
            self.assertEqual(len(await self.found(node, "word")), 20, spoil)
            self.assertEqual(self.objects.parts("get"), 0 if spoil is None else 1, spoil)
            await node.stop()
            (folder,) = (path for path in cache.glob("*/*/*") if path.is_dir())
            largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
            data = largest.read_bytes()
            match following:
                case "truncated":
                    largest.write_bytes(data[:-1])
                case "other octets":
                    largest.write_bytes(bytes([data[0] ^ 1]) + data[1:])
                case "gone":
                    largest.unlink()

    async def test_a_cached_file_that_is_cut_is_fetched_again(self) -> None:
        cache = self.folder()
        one, node = await self.node(), await self.node(cache=cache)
        added = await self.filled(one, "word", modseq=1)
        self.assertEqual(await self.found(node, "word"), added)
        for spoil in (lambda path: os.truncate(path, 3), os.unlink):
            for path in [path for path in cache.glob("*/*/*/*") if path.is_file()]:
                spoil(path)
            self.assertEqual(await self.found(node, "word"), added)
            self.assertEqual(await node.reached(self.account), 1)

    async def test_the_cache_keeps_to_its_limit_and_the_least_used_goes_first(self) -> None:
        cache = self.folder()
        one, node = await self.node(), await self.node(cache=cache)
        accounts = [AccountId.new() for _ in range(6)]
        for account in accounts:
            text = [f"word {account} {number} {os.urandom(8).hex()}" for number in range(100)]
            await one.add(account, documents(*text), ModSeq(1))
        self.assertEqual(len(await node.query(accounts[0], "word")), 100)
        limit = node._cache.limit = node._cache.size * 7 // 2
        for account in accounts:
            self.assertEqual(len(await node.query(account, "word")), 100)
            self.assertEqual(len(await node.query(accounts[0], "word")), 100)
            self.assertTrue(0 < node._cache.size <= limit, node._cache.size)
            self.assertTrue(octets_below(cache) <= limit, octets_below(cache))
        kept = set(node._cache._open)
        self.assertEqual(kept, {accounts[0], accounts[-2], accounts[-1]})
        await node.stop()
        again = await self.node(cache=cache, limit=limit // 8)
        self.assertEqual(octets_below(cache), 0)
        self.assertEqual(len(await again.query(accounts[0], "word")), 100, "one is kept whatever its size")
        self.assertEqual(len(await again.query(accounts[1], "word")), 100)
        self.assertEqual(len(again._cache._open), 1)

    async def test_two_processes_with_one_folder_have_a_cache_each(self) -> None:
        cache = self.folder()
        one, other = await self.node(cache=cache), await self.node(cache=cache)
        added = await self.filled(one, "word")
        self.assertEqual(await self.found(other, "word"), added)
        self.assertEqual(sorted(path.name for path in cache.iterdir()), ["0", "1"])
        await one.stop()
        await self.node(cache=cache)
        self.assertEqual(sorted(path.name for path in cache.iterdir()), ["0", "1"])

    async def test_parts_that_nothing_names_go_when_nobody_can_be_reading_them(self) -> None:
        one, other = await self.node(), await self.node()
        for turn in range(1, 12):
            await self.filled(one, f"word {turn}", modseq=turn)
        manifest = await self.manifest()
        self.assertTrue(manifest.dropped)
        dropped = {each.part for each in manifest.dropped}
        self.assertEqual(await self.parts(), {*manifest.parts, *dropped})
        await self.advance(GRACE_SECONDS + 1)
        await self.filled(other, "word 12", modseq=12)
        manifest = await self.manifest()
        self.assertEqual(await self.parts(), {*manifest.parts, *(each.part for each in manifest.dropped)})
        self.assertFalse(dropped & await self.parts())
        await one.reached(self.account)
        self.assertEqual(len(await self.found(one, "word")), 12)

    async def test_a_state_that_goes_while_it_is_fetched_is_followed_by_the_next(self) -> None:
        one, other = await self.node(), await self.node()
        await one.add(self.account, documents(*(f"word {number}" for number in range(20))), ModSeq(1))
        begun = False

        async def replace(operation: str, name: str) -> None:
            nonlocal begun
            if not begun and operation == "get" and not name.endswith("/manifest"):
                begun = True
                for turn in range(2, 9):
                    await self.filled(one, "word", modseq=turn)
                    await self.advance(GRACE_SECONDS + 1)

        self.objects.before = replace
        # an index that has kept its first files has a whole state still, the first
        self.assertEqual(len(await self.found(other, "word")), 20 if self.keeps_first_files else 27)
        self.assertTrue(begun)
        await other.reached(self.account)
        self.assertEqual(len(await self.found(other, "word")), 27)

    async def test_a_change_that_changes_nothing_costs_no_file(self) -> None:
        node = await self.node()
        await node.add(self.account, [], ModSeq(3))
        await node.remove(self.account, [documents("x")[0].message], ModSeq(4))
        self.assertEqual((self.objects.parts("put"), self.objects.parts("get")), (0, 0))
        self.assertEqual((await node.reached(self.account), await self.found(node, "x")), (4, []))
        await self.filled(node, "x", modseq=5)
        fresh = await self.node()
        self.objects.seen.clear()
        await fresh.add(self.account, [], ModSeq(6))
        self.assertEqual((self.objects.parts("put"), self.objects.parts("get")), (0, 0))
        self.objects.seen.clear()
        await fresh.add(self.account, [], ModSeq(2))
        self.assertEqual([operation for operation, _ in self.objects.seen], ["get"])

    async def test_nothing_stays_of_a_shard_that_was_dropped(self) -> None:
        one, other = await self.node(), await self.node()
        await self.filled(one, "word", modseq=1)
        await self.found(other, "word")
        await other.drop(self.account)
        self.assertEqual(await collect(self.objects.inner.list("")), [])
        self.assertEqual((await one.reached(self.account), await self.found(one, "word")), (0, []))
        self.assertEqual((await other.reached(self.account), await self.found(other, "word")), (0, []))

    async def test_many_who_ask_at_once_ask_the_store_once(self) -> None:
        one, node = await self.node(), await self.node()
        added = await self.filled(one, "word")
        self.objects.seen.clear()
        outcomes = await together(*(self.found(node, "word") for _ in range(20)))
        self.assertEqual(outcomes, [added] * 20)
        self.assertEqual(len(self.objects.seen), 1 + len((await self.manifest()).parts))

    async def test_who_is_cancelled_holds_nobody_up(self) -> None:
        one, node = await self.node(), await self.node()
        added = await self.filled(one, "word")
        waiting: list[Deferred[None]] = []

        def hang(operation: str, name: str) -> Deferred[None] | None:
            if operation != "get" or name.endswith("/manifest") or waiting:
                return None
            waiting.append(Deferred())
            return waiting[0]

        self.objects.before = hang
        first = Deferred.fromCoroutine(node.query(self.account, "word"))
        second = Deferred.fromCoroutine(node.query(self.account, "word"))
        while not waiting:
            await self.turn()
        first.cancel()
        await fails(CancelledError, first)
        self.assertEqual(list(await second), added)

    async def test_a_shard_of_more_than_one_part_for_a_file(self) -> None:
        from unittest.mock import patch

        with patch("twisted_mail.storage.shards.parts.PART", 700):
            one, node = await self.node(), await self.node()
            added = await self.filled(one, *(f"word {number}" for number in range(30)))
            manifest = await self.manifest()
            self.assertTrue(any(len(file.pieces) > 2 for file in manifest.files))
            self.assertTrue(len(manifest.parts) < sum(len(file.pieces) for file in manifest.files), "files share parts")
            self.assertEqual(await self.found(node, "word"), added[::-1])

    async def test_another_holder_of_the_lease_keeps_writers_away(self) -> None:
        node = await self.node()
        await self.filled(node, "word", modseq=1)
        number = await self.leases.acquire(f"search/{self.index().kind}/{self.account}", 60)
        assert number is not None
        self.objects.seen.clear()
        await fails(Unavailable, node.add(self.account, documents("two"), ModSeq(2)))
        await fails(Unavailable, node.drop(self.account))
        self.assertEqual(self.objects.seen, [])
        self.assertEqual(len(await self.found(node, "word")), 1, "reading needs no lease")
        await self.advance(61)
        await self.filled(node, "word", modseq=2)

    async def turn(self) -> None:
        from twisted.internet.task import deferLater

        await deferLater(self.reactor, 0.001)


class SharedTantivyShardsTests(SharedShardsTests):
    keeps_first_files = True

    def index(self) -> WordIndex:
        return tantivy_index()
