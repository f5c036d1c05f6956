"""An object store in memory, as far as the driver's client is asked for small objects: conditions, ranges, lists in pages."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

from botocore.exceptions import ClientError

__all__ = ["MemoryBucket"]


def _error(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "call")


class _Body:
    """As the driver's answer: read below its stream, closed."""

    def __init__(self, data: bytes) -> None:
        self._raw_stream = io.BytesIO(data)

    def close(self) -> None:
        self._raw_stream.close()


class MemoryBucket:
    """What the driver's client does, on `objects`. *before* is called with each operation's name and object first, and may
    change the objects or raise."""

    def __init__(self, *, page: int = 7) -> None:
        self.objects: dict[str, bytes] = {}
        self.page = page
        self.before: Callable[[str, str], None] = lambda operation, name: None
        self.calls: list[str] = []

    def _begin(self, operation: str, name: str = "") -> None:
        self.calls.append(operation)
        self.before(operation, name)

    def _found(self, name: str) -> tuple[bytes, str]:
        if name not in self.objects:
            raise _error(404, "NoSuchKey")
        return self.objects[name], f'"{md5(self.objects[name], usedforsecurity=False).hexdigest()}"'

    def head_bucket(self, Bucket: str) -> dict[str, Any]:
        return {}

    def list_multipart_uploads(self, **wanted: Any) -> dict[str, Any]:
        return {"IsTruncated": False}

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._begin("head", Key)
        return {"ContentLength": len(self._found(Key)[0])}

    def get_object(self, Bucket: str, Key: str, Range: str, IfMatch: str | None = None) -> dict[str, Any]:
        self._begin("get", Key)
        data, etag = self._found(Key)
        if IfMatch not in (None, etag):
            raise _error(412, "PreconditionFailed")
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        if first >= len(data):
            raise _error(416, "InvalidRange")
        part = data[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return {"ETag": etag, "ContentRange": span, "Body": _Body(part)}

    def put_object(
        self, Bucket: str, Key: str, Body: bytes, IfMatch: str | None = None, IfNoneMatch: str | None = None
    ) -> dict[str, Any]:
        self._begin("put", Key)
        if IfNoneMatch == "*" and Key in self.objects:
            raise _error(412, "PreconditionFailed")
        if IfMatch is not None and self._found(Key)[1] != IfMatch:
            raise _error(412, "PreconditionFailed")
        self.objects[Key] = bytes(Body)
        return {}

    def delete_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._begin("delete", Key)
        self.objects.pop(Key, None)
        return {}

    def list_objects_v2(
        self, Bucket: str, Prefix: str, StartAfter: str = "", ContinuationToken: str = ""
    ) -> dict[str, Any]:
        self._begin("list", Prefix)
        after = ContinuationToken or StartAfter
        names = sorted(name for name in self.objects if name.startswith(Prefix) and name > after)
        page, rest = names[: self.page], names[self.page :]
        when = datetime(2026, 11, 1, tzinfo=UTC)
        answer: dict[str, Any] = {
            "IsTruncated": bool(rest),
            "Contents": [{"Key": name, "Size": len(self.objects[name]), "LastModified": when} for name in page],
        }
        return {**answer, "NextContinuationToken": page[-1]} if rest else answer

    def close(self) -> None:
        pass
