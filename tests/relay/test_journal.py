"""Steps of a message's way are written down in the background, together, and never hold up or break anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from twisted_mail.relay import journal as module
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.storage.interfaces import Record, Unavailable


class Many:
    """Records that write when they are told to."""

    def __init__(self) -> None:
        self.written: list[list[tuple[str, str, bytes, float | None]]] = []
        self.waiting: list[Deferred[None]] = []

    async def put_many(self, records: Sequence[tuple[str, str, bytes, float | None]]) -> None:
        self.written.append(list(records))
        writing: Deferred[None] = Deferred()
        self.waiting.append(writing)
        await writing

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        raise AssertionError("one at a time")

    async def get(self, space: str, key: str) -> bytes | None: ...

    async def delete(self, space: str, key: str) -> None: ...

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        rows = [row for batch in self.written for row in batch if row[0] == space and row[1] > after]
        return [Record(row[1], row[2]) for row in sorted(rows, key=lambda row: row[1])]


def step(at: float) -> Step:
    return Step(at=at, what="queued", id="1", address="bob@example.net")


def results(work: Any) -> list[Any]:
    """What a coroutine has come to, if it has."""
    found: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(found.append)
    return found


def test_what_comes_while_something_is_written_goes_together_next() -> None:
    records = Many()
    journal = Journal(records, "n")
    for at in range(5):
        journal.soon("1@example.org", step(at))
    assert [len(batch) for batch in records.written] == [1]
    records.waiting.pop().callback(None)
    assert [len(batch) for batch in records.written] == [1, 4]
    records.waiting.pop().callback(None)
    [steps] = results(journal.steps("1@example.org"))
    assert [(each.at, each.node) for each in steps] == [(at, "n") for at in range(5)]


def test_note_waits_until_it_is_kept_and_soon_does_not() -> None:
    records = Many()
    journal = Journal(records)
    journal.soon("1@example.org", step(1))
    noted, written = results(journal.note("1@example.org", step(2))), results(journal.written())
    records.waiting.pop().callback(None)
    assert not noted and not written
    records.waiting.pop().callback(None)
    assert noted == written == [None]
    assert results(journal.written()) == [None]


def test_a_store_that_fails_costs_the_steps_and_nothing_else() -> None:
    records = Many()
    journal = Journal(records)
    noted = results(journal.note("1@example.org", step(1)))
    journal.soon("1@example.org", step(2))
    records.waiting.pop().errback(Unavailable("down"))
    records.waiting.pop().callback(None)
    assert noted == [None]
    assert [len(batch) for batch in records.written] == [1, 1], "the next ones are written all the same"


def test_a_store_that_hangs_does_not_fill_the_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    records = Many()
    journal = Journal(records)
    for at in range(10):
        journal.soon("1@example.org", step(at))
    records.waiting.pop().callback(None)
    assert [len(batch) for batch in records.written] == [1, 3]


def test_a_message_without_an_id_has_no_way() -> None:
    records = Many()
    Journal(records).soon("", step(1))
    assert not records.written
