"""Bringing an encrypted object under another master key: a new header, and the frames as they are.

An object cannot be changed in place. One of at most a part is fetched and put again; of a larger one only the first part
is, and the store copies the rest itself. Either way the new object takes the old one's place only if that is still there
as it was read: what was deleted meanwhile stays deleted.

A pass looks at every object: its list says which are encrypted (by their length), the first octets of each say under which
key. So it can be cut off and begun again, be run twice at once, and beside nodes that write, read and sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from twisted_mail.storage.interfaces import Corrupt, NotFound, StorageError, Unavailable
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.faults import PreconditionFailed, told
from twisted_mail.storage.s3.reading import Reader
from twisted_mail.storage.s3.sealing import FRAME, HEADER, SEALED_FRAME, Keyring, key_named_in, sealed_size
from twisted_mail.storage.s3.threads import Task
from twisted_mail.storage.s3.writing import PART
from twisted_mail.values import BlobRef

__all__ = ["Found", "Rewrapped", "rewrap", "rewrap_all"]

TOGETHER: Final = 16
"""Headers that are read at a time; objects are made anew one after the other, which bounds the memory."""
EXAMPLES: Final = 20
FETCHED = HEADER + PART // FRAME * SEALED_FRAME
"""How many octets of an object are at most fetched: its header, and a part's frames."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object in the list of the store."""

    ref: BlobRef
    name: str
    size: int
    """Of the object, as the list says."""


@dataclass(slots=True)
class Rewrapped:
    """What a pass has found, and done."""

    objects: int = 0
    plain: int = 0
    """Objects that are not encrypted."""
    changed: int = 0
    """Objects that came under the first key."""
    under: Counter[str] = field(default_factory=Counter)
    """How many objects there were under each key (by its id) when the pass had been at them."""
    damaged: int = 0
    """Objects that have neither the length of a plain nor of an encrypted one, or no header."""
    reached: str = ""
    """The hash of the last object: to go on behind it."""
    examples: list[str] = field(default_factory=list)
    """Some of what is damaged, in words."""


async def rewrap_all(
    calls: Calls,
    reader: Reader,
    keyring: Keyring,
    objects: AsyncIterator[Found],
    *,
    change: bool,
    report: Rewrapped,
    progress: Callable[[Rewrapped], None],
) -> None:
    """Bring *objects* under the first key of *keyring*, or, without *change*, only count. Raises: StorageError.

    Objects under a key that is not in the ring are counted under it, and stay.
    """
    batch: list[Found] = []
    async for each in objects:
        batch.append(each)
        if len(batch) == TOGETHER:
            await _some(calls, reader, keyring, batch, change, report)
            progress(report)
            batch = []
    await _some(calls, reader, keyring, batch, change, report)
    progress(report)


async def _some(
    calls: Calls, reader: Reader, keyring: Keyring, batch: list[Found], change: bool, report: Rewrapped
) -> None:
    sealed = []
    for each in batch:
        if each.size == sealed_size(each.ref.size):
            sealed.append(each)
        elif each.size == each.ref.size:
            report.plain += 1
        else:
            _damaged(report, each, f"has {each.size} octets")
    reading = [Task(_key_of(reader, each)) for each in sealed]
    keys = [await _settled(task, report, each) for task, each in zip(reading, sealed, strict=True)]
    for each, key in zip(sealed, keys, strict=True):
        if key is not None and change and key != keyring.current and key in keyring:
            try:
                changed = await rewrap(calls, reader, keyring, each.ref, each.name)
            except Corrupt as error:
                _damaged(report, each, str(error))
                changed = False
            if changed:
                report.changed += 1
                key = keyring.current
            else:  # deleted meanwhile, or another node was faster
                key = await _settled(Task(_key_of(reader, each)), report, each)
        if key is not None:
            report.under[key.hex()] += 1
    report.objects += len(batch)
    if batch:
        report.reached = batch[-1].ref.hash


async def _key_of(reader: Reader, each: Found) -> bytes:
    return key_named_in((await reader.raw(each.name, 0, HEADER)).data)


async def _settled(reading: Task[bytes], report: Rewrapped, each: Found) -> bytes | None:
    """None if the object is gone, or damaged."""
    try:
        return await reading.result()
    except NotFound:
        return None
    except Corrupt as error:
        _damaged(report, each, str(error))
        return None


def _damaged(report: Rewrapped, each: Found, text: str) -> None:
    report.damaged += 1
    report.examples += islice([f"{each.name}: {text}"], EXAMPLES - len(report.examples))


async def rewrap(calls: Calls, reader: Reader, keyring: Keyring, ref: BlobRef, name: str) -> bool:
    """Whether the object *name* was changed; not if it is plain, gone, or under the first key. Raises: StorageError."""
    try:
        if not await reader.encrypted(ref, name):
            return False
        head = await reader.raw(name, 0, HEADER)
        header = keyring.rewrap(head.data)
        if header is None:
            return False
        start = await reader.raw(name, 0, min(head.total, FETCHED), head.etag)
        body = header + start.data[HEADER:]
        if start.total <= FETCHED:
            await _put(calls, name, body, start.etag)
        else:
            await _put_in_parts(calls, name, body, start.total, start.etag)
    except (NotFound, PreconditionFailed):
        return False  # deleted meanwhile, or rewrapped by another node
    return True


async def _put(calls: Calls, name: str, body: bytes, etag: str) -> None:
    bucket = calls.settings.bucket
    await calls.run(
        lambda client: client.put_object(Bucket=bucket, Key=name, Body=body, IfMatch=etag), octets=len(body)
    )


async def _put_in_parts(calls: Calls, name: str, body: bytes, total: int, etag: str) -> None:
    where = {"Bucket": calls.settings.bucket, "Key": name}
    id = await calls.run(lambda client: told(client.create_multipart_upload(**where), "UploadId"))
    upload = {**where, "UploadId": id}
    rest = {"CopySource": where, "CopySourceRange": f"bytes={len(body)}-{total - 1}", "CopySourceIfMatch": etag}

    def assemble(client: Any) -> None:
        first = told(client.upload_part(**upload, PartNumber=1, Body=body), "ETag")
        copied = told(client.upload_part_copy(**upload, PartNumber=2, **rest), "CopyPartResult")
        second = told(copied, "ETag")
        parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfMatch=etag)

    try:
        await calls.run(assemble, octets=total)
    except StorageError as error:
        try:
            await calls.run(lambda client: client.abort_multipart_upload(**upload))
        except NotFound:
            if isinstance(error, NotFound):
                # the upload is gone: an attempt whose answer was lost has completed it
                raise Unavailable("the object was perhaps rewrapped; do it again") from error
        raise
