"""What the tests of streams, pools and warm-up share: stores in memory, and coroutines that never wait."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.plans import Plans
from twisted_mail.relay.pools import Departure, Grant, Pool, PoolAddress, Pools, Wait
from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams
from twisted_mail.relay.warm_up import WarmUpSettings
from twisted_mail.storage.memory import MemoryAllowances, MemoryRecords

T = TypeVar("T")
DAY = 86_400
FIRST = 20_000
"""The first day of plans in tests (days since 1970)."""
AT_ONCE = WarmUpSettings(hours=1)


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over stores in memory, which never wait."""
    done: list[T] = []
    failed: list[BaseException] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(done.append, lambda failure: failed.append(failure.value))
    if failed:
        raise failed[0]
    return done[0]


class Stores:
    """Shared by nodes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.allowances = MemoryAllowances()
        self.records = MemoryRecords(self.clock)

    def plans(self, settings: WarmUpSettings = AT_ONCE) -> Plans:
        return Plans(self.records, self.allowances, settings)

    def node(self, pools: Sequence[Pool], streams: Streams, settings: WarmUpSettings = AT_ONCE) -> Pools:
        return Pools(pools, streams, self.plans(settings), Blocks(self.allowances))


def pool(name: str, *addresses: str, **more: Any) -> Pool:
    return Pool(name, tuple(PoolAddress(each, f"mx.{name}.example") for each in addresses), **more)


def streams(**pools: Sequence[str]) -> Streams:
    return Streams([Stream(name, tuple(of), Match(sender=(f"{name}.example",))) for name, of in pools.items() if name != NORMAL]
                   + [Stream(NORMAL, tuple(pools.get(NORMAL, ("main",))))])  # fmt: skip


def leave(node: Pools, stream: str, at: float, **facts: Any) -> Grant | Wait:
    return now(node.source(stream, Departure(**{"destination": "google.com", **facts}), at))


def granted(node: Pools, stream: str, at: float, **facts: Any) -> Grant:
    found = leave(node, stream, at, **facts)
    assert isinstance(found, Grant), found
    return found
