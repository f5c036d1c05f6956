"""Word indexes with Whoosh, pure Python: a folder per account in the data folder. Has the search shards only.

Writers of one shard must not meet: whoever writes holds a lease on it, or is the only process.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from twisted_mail.storage.interfaces import Engine, EngineContext
from twisted_mail.storage.whoosh.shards import WhooshSearchShards

__all__ = ["WhooshEngine", "WhooshSearchShards", "engine"]


class WhooshEngine:
    """Implements `Engine`."""

    account_log = messages = lists = blobs = references = directory = queue = bus = cache = leases = allowances = members = None

    def __init__(self, search: WhooshSearchShards) -> None:
        self.search = search

    async def start(self) -> None:
        self.search.start()

    async def stop(self) -> None:
        self.search.stop()

    def health(self) -> str | None:
        """A local folder; its failures come with the operation that has them."""
        return None


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of ``whoosh:`` (``search`` in the data folder) and ``whoosh:///absolute/folder``.

    Raises: ValueError for anything else in the URL.
    """
    parts = urlsplit(url if ":" in url else f"{url}:")
    if parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: a folder is written whoosh:///path/of/the/folder")
    path = unquote(parts.path)
    return WhooshEngine(
        WhooshSearchShards(context.data / (path if path.strip("/") else "search"), context.reactor)
    )
