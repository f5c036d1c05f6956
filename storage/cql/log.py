"""The accounts' logs: one conditional batch for each append, settled by entry ids. How entries lie in rows: `rows`.

An append moves `head` on condition that it stands at the expected number *and* that `fence` is what it was. The fence is
how an unknown outcome becomes certain: a request may lie for minutes in a node that hangs, and be carried out when it
wakes. `settle` therefore does not only look; where the slots are free it changes the fence, after which no earlier request
can succeed any more. Who appends with an old fence is told so and takes the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4

from twisted_mail.storage.cql.checkpoint import Checkpoints
from twisted_mail.storage.cql.heads import HEAD_ROW, HeadRow, Heads, of
from twisted_mail.storage.cql.rows import in_rows, of_row
from twisted_mail.storage.cql.statements import Batch, Row, Session, statement
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

__all__ = ["CQLAccountLog"]

PAGE: Final = 256
"""Entries read at once."""
ENTRY_OVERHEAD: Final = 64
"""Octets that an entry's row takes besides its data."""
ATTEMPTS: Final = 4
"""How often an operation starts anew because others moved the fence."""

_ADVANCE = statement(
    f"UPDATE account_log SET head = ? WHERE user_id = ? AND modseq = {HEAD_ROW} IF head = ? AND fence = ?",
    idempotent=False,
    conditional=True,
)
_BEGIN = statement(
    f"""INSERT INTO account_log (user_id, modseq, head, fence, trimmed, checkpoint, older)
        VALUES (?, {HEAD_ROW}, ?, ?, 0, 0, 0) IF NOT EXISTS""",
    idempotent=False,
    conditional=True,
)
_FENCE = statement(
    f"UPDATE account_log SET fence = ? WHERE user_id = ? AND modseq = {HEAD_ROW} IF head = ? AND fence = ?",
    idempotent=False,
    conditional=True,
)
_OURS = statement(
    """SELECT modseq, head, fence, trimmed, checkpoint, older, entry_id FROM account_log
       WHERE user_id = ? AND modseq IN ?""",
    idempotent=True,
    consistency="LOCAL_SERIAL",
)
_READ = statement(
    "SELECT modseq, first, entry_id, entry FROM account_log WHERE user_id = ? AND modseq > ?", idempotent=True
)
_READ_SERIAL = statement(_READ.text, idempotent=True, consistency="LOCAL_SERIAL")
_LOOK_SERIAL = statement(
    f"""SELECT head, fence, trimmed, checkpoint, older FROM account_log
        WHERE user_id = ? AND modseq = {HEAD_ROW}""",
    idempotent=True,
    consistency="LOCAL_SERIAL",
)
_READ_STALE = statement(_READ.text, idempotent=True, consistency="LOCAL_ONE")
_MARK_TRIMMED = statement(
    f"UPDATE account_log SET trimmed = ? WHERE user_id = ? AND modseq = {HEAD_ROW} IF trimmed = ?",
    idempotent=False,
    conditional=True,
)
_TRIM = statement(f"DELETE FROM account_log WHERE user_id = ? AND modseq > {HEAD_ROW} AND modseq <= ?", idempotent=True)
_WRITTEN = statement(
    f"""SELECT head, fence, WRITETIME(head) AS written FROM account_log
        WHERE user_id = ? AND modseq = {HEAD_ROW}""",
    idempotent=True,
    consistency="LOCAL_SERIAL",
)
_ERASE_ENTRIES = statement(
    f"DELETE FROM account_log USING TIMESTAMP ? WHERE user_id = ? AND modseq > {HEAD_ROW}", idempotent=True
)
_ERASE_HEAD = statement(
    f"DELETE FROM account_log WHERE user_id = ? AND modseq = {HEAD_ROW} IF head = ? AND fence = ?",
    idempotent=False,
    conditional=True,
)


class CQLAccountLog:
    """Implements `AccountLog` and `DegradedReads`.

    `append` takes at most `max_append_bytes`, or one entry of at most `max_entry_bytes`: a mutation that is larger than
    half of the server's commit log segment is refused by it (Cassandra: 16 MiB with the default of 32), and one of many
    megabytes is dear in each of the rounds.
    """

    def __init__(
        self,
        session: Session,
        *,
        max_append_bytes: int = 1024 * 1024,
        max_entry_bytes: int = 8 * 1024 * 1024,
        stale_reads: bool = True,
        **clocks: Any,
    ) -> None:
        # clocks: those of `Checkpoints`, which differ in type
        self._session = session
        self._stale_reads = stale_reads
        self._heads = Heads(session)
        self._checkpoints = Checkpoints(session, self._heads, **clocks)
        self.max_append_bytes = max_append_bytes
        self.max_entry_bytes = max(max_entry_bytes, max_append_bytes)

    # --- reading

    async def head(self, account: AccountId) -> ModSeq:
        return ModSeq((await self._heads.look(account)).head)

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """See `AccountLog.read`. Raises Unavailable also for a gap, which only a replica in need of repair can show."""
        known = self._heads.known(account)
        if known is None or known.trimmed > after:
            # never start in what was trimmed away: it may be 100,000 dead rows
            known = await self._heads.look(account)
            if known.trimmed > after:
                raise Trimmed(f"entries up to {known.trimmed} are gone")
        entries = await self._entries(_READ, account, after, limit)
        last = entries[-1].modseq if entries else after
        whole = limit is not None and len(entries) >= limit
        if not whole and last < known.head:
            known = await self._heads.look(account)
            if known.trimmed > after:
                raise Trimmed(f"entries up to {known.trimmed} are gone")
            raise Unavailable(f"the entry {last + 1} of {known.head} cannot be read")
        return entries

    async def _entries(self, query: Any, account: AccountId, after: int, limit: int | None) -> list[LogEntry]:
        """The entries right above *after* up to the first gap."""
        entries: list[LogEntry] = []
        if limit is not None and limit <= 0:
            return entries
        size = PAGE if limit is None else min(PAGE, limit)
        async for rows in self._session.pages(query, (of(account), int(after)), size):
            for row in rows:
                if row["entry_id"] is None:
                    return entries
                for entry in of_row(row):
                    if entry.modseq <= after:
                        continue  # the row has some below, too
                    if entry.modseq != after + len(entries) + 1:
                        return entries
                    entries.append(entry)
                    if len(entries) == limit:
                        return entries
        return entries

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        return await self._checkpoints.load(account, chunks)

    # --- reading without a quorum

    async def load_checkpoint_stale(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        """See `DegradedReads`."""
        self._allow_stale()
        return await self._checkpoints.load(account, chunks, stale=True)

    async def read_stale(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """See `DegradedReads`."""
        self._allow_stale()
        row = await self._heads.look_stale(account)
        if row.trimmed > after:
            raise Trimmed(f"entries up to {row.trimmed} are gone")
        return await self._entries(_READ_STALE, account, after, limit)

    def _allow_stale(self) -> None:
        if not self._stale_reads:
            raise Unavailable("answers of one replica are switched off (stale_reads)")

    # --- appending

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        octets = sum(len(entry.data) + ENTRY_OVERHEAD for entry in entries)
        limit = self.max_entry_bytes if len(entries) == 1 else self.max_append_bytes
        if octets > limit:
            raise Refused(f"an append of {octets} octets; at most {limit} (append_bytes, entry_bytes)")
        await self._probe(account)
        known = self._heads.known(account)
        if known is None:
            try:
                known = await self._heads.look(account)
            except Unavailable as error:
                raise Refused("the account's head cannot be read") from error
        new_head = int(expected) + len(entries)
        for _ in range(ATTEMPTS):
            if known.head > expected or (known.fence is None and expected):
                raise Conflict(f"the account stands at {known.head}")
            fence = known.fence or uuid4()
            if await self._session.apply_batch(self._batch(account, expected, new_head, fence, known, entries)):
                self._heads.remember(account, replace(known, head=new_head, fence=fence))
                return ModSeq(new_head)
            # it may be ours all the same, applied by a retry inside the cluster
            if await self._is_ours(account, expected, entries):
                return ModSeq(new_head)
            known = self._heads.known(account) or HeadRow()
            if known.trimmed > expected:
                raise Unavailable("the slots have been trimmed away meanwhile")
            if known.head != expected:
                raise Conflict(f"the account stands at {known.head}")
        raise Unavailable("the account's fence moves all the time")

    async def _probe(self, account: AccountId) -> None:
        """While the store seems down, ask before anything is proposed: what was never proposed may be refused."""
        if getattr(self._session, "seems_down", False):
            try:
                await self._heads.look_hard(account)
            except Unavailable as error:
                raise Refused("there is no quorum for the account") from error

    def _batch(
        self,
        account: AccountId,
        expected: ModSeq,
        new_head: int,
        fence: UUID,
        known: HeadRow,
        entries: Sequence[NewEntry],
    ) -> Batch:
        """The append, whose only condition is the head row's."""
        user = of(account)
        parts: list[tuple[Any, Sequence[Any]]] = [
            (_BEGIN, (user, new_head, fence))
            if known.fence is None
            else (_ADVANCE, (new_head, user, int(expected), known.fence))
        ]
        return Batch([*parts, *in_rows(user, int(expected), entries)])

    async def _is_ours(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> bool:
        """Whether the first row of the append stands, and so all of it; the head row is read with it and remembered."""
        user = of(account)
        written = in_rows(user, int(expected), entries)
        place = written[0][1][1] if written else HEAD_ROW
        rows = {row["modseq"]: row for row in await self._session.execute(_OURS, (user, [HEAD_ROW, place]))}
        self._heads.take(account, rows.get(HEAD_ROW))
        found = rows.get(place) if written else None
        return found is not None and bool(found["entry_id"] == UUID(bytes=entries[0].id.octets))

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        for _ in range(ATTEMPTS):
            # The head first. Where it is above, the slots are what they will ever be; where it is not, they may be filled
            # before they are read, and then the fence cannot be changed on condition of this head.
            known = self._heads.take(account, _first(await self._session.execute(_LOOK_SERIAL, (of(account),))))
            if known.trimmed > expected:
                raise Trimmed(f"entries up to {known.trimmed} are gone")
            slots = await self._entries(_READ_SERIAL, account, expected, len(ids))
            if [entry.id for entry in slots] == list(ids):
                return True
            if known.head > expected:
                return False
            if await self._raise_fence(account, known):
                return False
        raise Unavailable("the account's fence moves all the time")

    async def _raise_fence(self, account: AccountId, known: HeadRow) -> bool:
        """See to it that no request that is still on its way can succeed; False: the account has moved meanwhile."""
        fence = uuid4()
        if known.fence is None:
            done = await self._session.apply(_BEGIN, (of(account), 0, fence))
        else:
            done = await self._session.apply(_FENCE, (fence, of(account), known.head, known.fence))
        if done:
            self._heads.remember(account, replace(known, fence=fence))
        return done

    # --- checkpoints and the end

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        await self._checkpoints.save(account, previous, modseq, changed, kept)

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        await self._checkpoints.begin_at(account, modseq, chunks)

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        for _ in range(ATTEMPTS):
            known = await self._heads.look(account)
            until = min(int(through), known.floor, known.head)
            if until <= known.trimmed:
                return
            # first the mark, then the deletion: whoever finds a gap between them must know why it is there
            if await self._session.apply(_MARK_TRIMMED, (until, of(account), known.trimmed)):
                await self._session.execute(_TRIM, (of(account), until))
                self._heads.remember(account, replace(known, trimmed=until))
                return
        raise Unavailable("others trim the account all the time")

    async def erase(self, account: AccountId) -> None:
        for _ in range(ATTEMPTS):
            rows = await self._session.execute(_WRITTEN, (of(account),))
            if not rows or rows[0]["fence"] is None:
                break
            # At the head row's own time, which is not before that of any entry: the clock of this or that node would
            # perhaps bury what is appended afterwards.
            await self._session.execute(_ERASE_ENTRIES, (rows[0]["written"], of(account)))
            await self._checkpoints.remove_all(account)
            if await self._session.apply(_ERASE_HEAD, (of(account), rows[0]["head"], rows[0]["fence"])):
                break
        else:
            raise Unavailable("the account is in use")
        self._heads.forget(account)

    async def sweep(self, account: AccountId) -> int:
        """Delete what crashes have left of checkpoints; returns how many chunks. Raises: Unavailable."""
        return await self._checkpoints.sweep(account)


def _first(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None
