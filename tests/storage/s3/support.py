"""Engines on a real object store, each with a folder of names of its own in one bucket."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from tests.services import running
from tests.services.s3_proxy import S3Proxy
from tests.storage.engines import EngineCase
from twisted_mail.storage import open_engine
from twisted_mail.storage.s3 import S3Blobs, S3Engine
from twisted_mail.storage.testing.base import collect
from twisted_mail.values import BlobRef

__all__ = ["KEYS", "S3Case"]

KEYS = ("11" * 32, "22" * 32)


class S3Case(EngineCase):
    """Builds engines on the object store and puts them away, with what they have stored."""

    def setUp(self) -> None:
        super().setUp()
        self.prefix = f"test-{os.urandom(8).hex()}"

    async def engine(self, *, through: S3Proxy | None = None, **options: object) -> S3Engine:
        """A started engine; *through* a proxy."""
        wanted = {"prefix": self.prefix, "threads": 8, **options}
        url = running.versity().url("blobs", **{name: str(value) for name, value in wanted.items()})
        if through is not None:
            parts = urlsplit(url)
            url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{through.port}")
        engine = open_engine(url, self.context(self.folder()))
        assert isinstance(engine, S3Engine)
        await engine.start()
        assert engine.blobs._cleaning is not None
        await engine.blobs._cleaning.result()
        if through is None:
            self.addCleanup(lambda: Deferred.fromCoroutine(self._away(engine)))
        else:
            self.addCleanup(lambda: Deferred.fromCoroutine(engine.stop()))
        return engine

    async def blobs(self, **options: Any) -> S3Blobs:
        return (await self.engine(**options)).blobs

    async def _away(self, engine: S3Engine) -> None:
        try:
            await engine.blobs.delete_names(await self.names(engine.blobs) or ["none"])
        finally:
            await engine.stop()

    async def proxy(self) -> S3Proxy:
        """Before the store."""
        parts = urlsplit(running.versity().url("blobs"))
        assert parts.hostname is not None and parts.port is not None
        proxy = S3Proxy(self.reactor, parts.hostname, parts.port)
        await proxy.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        return proxy

    async def names(self, blobs: S3Blobs) -> list[str]:
        """Of every object under this test's prefix, without it."""
        prefix = blobs._settings.prefix
        return [name async for name, _ in blobs.names_below(prefix)]

    async def uploads(self, blobs: S3Blobs) -> list[str]:
        """Names of the uploads in parts that are under way under this test's prefix."""
        answer = await self.raw(blobs, "list_multipart_uploads", Prefix=blobs._settings.prefix)
        return [upload["Key"] for upload in answer.get("Uploads", ())]

    async def raw(self, blobs: S3Blobs, operation: str, **parameters: Any) -> Any:
        """A call of the driver, as it is."""
        bucket = blobs._settings.bucket
        return await blobs._calls.run(lambda client: getattr(client, operation)(Bucket=bucket, **parameters))

    async def store(self, blobs: S3Blobs, content: bytes, chunk: int = 65_536) -> BlobRef:
        writer = blobs.writer()
        for at in range(0, len(content), chunk):
            await writer.write(content[at : at + chunk])
        return await writer.finish()

    async def content(self, blobs: S3Blobs, ref: BlobRef, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(await collect(blobs.open(ref, start, end)))
