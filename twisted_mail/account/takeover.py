"""Taking an account over from a home data centre that is gone for good, with what the surviving one has of its log.

Not a move (`moving`): the old home cannot write its last entry, and whatever it acknowledged last may never have come here.
So nothing is gone on with. The state is made of the checkpoint and the entries up to the first that did not come; of
those behind it only what adds messages is kept, since everything else speaks of UIDs that may have been others. Then the
log begins anew with that state, its home here, a number far above any that can have been given, and every UIDVALIDITY
raised: UIDs may have been given, and shown, that nobody here knows of. Clients begin anew with the mailbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from twisted_mail.account.apply import apply
from twisted_mail.account.audit import PackedIds
from twisted_mail.account.buckets import BUCKETS_SETTING, buckets_of
from twisted_mail.account.checkpoint import (
    HEAD,
    changed_chunks,
    column_chunks,
    decode_columns,
    decode_delivered,
    decode_head,
    delivered_chunks,
)
from twisted_mail.account.entries import AddedMessage, Entry, MessagesAdded, decode_entry
from twisted_mail.account.intents import HOME_SETTING
from twisted_mail.account.state import DAY_SECONDS, INBOX, AccountState, Columns
from twisted_mail.account.tree import Initialise, NewMailbox
from twisted_mail.storage.interfaces import Checkpoint, LogEntry, Messages
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey, ModSeq

__all__ = ["ABOVE", "AnotherHome", "TakenOver", "Takeover"]

ABOVE: Final = 1 << 32
"""By how much the numbers go on: more entries than the lost home can have written unseen."""
BUCKETS_ABOVE: Final = 10_000
"""The same for the numbers of the lists' buckets, of which each is used once."""
_ROWS: Final = 256
_KEPT: Final = ("graves/", "delivered/")
"""Chunks of a checkpoint that are no part of the state."""


class AnotherHome(Exception):
    """The account is not at home in the lost data centre."""

    def __init__(self, home: str) -> None:
        super().__init__(f"the account is at home in {home or 'no data centre'}")
        self.home = home


class Left(Protocol):
    """What there is of a log."""

    @property
    def head(self) -> ModSeq: ...

    @property
    def checkpoint(self) -> Checkpoint | None: ...

    @property
    def entries(self) -> Sequence[LogEntry]: ...


class Remains(Protocol):
    """An ability of a store whose data centres agree by themselves; see `storage.cql.takeover`."""

    async def left(self, account: AccountId) -> Left | None: ...

    async def begin_anew(self, account: AccountId, left: Any, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        """*left* is what it gave before, of a type of its own, hence Any."""


@dataclass(slots=True)
class TakenOver:
    """What was found, and made of it."""

    head: int = 0
    """The last entry that is known of."""
    applied: int = 0
    """Entries up to the first that did not come, above the checkpoint."""
    missing: int = 0
    """Entries that did not come, below others that did. What came after the last one nobody knows."""
    rescued: int = 0
    """Messages that entries behind a gap had added, kept."""
    left_out: int = 0
    """Changes in entries behind a gap (flags, expunges, mailboxes) that were not kept."""
    rows_missing: int = 0
    """Messages that entries above the checkpoint added and whose rows did not come: below a gap they are listed and cannot be
    shown, behind it they are not rescued."""
    messages: int = 0
    modseq: int = 0
    """Where the log stands now."""
    nothing: bool = False
    """Nothing of the account's log came here: it begins empty when it is opened."""
    done_before: bool = False


class Takeover:
    """Takes accounts of *lost* over to *here*."""

    def __init__(
        self,
        remains: Remains,
        messages: Messages,
        *,
        lost: str,
        here: str,
        mailboxes: tuple[NewMailbox, ...],
        wall: Callable[[], float] = time.time,
    ) -> None:
        # mailboxes: what an account gets of which not even the first entry came
        self._remains = remains
        self._messages = messages
        self._lost = lost
        self._here = here
        self._mailboxes = mailboxes
        self._wall = wall

    async def take(self, account: AccountId, recorded: str) -> TakenOver:
        """Take *account* over; *recorded*: its home as the directory says, which counts where its log says nothing.

        May be done again. Raises AnotherHome, Conflict, Corrupt (nothing was changed), Unavailable (do it again).
        """
        report = TakenOver()
        left = await self._remains.left(account)
        if left is None:
            if recorded not in (self._lost, self._here):
                raise AnotherHome(recorded)
            report.nothing = True
            return report
        report.head = int(left.head)
        state = _state_of(left.checkpoint)
        behind = self._follow(state, left.entries, report)
        home = state.settings.get(HOME_SETTING, "") or recorded
        if home == self._here:
            report.done_before = True
            return report
        if home != self._lost:
            raise AnotherHome(home)
        if INBOX not in state.by_name:
            ids = tuple(MailboxId.new() for _ in self._mailboxes)
            plan = Initialise(mailboxes=self._mailboxes, ids=ids, uid_validity=int(self._wall())).run(state)
            apply(state, ModSeq(state.modseq + 1), Entry(int(self._wall() * 1000), "initialise", plan.changes))
        for entry in left.entries[: report.applied]:
            for change in decode_entry(entry.data).changes:
                if isinstance(change, MessagesAdded):
                    await self._with_rows(account, change.messages, report)
        await self._rescue(account, state, left.checkpoint, behind, report)
        newest = max([left.head, *(entry.modseq for entry in left.entries)])
        chunks = self._anew(state, ModSeq(newest + ABOVE), left.checkpoint)
        await self._remains.begin_anew(account, left, state.modseq, chunks)
        report.messages, report.modseq = state.messages, int(state.modseq)
        return report

    def _follow(self, state: AccountState, entries: Sequence[LogEntry], report: TakenOver) -> Sequence[LogEntry]:
        """Apply *entries* up to the first gap; those behind it."""
        for at, entry in enumerate(entries):
            if entry.modseq != state.modseq + 1:
                behind = entries[at:]
                report.missing = int(behind[-1].modseq) - int(state.modseq) - len(behind)
                return behind
            apply(state, entry.modseq, decode_entry(entry.data))
            report.applied += 1
        return ()

    async def _rescue(
        self,
        account: AccountId,
        state: AccountState,
        checkpoint: Checkpoint | None,
        behind: Sequence[LogEntry],
        report: TakenOver,
    ) -> None:
        """Messages that entries behind the gap added, and that have a row here, are added where they were, or to INBOX."""
        if not behind:
            return
        known = PackedIds()
        for mailbox in state.mailboxes.values():
            if mailbox.columns is not None:
                columns = mailbox.columns
                known.add(columns.message_id(slot) for slot in columns.live)
        delivered = set(state.delivered)
        for name in delivered_chunks(checkpoint.manifest) if checkpoint is not None else ():
            delivered |= decode_delivered(checkpoint.chunks[name]) if checkpoint is not None else set()
        for logged in behind:
            entry = decode_entry(logged.data)
            if entry.delivery and entry.delivery in delivered:
                continue
            changes = []
            for change in entry.changes:
                if not isinstance(change, MessagesAdded):
                    report.left_out += 1
                    continue
                kept = [each for each in change.messages if each.message not in known]
                there = await self._with_rows(account, kept, report)
                if there:
                    id = MailboxId(change.mailbox)
                    mailbox = state.mailboxes.get(id) or state.inbox
                    changes.append(MessagesAdded(mailbox.id.octets, tuple(there)))
                    known.add(each.message for each in there)
                    report.rescued += len(there)
            if changes:
                again = Entry(entry.time, "take-over", tuple(changes), entry.delivery)
                apply(state, ModSeq(state.modseq + 1), again)

    async def _with_rows(
        self, account: AccountId, messages: Sequence[AddedMessage], report: TakenOver
    ) -> list[AddedMessage]:
        found: list[AddedMessage] = []
        for start in range(0, len(messages), _ROWS):
            part = messages[start : start + _ROWS]
            keys = [MessageKey(each.bucket, MessageId(each.message)) for each in part]
            at = 0
            async for batch in self._messages.get_many(account, keys, ("manifest",)):
                found += [part[at + number] for number, cells in enumerate(batch) if cells is not None]
                at += len(batch)
        report.rows_missing += len(messages) - len(found)
        return found

    def _anew(self, state: AccountState, modseq: ModSeq, checkpoint: Checkpoint | None) -> dict[str, bytes]:
        """The state at *modseq*, at home here, with new UIDVALIDITYs: as the chunks of a checkpoint."""
        now = self._wall()
        validity = max(state.uid_validity + 1, int(now))
        for number, mailbox in enumerate(state.in_order()):
            mailbox.uid_validity = validity + number
            mailbox.highest_modseq = int(modseq)
            state.uid_validity = mailbox.uid_validity
        state.settings[HOME_SETTING] = self._here
        buckets = buckets_of(state)
        state.settings[BUCKETS_SETTING] = replace(buckets, next=buckets.next + BUCKETS_ABOVE).encode()
        state.modseq = modseq
        history = ((int(modseq), int(now * 1000)),)
        chunks, _ = changed_chunks(state, 0, {}, history, int(now) // DAY_SECONDS)
        if checkpoint is not None:
            chunks |= {name: data for name, data in checkpoint.chunks.items() if name.startswith(_KEPT)}
        return chunks


def _state_of(checkpoint: Checkpoint | None) -> AccountState:
    """With all columns. Raises Corrupt."""
    if checkpoint is None:
        return AccountState()
    state, _ = decode_head(checkpoint.chunks[HEAD])
    for mailbox in state.mailboxes.values():
        names = column_chunks(checkpoint.manifest, mailbox.id)
        chunks = {name: checkpoint.chunks[name] for name in names}
        mailbox.columns = decode_columns(mailbox.id, chunks, int(checkpoint.modseq)) if names else Columns()
    return state
