"""The account's log: the truth, and its checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted_mail.values import AccountId, EntryId, ModSeq

__all__ = ["AccountLog", "BoundedAppends", "Checkpoint", "DegradedReads", "LogEntry", "NewEntry"]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry before it has a number; opaque to an engine but for its id."""

    id: EntryId
    data: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry at its place."""

    modseq: ModSeq
    id: EntryId
    data: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A manifest, with those of its chunks that were asked for."""

    modseq: ModSeq
    """The state that this checkpoint is of."""
    manifest: Mapping[str, ModSeq]
    """Each chunk's name, and the number of the checkpoint that wrote it."""
    chunks: Mapping[str, bytes]


class AccountLog(Protocol):
    """One dense log per account, and its checkpoints. `append` is the only operation on mail that needs agreement."""

    async def head(self, account: AccountId) -> ModSeq:
        """The newest number, 0 for an account that has no entry. Linearizable with `append`."""

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """The entries ``after + 1``, … without a gap, at most *limit*. Raises: Trimmed if ``after + 1`` is gone."""

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        """Write *entries* as numbers ``expected + 1``, … if the account still stands at *expected*; returns the new head.

        Durable once this returns; all of them or none. Raises: Conflict (the head has moved; nothing was written),
        Refused (nothing was written), Unavailable (the outcome is not known: call `settle` until it answers).
        """

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        """Whether the append of *ids* on top of *expected* happened. False means that it never will.

        Raises: Unavailable (still not known), Trimmed (the slots are gone).
        """

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        """The newest checkpoint with those of *chunks* that it names (None: all); None if there is none yet."""

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        """Make the checkpoint of state *modseq*: chunks *changed* are written, *kept* are named as they were.

        The pointer moves by compare-and-set from *previous* (0: none yet) to *modseq*, which is greater.
        The newest two manifests stay, and every chunk that one of them names; the rest may be deleted.
        Raises: Conflict (another checkpoint was made; nothing is visible of this one).
        """

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        """Forget the entries up to and including *through*; never above the older kept manifest (that part is ignored)."""

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        """Begin the log of an account that has none at *modseq*, with the checkpoint *chunks* of that state.

        For accounts that come from another store, where the entries up to *modseq* have been trimmed. When it fails
        midway nothing is visible, and it may be repeated. Raises: Conflict (the account has a log already).
        """

    async def erase(self, account: AccountId) -> None:
        """Forget the account: its entries, checkpoints and head (the user was deleted)."""


class DegradedReads(Protocol):
    """An optional ability of an `AccountLog` whose copies lie on several machines: what any one copy says.

    For reads while no quorum answers, which must say so to whoever gets them: what comes back was the truth once, a
    prefix of the log without a gap, but newer entries may exist. It is never older than what it says: the state made of
    it can be brought up to date by reading on from its modseq. Raises: Unavailable (no copy answers, or this is off).
    """

    async def load_checkpoint_stale(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        """As `AccountLog.load_checkpoint`."""

    async def read_stale(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """As `AccountLog.read`; ends at the first gap."""


class BoundedAppends(Protocol):
    """An optional ability of an `AccountLog`: it says how much one append may hold."""

    @property
    def max_append_bytes(self) -> int:
        """Octets of entries' data, and 64 for each entry. `append` raises Refused above it."""

    @property
    def max_entry_bytes(self) -> int:
        """The same for an append of a single entry, which cannot be made smaller; not below the other."""
