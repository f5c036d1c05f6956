"""The suite of `Blobs`."""

from __future__ import annotations

from hashlib import sha256

from twisted_mail.storage.interfaces import Blobs, ChooseGeneration, NotFound, Unavailable
from twisted_mail.storage.testing.base import Suite, collect, fails, together
from twisted_mail.values import BlobRef

__all__ = ["BlobsContract"]


class BlobsContract(Suite):
    """An engine is a `Blobs` if it passes."""

    async def build(self) -> Blobs:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def _store(
        self, blobs: Blobs, content: bytes, chunk: int = 100_000, generation: ChooseGeneration | None = None
    ) -> BlobRef:
        writer = blobs.writer()
        for at in range(0, len(content), chunk):
            await writer.write(content[at : at + chunk])
        return await writer.finish(generation)

    async def _content(self, blobs: Blobs, ref: BlobRef, start: int = 0, end: int | None = None) -> bytes:
        chunks = await collect(blobs.open(ref, start, end))
        self.assertTrue(all(0 < len(chunk) <= 65_536 for chunk in chunks))
        return b"".join(chunks)

    async def test_a_blob_is_named_by_its_content_and_comes_back(self) -> None:
        blobs = await self.build()
        for content in (b"", b"x", bytes(range(256)) * 2000):
            ref = await self._store(blobs, content)
            self.assertEqual(ref, BlobRef(sha256(content).hexdigest(), len(content)))
            self.assertEqual(await self._content(blobs, ref), content)

    async def test_any_range_can_be_read(self) -> None:
        blobs = await self.build()
        content = bytes(range(256)) * 1000
        ref = await self._store(blobs, content)
        size = len(content)
        ranges = [(0, 0), (0, 1), (5, 70_000), (65_535, 65_537), (65_536, 131_072), (size - 1, size), (size, size)]
        for start, end in [*ranges, (10, size + 10), (size + 5, size + 9), (300, 200)]:
            self.assertEqual(await self._content(blobs, ref, start, end), content[start:end], (start, end))
        self.assertEqual(await self._content(blobs, ref, 1000), content[1000:])

    async def test_the_chunks_of_a_writer_may_have_any_size(self) -> None:
        blobs = await self.build()
        content = bytes(range(251)) * 50
        refs = [await self._store(blobs, content, size) for size in (1, 13, 4096, 1_000_000)]
        self.assertEqual(len(set(refs)), 1)
        self.assertEqual(await self._content(blobs, refs[0]), content)

    async def test_the_same_content_is_kept_once(self) -> None:
        blobs = await self.build()
        refs = await together(*(self._store(blobs, b"again" * 1000) for _ in range(6)))
        self.assertEqual(len(set(refs)), 1)
        self.assertEqual(await collect(blobs.iterate()), [refs[0]])

    async def test_what_is_not_finished_is_not_there(self) -> None:
        blobs = await self.build()
        writer = blobs.writer()
        await writer.write(b"half")
        self.assertEqual(await collect(blobs.iterate()), [])
        await writer.abort()
        await writer.abort()
        untouched = blobs.writer()
        await untouched.abort()
        self.assertEqual(await collect(blobs.iterate()), [])
        await fails(ValueError, writer.write(b"more"))

    async def test_aborting_what_is_finished_does_nothing(self) -> None:
        blobs = await self.build()
        writer = blobs.writer()
        await writer.write(b"whole")
        ref = await writer.finish()
        await writer.abort()
        self.assertEqual(await self._content(blobs, ref), b"whole")
        await fails(ValueError, writer.finish())

    async def test_a_blob_that_is_not_there_is_not_found(self) -> None:
        blobs = await self.build()
        ref = BlobRef(sha256(b"nowhere").hexdigest(), 7)
        await fails(NotFound, collect(blobs.open(ref)))
        await blobs.delete(ref)

    async def test_a_deleted_blob_is_gone_and_can_be_stored_again(self) -> None:
        blobs = await self.build()
        one, two = await self._store(blobs, b"one"), await self._store(blobs, b"two")
        await blobs.delete(one)
        await blobs.delete(one)
        await fails(NotFound, collect(blobs.open(one)))
        self.assertEqual(await self._content(blobs, two), b"two")
        self.assertEqual(await self._store(blobs, b"one"), one)
        self.assertEqual(await self._content(blobs, one), b"one")

    async def test_every_blob_is_found_with_its_size(self) -> None:
        blobs = await self.build()
        refs = [await self._store(blobs, b"%d" % number * number) for number in range(1, 60)]
        self.assertEqual(sorted(await collect(blobs.iterate())), sorted(refs))

    async def test_generations_of_one_content_lie_side_by_side(self) -> None:
        blobs = await self.build()
        content, asked = bytes(range(250)) * 10, []

        async def second(ref: BlobRef) -> int:
            asked.append(ref)
            return 2

        old = await self._store(blobs, content)
        refs = await together(*(self._store(blobs, content, generation=second) for _ in range(3)))
        new = BlobRef(old.hash, old.size, 2)
        self.assertEqual((refs, asked), ([new] * 3, [old] * 3))
        self.assertEqual(sorted(await collect(blobs.iterate())), [old, new])
        await fails(NotFound, collect(blobs.open(BlobRef(old.hash, old.size, 1))))
        await blobs.delete(old)
        await fails(NotFound, collect(blobs.open(old)))
        self.assertEqual(await self._content(blobs, new), content)
        self.assertEqual(await collect(blobs.iterate()), [new])
        self.assertEqual(await self._store(blobs, content), old)
        await blobs.delete(new)
        self.assertEqual(await collect(blobs.iterate()), [old])

    async def test_the_generation_is_asked_for_before_the_blob_is_there(self) -> None:
        blobs = await self.build()
        there: list[list[BlobRef]] = []

        async def first(ref: BlobRef) -> int:
            there.append(await collect(blobs.iterate()))
            return 0

        for content in (b"", b"small"):
            ref = await self._store(blobs, content, generation=first)
            self.assertEqual(await self._content(blobs, ref), content)
            await blobs.delete(ref)
        self.assertEqual(there, [[], []])

    async def test_a_generation_that_cannot_be_told_ends_the_writer(self) -> None:
        blobs = await self.build()

        async def unknown(ref: BlobRef) -> int:
            raise Unavailable("nobody knows")

        for content in (b"small", bytes(1_000_000)):
            writer = blobs.writer()
            await writer.write(content)
            await fails(Unavailable, writer.finish(unknown))
            await fails(ValueError, writer.finish())
            await writer.abort()
        self.assertEqual(await collect(blobs.iterate()), [])

    async def test_many_can_be_written_and_read_side_by_side(self) -> None:
        blobs = await self.build()
        contents = [bytes([number]) * (number * 3000) for number in range(1, 30)]
        refs = await together(*(self._store(blobs, content, 10_000) for content in contents))
        good = [ref for ref in refs if isinstance(ref, BlobRef)]
        self.assertEqual(await together(*(self._content(blobs, ref) for ref in good)), contents)
