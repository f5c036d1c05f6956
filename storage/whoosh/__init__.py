"""Word indexes with Whoosh, pure Python and always there. Has the search shards only.

``whoosh:`` keeps them in ``search`` in the data folder, ``whoosh:///absolute/folder`` in that folder; beside an object
store they lie there instead (`storage.shards.engine` has the options).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from twisted_mail.storage.interfaces import Engine, EngineContext, SearchDocument
from twisted_mail.storage.shards.engine import build
from twisted_mail.values import MessageId

__all__ = ["WhooshIndex", "engine"]


class WhooshIndex:
    """Implements `WordIndex`. Whoosh takes a second to import, so that is done in the thread that first needs it."""

    kind: Final = "whoosh-1"

    def exists(self, folder: Path) -> bool:
        # without asking Whoosh, so that an account without a shard costs nothing
        return any(folder.glob("_MAIN_*.toc"))

    def change(self, folder: Path, documents: Sequence[SearchDocument], removed: Sequence[MessageId]) -> None:
        from twisted_mail.storage.whoosh import index

        index.change(folder, documents, removed)

    def query(self, folder: Path, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
        from twisted_mail.storage.whoosh import index

        return index.search(folder, words, fields, limit)

    def files(self, folder: Path) -> list[str]:
        from twisted_mail.storage.whoosh import index

        return index.files(folder)


def engine(url: str, context: EngineContext) -> Engine:
    """Raises: ValueError for what the URL may not say."""
    return build(WhooshIndex(), url, context)
