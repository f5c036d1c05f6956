"""Intents: what somebody wants done to an account, as values.

`run` looks at the newest state and plans changes, or refuses; it has no effect and may run again after a conflict.
`result` says what came of it, once the entry stands. An intent can be encoded, so that it can travel to the
account's committer in another process.

The *scope* of an intent is what it reads and what it changes: intents whose scopes are disjoint go out together in
one append, each under its own modseq.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeVar

import msgspec
from pyroaring import BitMap

from twisted_mail.account.apply import Applied
from twisted_mail.account.columns import Columns, canonical_flag
from twisted_mail.account.entries import (
    AddedMessage,
    Change,
    FlagChanged,
    MessagesAdded,
    MessagesExpunged,
    SettingChanged,
    pack_uids,
    unpack_uids,
)
from twisted_mail.account.errors import CannotChange, LimitReached, NoSuchMessage, OverQuota
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.services import StoredMessage
from twisted_mail.values import MailboxId, MessageId, MessageKey, UIDValidity

__all__ = [
    "HOME_SETTING",
    "MAX_KEYWORDS",
    "TREE",
    "AddMessages",
    "Added",
    "ChangeFlags",
    "Copied",
    "CopyMessages",
    "Expunge",
    "FlagsChanged",
    "Intent",
    "NewMessage",
    "Plan",
    "ReplaceMessage",
    "Replaced",
    "Scope",
    "SetSetting",
    "new_message",
]

R = TypeVar("R")
MAX_KEYWORDS = 500
TREE = b"tree"
HOME_SETTING: Final = "home"
"""The setting that names the account's home data centre; see `homes`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What an intent wants for itself, and what it shares with others."""

    alone: frozenset[bytes] = frozenset()
    shared: frozenset[bytes] = frozenset()

    def meets(self, other: Scope) -> bool:
        """Whether the two may not go into one append."""
        return bool(self.alone & (other.alone | other.shared) or other.alone & self.shared)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `run` decided: the changes (none: nothing to do), and what `result` needs to know of it."""

    changes: tuple[Change, ...] = ()
    note: Any = None
    """The intent's own; typed where it is used."""
    delivery: bytes = b""


class Intent(msgspec.Struct, Generic[R], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all intents; *R* is what `commit` returns.

    One that came from a newer version, with a field that means nothing here, is not understood rather than half done.
    """

    cause: ClassVar[str] = ""

    def columns(self) -> tuple[MailboxId, ...]:
        """The mailboxes whose columns must be loaded before `run`."""
        return ()

    def new_rows(self) -> tuple[bytes, ...]:
        """The MessageIds of rows that the entry will name for the first time."""
        return ()

    def asks_for_delivery(self) -> bytes | None:
        """The DeliveryId that must be looked up in older checkpoints before `run` (a repeated delivery)."""
        return None

    def new_keys(self) -> tuple[MessageKey, ...]:
        """Where these rows lie."""
        return ()

    def again(self) -> Self | None:
        """The same for another attempt after an unknown outcome: it finds what the first one did. None: it cannot."""
        return None

    def scope(self) -> Scope:
        raise NotImplementedError(type(self).__name__)

    def run(self, state: AccountState) -> Plan:
        """Raises a `Refused`."""
        raise NotImplementedError(type(self).__name__)

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> R:
        """After the entry was applied, or after a plan without changes (*applied* is None)."""
        raise NotImplementedError(type(self).__name__)


def _rows(mailbox: bytes) -> bytes:
    return b"rows:" + mailbox


def _loaded(mailbox: Mailbox) -> Columns:
    if mailbox.columns is None:
        raise RuntimeError("columns were not loaded before run")
    return mailbox.columns


def _flags(flags: Iterable[str], columns: Columns | None) -> tuple[str, ...]:
    """Canonical spelling, each once; ``\\Recent`` cannot be set (RFC 9051 section 2.3.2)."""
    known = list(columns.flags) if columns is not None else []
    out: dict[str, None] = {}
    for flag in flags:
        if flag.lower() != "\\recent":
            name = canonical_flag(flag, known)
            if name not in out:
                out[canonical_flag(flag, [*known, *out])] = None
    if columns is not None:
        new = sum(not flag.startswith("\\") and flag not in columns.flags for flag in out)
        if new and len(columns.keywords()) + new > MAX_KEYWORDS:
            raise LimitReached(f"more than {MAX_KEYWORDS} keywords in one mailbox")
    return tuple(out)


def _check_quota(state: AccountState, more: int, quota_bytes: int | None) -> None:
    if quota_bytes is not None and more > 0 and state.size + more > quota_bytes:
        raise OverQuota("the account's quota would be exceeded")


# --- adding -------------------------------------------------------------------------------------------------------


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored message that is to enter a mailbox."""

    message: bytes
    bucket: int
    size: int
    sent_days: int
    received: int
    """INTERNALDATE, seconds since 1970."""
    zone: int = 0
    """Its zone in minutes east of UTC."""
    flags: tuple[str, ...] = ()


def _key(message: NewMessage) -> MessageKey:
    return MessageKey(message.bucket, MessageId(message.message))


def new_message(stored: StoredMessage, received: int, zone: int = 0, flags: Iterable[str] = ()) -> NewMessage:
    """What an `AddMessages` needs of a stored message."""
    return NewMessage(
        stored.key.id.octets, stored.key.bucket, stored.size, stored.sent_days, received, zone, tuple(flags)
    )


@dataclass(frozen=True, slots=True)
class Added:
    """Where messages went (UIDPLUS APPENDUID)."""

    mailbox: MailboxId
    uid_validity: UIDValidity
    uids: range
    """Ascending, in the order of the messages; empty when a repeated delivery was found done already."""
    modseq: int = 0


class AddMessages(Intent[Added], frozen=True, kw_only=True, tag="add-messages"):
    """Put stored messages into a mailbox: APPEND, MULTIAPPEND (all or nothing) and delivery.

    With `delivery`, the entry carries that id, and nothing is done where it is known to stand already; with `repeated`
    (leased again, queued after an unknown outcome) it is looked up in older checkpoints first.
    """

    cause: ClassVar[str] = "add"
    mailbox: MailboxId
    messages: tuple[NewMessage, ...]
    delivery: bytes = b""
    repeated: bool = False
    quota_bytes: int | None = None

    def new_rows(self) -> tuple[bytes, ...]:
        return tuple(message.message for message in self.messages)

    def new_keys(self) -> tuple[MessageKey, ...]:
        return tuple(map(_key, self.messages))

    def again(self) -> Self | None:
        return msgspec.structs.replace(self, repeated=True) if self.delivery else None

    def asks_for_delivery(self) -> bytes | None:
        return self.delivery if self.repeated else None

    def scope(self) -> Scope:
        alone = frozenset((b"delivery:" + self.delivery,)) if self.delivery else frozenset[bytes]()
        return Scope(alone, frozenset((TREE, b"add:" + self.mailbox.octets)))

    def run(self, state: AccountState) -> Plan:
        mailbox = state.mailbox_by_id(self.mailbox)
        if self.delivery in state.delivered:
            # `repeated` asks for older checkpoints too; the tail is at hand, and costs nothing. An attempt that was given
            # up by who waited for it (and queued) may still be on its way to another node, and come after the second.
            return Plan()
        _check_quota(state, sum(m.size for m in self.messages), self.quota_bytes)
        messages = tuple(
            AddedMessage(m.message, m.bucket, m.size, m.received, m.zone, m.sent_days, _flags(m.flags, mailbox.columns))
            for m in self.messages
        )
        if not messages:
            return Plan()
        return Plan((MessagesAdded(self.mailbox.octets, messages),), delivery=self.delivery)

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> Added:
        mailbox = state.mailboxes.get(self.mailbox)
        validity = UIDValidity(mailbox.uid_validity if mailbox else 1)
        if applied is None:
            return Added(self.mailbox, validity, range(0), 0)
        first = applied.first_uids[0]
        return Added(self.mailbox, validity, range(first, first + len(self.messages)), applied.modseq)


# --- flags --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlagsChanged:
    """What a STORE did."""

    changed: BitMap
    """UIDs of which some flag changed."""
    failed: BitMap = field(default_factory=BitMap)
    """UIDs that had changed after UNCHANGEDSINCE (RFC 7162 MODIFIED): nothing was done to these."""
    modseq: int = 0
    """The number of the change; 0 if nothing changed."""


class ChangeFlags(Intent[FlagsChanged], frozen=True, kw_only=True, tag="change-flags"):
    """STORE: add, remove or replace flags; UIDs that are not there are passed over."""

    cause: ClassVar[str] = "flags"
    mailbox: MailboxId
    uids: bytes
    """`pack_uids` of the UIDs."""
    mode: Literal["add", "remove", "replace"]
    flags: tuple[str, ...]
    unchanged_since: int | None = None

    def columns(self) -> tuple[MailboxId, ...]:
        return (self.mailbox,)

    def scope(self) -> Scope:
        return Scope(frozenset((_rows(self.mailbox.octets),)), frozenset((TREE,)))

    def run(self, state: AccountState) -> Plan:
        mailbox = state.mailbox_by_id(self.mailbox)
        columns = _loaded(mailbox)
        slots = columns.slots_of(unpack_uids(self.uids))
        failed = BitMap()
        if self.unchanged_since is not None:
            modseqs = columns.modseqs
            failed = BitMap([slot for slot in slots if modseqs[slot] > self.unchanged_since])
            slots -= failed
        flags = _flags(self.flags, columns)
        changes: list[Change] = []
        touched = BitMap()
        names = {*flags, *columns.flags} if self.mode == "replace" else set(flags)
        nothing = BitMap()
        for name in sorted(names):
            have = columns.flags.get(name, nothing)
            want = name in flags and self.mode != "remove"
            to_set = slots - have if want else nothing
            to_clear = nothing if want else slots & have
            if to_set or to_clear:
                touched |= to_set | to_clear
                changes.append(
                    FlagChanged(
                        self.mailbox.octets,
                        name,
                        pack_uids(columns.uids_of(to_set)),
                        pack_uids(columns.uids_of(to_clear)),
                    )
                )
        return Plan(tuple(changes), (columns.uids_of(touched), columns.uids_of(failed)))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> FlagsChanged:
        changed, failed = plan.note
        return FlagsChanged(changed, failed, applied.modseq if applied else 0)


# --- leaving ------------------------------------------------------------------------------------------------------


def _expunged(mailbox: Mailbox, columns: Columns, slots: BitMap) -> MessagesExpunged:
    sizes = columns.sizes
    return MessagesExpunged(
        mailbox.id.octets,
        pack_uids(columns.uids_of(slots)),
        sum(sizes[slot] for slot in slots),
        len(slots - columns.with_flag("\\Seen")),
        len(slots & columns.with_flag("\\Deleted")),
    )


class Expunge(Intent[BitMap], frozen=True, kw_only=True, tag="expunge"):
    """Remove messages: those of `uids` (None: any) that have ``\\Deleted``, or all of `uids` with `only_deleted` off.

    Returns the UIDs that were removed.
    """

    cause: ClassVar[str] = "expunge"
    mailbox: MailboxId
    uids: bytes | None = None
    only_deleted: bool = True

    def columns(self) -> tuple[MailboxId, ...]:
        return (self.mailbox,)

    def scope(self) -> Scope:
        return Scope(frozenset((_rows(self.mailbox.octets),)), frozenset((TREE,)))

    def run(self, state: AccountState) -> Plan:
        mailbox = state.mailbox_by_id(self.mailbox)
        columns = _loaded(mailbox)
        slots = columns.live if self.uids is None else columns.slots_of(unpack_uids(self.uids))
        if self.only_deleted:
            slots = slots & columns.with_flag("\\Deleted")
        if not slots:
            return Plan((), BitMap())
        return Plan((_expunged(mailbox, columns, slots),), columns.uids_of(slots))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> BitMap:
        uids: BitMap = plan.note
        return uids


# --- copying and moving -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copied:
    """What COPY or MOVE did (UIDPLUS COPYUID): the two sequences correspond."""

    uid_validity: UIDValidity
    """Of the target."""
    source_uids: tuple[int, ...]
    target_uids: range
    modseq: int = 0


def _copies(columns: Columns, slots: BitMap) -> tuple[AddedMessage, ...]:
    return tuple(
        AddedMessage(
            columns.message_id(slot),
            columns.buckets[slot],
            columns.sizes[slot],
            columns.received[slot],
            columns.zones[slot],
            columns.sent[slot],
            tuple(columns.flags_of(slot)),
        )
        for slot in slots
    )


class CopyMessages(Intent[Copied], frozen=True, kw_only=True, tag="copy-messages"):
    """COPY, or MOVE as one entry (atomic, RFC 6851): rows and octets are shared, flags and dates are kept.

    UIDs that are not there are passed over. The target may be the source.
    """

    cause: ClassVar[str] = "copy"
    mailbox: MailboxId
    uids: bytes
    target: MailboxId
    move: bool = False
    quota_bytes: int | None = None

    def columns(self) -> tuple[MailboxId, ...]:
        return (self.mailbox,)

    def scope(self) -> Scope:
        return Scope(frozenset((_rows(self.mailbox.octets),)), frozenset((TREE, b"add:" + self.target.octets)))

    def run(self, state: AccountState) -> Plan:
        mailbox, target = state.mailbox_by_id(self.mailbox), state.mailbox_by_id(self.target)
        columns = _loaded(mailbox)
        slots = columns.slots_of(unpack_uids(self.uids))
        if not slots:
            return Plan((), ())
        if not self.move:
            _check_quota(state, sum(columns.sizes[slot] for slot in slots), self.quota_bytes)
        changes: list[Change] = [MessagesAdded(target.id.octets, _copies(columns, slots))]
        if self.move:
            changes.append(_expunged(mailbox, columns, slots))
        return Plan(tuple(changes), tuple(columns.uids[slot] for slot in slots))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> Copied:
        target = state.mailboxes.get(self.target)
        validity = UIDValidity(target.uid_validity if target else 1)
        if applied is None:
            return Copied(validity, (), range(0))
        first = applied.first_uids[0]
        return Copied(validity, plan.note, range(first, first + len(plan.note)), applied.modseq)


@dataclass(frozen=True, slots=True)
class Replaced:
    """What REPLACE did (RFC 8508)."""

    added: Added
    expunged: int
    """The UID that left the source."""


class ReplaceMessage(Intent[Replaced], frozen=True, kw_only=True, tag="replace-message"):
    """REPLACE (RFC 8508): a new message enters the target and the old one leaves the source, in one entry."""

    cause: ClassVar[str] = "replace"
    mailbox: MailboxId
    uid: int
    target: MailboxId
    message: NewMessage
    quota_bytes: int | None = None

    def new_rows(self) -> tuple[bytes, ...]:
        return (self.message.message,)

    def new_keys(self) -> tuple[MessageKey, ...]:
        return (_key(self.message),)

    def columns(self) -> tuple[MailboxId, ...]:
        return (self.mailbox,)

    def scope(self) -> Scope:
        return Scope(frozenset((_rows(self.mailbox.octets),)), frozenset((TREE, b"add:" + self.target.octets)))

    def run(self, state: AccountState) -> Plan:
        mailbox, target = state.mailbox_by_id(self.mailbox), state.mailbox_by_id(self.target)
        columns = _loaded(mailbox)
        slot = columns.slot_of(self.uid)
        if slot is None:
            raise NoSuchMessage("the message to be replaced is gone")
        _check_quota(state, self.message.size - columns.sizes[slot], self.quota_bytes)
        m = self.message
        added = AddedMessage(
            m.message, m.bucket, m.size, m.received, m.zone, m.sent_days, _flags(m.flags, target.columns)
        )
        return Plan((MessagesAdded(target.id.octets, (added,)), _expunged(mailbox, columns, BitMap([slot]))))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> Replaced:
        if applied is None:
            raise RuntimeError("a replacement always changes something")
        target = state.mailboxes.get(self.target)
        validity = UIDValidity(target.uid_validity if target else 1)
        first = applied.first_uids[0]
        return Replaced(Added(self.target, validity, range(first, first + 1), applied.modseq), self.uid)


class SetSetting(Intent[None], frozen=True, kw_only=True, tag="set-setting"):
    """Give a setting of the account a value, or take it away (None)."""

    cause: ClassVar[str] = "setting"
    name: str
    value: str | None

    def scope(self) -> Scope:
        return Scope(frozenset((b"setting:" + self.name.encode(),)), frozenset((TREE,)))

    def run(self, state: AccountState) -> Plan:
        if self.name == HOME_SETTING:
            raise CannotChange("an account is moved, not set, to another home")
        if state.settings.get(self.name) == self.value:
            return Plan()
        return Plan((SettingChanged(self.name, self.value),))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None
