"""Lightweight transactions whose outcome is not known at first: whoever proposed one finds out what became of it.

A conditional statement that ended in an error may have been applied, or be applied a moment later; one that was answered
"not applied" may be our own, applied by a retry inside the cluster. So a proposal carries a token of its own, and after
anything but "applied" the row is read at SERIAL: such a read finishes or buries what was still under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from twisted_mail.storage.cql.statements import Batch, Row, Session, Statement
from twisted_mail.storage.interfaces import Refused, Unavailable

__all__ = ["Agreement"]

SETTLING_READS: Final = 8
"""A serial read fails too while many contend for one row; so often it is tried."""
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.8


class Agreement:
    """Proposals and serial reads, repeated with jitter."""

    def __init__(self, session: Session, clock: IReactorTime, random: Random | None = None) -> None:
        self._session = session
        self._clock = clock
        self._random = random or Random()

    def pause(self, attempt: int) -> Deferred[None]:
        """Wait before attempt *attempt* (1 is the second): doubling from 20 ms, at most 0.8 s, and at random half of it."""
        seconds = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
        return deferLater(self._clock, seconds * (0.5 + self._random.random() / 2), lambda: None)

    async def read(self, statement: Statement, key: Sequence[Any]) -> Row | None:
        """The row as the last agreement left it, or None. *statement* reads at SERIAL or LOCAL_SERIAL.

        Raises: Unavailable.
        """
        attempt = 0
        while True:
            try:
                rows = await self._session.execute(statement, key)
            except Unavailable:
                attempt += 1
                if attempt >= SETTLING_READS:
                    raise
                await self.pause(attempt)
            else:
                return rows[0] if rows else None

    async def propose(
        self,
        proposal: Statement | Batch,
        parameters: Sequence[Any],
        reading: Statement,
        key: Sequence[Any],
        ours: Callable[[Row | None], bool],
    ) -> tuple[bool, Row | None]:
        """Carry out *proposal*; whether it was applied, and the row that stands where it seemed not to be.

        *ours* says of the row read by *reading* whether it shows that the proposal was applied. Raises: Refused
        (nothing was written), Unavailable (the outcome is not known).
        """
        try:
            if isinstance(proposal, Batch):
                applied = await self._session.apply_batch(proposal)
            else:
                applied = await self._session.apply(proposal, parameters)
        except Refused:
            raise
        except Unavailable:
            applied = False
        if applied:
            return True, None
        row = await self.read(reading, key)
        return ours(row), row
