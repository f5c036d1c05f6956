"""The read and unread lists: lines for showing a mailbox, derived from the account and always one bucket that is live.

A bucket knows the modseq it has reached. Whoever finds it behind brings it up to date from what changed after that
number (the columns know) and what vanished after it; writing the same again changes nothing, and an older writer
loses to a newer one. Where the vanished have been forgotten, the lists are rebuilt in a new bucket and switched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyroaring import BitMap

from twisted_mail.account.columns import Columns
from twisted_mail.account.intents import SetSetting
from twisted_mail.account.messages import decode_facts
from twisted_mail.account.state import Mailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import ListDelete, ListName, ListPut, ListRow, Lists
from twisted_mail.values import MailboxId, ModSeq

__all__ = ["BUCKET_SETTING", "MessageLists"]

BUCKET_SETTING: Final = "lists.bucket"
_BATCH: Final = 500


class MessageLists:
    """Pages of an account's read and unread lists."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def page(
        self, account: Account, name: ListName, mailbox: MailboxId, before: tuple[int, int] | None, limit: int
    ) -> Sequence[ListRow]:
        """At most *limit* lines of *mailbox*, newest first, below *before* (received in milliseconds, UID)."""
        bucket = await self.bring_up_to_date(account)
        return await self._lists.page(account.id, name, bucket, mailbox, before, limit)

    async def bring_up_to_date(self, account: Account) -> int:
        """The live bucket, with everything in it that the account's state has."""
        bucket = self._live(account)
        reached = await self._lists.reached(account.id, bucket)
        target = account.state.modseq
        if reached >= target:
            return bucket
        for mailbox in list(account.state.mailboxes.values()):
            if mailbox.highest_modseq <= reached:
                continue
            columns = await account.columns(mailbox)
            vanished = _vanished(mailbox, columns, reached)
            if vanished is None:
                return await self.rebuild(account)
            for start in range(0, len(vanished), _BATCH):
                deletes = [
                    ListDelete(name, bucket, mailbox.id, received * 1000, uid)
                    for uid, received in vanished[start : start + _BATCH]
                    for name in _NAMES
                ]
                await self._lists.apply(account.id, deletes, target)
            if not await self._write(account, bucket, mailbox, columns, columns.changed_since(reached), target):
                return await self.bring_up_to_date(account)
        await self._lists.mark_reached(account.id, bucket, target)
        return bucket

    async def rebuild(self, account: Account) -> int:
        """Write the lists anew into the next bucket, make it the live one, and drop the old one."""
        old = self._live(account)
        bucket, target = old + 1, account.state.modseq
        await self._lists.drop(account.id, bucket)  # what a rebuild that was cut off left behind
        for mailbox in list(account.state.mailboxes.values()):
            columns = await account.columns(mailbox)
            if not await self._write(account, bucket, mailbox, columns, columns.live.copy(), target):
                return await self.rebuild(account)
        await self._lists.mark_reached(account.id, bucket, target)
        await account.commit(SetSetting(name=BUCKET_SETTING, value=str(bucket)))
        await self._lists.drop(account.id, old)
        return bucket

    def _live(self, account: Account) -> int:
        return int(account.state.settings.get(BUCKET_SETTING, "0"))

    async def _write(
        self, account: Account, bucket: int, mailbox: Mailbox, columns: Columns, slots: BitMap, target: ModSeq
    ) -> bool:
        """False: the columns were compacted meanwhile, so not everything was written, and it must be done again."""
        wanted = list(slots)
        generation = columns.generation
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            if columns.generation != generation:
                return False
            seen = columns.with_flag("\\Seen")
            lines = [
                (columns.key(s), columns.received[s], columns.uids[s], columns.flags_of(s), columns.sizes[s], s in seen)
                for s in part
            ]
            changes: list[ListPut | ListDelete] = []
            at = 0
            async for rows in account.rows([line[0] for line in lines], ("facts", "preview")):
                for cells in rows:
                    key, received, uid, flags, size, is_seen = lines[at]
                    at += 1
                    facts = decode_facts(cells[0] if cells else b"")
                    preview = cells[1].decode() if cells else ""
                    row = ListRow(
                        mailbox.id, received * 1000, uid, key, facts.sender, facts.subject, preview, tuple(flags), size
                    )
                    changes.append(ListPut("read" if is_seen else "unread", bucket, row))
                    changes.append(
                        ListDelete("unread" if is_seen else "read", bucket, mailbox.id, received * 1000, uid)
                    )
            await self._lists.apply(account.id, changes, target)
        return True


_NAMES: Final[tuple[ListName, ListName]] = ("read", "unread")


def _vanished(mailbox: Mailbox, columns: Columns, modseq: int) -> list[tuple[int, int]] | None:
    """(UID, INTERNALDATE) of what vanished after *modseq*; None if that has been forgotten."""
    if columns.vanished_since(modseq) is None:
        return None
    return [
        (uid, received)
        for uid, when, received in zip(
            columns.vanished_uids, columns.vanished_modseqs, columns.vanished_received, strict=True
        )
        if when > modseq
    ]
