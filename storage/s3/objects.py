"""Named octets beside the blobs, in the same bucket: ``<prefix><name>``, one put each, its ETag for a version.

The object store must carry out conditions of a put (``If-Match``, ``If-None-Match: *``) so that of several at once one
succeeds. With encryption an object that is not encrypted under a known key is no object of ours: whoever can write to
the bucket and has no key cannot make one up.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from twisted_mail.storage.interfaces import Conflict, Corrupt, NotFound, Unavailable
from twisted_mail.storage.objects import StoredObject
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.faults import Fault, PreconditionFailed, told
from twisted_mail.storage.s3.sealing import HEADER, MAGIC, SEALED_FRAME, KeyUnknown, seal, unseal

__all__ = ["DeleteNames", "ListObjects", "S3Objects"]

DELETED_AT_ONCE: Final = 1000
"""Objects of one request; the protocol allows no more."""
USUAL_OCTETS: Final = 4_194_304
"""For how long a call is repeated depends on the size, which is not known before an object is read."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

ListObjects = Callable[[str], AsyncIterator[tuple[str, float]]]
DeleteNames = Callable[[Sequence[str]], Any]


class S3Objects:
    """Implements `Objects`. *listing* and *deleting* are those of the bucket, with whole names."""

    def __init__(self, calls: Calls, listing: ListObjects, deleting: DeleteNames) -> None:
        self._calls = calls
        self._bucket = calls.settings.bucket
        self._prefix = calls.settings.prefix
        self._keyring = calls.settings.keyring
        self._listing = listing
        self._deleting = deleting

    def _key(self, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of an object")
        return self._prefix + name

    async def get(self, name: str, unless: str | None = None) -> StoredObject | None:
        raw = await self._get(name, unless)
        return None if raw is None else StoredObject(self._opened(name, raw.data), raw.version)

    async def _get(self, name: str, unless: str | None = None) -> StoredObject | None:
        """As it lies there."""
        wanted = {"Bucket": self._bucket, "Key": self._key(name)}
        if unless is not None:
            wanted["IfNoneMatch"] = unless

        def work(client: Any) -> StoredObject | None:
            try:
                answer = client.get_object(**wanted)
            except client.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 304:
                    return None
                raise
            data = answer["Body"].read()
            if len(data) != told(answer, "ContentLength"):
                raise Fault("the object store's answer breaks off", certain=True)
            return StoredObject(data, told(answer, "ETag"))

        return await self._calls.run(work, octets=USUAL_OCTETS)

    def _opened(self, name: str, data: bytes) -> bytes:
        """The content of what lies there. Raises: Corrupt, Unavailable."""
        if self._keyring is None:
            if data.startswith(MAGIC):
                raise Unavailable("an object is encrypted, and this server has no key: the option encryption is off")
            return data
        try:
            cipher = self._keyring.open_header(data[:HEADER])
        except KeyUnknown as error:
            raise Unavailable(str(error)) from error
        view = memoryview(data)[HEADER:]
        if not view:
            raise Corrupt(f"the object {name} has a header and nothing else")
        starts = range(0, len(view), SEALED_FRAME)
        return b"".join(
            unseal(cipher, number, view[at : at + SEALED_FRAME], number == len(starts) - 1)
            for number, at in enumerate(starts)
        )

    async def put(self, name: str, data: bytes) -> None:
        await self._put(name, data, {})

    async def swap(self, name: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return await self._put(name, data, condition)
        except (PreconditionFailed, NotFound) as error:
            raise Conflict(f"the object {name} is another than was meant") from error

    async def _put(self, name: str, data: bytes, condition: dict[str, str]) -> str:
        if not data:
            raise ValueError("an object is never empty")
        key, body = self._key(name), b""

        def work(client: Any) -> str:
            nonlocal body
            body = body or self._sealed(data)
            etag: str = told(client.put_object(Bucket=self._bucket, Key=key, Body=body, **condition), "ETag")
            return etag

        return await self._calls.run(work, octets=len(data))

    def _sealed(self, data: bytes) -> bytes:
        if self._keyring is None:
            return data
        header, cipher = self._keyring.new_header()
        return b"".join([header, *seal(cipher, 0, data, True)])

    async def delete(self, names: Sequence[str]) -> None:
        for at in range(0, len(names), DELETED_AT_ONCE):
            await self._deleting([self._key(name) for name in names[at : at + DELETED_AT_ONCE]])

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        async for name, changed in self._listing(self._prefix + prefix):
            yield name.removeprefix(self._prefix), changed

    async def rewrap(self, prefix: str) -> int:
        """Bring the headers of the objects below *prefix* under the first master key; how many were changed.

        Raises: StorageError.
        """
        if self._keyring is None:
            return 0
        changed = 0
        async for name, _ in self.list(prefix):
            try:
                raw = await self._get(name)
                assert raw is not None
                header = self._keyring.rewrap(raw.data[:HEADER])
                if header is None:
                    continue
                await self._replace(name, header + raw.data[HEADER:], raw.version)
            except (NotFound, PreconditionFailed, Corrupt, KeyUnknown):
                continue  # deleted or written anew meanwhile, or not ours
            changed += 1
        return changed

    async def _replace(self, name: str, body: bytes, version: str) -> None:
        wanted = {"Bucket": self._bucket, "Key": self._key(name), "IfMatch": version}
        await self._calls.run(lambda client: client.put_object(Body=body, **wanted), octets=len(body))
