"""Writing objects: small ones by one conditional put, large ones in parts under a name of their own, then copied."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.logger import Logger

from twisted_mail.storage.interfaces import ChooseGeneration, Corrupt, NotFound, StorageError, Unavailable
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.faults import PreconditionFailed, told
from twisted_mail.storage.s3.reading import Reader
from twisted_mail.storage.s3.sealing import FRAME, Keyring, seal
from twisted_mail.storage.s3.threads import Task
from twisted_mail.values import BlobRef

__all__ = ["INCOMING", "PART", "Upload", "Writer", "put"]

PART: Final = 128 * FRAME
"""What a part has, of content (8 MiB; a store takes no less than 5); a blob that is not larger is put at once."""
INCOMING: Final = "incoming/"
"""Where large objects lie until their names are known."""


class Upload:
    """A large object on its way: at most one part is being sent while the next one is gathered."""

    _log = Logger()

    def __init__(self, calls: Calls, reader: Reader, keyring: Keyring | None) -> None:
        self._calls = calls
        self._reader = reader
        self._bucket = calls.settings.bucket
        self.name = f"{calls.settings.prefix}{INCOMING}{os.urandom(16).hex()}"
        self.size = 0
        """Of the object, in octets."""
        self._header: bytes = b""
        self._cipher: AESGCM | None = None
        if keyring is not None:
            self._header, self._cipher = keyring.new_header()
        self._id: str | None = None
        self._tags: list[str] = []
        self._task: Task[None] | None = None
        self._given_up = False

    async def send(self, content: bytes, *, last: bool) -> None:
        """Begin to send *content* when what was sent before has arrived. Raises: StorageError (of what was before)."""
        await self._arrived()
        self._task = Task(self._send(content, last))

    async def _arrived(self) -> None:
        if self._task is not None:
            await self._task.result()

    async def _send(self, content: bytes, last: bool) -> None:
        if self._given_up:
            return
        if self._id is None:
            wanted = {"Bucket": self._bucket, "Key": self.name}
            self._id = await self._calls.run(lambda client: told(client.create_multipart_upload(**wanted), "UploadId"))
        if self._given_up:
            return
        number = len(self._tags) + 1
        body = b""

        def work(client: Any) -> Any:
            nonlocal body
            body = body or self._sealed(number, content, last)
            sent = client.upload_part(
                Bucket=self._bucket, Key=self.name, UploadId=self._id, PartNumber=number, Body=body
            )
            return told(sent, "ETag")

        self._tags.append(await self._calls.run(work, octets=len(content)))
        self.size += len(body)

    def _sealed(self, number: int, content: bytes, last: bool) -> bytes:
        if self._cipher is None:
            return content
        sealed = seal(self._cipher, (number - 1) * (PART // FRAME), content, last)
        return b"".join([self._header, *sealed] if number == 1 else sealed)

    async def complete(self) -> None:
        """The object is there under `name`. Raises: StorageError."""
        await self._arrived()
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self._tags, 1)]
        try:
            await self._calls.run(
                lambda client: client.complete_multipart_upload(
                    Bucket=self._bucket, Key=self.name, UploadId=self._id, MultipartUpload={"Parts": parts}
                ),
                octets=self.size,
            )
        except NotFound:
            # perhaps an earlier attempt has completed it, and its answer was lost
            if await self._reader.size(self.name) != self.size:
                raise Unavailable("a large object was not put together") from None
        self._id = None

    async def copy(self, name: str) -> None:
        """Give the object its *name*. Raises: StorageError."""
        source = {"Bucket": self._bucket, "Key": self.name}
        await self._calls.run(
            lambda client: client.copy_object(Bucket=self._bucket, Key=name, CopySource=source), octets=self.size
        )

    async def remove(self) -> None:
        """Nothing stays under `name`; what cannot be removed now is removed when it is old."""
        self._given_up = True
        if self._task is not None:
            await self._task.settled()
        requests: list[Callable[[Any], Any]] = [
            lambda client: client.delete_object(Bucket=self._bucket, Key=self.name),
        ]
        if self._id is not None:
            abort = {"Bucket": self._bucket, "Key": self.name, "UploadId": self._id}
            requests.insert(0, lambda client: client.abort_multipart_upload(**abort))
        for request in requests:
            try:
                await self._calls.run(request)
            except NotFound:
                pass
            except StorageError as error:
                self._log.info("{name} stays until it is old: {error}", name=self.name, error=error)
                return


class Writer:
    """Implements `BlobWriter`. One operation at a time, as its caller awaits each."""

    def __init__(self, calls: Calls, reader: Reader, keyring: Keyring | None, name_of: Callable[[BlobRef], str]) -> None:
        self._calls = calls
        self._reader = reader
        self._keyring = keyring
        self._name_of = name_of
        self._hash = sha256()
        self._size = 0
        self._buffer = bytearray()
        self._upload: Upload | None = None
        self._open = True
        self._removing: Task[None] | None = None

    async def write(self, chunk: bytes) -> None:
        self._check_open()
        self._hash.update(chunk)
        self._size += len(chunk)
        self._buffer += chunk
        # more than a part: so the last part, which is sealed in another way, is never empty
        while len(self._buffer) > PART:
            part = bytes(memoryview(self._buffer)[:PART])
            del self._buffer[:PART]
            await self._or_abort(self._send(part))

    async def _send(self, part: bytes) -> None:
        if self._upload is None:
            self._upload = Upload(self._calls, self._reader, self._keyring)
        await self._upload.send(part, last=False)

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        self._check_open()
        ref: BlobRef = await self._or_abort(self._finish(generation))
        self._open = False
        return ref

    async def _finish(self, generation: ChooseGeneration | None) -> BlobRef:
        ref = BlobRef(self._hash.hexdigest(), self._size)
        content = bytes(self._buffer)
        self._buffer.clear()
        if self._upload is not None:
            await self._upload.send(content, last=True)
            await self._upload.complete()
        if generation is not None:
            ref = replace(ref, generation=await generation(ref))
        name = self._name_of(ref)
        if self._upload is None:
            await put(self._calls, self._reader, self._keyring, ref, name, content)
            return ref
        # not every store takes a condition with a copy; to copy the same content over itself does no harm
        if not await self._is_there(ref, name):
            await self._upload.copy(name)
        self._removing = Task(self._upload.remove())
        await self._removing.settled()
        return ref

    async def _is_there(self, ref: BlobRef, name: str) -> bool:
        try:
            await self._reader.encrypted(ref, name)
        except (NotFound, Corrupt):
            return False
        return True

    async def abort(self) -> None:
        if self._open:
            self._open = False
            self._buffer.clear()
            if self._upload is not None and self._removing is None:
                # not cut off by whoever has no more time: it ends by its own deadlines
                self._removing = Task(self._upload.remove())
                await self._removing.settled()

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("the blob is finished")

    async def _or_abort(self, work: Any) -> Any:
        """Await *work*; when it fails, or is cancelled, nothing stays and the writer is over."""
        try:
            return await work
        except Exception:
            await self.abort()
            raise


async def put(calls: Calls, reader: Reader, keyring: Keyring | None, ref: BlobRef, name: str, content: bytes) -> None:
    """Store *content* as *name* unless it is there. Raises: StorageError."""
    header, cipher = (b"", None) if keyring is None else keyring.new_header()
    body = content if cipher is None else b""

    def work(client: Any, **condition: str) -> None:
        nonlocal body
        if cipher is not None and not body:
            body = b"".join([header, *seal(cipher, 0, content, True)])
        client.put_object(Bucket=calls.settings.bucket, Key=name, Body=body, **condition)

    try:
        await calls.run(partial(work, IfNoneMatch="*"), octets=ref.size)
    except PreconditionFailed:
        try:
            await reader.encrypted(ref, name)
        except (NotFound, Corrupt) as error:
            Upload._log.warn("{name} is written again: {error}", name=name, error=error)
            await calls.run(work, octets=ref.size)
