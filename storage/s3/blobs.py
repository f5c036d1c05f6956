"""Blobs as objects: ``<prefix>ab/cd/<sha256>-<size>`` in one bucket, ``….1`` for generation 1."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from twisted.logger import Logger

from twisted_mail.storage.interfaces import AlreadyExists, BlobWriter, NotFound, StorageError, Unavailable
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.faults import Forbidden, NoBucket, told
from twisted_mail.storage.s3.reading import Reader
from twisted_mail.storage.s3.rewrapping import Found, Rewrapped, rewrap_all
from twisted_mail.storage.s3.threads import Task
from twisted_mail.storage.s3.writing import INCOMING, Writer
from twisted_mail.values import BlobRef

__all__ = ["S3Blobs"]

LEFT_OVER_SECONDS: Final = 86_400.0
"""Age at which what lies under ``incoming/`` is nobody's any more: no message takes a day to come in."""
DELETED_AT_ONCE: Final = 1000
"""Objects of one request; the protocol allows no more."""
LONGEST_URL_SECONDS: Final = 7 * 86_400

_NAME: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})-(\d{1,18})(?:\.([1-9]\d{0,8}))?")


class S3Blobs:
    """Implements `Blobs`."""

    _log = Logger()

    def __init__(self, calls: Calls, *, wall: Callable[[], float] = time.time) -> None:
        self._calls = calls
        self._settings = calls.settings
        self._keyring = calls.settings.keyring
        self._wall = wall
        self._reader = Reader(calls, self._keyring)
        self._cleaning: Task[int] | None = None

    async def start(self) -> None:
        """Connect, and make the bucket if there is none. Raises: StorageError, with words for an operator."""
        await self._calls.start()
        try:
            await self._find_bucket()
        except Forbidden as error:
            raise StorageError(f"{self._settings.place} may not be used with these credentials: {error}") from error
        except Unavailable as error:
            raise StorageError(f"{self._settings.place} cannot be used: {error}") from error
        self._cleaning = Task(self._clean())

    async def _clean(self) -> int:
        try:
            return await self.remove_leftovers()
        except StorageError as error:
            self._log.warn("what interrupted writes have left stays for now: {error}", error=error)
            return 0

    async def _find_bucket(self) -> None:
        bucket, region = self._settings.bucket, self._settings.region
        try:
            await self._calls.run(lambda client: client.head_bucket(Bucket=bucket))
            return
        except (NotFound, NoBucket):
            pass
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}

        def create(client: Any) -> None:
            try:
                client.create_bucket(Bucket=bucket, **place)
            except client.exceptions.BucketAlreadyOwnedByYou:
                pass  # another node was faster
            except client.exceptions.BucketAlreadyExists as error:
                raise AlreadyExists("a bucket of that name is somebody else's") from error

        try:
            await self._calls.run(create)
        except AlreadyExists as error:
            raise StorageError(f"{self._settings.place} cannot be made: {error}") from error
        self._log.info("made {place}", place=self._settings.place)

    async def stop(self) -> None:
        """Let what is in flight end, and close the connections."""
        await self._calls.stop()

    def name_of(self, ref: BlobRef) -> str:
        """The name of the object."""
        later = f".{ref.generation}" if ref.generation else ""
        return f"{self._settings.prefix}{ref.hash[:2]}/{ref.hash[2:4]}/{ref.hash}-{ref.size}{later}"

    def ref_of(self, name: str) -> BlobRef | None:
        """What lies under *name*; None if that is no blob of ours."""
        found = _NAME.fullmatch(name.removeprefix(self._settings.prefix))
        return None if found is None else BlobRef(found[1], int(found[2]), int(found[3] or 0))

    # --- Blobs

    def writer(self) -> BlobWriter:
        return Writer(self._calls, self._reader, self._keyring, self.name_of)

    def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        stop = ref.size if end is None else min(end, ref.size)
        return self._reader.read(ref, self.name_of(ref), start, stop)

    async def delete(self, ref: BlobRef) -> None:
        name = self.name_of(ref)
        try:
            await self._calls.run(lambda client: client.delete_object(Bucket=self._settings.bucket, Key=name))
        except NotFound:
            pass

    async def delete_many(self, refs: Sequence[BlobRef]) -> None:
        """As `delete`, with one request for a thousand. Raises: Unavailable (some may be left)."""
        for at in range(0, len(refs), DELETED_AT_ONCE):
            await self.delete_names([self.name_of(ref) for ref in refs[at : at + DELETED_AT_ONCE]])

    async def delete_names(self, names: Sequence[str]) -> None:
        """Delete at most `DELETED_AT_ONCE` objects by their whole names. Raises: Unavailable (some may be left)."""
        wanted = {"Quiet": True, "Objects": [{"Key": name} for name in names]}
        answer = await self._calls.run(
            lambda client: client.delete_objects(Bucket=self._settings.bucket, Delete=wanted)
        )
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise Unavailable(f"{len(answer['Errors'])} objects were not deleted: {first.get('Code', 'no reason')}")

    async def iterate(self) -> AsyncIterator[BlobRef]:
        async for name, _ in self.names_below(self._settings.prefix):
            ref = self.ref_of(name)
            if ref is not None:
                yield ref

    async def names_below(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        """Name and time of change (seconds since 1970) of every object whose name begins with *prefix*."""
        async for item in self._listed(prefix):
            yield item["Key"], item["LastModified"].timestamp()

    async def _listed(self, prefix: str, after: str = "") -> AsyncIterator[Any]:
        """What the driver says (hence Any) of every object whose name begins with *prefix* and stands behind *after*."""
        more: dict[str, str] = {"StartAfter": after} if after else {}
        while True:

            def work(client: Any, more: dict[str, str] = more) -> Any:
                page = client.list_objects_v2(Bucket=self._settings.bucket, Prefix=prefix, **more)
                told(page, "IsTruncated")  # a page that was cut must not be taken for the last one
                return page

            page = await self._calls.run(work)
            for item in page.get("Contents", ()):
                yield item
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    # --- what only objects have

    async def download_url(self, ref: BlobRef, seconds: float, filename: str = "") -> str | None:
        """Where anybody can fetch the content for *seconds* (at most 7 days); None if the object is encrypted.

        *filename* is what a browser saves it as. Raises: NotFound, Corrupt, Unavailable.
        """
        name = self.name_of(ref)
        if await self._reader.encrypted(ref, name):
            return None
        disposition = "attachment" + (f"; filename*=UTF-8''{quote(filename, safe='')}" if filename else "")
        wanted = {
            "Bucket": self._settings.bucket,
            "Key": name,
            # never what a sender called it: a page or script must not run where the store's other pages do
            "ResponseContentType": "application/octet-stream",
            "ResponseContentDisposition": disposition,
        }
        lives = max(1, min(int(seconds), LONGEST_URL_SECONDS))
        url: str = await self._calls.run(
            lambda client: client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=lives)
        )
        return url

    async def remove_leftovers(self, older_than: float = LEFT_OVER_SECONDS) -> int:
        """Remove what writers that crashed have left more than *older_than* seconds ago; how much it was.

        Raises: StorageError.
        """
        oldest = self._wall() - older_than
        prefix = self._settings.prefix + INCOMING
        removed = await self._abort_uploads(prefix, oldest)
        old = [name async for name, changed in self.names_below(prefix) if changed < oldest]
        for at in range(0, len(old), DELETED_AT_ONCE):
            await self.delete_names(old[at : at + DELETED_AT_ONCE])
        removed += len(old)
        if removed:
            self._log.info("removed {count} objects that interrupted writes have left", count=removed)
        return removed

    async def _abort_uploads(self, prefix: str, oldest: float) -> int:
        bucket, removed = self._settings.bucket, 0
        more: dict[str, str] = {}
        while True:

            def work(client: Any, more: dict[str, str] = more) -> Any:
                page = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix, **more)
                told(page, "IsTruncated")
                return page

            page = await self._calls.run(work)
            for upload in page.get("Uploads", ()):
                if upload["Initiated"].timestamp() >= oldest:
                    continue
                name, id = upload["Key"], upload["UploadId"]

                def abort(client: Any, name: str = name, id: str = id) -> None:
                    client.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=id)

                try:
                    await self._calls.run(abort)
                except NotFound:
                    continue
                removed += 1
            if not page.get("IsTruncated"):
                return removed
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    @property
    def key_ids(self) -> Sequence[str]:
        """What `rewrap` calls the master keys, the first one first; none where encryption is off."""
        return () if self._keyring is None else self._keyring.ids

    async def rewrap(
        self,
        *,
        change: bool = True,
        after: str = "",
        progress: Callable[[Rewrapped], None] = lambda report: None,
    ) -> Rewrapped:
        """Bring the header of every encrypted object under the first master key; or only count, without *change*.

        Only when none is left under an old key, and no process is left that writes under it, may that be forgotten.
        Objects come in the order of their hashes; *after*: only those behind that hash. Can be cut off and begun again,
        and run while mail comes and goes. Raises: StorageError (encryption
        is off, among others).
        """
        if self._keyring is None:
            raise StorageError("encryption is off: there are no keys")
        report = Rewrapped(reached=after)
        await rewrap_all(
            self._calls,
            self._reader,
            self._keyring,
            self._found(after),
            change=change,
            report=report,
            progress=progress,
        )
        return report

    async def _found(self, after: str) -> AsyncIterator[Found]:
        start = f"{self._settings.prefix}{after[:2]}/{after[2:4]}/{after}~" if after else ""  # "~": behind all its names
        async for item in self._listed(self._settings.prefix, start):
            ref = self.ref_of(item["Key"])
            if ref is not None:
                yield Found(ref, item["Key"], int(item["Size"]))
