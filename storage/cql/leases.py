"""Named exclusive rights that run out, and durable counts: small agreements within the data centre.

Both agree at LOCAL_SERIAL, so a lease or a count means something within one data centre: what a lease protects is
written in its account's home only, and an address from which mail is sent belongs to the nodes of one place. Counts that
are to hold over several data centres are given each of them a share, under a name of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid4

from twisted.internet.interfaces import IReactorTime

from twisted_mail.storage.cql.agreement import Agreement
from twisted_mail.storage.cql.statements import Batch, Row, Session, statement
from twisted_mail.storage.interfaces import Refused, Unavailable

__all__ = ["MARGIN_SECONDS", "CQLAllowances", "CQLLeases"]

MARGIN_SECONDS: Final = 3
"""How much longer the database keeps a holder than was asked for: it counts whole seconds (one is lost by that), and
the clocks of its nodes may differ by the rest."""
ATTEMPTS: Final = 8
TAKE_ATTEMPTS: Final = 24
"""How often others may come first when an allowance is taken; pauses between them sum up to some 15 seconds."""

LEASE = statement("SELECT number, ticket, holder FROM lease WHERE name = ?", idempotent=True, consistency="LOCAL_SERIAL")
NEW_LEASE = statement(
    "INSERT INTO lease (name, number) VALUES (?, 0) IF NOT EXISTS", idempotent=False, conditional=True
)
HOLD = statement(
    "UPDATE lease USING TTL ? SET holder = ? WHERE name = ? IF number = ? AND holder = null",
    idempotent=False,
    conditional=True,
)
COUNT_UP = statement("UPDATE lease SET number = ?, ticket = ? WHERE name = ?", idempotent=True)
RENEW = statement(
    "UPDATE lease USING TTL ? SET holder = ? WHERE name = ? IF holder = ?", idempotent=False, conditional=True
)
RELEASE = statement("UPDATE lease SET holder = null WHERE name = ? IF holder = ?", idempotent=False, conditional=True)

COUNTED = statement(
    "SELECT taken, ticket FROM allowance WHERE name = ? AND day = ?", idempotent=True, consistency="LOCAL_SERIAL"
)
FIRST_TAKE = statement(
    "INSERT INTO allowance (name, day, taken, ticket) VALUES (?, ?, ?, ?) IF NOT EXISTS",
    idempotent=False,
    conditional=True,
)
TAKE = statement(
    "UPDATE allowance SET taken = ?, ticket = ? WHERE name = ? AND day = ? IF taken = ?",
    idempotent=False,
    conditional=True,
)


class CQLLeases:
    """Implements `Leases`.

    A name has one row. ``number`` stays for ever and only ascends; ``holder`` is the number of who holds the name, in
    a cell with a TTL, so that it goes by the database's clock and no mail node's clock plays a part. One batch with one
    condition, "the number is still *n* and nobody holds it", writes the holder with its TTL and the number *n + 1*
    without; both have the timestamp of their agreement's ballot, which is above all earlier ones whatever the clocks say,
    so neither can lose to an older write. When a cell runs out is another matter: the node that wrote it counted from
    its clock, the node that looks counts by its own. Therefore the database keeps a holder `MARGIN_SECONDS` longer than
    its holder believes, who counts from before it asked.
    """

    def __init__(self, session: Session, clock: IReactorTime) -> None:
        self._session = session
        self._agreement = Agreement(session, clock)

    async def acquire(self, name: str, ttl: float) -> int | None:
        token = uuid4()
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            row = await self._agreement.read(LEASE, (name,))
            if row is None or row["number"] is None:
                # once in the life of a name; whose insert it was does not matter
                await self._agreement.propose(NEW_LEASE, (name,), LEASE, (name,), lambda row: row is not None)
                row = {"number": 0, "ticket": None, "holder": None}
            elif row["ticket"] == token:
                return int(row["number"])
            if row["holder"] is not None:
                return None
            number = int(row["number"]) + 1
            parts = ((HOLD, (_kept(ttl), number, name, number - 1)), (COUNT_UP, (number, token, name)))
            done, row = await self._agreement.propose(Batch(parts), (), LEASE, (name,), _has(token))
            if done:
                return number
            if row is not None and row["holder"] is not None:
                return None
        raise Unavailable(f"too many want the lease {name} at once")

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            try:
                # what was applied without our hearing of it is applied again: the holder is still *number*
                return await self._session.apply(RENEW, (_kept(ttl), number, name, number))
            except Refused:
                raise
            except Unavailable:
                continue
        raise Unavailable(f"the lease {name} could not be renewed")

    async def release(self, name: str, number: int) -> None:
        await self._session.apply(RELEASE, (name, number))


def _kept(ttl: float) -> int:
    """The TTL of the holder's cell: whole seconds, and longer than the holder believes."""
    return math.ceil(ttl) + MARGIN_SECONDS


def _has(token: UUID) -> Callable[[Row | None], bool]:
    return lambda row: row is not None and row["ticket"] == token


class CQLAllowances:
    """Implements `Allowances`: a compare-and-set on the count, which carries a token of who set it.

    Where the token that stands is another's, ours may have been there before it or not; then what it may have taken is
    forfeited, and the count that stands is where the next attempt begins.
    """

    def __init__(self, session: Session, clock: IReactorTime) -> None:
        self._agreement = Agreement(session, clock)

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        key = (name, day)
        row = await self._agreement.read(COUNTED, key)
        for attempt in range(TAKE_ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            before = 0 if row is None else int(row["taken"])
            got = min(n, limit - before)
            if got <= 0:
                return 0
            token = uuid4()
            if row is None:
                done, row = await self._agreement.propose(FIRST_TAKE, (*key, got, token), COUNTED, key, _has(token))
            else:
                done, row = await self._agreement.propose(
                    TAKE, (before + got, token, *key, before), COUNTED, key, _has(token)
                )
            if done:
                return got
        raise Unavailable(f"too many take from {name} at once")

    async def taken(self, name: str, day: int) -> int:
        row = await self._agreement.read(COUNTED, (name, day))
        return 0 if row is None else int(row["taken"])
