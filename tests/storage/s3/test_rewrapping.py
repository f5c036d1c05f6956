"""Old keys are retired: a pass over all objects, cut off and gone on with, beside nodes that write, read and delete."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from twisted.internet.defer import Deferred

from tests.storage.engines import EngineCase
from tests.storage.s3.double import MemoryBucket
from tests.storage.s3.support import KEYS
from twisted_mail.storage.interfaces import StorageError, Unavailable
from twisted_mail.storage.s3 import S3Blobs
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.options import parse
from twisted_mail.storage.s3.sealing import HEADER, Keyring
from twisted_mail.storage.testing.base import collect, fails
from twisted_mail.values import BlobRef

OLD, NEW = KEYS
LOST = "33" * 32


def id_of(key: str) -> str:
    return Keyring.parse(key).ids[0]


class RewrappingTests(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.bucket = MemoryBucket()
        self.kept: dict[BlobRef, bytes] = {}

    async def node(self, *keys: str) -> S3Blobs:
        """A node that was started with these keys."""
        option = f"&encryption=keys:{','.join(keys)}" if keys else ""
        settings = parse(f"s3://k:s@127.0.0.1/box?prefix=p&timeout=0.5{option}", Path("/"))
        blobs = S3Blobs(Calls(settings, self.reactor, open_client=lambda settings: self.bucket, draw=lambda: 0.2))
        await blobs.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(blobs.stop()))
        return blobs

    async def store(self, blobs: S3Blobs, size: int, *, keep: bool = True) -> BlobRef:
        content = os.urandom(size)
        writer = blobs.writer()
        await writer.write(content)
        ref = await writer.finish()
        if keep:
            self.kept[ref] = content
        return ref

    async def check(self, blobs: S3Blobs) -> None:
        """Everything kept reads as it was written."""
        for ref, content in self.kept.items():
            self.assertEqual(b"".join(await collect(blobs.open(ref))), content)

    async def test_what_is_left_under_each_key_is_counted(self) -> None:
        old, both = await self.node(OLD), await self.node(NEW, OLD)
        for size in range(20):
            await self.store(old, 100 + size)
        for blobs, size in ((await self.node(), 50), (both, 60), (await self.node(LOST), 70)):
            await self.store(blobs, size, keep=False)
        damaged = await self.store(old, 80, keep=False)
        self.bucket.objects[old.name_of(damaged)] += b"?"
        self.bucket.objects["p/notes.txt"] = b"not ours"
        puts = self.bucket.calls.count("put")

        counted = await both.rewrap(change=False)
        self.assertEqual((counted.objects, counted.plain, counted.changed, counted.damaged), (24, 1, 0, 1))
        self.assertEqual(dict(counted.under), {id_of(OLD): 20, id_of(NEW): 1, id_of(LOST): 1})
        self.assertTrue(damaged.hash in counted.examples[0])
        self.assertEqual(self.bucket.calls.count("put"), puts, "counting changes nothing")

        done = await both.rewrap()
        self.assertEqual((done.objects, done.changed), (24, 20))
        self.assertEqual(dict(done.under), {id_of(NEW): 21, id_of(LOST): 1})
        self.assertEqual((await both.rewrap()).changed, 0)
        await self.check(await self.node(NEW))

    async def test_without_keys_it_is_refused(self) -> None:
        await fails(StorageError, (await self.node()).rewrap())

    async def test_a_pass_that_was_cut_off_is_gone_on_with(self) -> None:
        old, both = await self.node(OLD), await self.node(NEW, OLD)
        for _ in range(40):
            await self.store(old, 200)
        puts = 0

        def before(operation: str, name: str) -> None:
            nonlocal puts
            puts += operation == "put"
            if puts >= 30:
                raise OSError("the cable was pulled")

        self.bucket.before = before
        reached: list[str] = []
        await fails(Unavailable, both.rewrap(progress=lambda report: reached.append(report.reached)))
        self.assertEqual(len(reached), 1, "after every sixteen objects")
        self.bucket.before = lambda operation, name: None
        both._calls._trouble = None
        second = await both.rewrap(after=reached[-1])
        self.assertEqual((second.objects, second.changed), (24, 11))
        whole = await both.rewrap()
        self.assertEqual((whole.objects, whole.changed, dict(whole.under)), (40, 0, {id_of(NEW): 40}))
        await self.check(await self.node(NEW))

    async def test_other_nodes_write_delete_and_rewrap_at_every_step(self) -> None:
        """Before each request of the pass something happens to that object: what was deleted does not come back, what
        was written anew under the old key is counted as such."""
        old, both, other = await self.node(OLD), await self.node(NEW, OLD), await self.node(NEW, OLD)
        keyring = Keyring.parse(f"{NEW},{OLD}")
        for what in ("deleted", "written again", "rewrapped"):
            for step in range(1, 5):
                self.bucket.objects.clear()
                self.kept.clear()
                ref = await self.store(old, 300)
                name, seen = old.name_of(ref), 0

                def before(operation: str, of: str, step: int = step, what: str = what, name: str = name) -> None:
                    nonlocal seen
                    seen += of == name
                    if seen != step or of != name:
                        return
                    seen = 100
                    if what == "deleted":
                        del self.bucket.objects[name]
                        self.kept.clear()
                    elif what == "written again":
                        header, cipher = Keyring.parse(OLD).new_header()
                        content = next(iter(self.kept.values()))
                        self.bucket.objects[name] = header + cipher.encrypt(b"\0" * 11 + b"\1", content, None)
                    else:
                        present = self.bucket.objects[name]
                        header_now = keyring.rewrap(present[:HEADER])
                        if header_now is not None:
                            self.bucket.objects[name] = header_now + present[HEADER:]

                self.bucket.before = before
                report = await both.rewrap()
                self.bucket.before = lambda operation, name: None
                present = self.bucket.objects.get(name)
                self.assertEqual(present is None, what == "deleted", (what, step))
                under = {} if present is None else {keyring.id_of(present[:HEADER]).hex(): 1}
                self.assertEqual(dict(report.under), under, (what, step))
                await self.check(other)
                await other.rewrap()
                await self.check(await self.node(NEW))

    async def test_a_reader_does_not_notice(self) -> None:
        """A range needs the header and the frames: the object gets another header between the two requests."""
        old, both = await self.node(OLD), await self.node(NEW, OLD)
        ref = await self.store(old, 200_000)
        rewrapped = False

        def before(operation: str, name: str) -> None:
            nonlocal rewrapped
            if operation == "get" and self.bucket.calls.count("get") == 2 and not rewrapped:
                rewrapped = True
                present = self.bucket.objects[name]
                header = Keyring.parse(f"{NEW},{OLD}").rewrap(present[:HEADER])
                assert header is not None
                self.bucket.objects[name] = header + present[HEADER:]

        self.bucket.calls.clear()
        with patch.object(self.bucket, "before", before):
            got = b"".join(await collect(both.open(ref, 100_000, 150_000)))
        self.assertTrue(rewrapped)
        self.assertEqual(got == self.kept[ref][100_000:150_000], True)
