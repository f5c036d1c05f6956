"""Message rows and the read and unread lists in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from operator import attrgetter

from twisted_mail.storage.interfaces import COLUMNS, ListDelete, ListName, ListPut, ListRow, MessageRow
from twisted_mail.values import AccountId, MailboxId, MessageKey, ModSeq

__all__ = ["MemoryLists", "MemoryMessages"]

BATCH = 1000
"""Rows in one batch."""

RowId = tuple[ListName, int, MailboxId, int, int]
"""A row of a list within an account: list, bucket, folder, received, uid."""


class MemoryMessages:
    """Implements `Messages`."""

    def __init__(self) -> None:
        self._rows: dict[AccountId, dict[MessageKey, Mapping[str, bytes]]] = {}

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        for row in rows:
            unknown = row.cells.keys() - set(COLUMNS)
            if unknown:
                raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        self._rows.setdefault(account, {}).update((row.key, dict(row.cells)) for row in rows)

    async def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        for column in columns:
            if column not in COLUMNS:
                raise ValueError(f"no such column: {column}")
        rows = self._rows.get(account, {})
        for start in range(0, len(keys), BATCH):
            batch: list[tuple[bytes, ...] | None] = []
            for key in keys[start : start + BATCH]:
                row = rows.get(key)
                batch.append(None if row is None else tuple(row.get(column, b"") for column in columns))
            yield batch

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        rows = self._rows.get(account, {})
        for key in keys:
            rows.pop(key, None)

    async def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        keys = sorted(self._rows.get(account, {}))
        for start in range(0, len(keys), BATCH):
            yield keys[start : start + BATCH]


class MemoryLists:
    """Implements `Lists`. What was deleted is remembered with its modseq, so that older changes cannot bring it back."""

    def __init__(self) -> None:
        self._rows: dict[AccountId, dict[RowId, tuple[ModSeq, ListRow | None]]] = {}
        self._reached: dict[tuple[AccountId, int], ModSeq] = {}

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        found = [
            row
            for id, (_, row) in self._rows.get(account, {}).items()
            if row is not None and id[:3] == (name, bucket, folder) and (before is None or id[3:] < before)
        ]
        found.sort(key=attrgetter("received", "uid"), reverse=True)
        return found[:limit]

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        rows = self._rows.setdefault(account, {})
        for change in changes:
            row = change.row if isinstance(change, ListPut) else None
            at = change.row if isinstance(change, ListPut) else change
            id: RowId = (change.name, change.bucket, at.folder, at.received, at.uid)
            standing = rows.get(id)
            if standing is None or standing[0] < modseq or (standing[0] == modseq and standing[1] is not None):
                rows[id] = (modseq, row)

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        return self._reached.get((account, bucket), ModSeq(0))

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        self._reached[account, bucket] = max(modseq, self._reached.get((account, bucket), ModSeq(0)))

    async def drop(self, account: AccountId, bucket: int) -> None:
        rows = self._rows.get(account, {})
        for id in [id for id in rows if id[1] == bucket]:
            del rows[id]
        self._reached.pop((account, bucket), None)
