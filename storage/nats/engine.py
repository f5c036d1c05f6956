"""The engine: queue, notices, cache and members on NATS with JetStream."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Final

from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.storage.memory.small import MemoryCache
from twisted_mail.storage.nats.bodies import QueueBodies
from twisted_mail.storage.nats.bus import NATSBus
from twisted_mail.storage.nats.cache import NATSCache
from twisted_mail.storage.nats.jetstream import JetStream
from twisted_mail.storage.nats.link import Link
from twisted_mail.storage.nats.members import NATSMembers
from twisted_mail.storage.nats.queue import NATSQueue
from twisted_mail.storage.nats.settings import Settings

__all__ = ["NATSEngine", "engine"]

WORKERS: Final = {"inbound": "delivery", "outbound": "relay", "bulk": "relay"}
"""The role whose nodes share the shards of a use among them."""

CACHE_SECONDS: Final = 1.5
"""A cache that takes longer is none."""


class NATSEngine:
    """Implements `Engine`. `start` needs a server that answers; afterwards it waits for them for ever."""

    account_log = None
    messages = None
    lists = None
    blobs = None
    references = None
    directory = None
    leases = None
    allowances = None
    records = None
    search = None

    def __init__(self, settings: Settings, context: EngineContext, *, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._link = Link(settings, context.reactor, wall)
        self.jetstream = JetStream(self._link)
        self.members = NATSMembers(self._link)
        self.queue = NATSQueue(self.jetstream, context.reactor.seconds, self._shards)
        self.bus = NATSBus(self._link, context.reactor)
        quick = JetStream(self._link, min(CACHE_SECONDS, settings.request))
        self.cache = NATSCache(self.jetstream, quick, MemoryCache(context.reactor))
        self.queue_bodies = QueueBodies(self.jetstream)
        """Bodies of queued items while the object store is down: a bounded `Blobs`."""

    async def start(self) -> None:
        await self._link.start()
        try:
            await self._link.run(self._start())
        except BaseException:
            await self._link.stop()
            raise

    async def _start(self) -> None:
        replicas = self.settings.replicas
        self.jetstream.replicas = replicas or (3 if self._link.servers_known >= 3 else 1)
        await self.jetstream.api("INFO")
        await self.queue.start()
        await self.cache.start()
        await self.queue_bodies.start()
        await self.bus.start()
        await self.members.start()

    async def stop(self) -> None:
        await self._link.run(self._stop())
        await self._link.stop()

    async def _stop(self) -> None:
        await self.members.stop()
        await self.queue.stop()
        await self.bus.stop()

    def health(self) -> str | None:
        return self._link.health()

    def _shards(self, use: str, shards: int) -> Collection[int] | None:
        """Rendezvous over the nodes that work on *use*, so that each shard has one of them."""
        me, nodes = self.members.present(WORKERS[use])
        if me not in nodes:
            return None
        return [shard for shard in range(shards) if _preferred(use, shard, nodes) == me]


def _preferred(use: str, shard: int, nodes: Collection[str]) -> str:
    return max(nodes, key=lambda node: blake2b(f"{use} {shard} {node}".encode(), digest_size=8).digest())


def engine(url: str, context: EngineContext) -> NATSEngine:
    """Build the engine for *url*. Raises: ValueError."""
    return NATSEngine(Settings.parse(url, context.options), context)
