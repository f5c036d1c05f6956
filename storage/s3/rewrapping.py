"""Bringing an encrypted object under another master key: a new header, and the frames as they are.

An object cannot be changed in place. One of at most a part is fetched and put again; of a larger one only the first part
is, and the store copies the rest itself. Either way the new object takes the old one's place only if that is still there
as it was read: what was deleted meanwhile stays deleted.
"""

from __future__ import annotations

from typing import Any

from twisted_mail.storage.interfaces import NotFound, StorageError, Unavailable
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.faults import PreconditionFailed, told
from twisted_mail.storage.s3.reading import Reader
from twisted_mail.storage.s3.sealing import FRAME, HEADER, SEALED_FRAME, Keyring
from twisted_mail.storage.s3.writing import PART
from twisted_mail.values import BlobRef

__all__ = ["rewrap"]

FETCHED = HEADER + PART // FRAME * SEALED_FRAME
"""How many octets of an object are at most fetched: its header, and a part's frames."""


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
