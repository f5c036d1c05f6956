"""Blobs in an object store that speaks S3's protocol.

``s3://KEY:SECRET@HOST:PORT/BUCKET``, with options in the query: ``tls`` (true), ``ca`` (a file), ``region`` (us-east-1),
``prefix``, ``addressing`` (path, or virtual), ``threads`` (32), ``timeout`` (seconds that a call is repeated, 10),
``credentials`` (``env`` or ``file:PATH``), ``encryption`` (``off``, ``file:PATH`` or ``keys:KEY,KEY``).
"""

from __future__ import annotations

from twisted_mail.storage.interfaces import Engine, EngineContext, StorageError
from twisted_mail.storage.s3.blobs import S3Blobs
from twisted_mail.storage.s3.calls import Calls
from twisted_mail.storage.s3.objects import S3Objects
from twisted_mail.storage.s3.options import Settings, parse

__all__ = ["S3Blobs", "S3Engine", "S3Objects", "Settings", "engine"]


class S3Engine:
    """Has blobs, and objects beside them. Implements `Engine` and `KeepsObjects`."""

    account_log = messages = lists = references = directory = queue = bus = cache = None
    leases = allowances = records = members = search = None

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.blobs = S3Blobs(calls)
        self.objects = S3Objects(calls, self.blobs.names_below, self.blobs.delete_names)

    async def start(self) -> None:
        try:
            await self.blobs.start()
        except StorageError:
            await self.blobs.stop()
            raise

    async def stop(self) -> None:
        await self.blobs.stop()

    def health(self) -> str | None:
        """What made the last call fail for good, until one is answered; it is asked on its own meanwhile."""
        trouble = self._calls.trouble
        return None if trouble is None else f"{self._calls.settings.place}: {trouble}"


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of *url*; files that it names relatively start from the data folder. Raises: ValueError."""
    return S3Engine(Calls(parse(url, context.data), context.reactor))
