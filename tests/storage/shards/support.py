"""Search shards of every kind and form for the tests, and what is asked of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import SearchDocument, SearchShards
from twisted_mail.storage.memory import MemoryLeases
from twisted_mail.storage.memory.objects import MemoryObjects
from twisted_mail.storage.objects import Objects, StoredObject
from twisted_mail.storage.shards import LocalShards, SharedShards, WordIndex
from twisted_mail.storage.shards.cache import FolderCache
from twisted_mail.storage.whoosh import WhooshIndex
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["HookedObjects", "ShardsCase", "documents", "tantivy_index"]


T = TypeVar("T")


def tantivy_index() -> WordIndex:
    """A counted skip where it is not installed."""
    try:
        from twisted_mail.storage.tantivy import TantivyIndex
    except ImportError as error:
        raise SkipTest("tantivy is not installed") from error
    return TantivyIndex()


def documents(*subjects: str, received: int = 1) -> list[SearchDocument]:
    """One for each of *subjects*, each newer than the one before."""
    return [SearchDocument(MessageId.new(), {"subject": subject}, received + at) for at, subject in enumerate(subjects)]


Hook = Callable[[str, str], Awaitable[None] | None]


class HookedObjects:
    """Objects that call `before` and `after` with each operation and name; either may raise, or wait."""

    def __init__(self, inner: Objects) -> None:
        self.inner = inner
        self.seen: list[tuple[str, str]] = []
        """Each operation and name since `forget`."""
        self.before: Hook = lambda operation, name: None
        self.after: Hook = lambda operation, name: None

    def parts(self, operation: str) -> int:
        """On how many parts *operation* was done."""
        return sum(done == operation and not name.endswith("/manifest") for done, name in self.seen)

    async def _do(self, operation: str, name: str, act: Callable[[], Awaitable[T]]) -> T:
        self.seen.append((operation, name))
        waiting = self.before(operation, name)
        if waiting is not None:
            await waiting
        result = await act()
        waiting = self.after(operation, name)
        if waiting is not None:
            await waiting
        return result

    async def get(self, name: str, unless: str | None = None) -> StoredObject | None:
        return await self._do("get", name, lambda: self.inner.get(name, unless))

    async def put(self, name: str, data: bytes) -> None:
        await self._do("put", name, lambda: self.inner.put(name, data))

    async def swap(self, name: str, data: bytes, version: str | None) -> str:
        return await self._do("swap", name, lambda: self.inner.swap(name, data, version))

    async def delete(self, names: Sequence[str]) -> None:
        await self._do("delete", " ".join(names), lambda: self.inner.delete(names))

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        self.seen.append(("list", prefix))
        self.before("list", prefix)
        async for item in self.inner.list(prefix):
            yield item


class ShardsCase(EngineCase):
    """One object store in memory and one store of leases; any number of nodes on them, each with its cache."""

    def setUp(self) -> None:
        super().setUp()
        self.objects = HookedObjects(MemoryObjects(self.reactor.wall))
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
