"""What is said to the cluster, as values: CQL texts with what the driver must know of each, and who carries them out.

Every text is of the subset that ScyllaDB and Cassandra share; a test reads all of them (`STATEMENTS`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

__all__ = ["STATEMENTS", "Batch", "Row", "Session", "Statement", "statement"]

Row = dict[str, Any]
"""A row by column; the values' types are the driver's, hence Any."""

STATEMENTS: Final[list[Statement]] = []
"""Every statement of the engine, for the test that holds them to the common subset."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One CQL text with ``?`` for its parameters; prepared once per session."""

    text: str
    idempotent: bool
    """Carrying it out twice is as once: the driver may send it again."""
    consistency: str = "LOCAL_QUORUM"
    """``LOCAL_SERIAL`` for reads that must see what a conditional statement has done."""
    conditional: bool = False
    """A lightweight transaction: an error leaves its outcome unknown."""
    seconds: float | None = None
    """Give it up sooner than the session's time limit."""
    serial: str = "LOCAL_SERIAL"
    """Who agrees on a conditional one: the nodes of this data centre, or with ``SERIAL`` those of all."""


def statement(
    text: str,
    *,
    idempotent: bool,
    consistency: str = "LOCAL_QUORUM",
    conditional: bool = False,
    seconds: float | None = None,
    serial: str = "LOCAL_SERIAL",
) -> Statement:
    """Declare a statement of the engine; call it at module level only."""
    made = Statement(" ".join(text.split()), idempotent, consistency, conditional, seconds, serial)
    STATEMENTS.append(made)
    return made


@dataclass(frozen=True, slots=True)
class Batch:
    """Statements on one partition of one table that are carried out as one, with at most one condition among them."""

    parts: Sequence[tuple[Statement, Sequence[Any]]]


class Session(Protocol):
    """A connection to the cluster, as the stores of this engine use it.

    Errors of the driver come as those of `interfaces`: Refused where it is certain that nothing was or will be written
    (no node could be reached, not enough replicas alive, or overloaded), else Unavailable.
    """

    async def execute(self, statement: Statement, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        """All rows of the answer (statements with small answers, and writes)."""

    def pages(
        self, statement: Statement, parameters: Sequence[Any] = (), size: int = 1000
    ) -> AsyncIterator[Sequence[Row]]:
        """The answer page by page; the next one is asked for when the caller comes back."""

    async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
        """Carry out a conditional statement; whether it was applied, so far as this answer says (a retry inside the
        driver or the cluster may have applied it before). Reads nothing of the answer but ``[applied]``."""

    async def apply_batch(self, batch: Batch) -> bool:
        """The same for a batch with one condition."""

    async def execute_many(self, statement: Statement, parameters: Sequence[Sequence[Any]]) -> Sequence[Sequence[Row]]:
        """Carry it out for each, side by side within the session's bound; the rows for each in the same order.
        All have ended when this raises the first error."""

    async def write_batch(self, batch: Batch) -> None:
        """Carry out plain (unconditional, unlogged) writes on one partition."""
