"""`AccountLog` against a model of dicts: whatever is asked in whatever order, every engine answers as the model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import AccountLog, Conflict, NewEntry, StorageError, Trimmed
from twisted_mail.storage.memory import MemoryAccountLog
from twisted_mail.values import AccountId, EntryId, ModSeq

ACCOUNTS = 2
CHUNKS = ("head", "a", "b")


@dataclass
class Model:
    """One account: numbers to entries, and the checkpoints that are kept."""

    head: int = 0
    entries: dict[int, NewEntry] = field(default_factory=dict)
    trimmed: int = 0
    checkpoints: dict[int, dict[str, tuple[int, bytes]]] = field(default_factory=dict)

    def newest(self) -> int:
        return max(self.checkpoints, default=0)


# (operation, account, numbers relative to what stands)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "read", "settle", "save", "save", "load", "trim", "erase"]),
        st.integers(0, ACCOUNTS - 1),
        st.integers(-3, 2),
        st.integers(0, 3),
    ),
    min_size=5,
    max_size=30,
)


async def outcome(operation: Any) -> Any:
    """What it returned, or the class of what it raised."""
    try:
        return await operation
    except StorageError as error:
        return type(error)


async def follow(log: AccountLog, steps: list[tuple[str, int, int, int]]) -> None:
    """Carry out *steps* on both; every answer must be the same."""
    accounts = [AccountId.new() for _ in range(ACCOUNTS)]
    models = [Model() for _ in accounts]
    for name, which, offset, number in steps:
        account, model = accounts[which], models[which]
        at = ModSeq(max(0, model.head + offset))
        match name:
            case "append":
                entries = [NewEntry(EntryId.new(), f"{at}.{each}".encode()) for each in range(number + 1)]
                expected: Any = Conflict
                if at == model.head:
                    model.entries |= dict(enumerate(entries, at + 1))
                    expected = model.head = at + len(entries)
                assert await outcome(log.append(account, at, entries)) == expected
            case "read":
                expected = Trimmed
                if at >= model.trimmed:
                    stands = [(n, e.id, e.data) for n, e in sorted(model.entries.items()) if n > at]
                    expected = stands[: number or None]
                found = await outcome(log.read(account, at, number or None))
                assert (found if found is Trimmed else [(e.modseq, e.id, e.data) for e in found]) == expected
            case "settle":
                ids = [
                    model.entries[n].id if n in model.entries else EntryId.new() for n in range(at + 1, at + 2 + number)
                ]
                expected = Trimmed
                if at >= model.trimmed:
                    expected = all(n in model.entries for n in range(at + 1, at + 2 + number))
                assert await outcome(log.settle(account, at, ids)) == expected
            case "save":
                previous = model.newest() if offset < 1 else ModSeq(number)
                modseq = max(1, model.head + min(offset, 0))
                old = model.checkpoints.get(model.newest(), {})
                changed = {chunk: f"{chunk}{modseq}".encode() for chunk in CHUNKS[: number + 1]}
                kept = {chunk: ModSeq(written) for chunk, (written, _) in old.items() if chunk not in changed}
                expected = Conflict
                if previous == model.newest() and modseq > previous:
                    expected = None
                    model.checkpoints[modseq] = {c: old[c] for c in kept} | {c: (modseq, d) for c, d in changed.items()}
                    for gone in sorted(model.checkpoints)[:-2]:
                        del model.checkpoints[gone]
                saved = log.save_checkpoint(account, ModSeq(previous), ModSeq(modseq), changed, kept)
                assert await outcome(saved) is expected
            case "load":
                found = await log.load_checkpoint(account, None if number else CHUNKS[:2])
                if found is None:
                    assert not model.checkpoints
                    continue
                stands_at = model.checkpoints[model.newest()]
                assert found.modseq == model.newest()
                assert dict(found.manifest) == {chunk: written for chunk, (written, _) in stands_at.items()}
                wanted = {chunk: data for chunk, (_, data) in stands_at.items() if number or chunk in CHUNKS[:2]}
                assert dict(found.chunks) == wanted
            case "trim":
                await log.trim(account, at)
                through = min(at, min(model.checkpoints, default=0), model.head)
                model.trimmed = max(model.trimmed, through)
                model.entries = {n: e for n, e in model.entries.items() if n > model.trimmed}
            case "erase" if number == 3:
                await log.erase(account)
                models[which] = Model()
        assert await log.head(account) == models[which].head


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_the_log_in_memory_is_the_model(steps: list[tuple[str, int, int, int]]) -> None:
    running = follow(MemoryAccountLog(), steps)
    try:
        running.send(None)
    except StopIteration:
        return
    raise AssertionError("the engine in memory suspended")


class SQLiteModelTests(EngineCase):
    async def test_the_log_in_sqlite_is_the_model(self) -> None:
        drawn: list[list[tuple[str, int, int, int]]] = []

        @settings(max_examples=60, deadline=None, database=None)
        @given(STEPS)
        def draw(steps: list[tuple[str, int, int, int]]) -> None:
            drawn.append(steps)

        draw()
        # Hypothesis cannot await: its examples are followed here, each with accounts of its own
        own, linked = await self.sqlite(), await self.linked()
        for number, steps in enumerate(drawn):
            try:
                await follow((linked if number % 2 else own).account_log, steps)
            except AssertionError as error:
                raise AssertionError(f"after {steps}") from error
