"""Notices, cache, agreement on small things, other nodes, word indexes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = [
    "Allowances",
    "Bus",
    "Cache",
    "Leases",
    "Member",
    "Members",
    "NOWHERE",
    "PutsMany",
    "Record",
    "Records",
    "SearchDocument",
    "SearchShards",
]


class Bus(Protocol):
    """Says that an account has moved. May lose notices: that costs latency, never correctness."""

    def publish(self, account: AccountId, modseq: ModSeq) -> None: ...

    def subscribe(self, account: AccountId, moved: Callable[[ModSeq], None]) -> Callable[[], None]:
        """Call *moved* (in the reactor's thread, never within `subscribe` or `publish`) for notices; returns the end of it."""


class Cache(Protocol):
    """Small values (at most 64 KiB) and counters that may be lost at any time."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Raises: ValueError above 64 KiB."""

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        """Add to a counter, which starts at 0 and lives *ttl* seconds from its first increment; returns the sum."""


class Leases(Protocol):
    """Named exclusive rights that run out; the fencing number of a name only ascends."""

    async def acquire(self, name: str, ttl: float) -> int | None:
        """A fencing number, or None while another holds it."""

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        """False: it was lost."""

    async def release(self, name: str, number: int) -> None:
        """Give it back; a number that is not the holder's changes nothing."""


class Allowances(Protocol):
    """Durable counts over all nodes (warm-up, sending limits), taken in blocks. What a crashed node held is forfeited."""

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        """Take up to *n* of what is left of *limit* for *name* on *day* (days since 1970); returns how many (0..n)."""

    async def taken(self, name: str, day: int) -> int:
        """How many were taken."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value of a space. Raises: ValueError for what no engine takes."""

    key: str
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) > 64 * 1024:
            raise ValueError(f"a record of {len(self.value)} octets")
        if not 0 < len(self.key.encode()) <= 512:
            raise ValueError("the key of a record has 1 to 512 octets")


class Records(Protocol):
    """Small values that last, by space and key: a suppressed address, a policy, one step of a message's way.

    A space is read and kept as one (in CQL: a partition), so one that may have more than some 10,000 keys is cut by its
    owner, who puts a hash into its name. Who writes last wins; what ran out is not seen any more.
    """

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        """Keep *value* for *ttl* seconds (None: for good). Raises: ValueError (a value above 64 KiB, a name above 512 octets)."""

    async def get(self, space: str, key: str) -> bytes | None: ...

    async def delete(self, space: str, key: str) -> None:
        """Nothing happens if there is none."""

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """By key (code points), those after *after*."""


@runtime_checkable
class PutsMany(Protocol):
    """An optional ability of `Records`: many at a time cost little more than one."""

    async def put_many(self, records: Sequence[tuple[str, str, bytes, float | None]]) -> None:
        """As `put` for each (space, key, value, ttl): all of them, or none."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node that is alive."""

    node: str
    roles: frozenset[str]
    datacenter: str = ""


class Members(Protocol):
    """Who is alive, who prefers which account, and how to reach them.

    An optimisation within a data centre; between two of them, the only way to change an account that is at home in
    the other.
    """

    async def join(
        self, node: str, roles: frozenset[str], serve: Callable[[AccountId, bytes], Any], datacenter: str = ""
    ) -> None:
        """Become *node*; *serve* answers (an awaitable of octets) what others forward."""

    async def leave(self) -> None: ...

    async def alive(self) -> Sequence[Member]:
        """By node name."""

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        """The node that rendezvous hashing prefers among those alive in *datacenter* (None: anywhere); None if nobody is."""

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        """Have the owner serve *request*.

        Raises: Refused (it was not sent), Unavailable (whether it was carried out is not known).
        """


@dataclass(frozen=True, slots=True)
class SearchDocument:
    """What is indexed of a message."""

    message: MessageId
    fields: Mapping[str, str]
    """``subject``, ``from``, ``to``, ``cc``, ``bcc``, ``body``, ``attachment``."""
    received: int


NOWHERE: Final = ModSeq(0)


class SearchShards(Protocol):
    """One word index per account. Derived: may always be rebuilt, and one that is lost is an empty one at modseq 0.

    Every operation raises Unavailable where it cannot be carried out now: another writes the shard, the store does not
    answer, or the shard was just found to be lost. Who searches then reads the stored text instead.
    """

    async def add(
        self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        """Add messages, or replace them; `reached` is *modseq* then.

        Where it is higher already nothing is done: what was added up to there may have been removed since. An entry's
        messages that come in parts are added under the number before it, and the last ones under its own.
        *after* is what the caller goes on from. Raises: Conflict (the shard has not come so far, since it was lost;
        nothing was written).
        """

    async def remove(
        self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        """Forget messages; those that are not there are no error. *modseq* and *after* as for `add`."""

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        """Messages in which every one of *words* occurs in some of *fields* (none named: any), newest first."""

    async def reached(self, account: AccountId) -> ModSeq:
        """How far the shard has come; 0 where there is none, or where it was lost."""

    async def drop(self, account: AccountId) -> None:
        """Forget the shard (its account was deleted, or it is to be filled anew)."""
