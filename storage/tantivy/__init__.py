"""Word indexes with Tantivy: a library in Rust, some fifty times as fast as Whoosh. Has the search shards only.

``tantivy:`` keeps them in ``search`` in the data folder, ``tantivy:///absolute/folder`` in that folder; beside an object
store they lie there instead (`storage.shards.engine` has the options).
"""

from __future__ import annotations

from twisted_mail.storage.interfaces import Engine, EngineContext
from twisted_mail.storage.shards.engine import build
from twisted_mail.storage.tantivy.index import TantivyIndex

__all__ = ["TantivyIndex", "engine"]


def engine(url: str, context: EngineContext) -> Engine:
    """Raises: ValueError for what the URL may not say."""
    return build(TantivyIndex(), url, context)
