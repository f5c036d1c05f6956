"""The messages of one open account: rows and octets to read, and rows that wait for the entry that will name them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.account.errors import AccountUnavailable, Refused
from twisted_mail.account.messages import Prepared, ReadAhead
from twisted_mail.account.state import DAY_SECONDS, AccountState
from twisted_mail.services import PreparedMessage, StoredMessage
from twisted_mail.storage.interfaces import MessageRow, StorageError
from twisted_mail.values import AccountId, MessageKey

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = ["MAX_UNWRITTEN", "MAX_UNWRITTEN_BYTES", "AccountRows", "octets_of"]

R = TypeVar("R")
MAX_UNWRITTEN = 32
"""Stored messages of one account whose rows wait in memory for the entry that names them."""
MAX_UNCOMMITTED = 1000
"""Stored messages of one account that are remembered until an entry names them."""
MAX_UNWRITTEN_BYTES = 4 * 1024 * 1024
"""Octets of these; a row with more is written at once (its search text alone may have 16 MiB)."""


class AccountRows:
    """The part of an open account that has to do with messages rather than with its log."""

    _log = Logger()

    def __init__(self, service: AccountService, account: AccountId) -> None:
        self._service = service
        self._id = account
        self._state = AccountState()
        self._unwritten: OrderedDict[bytes, MessageRow] = OrderedDict()
        self._uncommitted: OrderedDict[bytes, MessageRow] = OrderedDict()
        """Rows, written or not, that no entry names yet; without their larger cells."""

    @property
    def id(self) -> AccountId:
        return self._id

    @property
    def state(self) -> AccountState:
        return self._state

    def rows(
        self, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        """Message rows in the order of *keys*, in batches."""
        return self._service.store.rows(self._id, keys, columns)

    def octets(self, key: MessageKey, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The message's own octets."""
        return self._service.store.octets(self._id, key, start, end)

    def reading(self, keys: Sequence[MessageKey]) -> ReadAhead:
        """The octets of many messages, some read ahead."""
        return ReadAhead(self._service.store, self._id, keys)

    async def store(self, message: PreparedMessage) -> StoredMessage:
        """Put the row of a prepared message into this account. Raises AccountUnavailable."""
        if not isinstance(message, Prepared):
            raise TypeError("only what Accounts.writer() prepared can be stored")
        today = int(self._service.wall()) // DAY_SECONDS
        row: MessageRow | None = None
        try:
            row, stored = await self._service.store.row(self._id, self._state.bucket, message, today)
            if self._service.appends_rows is None or octets_of(row) > MAX_UNWRITTEN_BYTES:
                await self._service.store.put(self._id, [row])
            else:
                # it is written together with the entry that names it; the oldest do not wait for theirs too long
                self._unwritten[row.key.id.octets] = row
                try:
                    await self._make_room()
                except BaseException:
                    self._unwritten.pop(row.key.id.octets, None)  # nobody will commit it
                    raise
        except StorageError as error:
            if row is not None:
                self._give_back([row])
            raise AccountUnavailable("the message could not be stored") from error
        self._uncommitted[row.key.id.octets] = MessageRow(row.key, {"manifest": row.cells["manifest"]})
        if len(self._uncommitted) > MAX_UNCOMMITTED:
            self._uncommitted.popitem(last=False)  # if it is never committed, it is found by who compares everything
        return stored

    async def naming(self, rows: Sequence[bytes], commit: Coroutine[Any, Any, R]) -> R:
        """The result of *commit*, whose entry names *rows* (ids). Where it is certain that there will be no such entry,
        the rows and what they hold are given back."""
        named = [row for id in rows if (row := self._uncommitted.pop(id, None)) is not None]
        try:
            return await commit
        except (Refused, AccountUnavailable):
            self._give_back(named)
            raise

    def _give_back(self, rows: Sequence[MessageRow]) -> None:
        """As well as it goes: what stays is garbage, found by who compares everything."""
        if rows:
            Deferred.fromCoroutine(self._service.store.give_back(self._id, rows)).addErrback(
                lambda failure: self._log.warn("account {id}: garbage stays: {why}", id=self._id, why=failure.value)
            )

    async def _make_room(self) -> None:
        """Write the oldest rows that wait for their entries, until the others are few enough."""
        unwritten = self._unwritten
        while len(unwritten) > MAX_UNWRITTEN or sum(map(octets_of, unwritten.values())) > MAX_UNWRITTEN_BYTES:
            oldest = next(iter(unwritten.values()))
            await self._service.store.put(self._id, [oldest])
            unwritten.pop(oldest.key.id.octets, None)

    def forget_unwritten(self) -> None:
        """Nobody has it open: what was stored and not committed is nobody's any more."""
        self._unwritten.clear()
        rows, self._uncommitted = list(self._uncommitted.values()), OrderedDict()
        self._give_back(rows)


def octets_of(row: MessageRow) -> int:
    """How many octets are in the cells of *row*."""
    return sum(map(len, row.cells.values()))
