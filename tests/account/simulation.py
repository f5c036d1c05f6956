"""A store whose every step is taken by hand: operations wait until the test lets one go, and says how it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from twisted_mail.storage.interfaces import (
    Checkpoint,
    Conflict,
    LogEntry,
    NewEntry,
    Refused,
    Trimmed,
    Unavailable,
)
from twisted_mail.values import AccountId, EntryId, ModSeq


@dataclass
class Shared:
    """What is durable: the log and the checkpoints of one account."""

    entries: list[LogEntry] = field(default_factory=list)
    trimmed: int = 0
    pointer: int = 0
    manifests: dict[int, dict[str, ModSeq]] = field(default_factory=dict)
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)
    late: list[tuple[int, tuple[NewEntry, ...]]] = field(default_factory=list)
    """Appends whose outcome is open: they may still be applied, until a settling read decides."""
    appended: Callable[[LogEntry], None] | None = None

    @property
    def head(self) -> int:
        return len(self.entries)

    def append(self, expected: int, new: Sequence[NewEntry]) -> None:
        """The compare-and-set itself. Raises Conflict."""
        if expected != self.head:
            raise Conflict(f"head is {self.head}")
        for entry in new:
            logged = LogEntry(ModSeq(self.head + 1), entry.id, entry.data)
            self.entries.append(logged)
            if self.appended is not None:
                self.appended(logged)


class Step:
    """An operation that waits to be let go."""

    def __init__(self, name: str, act: Callable[[str], Any], node: SimulatedLog) -> None:
        self.name, self.act, self.node = name, act, node
        self.done: Deferred[Any] = Deferred(lambda deferred: None)

    def go(self, outcome: str = "ok") -> None:
        """Carry it out. *outcome*: ok, refused, lost (not applied, unknown), hidden (applied, unknown), late."""
        self.node.steps.remove(self)
        if self.node.dead:
            self.node.abandoned.append(self)  # what waits for it must not be collected, and so ended, at a random time
        try:
            result = self.act(outcome)
        except Exception as error:
            if not self.node.dead and not self.done.called:
                self.done.errback(error)
        else:
            if not self.node.dead and not self.done.called:
                self.done.callback(result)


class SimulatedLog:
    """Implements `AccountLog` for one node over what the nodes share."""

    def __init__(self, shared: Shared, *, by_hand: bool = True) -> None:
        self.shared = shared
        self.steps: list[Step] = []
        self.abandoned: list[Step] = []
        self.dead = False
        self.by_hand = by_hand

    async def _step(self, name: str, act: Callable[[str], Any]) -> Any:
        if not self.by_hand:
            return act("ok")
        step = Step(name, act, self)
        self.steps.append(step)
        return await step.done

    async def head(self, account: AccountId) -> ModSeq:
        def act(outcome: str) -> ModSeq:
            _read_fails(outcome)
            return ModSeq(self.shared.head)

        result: ModSeq = await self._step("head", act)
        return result

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        def act(outcome: str) -> Sequence[LogEntry]:
            _read_fails(outcome)
            if after < self.shared.trimmed:
                raise Trimmed(str(after))
            return self.shared.entries[after : None if limit is None else after + limit]

        result: Sequence[LogEntry] = await self._step("read", act)
        return result

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        def act(outcome: str) -> ModSeq:
            if outcome == "refused":
                raise Refused("not now")
            if outcome == "lost":
                raise Unavailable("time-out")
            if outcome == "late":
                self.shared.late.append((expected, tuple(entries)))
                raise Unavailable("time-out")
            self.shared.append(expected, entries)
            if outcome == "hidden":
                raise Unavailable("time-out")
            if outcome == "mistaken":  # a retry inside the store met our own entry
                raise Conflict("our own")
            return ModSeq(self.shared.head)

        result: ModSeq = await self._step("append", act)
        return result

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        def act(outcome: str) -> bool:
            _read_fails(outcome)
            # a settling read decides what was open: it completes it if it can, or it never comes
            for item in list(self.shared.late):
                if [entry.id for entry in item[1]] == list(ids):
                    self.shared.late.remove(item)
                    if outcome != "never" and item[0] == self.shared.head:
                        self.shared.append(*item)
            return [entry.id for entry in self.shared.entries[expected : expected + len(ids)]] == list(ids)

        result: bool = await self._step("settle", act)
        return result

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        def act(outcome: str) -> Checkpoint | None:
            _read_fails(outcome)
            shared = self.shared
            if not shared.pointer:
                return None
            manifest = shared.manifests[shared.pointer]
            wanted = manifest if chunks is None else [name for name in chunks if name in manifest]
            return Checkpoint(
                ModSeq(shared.pointer), manifest, {name: shared.chunks[name, manifest[name]] for name in wanted}
            )

        result: Checkpoint | None = await self._step("load", act)
        return result

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        def act(outcome: str) -> None:
            shared = self.shared
            if outcome in ("refused", "lost", "late"):
                raise Unavailable("time-out")
            if previous != shared.pointer:
                raise Conflict("another checkpoint")
            for name, data in changed.items():
                shared.chunks[name, modseq] = data
            shared.manifests[modseq] = {**kept, **dict.fromkeys(changed, modseq)}
            for name, written in shared.manifests[modseq].items():
                assert (name, written) in shared.chunks, f"{name} is named and not there"
            shared.pointer = modseq
            for old in sorted(shared.manifests)[:-2]:
                del shared.manifests[old]
            named = {item for manifest in shared.manifests.values() for item in manifest.items()}
            shared.chunks = {key: data for key, data in shared.chunks.items() if key in named}
            if outcome in ("hidden", "mistaken"):
                raise Unavailable("time-out")

        await self._step("save", act)

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        def act(outcome: str) -> None:
            kept = sorted(self.shared.manifests)[:1] or [0]
            self.shared.trimmed = max(self.shared.trimmed, min(through, kept[0]))

        await self._step("trim", act)

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        raise AssertionError("not simulated")

    async def erase(self, account: AccountId) -> None:
        raise AssertionError("not simulated")


def _read_fails(outcome: str) -> None:
    if outcome in ("refused", "lost", "late", "hidden"):
        raise Unavailable("time-out")
