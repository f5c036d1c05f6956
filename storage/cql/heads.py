"""The head rows of accounts: what this node knows of each, and how it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from twisted_mail.storage.cql.statements import Row, Session, statement
from twisted_mail.values import AccountId

__all__ = ["HEAD_ROW", "HeadRow", "Heads", "of"]

HEAD_ROW: Final = 0
"""The number of the head row: it sorts before every entry."""
KNOWN: Final = 20_000
"""Accounts whose head rows are remembered (some 300 octets each)."""

_LOOK = statement(
    f"""SELECT head, fence, trimmed, checkpoint, older FROM account_log
        WHERE user_id = ? AND modseq = {HEAD_ROW}""",
    idempotent=True,
)
_LOOK_HARD = statement(_LOOK.text, idempotent=True, consistency="LOCAL_SERIAL", seconds=3.0)
_LOOK_STALE = statement(_LOOK.text, idempotent=True, consistency="LOCAL_ONE")


def of(account: AccountId) -> UUID:
    """The account's id as the driver takes it."""
    return UUID(bytes=account.octets)


@dataclass(frozen=True, slots=True)
class HeadRow:
    """What a head row said when it was read last; an account that nothing was written to has none (`fence` None)."""

    head: int = 0
    fence: UUID | None = None
    trimmed: int = 0
    checkpoint: int = 0
    older: int = 0

    @property
    def floor(self) -> int:
        """Up to where entries may be trimmed: the older of the two checkpoints that are kept."""
        return self.older or self.checkpoint


class Heads:
    """Reads head rows and remembers them. What is remembered may be old; whatever is written on the strength of it is
    written on condition that it holds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: OrderedDict[AccountId, HeadRow] = OrderedDict()

    def known(self, account: AccountId) -> HeadRow | None:
        return self._known.get(account)

    def remember(self, account: AccountId, row: HeadRow) -> HeadRow:
        self._known[account] = row
        self._known.move_to_end(account)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return row

    def forget(self, account: AccountId) -> None:
        self._known.pop(account, None)

    def take(self, account: AccountId, row: Row | None) -> HeadRow:
        """Remember what was read (None: there is no row)."""
        if row is None or row["head"] is None:
            return self.remember(account, HeadRow())
        fields: dict[str, Any] = {name: row.get(name) or 0 for name in ("head", "trimmed", "checkpoint", "older")}
        return self.remember(account, HeadRow(fence=row["fence"], **fields))

    async def look(self, account: AccountId) -> HeadRow:
        """Read it at a quorum: everything that was acknowledged is seen. Raises: Unavailable."""
        return self.take(account, _first(await self._session.execute(_LOOK, (of(account),))))

    async def look_hard(self, account: AccountId) -> HeadRow:
        """Read it in the order of the lightweight transactions: one that is half done is completed or overtaken first.

        Takes at most 3 seconds. Raises: Unavailable."""
        return self.take(account, _first(await self._session.execute(_LOOK_HARD, (of(account),))))

    async def look_stale(self, account: AccountId) -> HeadRow:
        """What any one replica says; not remembered. Raises: Unavailable."""
        row = _first(await self._session.execute(_LOOK_STALE, (of(account),)))
        known = self._known.get(account)
        try:
            return self.take(account, row)
        finally:
            if known is None:
                self.forget(account)
            else:
                self.remember(account, known)


def _first(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None
