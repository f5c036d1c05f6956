"""What is the object store's own: names, large objects, left-overs, encryption and its keys, downloads, starting."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from typing import Any
from unittest.mock import patch
from urllib.request import urlopen

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.services import running
from tests.storage.s3.support import KEYS, S3Case
from twisted_mail.storage import open_engine
from twisted_mail.storage.interfaces import Corrupt, NotFound, StorageError, Unavailable
from twisted_mail.storage.s3.sealing import FRAME, HEADER, sealed_size
from twisted_mail.storage.s3.writing import PART
from twisted_mail.storage.testing.base import collect, fails
from twisted_mail.values import BlobRef

LARGE = PART + 300_000
OLD, NEW = KEYS


def octets(size: int) -> bytes:
    return (os.urandom(65_521) * (size // 65_521 + 1))[:size]


class S3Tests(S3Case):
    async def test_an_object_is_named_by_its_content(self) -> None:
        blobs = await self.blobs()
        ref = await self.store(blobs, b"content")

        async def third(ref: BlobRef) -> int:
            return 3

        writer = blobs.writer()
        await writer.write(b"content")
        await writer.finish(third)
        place = f"{self.prefix}/{ref.hash[:2]}/{ref.hash[2:4]}/{ref.hash}-7"
        self.assertEqual(await self.names(blobs), [place, place + ".3"])
        await self.raw(blobs, "put_object", Key=f"{self.prefix}/notes.txt", Body=b"")
        self.assertEqual(len(await collect(blobs.iterate())), 2)

    async def test_a_large_blob_goes_in_parts_is_read_anywhere_and_leaves_nothing_else(self) -> None:
        blobs = await self.blobs()
        for size in (PART, PART + 1, 2 * PART + 12_345):
            content = octets(size)
            writer: Any = blobs.writer()
            for at in range(0, size, 700_000):
                await writer.write(content[at : at + 700_000])
                self.assertTrue(len(writer._buffer) <= PART)
            ref = await writer.finish()
            self.assertEqual(ref, BlobRef(sha256(content).hexdigest(), size))
            self.assertEqual(await self.content(blobs, ref) == content, True)
            for start, end in ((size - 1, size), (PART - 5, PART + 5), (1_048_570, 3_333_333)):
                self.assertEqual(await self.content(blobs, ref, start, end) == content[start:end], True)
            self.assertEqual(await self.store(blobs, content), ref)
            self.assertEqual(await self.names(blobs), [blobs.name_of(ref)])
            self.assertEqual(await self.uploads(blobs), [])
            await blobs.delete(ref)

    async def test_a_large_blob_that_is_given_up_leaves_nothing(self) -> None:
        blobs = await self.blobs()
        writer = blobs.writer()
        await writer.write(octets(LARGE))
        await writer.abort()
        self.assertEqual((await self.names(blobs), await self.uploads(blobs)), ([], []))

        async def unknown(ref: BlobRef) -> int:
            raise Unavailable("nobody knows")

        writer = blobs.writer()
        await writer.write(octets(LARGE))
        await fails(Unavailable, writer.finish(unknown))
        self.assertEqual((await self.names(blobs), await self.uploads(blobs)), ([], []))

    async def test_what_crashed_writers_left_is_removed_after_a_day_and_no_sooner(self) -> None:
        blobs = await self.blobs()
        ref = await self.store(blobs, b"content")
        incoming = f"{self.prefix}/incoming/"
        await self.raw(blobs, "put_object", Key=incoming + "a", Body=b"half a message")
        await self.raw(blobs, "create_multipart_upload", Key=incoming + "b")
        self.assertEqual(await blobs.remove_leftovers(), 0)
        blobs._wall = lambda: self.reactor.wall() + 86_000
        self.assertEqual(await blobs.remove_leftovers(), 0)
        blobs._wall = lambda: self.reactor.wall() + 86_800
        self.assertEqual(await blobs.remove_leftovers(), 2)
        self.assertEqual((await self.names(blobs), await self.uploads(blobs)), ([blobs.name_of(ref)], []))
        self.assertEqual(await self.content(blobs, ref), b"content")

    async def test_an_object_that_is_not_the_content_is_corrupt_and_is_replaced_by_who_has_it(self) -> None:
        for options in ({}, {"encryption": f"keys:{NEW}"}):
            blobs = await self.blobs(**options)
            ref = await self.store(blobs, b"content")
            await self.raw(blobs, "put_object", Key=blobs.name_of(ref), Body=b"cont")
            await fails(Corrupt, collect(blobs.open(ref)))
            await fails(Corrupt, collect(blobs.open(ref, 6, 7)))
            self.assertEqual(await self.store(blobs, b"content"), ref)
            self.assertEqual(await self.content(blobs, ref), b"content")
            await blobs.delete(ref)

    async def test_the_end_of_a_content_with_another_hash_is_never_given(self) -> None:
        blobs = await self.blobs()
        content = octets(200_000)
        ref = await self.store(blobs, content)
        await self.raw(blobs, "put_object", Key=blobs.name_of(ref), Body=content[:-1] + bytes([content[-1] ^ 1]))
        got = []
        with self.assertRaises(Corrupt):  # type: ignore[no-untyped-call]  # trial's
            async for chunk in blobs.open(ref):
                got.append(chunk)
        self.assertEqual(b"".join(got) == content[: 3 * FRAME], True)

    async def test_many_are_deleted_by_one_request(self) -> None:
        blobs = await self.blobs()
        refs = [await self.store(blobs, b"%d" % number) for number in range(5)]
        await blobs.delete_many([*refs[:3], BlobRef("ab" * 32, 3)])
        self.assertEqual(sorted(await collect(blobs.iterate())), sorted(refs[3:]))
        await blobs.delete_many([])

    async def test_more_objects_than_one_page_holds(self) -> None:
        blobs = await self.blobs()
        refs = [await self.store(blobs, b"%d" % number) for number in range(5)]
        client = blobs._calls._client
        paged = client.list_objects_v2
        with patch.object(client, "list_objects_v2", lambda **wanted: paged(MaxKeys=2, **wanted)):
            self.assertEqual(sorted(await collect(blobs.iterate())), sorted(refs))

    # --- encryption

    async def test_what_lies_in_the_store_is_not_the_content(self) -> None:
        blobs = await self.blobs(encryption=f"keys:{NEW}")
        content = b"a secret that is said again and again. " * 5000
        ref = await self.store(blobs, content)
        lies = (await self.raw(blobs, "get_object", Key=blobs.name_of(ref)))["Body"].read()
        self.assertEqual(len(lies), sealed_size(len(content)))
        self.assertFalse(b"secret" in lies)

    async def test_a_range_of_an_encrypted_object_costs_one_request_once_its_key_is_known(self) -> None:
        blobs = await self.blobs(encryption=f"keys:{NEW}")
        content = octets(500_000)
        ref = await self.store(blobs, content)
        client, requests = blobs._calls._client, []
        real = client.get_object

        def counted(**wanted: Any) -> Any:
            requests.append(wanted["Range"])
            return real(**wanted)

        with patch.object(client, "get_object", counted):
            for start, end in ((300_000, 300_010), (70_000, 140_000), (0, 5)):
                self.assertEqual(await self.content(blobs, ref, start, end), content[start:end])
        self.assertEqual(len(requests), 4, requests)
        self.assertEqual(requests[1], f"bytes=0-{HEADER - 1}")

    async def test_a_large_encrypted_blob_is_read_anywhere(self) -> None:
        blobs = await self.blobs(encryption=f"keys:{NEW}")
        content = octets(PART + FRAME + 3)
        ref = await self.store(blobs, content)
        self.assertEqual(await self.content(blobs, ref) == content, True)
        for start, end in ((PART - 5, PART + 5), (len(content) - 2, len(content)), (PART + FRAME, PART + FRAME + 1)):
            self.assertEqual(await self.content(blobs, ref, start, end), content[start:end])

    async def test_encryption_may_be_switched_on_and_plain_objects_stay_readable(self) -> None:
        plain = await self.blobs()
        sealed = await self.blobs(encryption=f"keys:{NEW}")
        one, two = octets(150_000), octets(160_000)
        was_plain, is_sealed = await self.store(plain, one), await self.store(sealed, two)
        self.assertEqual(await self.content(sealed, was_plain) == one, True)
        for start, end in ((0, 10), (140_000, 150_000), (0, 0)):
            self.assertEqual(await self.content(sealed, was_plain, start, end), one[start:end])
        self.assertEqual(await self.store(sealed, one), was_plain, "the content is there already")
        for start in (0, 100_000):
            error = await fails(Unavailable, collect(plain.open(is_sealed, start)))
            self.assertTrue("no key" in str(error))
        other = await self.blobs(encryption=f"keys:{OLD}")
        error = await fails(Unavailable, collect(other.open(is_sealed)))
        self.assertTrue("under the key" in str(error))

    async def test_keys_are_changed_by_rewrapping_and_the_content_is_not_touched(self) -> None:
        old = await self.blobs(encryption=f"keys:{OLD}")
        plain = await self.blobs()
        contents = [octets(size) for size in (0, 5, 200_000, LARGE)]
        refs = [await self.store(old, content) for content in contents]
        untouched = await self.store(plain, b"plain")
        both = await self.blobs(encryption=f"keys:{NEW},{OLD}")
        self.assertEqual((await both.rewrap()).changed, 4)
        self.assertEqual((await both.rewrap()).changed, 0)
        new = await self.blobs(encryption=f"keys:{NEW}")
        for ref, content in zip(refs, contents, strict=True):
            self.assertEqual(await self.content(new, ref) == content, True)
            self.assertEqual(await self.content(new, ref, 3, 90_000) == content[3:90_000], True)
        self.assertEqual(await self.content(new, untouched), b"plain")
        self.assertEqual(await self.uploads(new), [])
        await fails(StorageError, plain.rewrap())

    async def test_a_blob_that_is_deleted_while_it_is_rewrapped_stays_deleted(self) -> None:
        old = await self.blobs(encryption=f"keys:{OLD}")
        both = await self.blobs(encryption=f"keys:{NEW},{OLD}")
        for size in (5, LARGE):
            ref = await self.store(old, octets(size))
            name, real = old.name_of(ref), both._reader.raw

            async def then_deleted(*arguments: Any, ref: BlobRef = ref, real: Any = real) -> Any:
                piece = await real(*arguments)
                if len(piece.data) > HEADER:
                    await old.delete(ref)
                return piece

            with patch.object(both._reader, "raw", then_deleted):
                self.assertEqual((await both.rewrap()).changed, 0)
            self.assertFalse(name in await self.names(old))
            self.assertEqual(await self.uploads(old), [])

    # --- downloads

    async def test_a_plain_object_can_be_fetched_by_its_url_and_an_encrypted_one_cannot(self) -> None:
        blobs = await self.blobs()
        ref = await self.store(blobs, b"an attachment")
        url = await blobs.download_url(ref, 60, "Grüße \r\n.pdf")
        assert url is not None

        def fetch() -> tuple[bytes, str, str]:
            with urlopen(url, timeout=10) as answer:
                return answer.read(), answer.headers["Content-Type"], answer.headers["Content-Disposition"]

        content, kind, disposition = await deferToThread(fetch)
        self.assertEqual((content, kind), (b"an attachment", "application/octet-stream"))
        self.assertEqual(disposition, "attachment; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%0D%0A.pdf")
        sealed = await self.blobs(encryption=f"keys:{NEW}")
        self.assertIsNone(await sealed.download_url(await self.store(sealed, b"another"), 60))
        await fails(NotFound, blobs.download_url(BlobRef("ab" * 32, 3), 60))

    # --- start and stop

    async def test_a_bucket_that_is_not_there_is_made(self) -> None:
        bucket = f"made-{os.urandom(6).hex()}"
        engine = open_engine(running.versity().url(bucket), self.context(self.folder()))
        for _ in range(2):
            await engine.start()
            self.assertIsNone(engine.health())
            assert engine.blobs is not None
            self.assertEqual(await collect(engine.blobs.iterate()), [])
            if _ == 1:
                await self.raw(engine.blobs, "delete_bucket")  # type: ignore[arg-type]
            await engine.stop()

    async def test_a_store_that_cannot_be_used_says_so_at_the_start(self) -> None:
        url = running.versity().url("blobs", timeout="0.5")
        before = threading.active_count()
        for wrong, words in (
            (url.replace(":secret", ":notsecret"), "credentials"),
            ("s3://key:notsecret@127.0.0.1:9/blobs?tls=false&timeout=0.5", "reached"),
            (url.replace("tls=false", "tls=true"), "reached"),
        ):
            engine = open_engine(wrong, self.context(self.folder()))
            error = await fails(StorageError, engine.start())
            self.assertTrue(words in str(error) and "blobs" in str(error), str(error))
            self.assertFalse("notsecret" in str(error))
            self.assertEqual(threading.active_count(), before)

    async def test_an_engine_that_is_stopped_has_no_threads_and_answers_no_more(self) -> None:
        engine = await self.engine()
        ref = await self.store(engine.blobs, b"content")
        reading: Deferred[Any] = Deferred.fromCoroutine(self.content(engine.blobs, ref))
        await engine.stop()
        self.assertEqual(await reading, b"content")
        self.assertFalse([thread for thread in threading.enumerate() if thread.name.startswith("s3-")])
        await fails(Unavailable, collect(engine.blobs.open(ref)))
        await engine.stop()
        await engine.start()

    async def test_credentials_may_come_from_the_environment(self) -> None:
        url = running.versity().url("blobs", timeout="1")
        bare = url.replace(url.partition("@")[0], "s3://").replace("s3://@", "s3://")
        login = url.removeprefix("s3://").partition("@")[0].split(":")
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        with patch.dict(os.environ, dict(zip(names, login, strict=True))):
            engine = open_engine(bare + "&credentials=env", self.context(self.folder()))
            await engine.start()
            await engine.stop()
        for name in names:
            os.environ.pop(name, None)
        error = await fails(StorageError, open_engine(bare, self.context(self.folder())).start())
        self.assertTrue("no credentials" in str(error))
