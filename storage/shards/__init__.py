"""Search shards over any word index that is a folder of files: local ones, and ones kept in an object store.

An index (`WordIndex`: Whoosh, Tantivy) knows words and nothing of where it lies; `LocalShards` keeps each account's in a
folder of its own; `SharedShards` keeps its files in the object store and opens them through a bounded local cache.
"""

from __future__ import annotations

from twisted_mail.storage.shards.engine import ShardsEngine, build
from twisted_mail.storage.shards.indexing import FIELDS, WordIndex, words_of
from twisted_mail.storage.shards.local import LocalShards
from twisted_mail.storage.shards.shared import SharedShards

__all__ = ["FIELDS", "LocalShards", "ShardsEngine", "SharedShards", "WordIndex", "build", "words_of"]
