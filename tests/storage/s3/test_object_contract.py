"""The object store's objects beside the blobs: the suite on a real server, plain and encrypted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.s3_proxy import Fault, in_turn
from tests.storage.s3.support import KEYS, S3Case
from twisted_mail.storage.interfaces import Conflict, Corrupt, NotFound, Unavailable
from twisted_mail.storage.objects import KeepsObjects, Objects
from twisted_mail.storage.s3 import S3Objects
from twisted_mail.storage.testing.base import collect, fails
from twisted_mail.storage.testing.objects import ObjectsContract


@pytest.mark.cluster
class S3ObjectsTests(ObjectsContract, S3Case):
    async def build(self) -> Objects:
        return (await self.engine()).objects


@pytest.mark.cluster
class EncryptedS3ObjectsTests(ObjectsContract, S3Case):
    async def build(self) -> Objects:
        return (await self.engine(encryption=f"keys:{','.join(KEYS)}")).objects


class S3ObjectsOwnTests(S3Case):
    async def objects(self, **options: Any) -> S3Objects:
        engine = await self.engine(**options)
        assert isinstance(engine, KeepsObjects)
        return engine.objects

    async def test_they_are_no_blobs_and_no_other_names_are_taken(self) -> None:
        engine = await self.engine()
        await engine.objects.put("search/a", b"x")
        self.assertEqual(await collect(engine.blobs.iterate()), [])
        for name in ("", "/a", "a//b", "../a", "a/", "a b", "a/../b", "é"):
            await fails(ValueError, engine.objects.get(name))
        await fails(ValueError, engine.objects.put("a", b""))

    async def test_what_is_encrypted_cannot_be_read_nor_made_without_the_key(self) -> None:
        sealed, plain = await self.objects(encryption=f"keys:{KEYS[0]}"), await self.objects()
        other = await self.objects(encryption=f"keys:{KEYS[1]}")
        await sealed.put("a", b"secret words")
        raw = await sealed._get("a")
        assert raw is not None
        self.assertFalse(b"secret" in raw.data)
        await fails(Unavailable, plain.get("a"))
        await fails(Unavailable, other.get("a"))
        await plain.put("b", b"made up by somebody who can write to the bucket")
        await fails(Corrupt, sealed.get("b"))
        await plain.put("c", raw.data[:-1])
        await fails(Corrupt, sealed.get("c"))
        await plain.put("c", raw.data[:96])
        await fails(Corrupt, sealed.get("c"))

    async def test_objects_are_brought_under_a_new_key(self) -> None:
        old = await self.objects(encryption=f"keys:{KEYS[0]}")
        for number in range(3):
            await old.put(f"search/{number}", b"words")
        await old.put("elsewhere", b"words")
        both = await self.objects(encryption=f"keys:{KEYS[1]},{KEYS[0]}")
        self.assertEqual([await both.rewrap("search/"), await both.rewrap("search/")], [3, 0])
        new = await self.objects(encryption=f"keys:{KEYS[1]}")
        stored = await new.get("search/1")
        assert stored is not None
        self.assertEqual(stored.data, b"words")
        await fails(Unavailable, new.get("elsewhere"))

    async def test_whatever_passes_does_not_show_but_for_a_swap_whose_answer_was_lost(self) -> None:
        straight, proxy = await self.objects(), await self.proxy()
        objects = (await self.engine(through=proxy, timeout=5)).objects
        objects._calls._draw = lambda: 0.1
        for fault in (Fault.ERROR, Fault.BUSY, Fault.RESET):
            proxy.choose = in_turn([fault, fault])
            version = await objects.swap(f"n{fault.name}", b"x" * 5000, None)
            proxy.choose = in_turn([fault, fault])
            self.assertIsNone(await objects.get(f"n{fault.name}", version))
        for fault in (Fault.LOST, Fault.HIDDEN):
            proxy.choose = in_turn([fault])
            await fails(Conflict, objects.swap(f"n{fault.name}", b"ours", None))
            stored = await straight.get(f"n{fault.name}")
            assert stored is not None
            self.assertEqual(stored.data, b"ours")
        await straight.put("large", b"y" * 500_000)
        proxy.choose = in_turn([Fault.TRUNCATED, Fault.TRUNCATED], "GET")
        stored = await objects.get("large")
        assert stored is not None
        self.assertEqual(len(stored.data), 500_000)
        await fails(NotFound, objects.get("none"))
