"""`apply`: from a state and the next entry to the next state. Deterministic; nothing else changes a state."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import (
    Change,
    Entry,
    FlagChanged,
    MailboxCreated,
    MailboxDeleted,
    MailboxRenamed,
    MessagesAdded,
    MessagesExpunged,
    SettingChanged,
    Subscribed,
    unpack_uids,
)
from twisted_mail.account.state import BUCKET_BYTES, DAY_SECONDS, ROW_BYTES, AccountState, Mailbox
from twisted_mail.values import MailboxId, ModSeq

__all__ = ["Applied", "apply", "apply_to_columns"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` decided: the number, and the first UID that each `MessagesAdded` of the entry was given."""

    modseq: ModSeq
    first_uids: tuple[int, ...]


def apply(state: AccountState, modseq: ModSeq, entry: Entry) -> Applied:
    """Bring *state* from ``modseq - 1`` to *modseq*. Raises ValueError if it stands elsewhere."""
    if modseq != state.modseq + 1:
        raise ValueError(f"entry {modseq} does not follow state {state.modseq}")
    first_uids: list[int] = []
    for change in entry.changes:
        _apply_change(state, int(modseq), entry.time // 1000, change, first_uids)
    if entry.delivery:
        state.delivered[entry.delivery] = (int(modseq), entry.time // (DAY_SECONDS * 1000))
    state.modseq = modseq
    return Applied(modseq, tuple(first_uids))


def _apply_change(state: AccountState, modseq: int, seconds: int, change: Change, first_uids: list[int]) -> None:
    match change:
        case MessagesAdded():
            mailbox = state.mailboxes[MailboxId(change.mailbox)]
            first = mailbox.uid_next
            first_uids.append(first)
            size = sum(message.size for message in change.messages)
            count = len(change.messages)
            mailbox.uid_next += count
            mailbox.messages += count
            mailbox.size += size
            mailbox.unseen += sum("\\Seen" not in message.flags for message in change.messages)
            mailbox.deleted += sum("\\Deleted" in message.flags for message in change.messages)
            state.messages += count
            state.size += size
            for message in change.messages:
                if message.bucket == state.bucket:
                    state.bucket_bytes += message.size + ROW_BYTES
            if state.bucket_bytes >= BUCKET_BYTES:
                state.bucket, state.bucket_bytes = state.bucket + 1, 0
            _to_columns(mailbox, modseq, seconds, first, change)
        case FlagChanged():
            mailbox = state.mailboxes[MailboxId(change.mailbox)]
            difference = len(unpack_uids(change.set)) - len(unpack_uids(change.cleared))
            if change.flag == "\\Seen":
                mailbox.unseen -= difference
            elif change.flag == "\\Deleted":
                mailbox.deleted += difference
            _to_columns(mailbox, modseq, seconds, 0, change)
        case MessagesExpunged():
            mailbox = state.mailboxes[MailboxId(change.mailbox)]
            count = len(unpack_uids(change.uids))
            mailbox.messages -= count
            mailbox.size -= change.size
            mailbox.unseen -= change.unseen
            mailbox.deleted -= change.deleted
            state.messages -= count
            state.size -= change.size
            _to_columns(mailbox, modseq, seconds, 0, change)
        case MailboxCreated():
            id = MailboxId(change.mailbox)
            mailbox = Mailbox(id, change.name, change.uid_validity, change.special_use, modseq, Columns())
            state.mailboxes[id] = mailbox
            state.by_name[change.name] = mailbox
            state.uid_validity = max(state.uid_validity, change.uid_validity)
        case MailboxDeleted():
            mailbox = state.mailboxes.pop(MailboxId(change.mailbox))
            del state.by_name[mailbox.name]
            state.dropped.append((modseq, mailbox))
            state.messages -= mailbox.messages
            state.size -= mailbox.size
        case MailboxRenamed():
            mailbox = state.mailboxes[MailboxId(change.mailbox)]
            if state.by_name.get(mailbox.name) is mailbox:
                del state.by_name[mailbox.name]
            mailbox.name = change.name
            state.by_name[change.name] = mailbox
        case Subscribed():
            if change.on:
                state.subscriptions.add(change.name)
            else:
                state.subscriptions.discard(change.name)
        case SettingChanged():
            if change.value is None:
                state.settings.pop(change.name, None)
            else:
                state.settings[change.name] = change.value


def _to_columns(mailbox: Mailbox, modseq: int, seconds: int, first_uid: int, change: Change) -> None:
    mailbox.highest_modseq = modseq
    if mailbox.columns is None:
        mailbox.backlog.append((modseq, seconds, first_uid, change))
    else:
        apply_to_columns(mailbox.columns, modseq, seconds, first_uid, change)


def apply_to_columns(columns: Columns, modseq: int, seconds: int, first_uid: int, change: Change) -> None:
    """The part of a change that concerns the columns of its mailbox."""
    match change:
        case MessagesAdded():
            columns.add(first_uid, change.messages, modseq, seconds)
        case FlagChanged():
            columns.change_flag(change.flag, unpack_uids(change.set), unpack_uids(change.cleared), modseq)
        case MessagesExpunged():
            columns.expunge(unpack_uids(change.uids), modseq)
            columns.compact()
