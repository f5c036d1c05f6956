"""Search shards in an object store when writers crash or meet, the store fails, or what it has is lost or damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.storage.shards.support import ShardsCase, documents, tantivy_index
from twisted_mail.storage.interfaces import Conflict, Corrupt, SearchDocument, Unavailable
from twisted_mail.storage.shards import SharedShards, WordIndex
from twisted_mail.storage.shards.manifest import Manifest, decode, encode, folder_of
from twisted_mail.storage.shards.shared import GRACE_SECONDS
from twisted_mail.storage.shards.states import FRESH_SECONDS
from twisted_mail.storage.testing.base import collect, fails, together
from twisted_mail.values import MessageId, ModSeq


def failing(
    operation: str, name: str = "", error: type[Exception] = Unavailable, times: int = 1
) -> Callable[[str, str], None]:
    """A hook that raises *error* at the first *times* of *operation* on names that end in *name*."""
    left = iter(range(times))

    def hook(done: str, on: str) -> None:
        if done == operation and on.endswith(name) and next(left, None) is not None:
            raise error(f"{done} failed")

    return hook


def nothing(operation: str, name: str) -> None:
    """A hook that does nothing."""


class EverybodysLeases:
    """Gives the same name to everybody, and the same number: as leases of several data centres may do."""

    async def acquire(self, name: str, ttl: float) -> int | None:
        return 1

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        return True

    async def release(self, name: str, number: int) -> None:
        pass


class SharedShardsFaultTests(ShardsCase):
    @property
    def prefix(self) -> str:
        return folder_of(self.account, self.index().kind)

    async def manifest(self) -> Manifest:
        stored = await self.objects.inner.get(self.prefix + "manifest")
        assert stored is not None
        return decode(stored.data, self.account, self.index().kind)

    async def parts(self) -> set[str]:
        names = [name.removeprefix(self.prefix) for name, _ in await collect(self.objects.inner.list(self.prefix))]
        return {name for name in names if name != "manifest"}

    # --- writers that crash

    async def test_a_writer_that_ends_before_its_manifest_leaves_garbage_which_goes_later(self) -> None:
        one, other = await self.node(), await self.node()
        added = await self.filled(one, "word", modseq=1)
        self.objects.before = failing("swap")
        await fails(Unavailable, one.add(self.account, documents("word"), ModSeq(2)))
        self.assertEqual((await other.reached(self.account), await self.found(other, "word")), (1, added))
        manifest = await self.manifest()
        garbage = await self.parts() - {*manifest.parts, *(each.part for each in manifest.dropped)}
        self.assertTrue(garbage)
        added += await self.filled(other, "word", modseq=2)
        self.assertTrue(garbage <= await self.parts(), "its writer may be about to name it")
        await self.advance(GRACE_SECONDS + 1)
        added += await self.filled(one, "word", modseq=3)
        self.assertFalse(garbage & await self.parts())
        manifest = await self.manifest()
        self.assertEqual(await self.parts(), {*manifest.parts, *(each.part for each in manifest.dropped)})
        await self.advance(GRACE_SECONDS + 1)
        self.objects.seen.clear()
        added += await self.filled(one, "word", modseq=4)
        self.assertFalse("list" in [operation for operation, _ in self.objects.seen], "it is looked for once")
        self.assertEqual(await self.found(one, "word"), added[::-1])

    async def test_a_writer_that_ends_among_its_parts_changes_nothing(self) -> None:
        one, other = await self.node(), await self.node()
        added = await self.filled(one, "word", modseq=1)
        for hook in ("before", "after"):
            setattr(self.objects, hook, failing("put"))
            await fails(Unavailable, one.add(self.account, documents("word"), ModSeq(2)))
        self.assertEqual((await other.reached(self.account), await self.found(other, "word")), (1, added))
        self.assertEqual((await one.reached(self.account), await self.found(one, "word")), (1, added))

    async def test_a_manifest_that_was_written_without_a_word_of_it_counts(self) -> None:
        for error in (Unavailable, Conflict):
            node = await self.node()
            modseq = int(await node.reached(self.account)) + 1
            await self.filled(node, f"{error.__name__} one", modseq=modseq)
            self.objects.after = failing("swap", error=error)
            adding = node.add(self.account, documents(f"{error.__name__} two"), ModSeq(modseq + 1))
            if error is Conflict:
                await adding  # a repetition met what the first attempt had written
            else:
                await fails(Unavailable, adding)
            self.assertEqual(await node.reached(self.account), modseq + 1)
            self.assertEqual(len(await self.found(node, error.__name__)), 2)
            manifest = await self.manifest()
            self.assertTrue(set(manifest.parts) <= await self.parts())
            await self.filled(node, f"{error.__name__} three", modseq=modseq + 2)
            self.assertEqual(len(await self.found(await self.node(), error.__name__)), 3)

    # --- writers that meet

    async def test_of_two_writers_with_one_lease_one_goes_on_from_the_other(self) -> None:
        self.leases = EverybodysLeases()
        one, other = await self.node(), await self.node()
        first = await self.filled(one, "word", modseq=1)
        waiting: Deferred[None] = Deferred()
        reached: Deferred[None] = Deferred()

        def hold(operation: str, name: str) -> Deferred[None] | None:
            if operation != "swap" or reached.called:
                return None
            reached.callback(None)
            return waiting

        self.objects.before = hold
        slow = documents("word", received=3)
        adding = Deferred.fromCoroutine(one.add(self.account, slow, ModSeq(3)))
        await reached
        second = await self.filled(other, "word", modseq=2)
        waiting.callback(None)
        await adding
        for node in (one, other, await self.node()):
            self.assertEqual(await node.reached(self.account), 3)
            self.assertEqual(await self.found(node, "word"), [slow[0].message, *second, *first])
        manifest = await self.manifest()
        self.assertEqual(await self.parts(), {*manifest.parts, *(each.part for each in manifest.dropped)})

    async def test_a_node_that_hears_of_a_newer_state_while_it_fetches_one_to_change_it_loses_none(self) -> None:
        self.leases = EverybodysLeases()
        one, other = await self.node(), await self.node()
        first = await self.filled(one, "word", modseq=1)
        waiting: Deferred[None] = Deferred()
        reached: Deferred[None] = Deferred()

        def hold(operation: str, name: str) -> Deferred[None] | None:
            if operation != "get" or name.endswith("manifest") or reached.called:
                return None
            reached.callback(None)
            return waiting

        self.objects.before = hold
        slow = documents("word", received=3)
        adding = Deferred.fromCoroutine(other.add(self.account, slow, ModSeq(3)))
        await reached
        second = await self.filled(one, "word", modseq=2)
        self.assertEqual(await other.reached(self.account), 2)
        waiting.callback(None)
        await adding
        for node in (one, other):
            self.assertEqual(await node.reached(self.account), 3)
            self.assertEqual(await self.found(node, "word"), [slow[0].message, *second, *first])

    async def test_a_state_that_is_found_damaged_late_does_not_cost_the_newer_one(self) -> None:
        one, other = await self.node(), await self.node()
        first = await self.filled(one, "word", modseq=1)
        await self.found(other, "word")
        old = (await other._states.look(self.account, 100.0, stale=True)).manifest
        second = await self.filled(one, "word", modseq=2)
        await other.reached(self.account)
        await fails(Unavailable, other._states.begin_anew(self.account, old, Corrupt("late")))
        self.assertEqual((await other.reached(self.account), await self.found(other, "word")), (2, [*second, *first]))

    async def test_a_writer_whose_lease_has_gone_to_another_writes_nothing(self) -> None:
        one, other = await self.node(), await self.node()
        await self.filled(one, "word", modseq=1)
        waiting: Deferred[None] = Deferred()
        reached: Deferred[None] = Deferred()

        def hold(operation: str, name: str) -> Deferred[None] | None:
            if operation != "put" or reached.called:
                return None
            reached.callback(None)
            return waiting

        self.objects.before = hold
        adding = Deferred.fromCoroutine(one.add(self.account, documents("late"), ModSeq(2)))
        await reached
        await self.advance(121)
        await self.filled(other, "word", modseq=2)
        waiting.callback(None)
        await fails(Unavailable, adding)
        self.assertEqual((await one.reached(self.account), await self.found(one, "late")), (2, []))

    async def test_many_writers_at_once_lose_nothing(self) -> None:
        self.leases = EverybodysLeases()
        nodes = [await self.node() for _ in range(3)]
        added: list[MessageId] = []

        async def write(node: SharedShards) -> None:
            document = documents("word")[0]
            for _ in range(20):
                try:
                    await node.add(self.account, [document], ModSeq(1))
                except Unavailable:
                    continue
                added.append(document.message)
                return

        outcomes = await together(*(write(node) for node in nodes * 3))
        self.assertEqual([outcome for outcome in outcomes if outcome is not None], [])
        self.assertEqual((len(added), set(await self.found(await self.node(), "word"))), (9, set(added)))

    async def test_a_store_that_ignores_conditions_is_not_written_to(self) -> None:
        inner = self.objects.inner

        class Careless:
            """Answers as if a condition had been none."""

            get, put, delete, list = inner.get, inner.put, inner.delete, inner.list

            async def swap(self, name: str, data: bytes, version: str | None) -> str:
                await inner.put(name, data)
                return "version"

        node = await self.node(objects=Careless())
        for _ in range(2):
            await fails(Unavailable, node.add(self.account, documents("word"), ModSeq(1)))
        self.assertEqual(await collect(inner.list("")), [])
        self.assertEqual((await node.reached(self.account), await self.found(node, "word")), (0, []))

    # --- a store that is down

    async def test_while_the_store_is_down_what_is_here_is_searched_and_nothing_else(self) -> None:
        one, other = await self.node(), await self.node()
        added = await self.filled(one, "word", modseq=1)
        await self.found(one, "word")
        self.objects.before = failing("get", times=1_000_000)
        await self.advance(FRESH_SECONDS + 1)
        self.objects.seen.clear()
        for _ in range(3):
            self.assertEqual((await one.reached(self.account), await self.found(one, "word")), (1, added))
            await fails(Unavailable, other.reached(self.account))
            await fails(Unavailable, self.found(other, "word"))
        self.assertEqual(len(self.objects.seen), 2, "each has asked once")
        await fails(Unavailable, one.add(self.account, documents("word"), ModSeq(2)))
        self.objects.before = nothing
        await self.advance(FRESH_SECONDS + 1)
        added += await self.filled(one, "word", modseq=2)
        self.assertEqual((await other.reached(self.account), await self.found(other, "word")), (2, added[::-1]))

    async def test_parts_that_cannot_be_fetched_now_are_not_lost(self) -> None:
        one, node = await self.node(), await self.node()
        added = await self.filled(one, "word", modseq=1)
        self.objects.before = failing("get", "-0")
        await fails(Unavailable, self.found(node, "word"))
        self.assertEqual((await node.reached(self.account), await self.found(node, "word")), (1, added))

    # --- what is lost or damaged

    async def spoilt(self, spoil: Callable[[], Any]) -> None:
        """After *spoil* the shard is an empty one at 0 for every node, and can be filled again."""
        cached, fresh, third = await self.node(), await self.node(), await self.node()
        await self.filled(cached, "word", modseq=7)
        self.assertEqual(await third.reached(self.account), 7)
        await spoil()
        for _ in range(2):
            try:
                self.assertEqual(await self.found(fresh, "word"), [])
            except Unavailable:
                pass
        self.assertEqual((await fresh.reached(self.account), await self.found(fresh, "word")), (0, []))
        self.assertEqual((await cached.reached(self.account), await self.found(cached, "word")), (0, []))
        await fails(Conflict, third.add(self.account, documents("word"), ModSeq(8), ModSeq(7)))
        await fails(Conflict, third.remove(self.account, [], ModSeq(8), ModSeq(7)))
        self.assertEqual(await third.reached(self.account), 0)
        added = await self.filled(third, "word", "word", modseq=8)
        for node in (cached, fresh, third):
            self.assertEqual((await node.reached(self.account), await self.found(node, "word")), (8, added[::-1]))
        await self.advance(GRACE_SECONDS + 1)
        await self.filled(fresh, "word", modseq=9)
        await self.advance(GRACE_SECONDS + 1)
        await self.filled(fresh, "word", modseq=10)
        manifest = await self.manifest()
        self.assertEqual(await self.parts(), {*manifest.parts, *(each.part for each in manifest.dropped)})

    async def test_a_part_that_is_gone(self) -> None:
        async def spoil() -> None:
            await self.objects.inner.delete([self.prefix + (await self.manifest()).parts[-1]])

        await self.spoilt(spoil)

    async def test_a_part_that_is_another(self) -> None:
        async def spoil() -> None:
            name = self.prefix + (await self.manifest()).parts[0]
            stored = await self.objects.inner.get(name)
            assert stored is not None
            await self.objects.inner.put(name, stored.data[:-1] + bytes([stored.data[-1] ^ 1]))

        await self.spoilt(spoil)

    async def test_a_part_that_the_store_calls_corrupt(self) -> None:
        async def spoil() -> None:
            part = (await self.manifest()).parts[0]
            self.objects.before = failing("get", part, Corrupt, 2)

        await self.spoilt(spoil)

    async def test_a_manifest_that_is_none(self) -> None:
        async def spoil() -> None:
            await self.objects.inner.put(self.prefix + "manifest", b"{")

        await self.spoilt(spoil)

    async def test_a_manifest_that_is_gone(self) -> None:
        async def spoil() -> None:
            await self.objects.inner.delete([self.prefix + "manifest"])

        await self.spoilt(spoil)

    async def test_a_manifest_that_the_store_calls_corrupt(self) -> None:
        async def spoil() -> None:
            self.objects.before = failing("get", "manifest", Corrupt)

        await self.spoilt(spoil)

    async def test_a_manifest_of_another_account(self) -> None:
        async def spoil() -> None:
            manifest = await self.manifest()
            other = encode(Manifest(account=str(MessageId.new()), kind=manifest.kind, files=manifest.files))
            await self.objects.inner.put(self.prefix + "manifest", other)

        await self.spoilt(spoil)

    async def test_files_that_are_no_index(self) -> None:
        async def spoil() -> None:
            stranger = await self.node(objects=self.objects.inner)
            index = stranger._index

            class Damaging:
                kind, exists = index.kind, index.exists

                def change(self, folder: Any, *arguments: Any) -> None:
                    index.change(folder, *arguments)
                    for name in index.files(folder):
                        (folder / name).write_bytes(b"no index" * 100)

                def files(self, folder: Any) -> list[str]:
                    return [path.name for path in folder.iterdir() if "lock" not in path.name.lower()]

            stranger._index = Damaging()  # type: ignore[assignment]
            await stranger.add(self.account, documents("damage"), ModSeq(7))

        await self.spoilt(spoil)

    def test_names_that_would_lead_out_of_the_folder_are_none(self) -> None:
        file = {"name": "MAIN_x.seg", "size": 1, "digest": "0" * 64, "pieces": [["0" * 32 + "-0", 0, 1]]}
        good = {"account": str(self.account), "kind": "k", "files": [file]}
        self.assertEqual(decode(_json(good), self.account, "k").files[0].name, "MAIN_x.seg")
        wrong: list[dict[str, Any]] = [
            {"files": [{**file, "name": name}]} for name in ("../x", "/x", "..", ".", "", "a/b", "a\0", "x" * 300)
        ]
        wrong += [{"files": [{**file, "pieces": [[part, 0, 1]]}]} for part in ("../manifest", "manifest", "0-0", "")]
        wrong += [
            {"files": [file, file]},
            {"files": [{**file, "size": 2}]},
            {"dropped": [{"part": "x/y", "since": 0}]},
            {"reached": "7"},
            {"kind": "other"},
        ]
        for change in wrong:
            with pytest.raises(Corrupt):
                decode(_json({**good, **change}), self.account, "k")

    # --- everything together

    async def test_whatever_fails_what_reached_says_is_there(self) -> None:
        draw = random.Random(17)
        log: list[tuple[SearchDocument | None, MessageId]] = []

        def fault(operation: str, name: str) -> None:
            if draw.random() < 0.06:
                raise Unavailable(f"{operation} failed")

        nodes = [await self.node() for _ in range(3)]
        self.objects.before = self.objects.after = fault

        async def expected(reached: int) -> set[MessageId]:
            there: set[MessageId] = set()
            for document, message in log[:reached]:
                (there.add if document is not None else there.discard)(message)
            return there

        async def index(node: SharedShards, most: int = 3) -> None:
            """As who fills shards does: on from what is reached."""
            at = int(await node.reached(self.account))
            for document, message in log[at : at + most]:
                at += 1
                if document is not None:
                    await node.add(self.account, [document], ModSeq(at), ModSeq(at - 1))
                else:
                    await node.remove(self.account, [message], ModSeq(at), ModSeq(at - 1))

        for step in range(40):
            if draw.random() < 0.7 or not log:
                document = documents("word", received=step)[0]
                log.append((document, document.message))
            else:
                log.append((None, draw.choice(log)[1]))
            node = draw.choice(nodes)
            try:
                await index(node)
            except Unavailable:
                await self.advance(FRESH_SECONDS + 1)
            if step % 20 == 19:
                await self.advance(GRACE_SECONDS + 1)
            try:
                reached = int(await node.reached(self.account))
                found = set(await self.found(node, "word"))
            except Unavailable:
                continue
            self.assertEqual(found, await expected(reached), step)
        self.objects.before = self.objects.after = nothing
        await self.advance(FRESH_SECONDS + 1)
        await index(nodes[0], len(log))
        for node in nodes:
            self.assertEqual(await node.reached(self.account), len(log))
            self.assertEqual(set(await self.found(node, "word")), await expected(len(log)))


def _json(value: object) -> bytes:
    import json

    return json.dumps(value).encode()


class TantivySharedShardsFaultTests(SharedShardsFaultTests):
    def index(self) -> WordIndex:
        return tantivy_index()
