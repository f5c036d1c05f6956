"""What is the files' own: the order in which a blob becomes durable, left-overs, and what the disk may refuse."""

from __future__ import annotations

import errno
import gc
import os
import stat
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.storage.engines import EngineCase
from twisted_mail.storage.files import FileBlobs, FileEngine, engine
from twisted_mail.storage.interfaces import BlobWriter, Corrupt, NotFound, Refused, StorageError, Unavailable
from twisted_mail.storage.testing.base import collect, fails
from twisted_mail.values import BlobRef


class FileBlobsOwnTests(EngineCase):
    async def store(self, blobs: FileBlobs, content: bytes) -> BlobRef:
        writer = blobs.writer()
        await writer.write(content)
        return await writer.finish()

    async def test_the_file_is_forced_to_disk_then_named_then_its_folders_are(self) -> None:
        blobs = await self.files()
        steps: list[str] = []
        fsync, rename = os.fsync, os.rename

        def forced(descriptor: int) -> None:
            steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def named(old: str, new: Path) -> None:
            self.assertFalse(new.exists())
            steps.append("name")
            rename(old, new)

        with patch("os.fsync", forced), patch("os.rename", named):
            await self.store(blobs, b"content")
            self.assertEqual(steps, ["file", "folder", "folder", "name", "folder"])
            steps.clear()
            await self.store(blobs, b"content")
        self.assertTrue("folder" in steps and "name" not in steps, "the same content again")

    async def test_a_blob_lies_where_its_hash_says(self) -> None:
        folder = self.folder()
        blobs = await self.files(folder)
        ref = await self.store(blobs, b"content")
        found = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
        self.assertEqual(found, [folder / "blobs" / ref.hash[:2] / ref.hash[2:4] / f"{ref.hash}-7"])

    async def test_a_large_blob_is_not_held_in_memory(self) -> None:
        blobs = await self.files()
        writer: Any = blobs.writer()
        for _ in range(40):
            await writer.write(bytes(50_000))
            self.assertGreater(400_000, writer._buffered)
        self.assertEqual((await writer.finish()).size, 2_000_000)

    async def test_what_a_crash_left_is_removed_after_a_day_and_no_sooner(self) -> None:
        folder = self.folder()
        await self.files(folder)
        incoming = folder / "blobs" / "incoming"
        for name, age in (("old", 90_000), ("new", 80_000)):
            (incoming / name).write_bytes(b"half a message")
            os.utime(incoming / name, (self.reactor.wall() - age,) * 2)
        blobs = await self.files(folder)
        self.assertEqual(os.listdir(incoming), ["new"])
        self.assertEqual(await collect(blobs.iterate()), [])

    async def test_a_write_that_is_given_up_leaves_no_file(self) -> None:
        folder = self.folder()
        blobs = await self.files(folder)
        writer = blobs.writer()
        await writer.write(bytes(1_000_000))
        self.assertEqual(len(os.listdir(folder / "blobs" / "incoming")), 1)
        await writer.abort()
        self.assertEqual(os.listdir(folder / "blobs" / "incoming"), [])

    def descriptors(self) -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def interrupted(self, blobs: FileBlobs, function: str, work: Any) -> None:
        """Cancel *work* while a thread is in the os's *function*, then let that go on, and wait for its end."""
        entered, leave = threading.Event(), threading.Event()
        real = getattr(os, function)

        def slow(*arguments: Any) -> Any:
            entered.set()
            leave.wait(10)
            return real(*arguments)

        with patch(f"os.{function}", slow):
            working: Deferred[Any] = Deferred.fromCoroutine(work)
            while not entered.is_set():
                await deferLater(self.reactor, 0.005, lambda: None)
            working.cancel()
            # the one that is given up holds a thread; what follows has to wait for it, and must not come between
            self.reactor.callLater(0.05, leave.set)
            try:
                await working
            except CancelledError:
                pass
            else:
                self.fail("not cancelled")
            if not leave.is_set():
                await deferLater(self.reactor, 0.1, lambda: None)
        for _ in range(8):
            await blobs.run(lambda: None)

    async def test_a_write_that_is_cancelled_in_the_middle_leaves_no_file(self) -> None:
        folder = self.folder()
        blobs = await self.files(folder)
        for function in ("open", "write"):
            before = self.descriptors()

            async def giving_up(writer: BlobWriter) -> None:
                try:
                    await writer.write(bytes(1_000_000))
                except BaseException:
                    await writer.abort()
                    raise

            await self.interrupted(blobs, function, giving_up(blobs.writer()))
            self.assertEqual(os.listdir(folder / "blobs" / "incoming"), [], function)
            self.assertEqual(self.descriptors(), before, function)

    async def test_a_read_that_is_cancelled_in_the_middle_leaves_nothing_open(self) -> None:
        blobs = await self.files()
        ref = await self.store(blobs, bytes(1_000_000))
        for function in ("open", "pread"):
            before = self.descriptors()
            await self.interrupted(blobs, function, collect(blobs.open(ref)))
            self.assertEqual(self.descriptors(), before, function)

    async def test_a_full_disk_refuses_and_leaves_nothing(self) -> None:
        folder = self.folder()
        blobs = await self.files(folder)
        for function in ("write", "fsync", "rename"):
            with patch(f"os.{function}", side_effect=OSError(errno.ENOSPC, "No space left on device")):
                await fails(Refused, self.store(blobs, b"content"))
            self.assertEqual(os.listdir(folder / "blobs" / "incoming"), [], function)
        self.assertEqual(await collect(blobs.iterate()), [])
        with patch("os.write", side_effect=OSError(errno.EIO, "Input/output error")):
            error = await fails(Unavailable, self.store(blobs, b"content"))
        self.assertFalse(isinstance(error, Refused))

    async def test_a_blob_that_was_cut_is_corrupt(self) -> None:
        blobs = await self.files()
        ref = await self.store(blobs, b"content")
        os.truncate(blobs.path(ref), 3)
        await fails(Corrupt, collect(blobs.open(ref)))

    async def test_blobs_are_found_after_a_restart_and_strange_files_are_passed_over(self) -> None:
        folder = self.folder()
        ref = await self.store(await self.files(folder), b"content")
        (folder / "blobs" / "README").write_text("")
        (folder / "blobs" / ref.hash[:2] / ref.hash[2:4] / "notes.txt").write_text("")
        blobs = await self.files(folder)
        self.assertEqual(await collect(blobs.iterate()), [ref])

    async def test_a_folder_that_cannot_be_made_and_a_store_that_is_closed(self) -> None:
        folder = self.folder()
        (folder / "blobs").write_text("")
        await fails(StorageError, self.files(folder))
        blobs = await self.files()
        ref = await self.store(blobs, b"content")
        await blobs.close()
        await fails(Unavailable, collect(blobs.open(ref)))

    async def test_urls(self) -> None:
        folder = self.folder()
        for url, path in (
            ("file:", folder / "blobs"),
            ("file:b?threads=2", folder / "b"),
            ("file:///x/y", Path("/x/y")),
        ):
            built = engine(url, self.context(folder))
            assert isinstance(built, FileEngine)
            self.assertEqual(built.blobs._folder, path)
        for url in ("file://host/x", "file:?colour=red", "file:?threads=0"):
            with self.assertRaises(ValueError):  # type: ignore[no-untyped-call]  # trial's
                engine(url, self.context(folder))
        built = engine("file:", self.context(folder))
        await built.start()
        self.addCleanup(built.blobs.close)  # type: ignore[union-attr]
        await fails(NotFound, collect(built.blobs.open(BlobRef("ab" * 32, 3))))  # type: ignore[union-attr]
        await built.stop()
