"""The suite of `Objects`, the optional ability of a store of blobs."""

from __future__ import annotations

import os

from twisted_mail.storage.interfaces import Conflict, NotFound
from twisted_mail.storage.objects import Objects, StoredObject
from twisted_mail.storage.testing.base import Suite, collect, fails, together

__all__ = ["ObjectsContract"]


class ObjectsContract(Suite):
    """A store has `Objects` if it passes."""

    async def build(self) -> Objects:
        """A started, empty store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def _read(self, objects: Objects, name: str) -> StoredObject:
        stored = await objects.get(name)
        assert stored is not None
        return stored

    async def test_what_was_put_is_read_and_put_again_replaces_it(self) -> None:
        objects = await self.build()
        large = os.urandom(300_000)
        await objects.put("a/b", b"\x00one")
        await objects.put("a/c", large)
        first = await self._read(objects, "a/b")
        self.assertEqual(first.data, b"\x00one")
        self.assertTrue((await self._read(objects, "a/c")).data == large)
        await objects.put("a/b", b"two")
        second = await self._read(objects, "a/b")
        self.assertEqual(second.data, b"two")
        self.assertFalse(first.version == second.version)
        await fails(NotFound, objects.get("a"))
        await fails(NotFound, objects.get("a/d", "version"))

    async def test_a_version_that_is_known_is_not_read_again(self) -> None:
        objects = await self.build()
        await objects.put("x", b"one")
        version = (await self._read(objects, "x")).version
        self.assertIsNone(await objects.get("x", version))
        await objects.put("x", b"two")
        stored = await objects.get("x", version)
        assert stored is not None
        self.assertEqual(stored.data, b"two")

    async def test_a_swap_takes_the_place_of_what_was_meant_and_of_nothing_else(self) -> None:
        objects = await self.build()
        await fails(Conflict, objects.swap("x", b"no", "version"))
        await fails(NotFound, objects.get("x"))
        one = await objects.swap("x", b"one", None)
        self.assertEqual(one, (await self._read(objects, "x")).version)
        await fails(Conflict, objects.swap("x", b"no", None))
        two = await objects.swap("x", b"two", one)
        await fails(Conflict, objects.swap("x", b"no", one))
        self.assertEqual(await self._read(objects, "x"), StoredObject(b"two", two))
        await objects.delete(["x"])
        await fails(Conflict, objects.swap("x", b"no", two))

    async def test_of_many_that_swap_at_once_one_succeeds(self) -> None:
        objects = await self.build()
        version: str | None = None
        for turn in range(5):
            contents = [f"{turn} {number} ".encode() * 1000 for number in range(8)]
            outcomes = await together(*(objects.swap("x", content, version) for content in contents))
            won = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
            self.assertEqual(len(won), 1)
            self.assertEqual(sum(isinstance(outcome, Conflict) for outcome in outcomes), 7)
            stored = await self._read(objects, "x")
            self.assertEqual(stored, StoredObject(contents[won[0]], str(outcomes[won[0]])))
            version = stored.version

    async def test_objects_are_listed_by_the_beginning_of_their_names(self) -> None:
        objects = await self.build()
        for name in ("a/1", "a/2", "ab/1", "b"):
            await objects.put(name, b"x")
        listed = await collect(objects.list("a/"))
        self.assertEqual([name for name, _ in listed], ["a/1", "a/2"])
        self.assertTrue(all(changed > 1_500_000_000 for _, changed in listed))
        await objects.delete(["a/1", "a/3"])
        await objects.delete([])
        self.assertEqual([name async for name, _ in objects.list("")], ["a/2", "ab/1", "b"])
