"""The engine of a word index: in local folders, or beside the blobs where those lie in an object store.

Options in the URL's query: ``shards`` (``auto``; ``local``: in local folders in any case) and ``cache`` (octets of local
disk for shards of the object store, of each process; 1 GiB).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted_mail.storage.interfaces import Engine, EngineContext, Leases
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards.cache import FolderCache
from twisted_mail.storage.shards.indexing import WordIndex
from twisted_mail.storage.shards.local import LocalShards
from twisted_mail.storage.shards.shared import SharedShards

__all__ = ["ShardsEngine", "build"]

CACHE_BYTES: Final = 1 << 30
LEAST_CACHE_BYTES: Final = 1 << 20


class ShardsEngine:
    """Has search only. Implements `Engine`."""

    account_log = messages = lists = blobs = references = directory = queue = bus = cache = leases = allowances = (
        members
    ) = None
    records = None

    def __init__(
        self, index: WordIndex, folder: Path, cache: Path, reactor: Any, *, local: bool, cache_bytes: int
    ) -> None:
        self._index = index
        self._cache = FolderCache(cache, cache_bytes)
        self._reactor = reactor
        self._local = local
        self.search: LocalShards | SharedShards = LocalShards(index, folder, reactor)

    def keep_in(self, objects: Objects, leases: Leases) -> None:
        """Before the start: there is an object store, and leases that hold wherever it is reached."""
        if not self._local:
            self.search = SharedShards(self._index, objects, leases, self._cache, self._reactor)

    async def start(self) -> None:
        await self.search.start()

    async def stop(self) -> None:
        await self.search.stop()

    def health(self) -> str | None:
        """Searches do without; what is the matter with the object store is said by its own engine."""
        return None


def build(index: WordIndex, url: str, context: EngineContext) -> Engine:
    """The engine of *index*. Raises: ValueError for what *url* may not say."""
    parts = urlsplit(url if ":" in url else f"{url}:")
    if parts.netloc or parts.fragment:
        raise ValueError(f"{url!r}: a folder is written {parts.scheme}:///path/of/the/folder")
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    unknown = set(options) - {"shards", "cache"}
    if unknown:
        raise ValueError(f"{url!r}: no such option: {', '.join(sorted(unknown))}")
    where, octets = options.get("shards", "auto"), options.get("cache", str(CACHE_BYTES))
    if where not in ("auto", "local"):
        raise ValueError(f"{url!r}: shards is auto or local")
    if not octets.isdecimal() or int(octets) < LEAST_CACHE_BYTES:
        raise ValueError(f"{url!r}: cache is a number of octets, {LEAST_CACHE_BYTES} or more")
    path = unquote(parts.path)
    return ShardsEngine(
        index,
        context.data / (path if path.strip("/") else "search"),
        context.data / "search-cache" / index.kind,
        context.reactor,
        local=where == "local",
        cache_bytes=int(octets),
    )
