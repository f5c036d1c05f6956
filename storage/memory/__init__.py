"""Every store in this process's memory: for tests, and for trying the suite without a trace.

No coroutine of this engine ever suspends, so callers can be driven without a reactor. Nothing outlives the process.
"""

from __future__ import annotations

from twisted_mail.storage.interfaces import Engine, EngineContext
from twisted_mail.storage.memory.blobs import MemoryBlobs
from twisted_mail.storage.memory.directory import MemoryDirectory
from twisted_mail.storage.memory.log import MemoryAccountLog
from twisted_mail.storage.memory.messages import MemoryLists, MemoryMessages
from twisted_mail.storage.memory.queue import MemoryQueue
from twisted_mail.storage.memory.records import MemoryRecords
from twisted_mail.storage.memory.references import MemoryReferences
from twisted_mail.storage.memory.search import MemorySearchShards
from twisted_mail.storage.memory.small import MemoryAllowances, MemoryBus, MemoryCache, MemoryLeases, MemoryMembers

__all__ = [
    "MemoryAccountLog",
    "MemoryAllowances",
    "MemoryBlobs",
    "MemoryBus",
    "MemoryCache",
    "MemoryDirectory",
    "MemoryEngine",
    "MemoryLeases",
    "MemoryLists",
    "MemoryMembers",
    "MemoryMessages",
    "MemoryQueue",
    "MemoryRecords",
    "MemoryReferences",
    "MemorySearchShards",
    "engine",
]


class MemoryEngine:
    """Has every store. Implements `Engine`."""

    def __init__(self, context: EngineContext) -> None:
        clock = context.reactor
        self.account_log = MemoryAccountLog()
        self.messages = MemoryMessages()
        self.lists = MemoryLists()
        self.blobs = MemoryBlobs()
        self.references = MemoryReferences()
        self.directory = MemoryDirectory()
        self.queue = MemoryQueue(clock)
        self.bus = MemoryBus(clock)
        self.cache = MemoryCache(clock)
        self.leases = MemoryLeases(clock)
        self.allowances = MemoryAllowances()
        self.records = MemoryRecords(clock)
        self.members = MemoryMembers()
        self.search = MemorySearchShards()

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close; what was stored stays until the engine goes."""

    def health(self) -> str | None:
        """Always well."""
        return None


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of ``memory:`` URLs. Raises: ValueError if there is anything behind the scheme."""
    if url.rstrip(":/").lower() != "memory":
        raise ValueError(f"{url!r}: nothing may follow memory:")
    return MemoryEngine(context)
