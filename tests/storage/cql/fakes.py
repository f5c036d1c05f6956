"""Doubles without a server: a session over a keyspace in memory, whose statements go wrong as a script says."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from tests.storage.cql.minicql import MiniCQL
from twisted_mail.storage.cql.schema import tables
from twisted_mail.storage.cql.statements import Batch, Row, Statement
from twisted_mail.storage.interfaces import Refused, Unavailable

__all__ = ["FAULTS", "FakeSession"]

FAULTS = ("", "refused", "lost", "hidden", "late", "denied")
"""What a script may say of a conditional statement: nothing; nothing could be sent; it failed and was not carried out;
it failed and was; it failed, and is carried out some operations later if its condition holds then; it was carried out,
and answers that it was not (as when a retry inside the cluster finds its own work)."""
LATE = 4
"""Operations: one more than a settlement takes."""


class FakeSession:
    """Implements `Session`, without waiting: every coroutine ends at once."""

    def __init__(self, form: str = "scylla", script: Iterable[str] = ()) -> None:
        self.store = MiniCQL(tables(), form)
        self.script = iter(script)
        self.seems_down = False
        self.counts: Counter[str] = Counter()
        """Statements by their first word and table; a conditional batch counts as one."""
        self.read_octets = 0
        self.quorum = True
        self.missing: Callable[[str], bool] = lambda text: False
        """Reads at LOCAL_ONE that find nothing: the replica lacks it."""
        self._late: list[tuple[int, list[tuple[str, Sequence[Any]]]]] = []
        self._operations = 0

    def _step(self) -> None:
        self._operations += 1
        due = [parts for at, parts in self._late if at <= self._operations]
        self._late = [(at, parts) for at, parts in self._late if at > self._operations]
        for parts in due:
            self.store.batch(parts)

    def _count(self, text: str) -> None:
        words = text.split()
        name = next(words[at + 1] for at, word in enumerate(words) if word in ("FROM", "INTO", "UPDATE"))
        self.counts[f"{words[0]} {name}"] += 1

    async def execute(self, statement: Statement, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        assert not statement.conditional
        self._step()
        self._count(statement.text)
        if not self.quorum and statement.consistency != "LOCAL_ONE":
            raise Unavailable("no quorum") if statement.text.startswith("SELECT") else Refused("no quorum")
        if statement.consistency == "LOCAL_ONE" and self.missing(statement.text):
            return []
        rows = self.store.carry_out(statement.text, parameters)
        self.read_octets += sum(len(v) for row in rows for v in row.values() if isinstance(v, bytes | str))
        return rows

    async def pages(
        self, statement: Statement, parameters: Sequence[Any] = (), size: int = 1000
    ) -> AsyncIterator[Sequence[Row]]:
        rows = await self.execute(statement, parameters)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
        return await self.apply_batch(Batch([(statement, parameters)]))

    async def apply_batch(self, batch: Batch) -> bool:
        self._step()
        self._count(batch.parts[0][0].text)
        parts = [(statement.text, parameters) for statement, parameters in batch.parts]
        fault = next(self.script, "")
        if fault == "refused" or not self.quorum:
            raise Refused("not sent") if fault == "refused" else Unavailable("no quorum")
        if fault == "late":
            self._late.append((self._operations + LATE, parts))
        if fault in ("lost", "late"):
            raise Unavailable(fault)
        rows = self.store.batch(parts)
        if fault == "hidden":
            raise Unavailable(fault)
        return bool(rows[0]["[applied]"]) and fault != "denied"

    async def execute_many(self, statement: Statement, parameters: Sequence[Sequence[Any]]) -> Sequence[Sequence[Row]]:
        return [await self.execute(statement, each) for each in parameters]

    async def write_batch(self, batch: Batch) -> None:
        self._step()
        self._count(batch.parts[0][0].text)
        if not self.quorum:
            raise Refused("no quorum")
        self.store.batch([(statement.text, parameters) for statement, parameters in batch.parts])
