"""Message rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from twisted_mail.storage.interfaces.log import NewEntry
from twisted_mail.values import AccountId, MessageKey, ModSeq

__all__ = ["AppendsRows", "COLUMNS", "MessageRow", "Messages"]


COLUMNS: Final = (
    "header",  # the raw header block with its blank line
    "common_header",  # only the fields that clients ask for in bulk, raw
    "envelope",  # IMAP ENVELOPE, rendered
    "structure",  # IMAP BODYSTRUCTURE, rendered
    "body",  # IMAP BODY, rendered
    "preview",  # UTF-8
    "search_header",  # decoded and folded, for SEARCH
    "search_text",  # decoded and folded, for SEARCH
    "layout",  # the part tree with offsets, encoded
    "manifest",  # how the octets are put together from inline and blobs, encoded
    "inline",  # the octets that lie in the row
    "facts",  # what later rooms need, encoded (ids for threads, sender, subject)
)


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One immutable message of one account. Cells are opaque; a column that is left out reads as empty octets."""

    key: MessageKey
    cells: Mapping[str, bytes]


class Messages(Protocol):
    """Immutable rows, keyed by account, bucket and message id."""

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        """Write rows; putting the same key again with the same cells is harmless."""

    def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        """The cells of *columns* for each of *keys*, in the order of *keys*, in batches; None where there is no row.

        Keys that lie together are read as one range, and only the columns named are touched.
        """

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        """Forget rows; those that do not exist are no error."""

    def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        """Every key of *account*, ascending, in batches (checks, sweeps)."""


class AppendsRows(Protocol):
    """An optional ability of an `AccountLog`: entries and the message rows they name are written as one."""

    @property
    def messages(self) -> Messages:
        """The store that the rows go into."""

    async def append_with_rows(
        self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry], rows: Sequence[MessageRow]
    ) -> ModSeq:
        """As `AccountLog.append`; where nothing of it was written, no row was either."""
