"""Search shards of every kind and form for the tests, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import SearchDocument, SearchShards
from twisted_mail.storage.memory import MemoryLeases
from twisted_mail.storage.memory.objects import MemoryObjects
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards import LocalShards, SharedShards, WordIndex
from twisted_mail.storage.shards.cache import FolderCache
from twisted_mail.storage.whoosh import WhooshIndex
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["ShardsCase", "documents", "tantivy_index"]


def tantivy_index() -> WordIndex:
    """A counted skip where it is not installed."""
    try:
        from twisted_mail.storage.tantivy import TantivyIndex
    except ImportError as error:
        raise SkipTest("tantivy is not installed") from error
    return TantivyIndex()


def documents(*subjects: str, received: int = 1) -> list[SearchDocument]:
    """One for each of *subjects*, each newer than the one before."""
    return [
        SearchDocument(MessageId.new(), {"subject": subject}, received + at) for at, subject in enumerate(subjects)
    ]


class ShardsCase(EngineCase):
    """One object store in memory and one store of leases; any number of nodes on them, each with its cache."""

    def setUp(self) -> None:
        super().setUp()
        self.objects: Any = MemoryObjects(self.reactor.wall)
        self.leases: Any = MemoryLeases(self.reactor)
        self.account = AccountId.new()

    def index(self) -> WordIndex:
        return WhooshIndex()

    async def node(
        self, *, objects: Objects | None = None, cache: Path | None = None, limit: int = 1 << 30
    ) -> SharedShards:
        """The shards as another node has them."""
        shards = SharedShards(
            self.index(),
            self.objects if objects is None else objects,
            self.leases,
            FolderCache(self.folder() if cache is None else cache, limit),
            self.reactor,
            wall=self.reactor.wall,
        )
        await shards.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(shards.stop()))
        return shards

    async def local(self, folder: Path | None = None) -> LocalShards:
        shards = LocalShards(self.index(), self.folder() if folder is None else folder, self.reactor)
        await shards.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(shards.stop()))
        return shards

    async def found(self, shards: SearchShards, words: str) -> Sequence[MessageId]:
        return list(await shards.query(self.account, words))

    async def filled(self, shards: SearchShards, *subjects: str, modseq: int = 1) -> list[MessageId]:
        """Add one message for each of *subjects*; their ids."""
        added = documents(*subjects, received=modseq)
        await shards.add(self.account, added, ModSeq(modseq))
        return [document.message for document in added]
