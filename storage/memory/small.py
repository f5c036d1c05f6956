"""Notifications, cache, leases, allowances and members within this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Member, Refused
from twisted_mail.values import AccountId, ModSeq

__all__ = ["MAX_CACHED", "MemoryAllowances", "MemoryBus", "MemoryCache", "MemoryLeases", "MemoryMembers", "preferred"]

MAX_CACHED: Final = 65_536
"""Octets of one cached value."""


class MemoryBus:
    """Implements `Bus`: notices go out in the reactor's next turn, the newest one of an account only."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._subscribers: dict[AccountId, list[Callable[[ModSeq], None]]] = {}
        self._pending: dict[AccountId, ModSeq] = {}

    def publish(self, account: AccountId, modseq: ModSeq) -> None:
        if account not in self._subscribers:
            return
        if not self._pending:
            self._clock.callLater(0, self._deliver)
        self._pending[account] = max(modseq, self._pending.get(account, modseq))

    def subscribe(self, account: AccountId, moved: Callable[[ModSeq], None]) -> Callable[[], None]:
        self._subscribers.setdefault(account, []).append(moved)

        def end() -> None:
            present = self._subscribers.get(account, [])
            if moved in present:
                present.remove(moved)
                if not present:
                    del self._subscribers[account]

        return end

    def _deliver(self) -> None:
        pending, self._pending = self._pending, {}
        for account, modseq in pending.items():
            for moved in list(self._subscribers.get(account, ())):
                try:
                    moved(modseq)
                except Exception:
                    self._log.failure("a subscriber of account {account} failed", account=account)


class MemoryCache:
    """Implements `Cache`. Above `limit` keys those that run out first are lost."""

    def __init__(self, clock: IReactorTime, limit: int = 100_000) -> None:
        self._clock = clock
        self._limit = limit
        self._values: dict[str, tuple[bytes, float]] = {}
        self._counters: dict[str, tuple[int, float]] = {}

    async def get(self, key: str) -> bytes | None:
        value, expires = self._values.get(key, (None, 0.0))
        if value is not None and expires <= self._clock.seconds():
            del self._values[key]
            return None
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        if len(value) > MAX_CACHED:
            raise ValueError(f"a cached value has at most {MAX_CACHED} octets")
        self._make_room()
        self._values[key] = (value, self._clock.seconds() + ttl)

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        return self.count(key, ttl, by)

    def count(self, key: str, ttl: float, by: int) -> int:
        """`increment` for callers that cannot await."""
        now = self._clock.seconds()
        total, expires = self._counters.get(key, (0, 0.0))
        if expires <= now:
            self._make_room()
            total, expires = 0, now + ttl
        self._counters[key] = (total + by, expires)
        return total + by

    def _make_room(self) -> None:
        if len(self._values) + len(self._counters) < self._limit:
            return
        now = self._clock.seconds()
        # a tenth at once, so that a full cache is not sorted for every key
        for kept in (self._values, self._counters):
            order = sorted((expires, key) for key, (_, expires) in kept.items())
            for at, (expires, key) in enumerate(order):
                if expires > now and at >= len(order) // 10:
                    break
                del kept[key]


class MemoryLeases:
    """Implements `Leases`."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._leases: dict[str, tuple[int, float]] = {}

    async def acquire(self, name: str, ttl: float) -> int | None:
        now = self._clock.seconds()
        number, expires = self._leases.get(name, (0, 0.0))
        if expires > now:
            return None
        self._leases[name] = (number + 1, now + ttl)
        return number + 1

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        now = self._clock.seconds()
        holder, expires = self._leases.get(name, (0, 0.0))
        if holder != number or expires <= now:
            return False
        self._leases[name] = (number, now + ttl)
        return True

    async def release(self, name: str, number: int) -> None:
        if self._leases.get(name, (0, 0.0))[0] == number:
            self._leases[name] = (number, 0.0)


class MemoryAllowances:
    """Implements `Allowances`."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], int] = {}

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        before = self._taken.get((name, day), 0)
        got = max(0, min(n, limit - before))
        if got:
            self._taken[name, day] = before + got
        return got

    async def taken(self, name: str, day: int) -> int:
        return self._taken.get((name, day), 0)


def preferred(account: AccountId, nodes: Iterable[str]) -> str | None:
    """The node of *nodes* with the highest hash together with *account* (rendezvous hashing); None of none."""
    return max(nodes, key=lambda node: blake2b(account.octets + node.encode(), digest_size=8).digest(), default=None)


class MemoryMembers:
    """Implements `Members` for a node that is alone."""

    def __init__(self) -> None:
        self._self: Member | None = None
        # the answer's type is the caller's business: an awaitable of octets
        self._serve: Callable[[AccountId, bytes], Awaitable[bytes]] | None = None

    async def join(
        self, node: str, roles: frozenset[str], serve: Callable[[AccountId, bytes], Any], datacenter: str = ""
    ) -> None:
        self._self, self._serve = Member(node, roles, datacenter), serve

    async def leave(self) -> None:
        self._self = self._serve = None

    async def alive(self) -> Sequence[Member]:
        return [] if self._self is None else [self._self]

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        return preferred(
            account, (each.node for each in await self.alive() if datacenter is None or each.datacenter == datacenter)
        )

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        if self._serve is None or await self.owner(account, datacenter) is None:
            raise Refused("no node is alive")
        return await self._serve(account, request)
