"""Blobs as files: ``blobs/ab/cd/<sha256>-<size>`` in the data folder, ``….1`` for generation 1.

A blob is written under a temporary name of the same file system, forced to disk, renamed, and the folder is forced to
disk too; so what has its final name is whole. Options (in the URL's query): ``threads`` (8).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from twisted_mail.storage.files.blobs import FileBlobs
from twisted_mail.storage.interfaces import Engine, EngineContext

__all__ = ["FileBlobs", "FileEngine", "engine"]


class FileEngine:
    """Has blobs only. Implements `Engine`."""

    account_log = messages = lists = references = directory = queue = bus = cache = None
    leases = allowances = records = members = search = None

    def __init__(self, blobs: FileBlobs) -> None:
        self.blobs = blobs

    async def start(self) -> None:
        await self.blobs.start()

    async def stop(self) -> None:
        await self.blobs.close()

    def health(self) -> str | None:
        """A local folder; its failures come with the operation that has them."""
        return None


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of ``file:`` (``blobs`` in the data folder), ``file:///absolute/folder`` and ``file:relative/folder``.

    Raises: ValueError for anything else in the URL.
    """
    parts = urlsplit(url if ":" in url else f"{url}:")
    if parts.netloc or parts.fragment:
        raise ValueError(f"{url!r}: a folder is written file:///path/of/the/folder")
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    unknown = set(options) - {"threads"}
    if unknown:
        raise ValueError(f"{url!r}: no such option: {', '.join(sorted(unknown))}")
    threads = int(options.get("threads", "8"))
    if not 1 <= threads <= 256:
        raise ValueError(f"{url!r}: threads must be 1 to 256")
    path = unquote(parts.path)
    return FileEngine(
        FileBlobs(context.data / (path if path.strip("/") else "blobs"), context.reactor, threads=threads)
    )
