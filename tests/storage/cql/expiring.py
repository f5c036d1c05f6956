"""Time that tests carry out by hand: what a TTL would end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted_mail.storage.cql.leases import HOLD, MARGIN_SECONDS, RENEW
from twisted_mail.storage.cql.statements import Batch, Session, Statement, statement

__all__ = ["Expiring"]

_END = statement("UPDATE lease SET holder = null WHERE name = ? IF EXISTS", idempotent=False, conditional=True)


class Expiring:
    """A session that carries out time by hand: what a TTL would end is ended when `advance` comes to it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = 0.0
        self._ends: dict[str, float] = {}

    async def advance(self, seconds: float) -> None:
        self._now += seconds
        for name, end in list(self._ends.items()):
            if end <= self._now:
                del self._ends[name]
                await self._session.apply(_END, (name,))

    def _note(self, parameters: Sequence[Any]) -> None:
        self._ends[parameters[2]] = self._now + parameters[0] - MARGIN_SECONDS

    async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
        applied = await self._session.apply(statement, parameters)
        if applied and statement is RENEW:
            self._note(parameters)
        return applied

    async def apply_batch(self, batch: Batch) -> bool:
        applied = await self._session.apply_batch(batch)
        if applied and batch.parts[0][0] is HOLD:
            self._note(batch.parts[0][1])
        return applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
