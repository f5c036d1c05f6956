"""A session that fails on demand, around one that works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted_mail.storage.cql.statements import Batch, Session, Statement
from twisted_mail.storage.interfaces import Unavailable

__all__ = ["Faulty"]


class Faulty:
    """A session whose conditional statements go wrong as told: by their first words, one after the other.

    ``lost``: an error, and nothing was done. ``hidden``: an error, although it was done. ``denied``: done, and answered
    "not applied", as when a retry inside the cluster finds its own work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.faults: dict[str, list[str]] = {}
        self.before: Callable[[str], Awaitable[None]] | None = None
        """Called with a statement's text before it is carried out."""

    async def _do(self, text: str, act: Callable[[], Awaitable[bool]]) -> bool:
        if self.before is not None:
            await self.before(text)
        fault = next((plan.pop(0) for start, plan in self.faults.items() if plan and text.startswith(start)), "")
        if fault == "lost":
            raise Unavailable("lost")
        applied = await act()
        if fault == "hidden":
            raise Unavailable("hidden")
        return applied and fault != "denied"

    async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
        return await self._do(statement.text, lambda: self._session.apply(statement, parameters))

    async def apply_batch(self, batch: Batch) -> bool:
        return await self._do(batch.parts[0][0].text, lambda: self._session.apply_batch(batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
