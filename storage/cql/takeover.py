"""What is left of a log in one data centre when the one that wrote it is gone for good, and beginning it anew there.

The other centre's writes came here in any order and perhaps not all of them: there may be gaps below the head, and what
was above it nobody knows. So the log is not gone on with, but begins anew, far above every number that can have been
given, with a checkpoint of what was left; one conditional update of the head row does it. What comes late from the lost
centre lies below and is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from twisted_mail.storage.cql.checkpoint import NOTHING, Checkpoints
from twisted_mail.storage.cql.heads import HEAD_ROW, HeadRow, Heads, of
from twisted_mail.storage.cql.rows import of_row
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.cql.statements import Session, statement
from twisted_mail.storage.interfaces import Checkpoint, Conflict, Corrupt, LogEntry, Unavailable
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["Left", "LostCentre", "Remains"]

PAGE: Final = 256

_EVERYTHING = statement(
    "SELECT modseq, first, entry_id, entry FROM account_log WHERE user_id = ? AND modseq > ?", idempotent=True
)
_BEGIN_ANEW = statement(
    f"""UPDATE account_log SET head = ?, fence = ?, trimmed = ?, checkpoint = ?, manifest = ?, older = ?,
        older_manifest = ? WHERE user_id = ? AND modseq = {HEAD_ROW} IF head = ? AND fence = ?""",
    idempotent=False,
    conditional=True,
)


@dataclass(frozen=True, slots=True)
class Left:
    """What there is of an account's log."""

    head: ModSeq
    """As the head row says, which came with the entry of that number."""
    fence: UUID
    checkpoint: Checkpoint | None
    """The newest one, whole."""
    entries: Sequence[LogEntry]
    """Those above the checkpoint, ascending, with gaps where some did not come."""


class Remains:
    """Reads what is left of logs, and begins them anew."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._heads = Heads(session)
        self._checkpoints = Checkpoints(session, self._heads)

    async def left(self, account: AccountId) -> Left | None:
        """What a quorum of this data centre has; None if that is nothing. Raises: Corrupt (its checkpoint did not come
        whole, and the entries below it are gone), Unavailable."""
        head = await self._heads.look_hard(account)
        if head.fence is None:
            return None
        checkpoint: Checkpoint | None = None
        try:
            checkpoint = await self._checkpoints.load(account, None)
        except Corrupt:
            if head.trimmed:
                raise
        after = 0 if checkpoint is None else int(checkpoint.modseq)
        entries: list[LogEntry] = []
        async for rows in self._session.pages(_EVERYTHING, (of(account), after), PAGE):
            for row in rows:
                entries += [entry for entry in of_row(row) if entry.modseq > after]
        return Left(ModSeq(head.head), head.fence, checkpoint, entries)

    async def begin_anew(self, account: AccountId, left: Left, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        """The log stands at *modseq* with the checkpoint *chunks* of that state, and has nothing below.

        Raises: Conflict (it is not what was *left* any more), Unavailable (do it again).
        """
        if modseq <= left.head:
            raise ValueError("a log begins anew above its head")
        writer = UUID(bytes=MessageId.new().octets)  # with the time in front, by which garbage is told
        manifest = self._checkpoints._next(NOTHING, modseq, writer, chunks, {})
        cell = await self._checkpoints._write(account, manifest, writer, chunks)
        fence, at = UUID(bytes=MessageId.new().octets), int(modseq)
        done = await self._session.apply(
            _BEGIN_ANEW, (at, fence, at, at, cell, 0, b"", of(account), int(left.head), left.fence)
        )
        now = await self._heads.look_hard(account)
        if now == HeadRow(head=at, fence=fence, trimmed=at, checkpoint=at):
            return
        if done:
            # the lost centre's clocks ran ahead: its cells are newer by their timestamps
            raise Unavailable("the head row is still as the lost data centre wrote it: its clocks were ahead; wait")
        raise Conflict(f"the account stands at {now.head}")


class LostCentre:
    """Whether a data centre is gone, as far as the cluster can tell."""

    def __init__(self, session: ClusterSession) -> None:
        self._session = session

    async def replication(self) -> Mapping[str, int]:
        """How many copies the keyspace has in each data centre. Raises: Unavailable."""
        rows = await self._session.run(
            "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s", (self._session.options.keyspace,)
        )
        found = dict(rows[0]["replication"]) if rows else {}
        return {name: int(number) for name, number in found.items() if name != "class" and number.isdigit()}

    def nodes(self, datacenter: str) -> Sequence[tuple[str, int]]:
        """Address and port of every database node of it that the cluster still knows, dead or alive."""
        cluster = self._session._cluster
        hosts = cluster.metadata.all_hosts() if cluster is not None else ()
        return [(str(host.endpoint.address), int(host.endpoint.port)) for host in hosts if host.datacenter == datacenter]
