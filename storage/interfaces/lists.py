"""Derived lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from twisted_mail.values import AccountId, MailboxId, MessageKey, ModSeq

__all__ = ["ListDelete", "ListName", "ListPut", "ListRow", "Lists"]


ListName = Literal["read", "unread"]


@dataclass(frozen=True, slots=True)
class ListRow:
    """A line of a message list (the tables ``read_emails`` and ``unread_emails``)."""

    folder: MailboxId
    received: int
    """Milliseconds since 1970."""
    uid: int
    message: MessageKey
    sender: str
    subject: str
    preview: str
    flags: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ListPut:
    """A row enters a list, or replaces the row of the same folder, received and uid."""

    name: ListName
    bucket: int
    row: ListRow


@dataclass(frozen=True, slots=True)
class ListDelete:
    """A row leaves a list."""

    name: ListName
    bucket: int
    folder: MailboxId
    received: int
    uid: int


class Lists(Protocol):
    """The denormalised lists of read and of unread messages, newest first. Derived: may always be rebuilt."""

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        """At most *limit* rows of *folder* by descending (received, uid), those strictly below *before*."""

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        """Carry out the net difference of the entry *modseq*.

        Of two changes to one row (list, bucket, folder, received, uid) the one with the higher modseq stands, in
        whatever order they come and however often; at one modseq a delete wins. `reached` stays: the difference may
        come in several parts, and whoever is cut off between them must not be taken for done.
        """

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        """The highest modseq that *bucket* was marked to have reached; 0 if none."""

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        """Everything up to *modseq* is in *bucket* (entries without a difference move it too)."""

    async def drop(self, account: AccountId, bucket: int) -> None:
        """Forget a bucket whole, its `reached` too."""
