"""Intents about the tree of mailboxes: create, delete, rename, subscribe (RFC 9051 section 6.3.4 and following)."""

from __future__ import annotations

from typing import ClassVar

from twisted_mail.account.apply import Applied
from twisted_mail.account.entries import (
    AddedMessage,
    Change,
    MailboxCreated,
    MailboxDeleted,
    MailboxRenamed,
    MessagesAdded,
    SettingChanged,
    Subscribed,
)
from twisted_mail.account.errors import CannotChange, LimitReached, MailboxExists, NoSuchMailbox, UseTaken
from twisted_mail.account.intents import HOME_SETTING, TREE, Intent, Plan, Scope, _copies, _expunged, _loaded
from twisted_mail.account.state import (
    INBOX,
    MAX_MAILBOXES,
    SEPARATOR,
    AccountState,
    check_mailbox_name,
    normal_mailbox_name,
)
from twisted_mail.values import MailboxId

__all__ = ["CreateMailbox", "DeleteMailbox", "Initialise", "NewMailbox", "RenameMailbox", "Subscribe"]

_ALONE = Scope(frozenset((TREE,)))


class NewMailbox(Intent[None], frozen=True, kw_only=True):
    """A mailbox that `Initialise` makes; not an intent to be committed by itself."""

    name: str
    special_use: tuple[str, ...] = ()
    subscribed: bool = True


class Initialise(Intent[None], frozen=True, kw_only=True, tag="initialise"):
    """The first entry of an account: INBOX and the default mailboxes, and its home. Nothing where there is an INBOX."""

    cause: ClassVar[str] = "initialise"
    mailboxes: tuple[NewMailbox, ...]
    ids: tuple[MailboxId, ...]
    uid_validity: int
    home: str = ""
    """The data centre that writes it; empty where there is only one."""

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        if INBOX in state.by_name:
            return Plan()
        changes: list[Change] = []
        if self.home and not state.settings.get(HOME_SETTING):
            changes.append(SettingChanged(HOME_SETTING, self.home))
        validity = max(self.uid_validity, state.uid_validity + 1)
        for id, wanted in zip(self.ids, self.mailboxes, strict=True):
            if wanted.name in state.by_name:
                continue
            changes.append(MailboxCreated(id.octets, wanted.name, validity, wanted.special_use))
            validity += 1
            if wanted.subscribed:
                changes.append(Subscribed(wanted.name, True))
        return Plan(tuple(changes))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None


class CreateMailbox(Intent[MailboxId], frozen=True, kw_only=True, tag="create-mailbox"):
    """CREATE; levels above that do not exist are created too. Returns the id.

    `ids` holds fresh ids, the last for the mailbox itself, enough for its levels; `uid_validity` is a lower bound
    (the seconds since 1970), which the account's last one raises.
    """

    cause: ClassVar[str] = "create"
    name: str
    ids: tuple[MailboxId, ...]
    uid_validity: int
    special_use: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, seconds: int, special_use: tuple[str, ...] = ()) -> CreateMailbox:
        """For *name*, with ids enough. Raises InvalidMailboxName."""
        name = check_mailbox_name(name)
        ids = tuple(MailboxId.new() for _ in name.split(SEPARATOR))
        return cls(name=name, ids=ids, uid_validity=seconds, special_use=special_use)

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        name = check_mailbox_name(self.name)
        if name in state.by_name:
            raise MailboxExists("a mailbox of that name exists")
        for use in self.special_use:
            if state.with_use(use) is not None:
                raise UseTaken(f"another mailbox is used for {use}")
        levels = name.split(SEPARATOR)
        if len(state.mailboxes) + len(levels) > MAX_MAILBOXES:
            raise LimitReached(f"more than {MAX_MAILBOXES} mailboxes")
        validity = max(self.uid_validity, state.uid_validity + 1)
        changes: list[Change] = []
        for depth, id in zip(range(1, len(levels) + 1), self.ids, strict=True):
            level = SEPARATOR.join(levels[:depth])
            if level not in state.by_name:
                uses = self.special_use if depth == len(levels) else ()
                changes.append(MailboxCreated(id.octets, level, validity, uses))
                validity += 1
        return Plan(tuple(changes))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> MailboxId:
        return self.ids[-1]


class DeleteMailbox(Intent[None], frozen=True, kw_only=True, tag="delete-mailbox"):
    """DELETE; inferiors stay (RFC 9051 section 6.3.5), the subscription too."""

    cause: ClassVar[str] = "delete"
    name: str

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        if normal_mailbox_name(self.name) == INBOX:
            raise CannotChange("INBOX cannot be deleted")
        return Plan((MailboxDeleted(state.mailbox(self.name).id.octets),))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None


class RenameMailbox(Intent[None], frozen=True, kw_only=True, tag="rename-mailbox"):
    """RENAME with inferiors; of INBOX: its messages move to a new mailbox, and INBOX stays, empty (section 6.3.6).

    `ids` and `uid_validity` are for mailboxes that are created on the way, as in `CreateMailbox`.
    """

    cause: ClassVar[str] = "rename"
    name: str
    new_name: str
    ids: tuple[MailboxId, ...]
    uid_validity: int
    source: MailboxId
    """The mailbox that had the name when the client asked (its columns are needed if it is INBOX)."""

    @classmethod
    def of(cls, state: AccountState, name: str, new_name: str, seconds: int) -> RenameMailbox:
        """Raises InvalidMailboxName, NoSuchMailbox."""
        new_name = check_mailbox_name(new_name)
        source = state.by_name.get(normal_mailbox_name(name))
        if source is None and not state.has_inferiors(name):
            raise NoSuchMailbox("no such mailbox")
        ids = tuple(MailboxId.new() for _ in new_name.split(SEPARATOR))
        source_id = source.id if source is not None else state.inbox.id
        return cls(name=name, new_name=new_name, ids=ids, uid_validity=seconds, source=source_id)

    def columns(self) -> tuple[MailboxId, ...]:
        return (self.source,) if normal_mailbox_name(self.name) == INBOX else ()

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        old, new = normal_mailbox_name(self.name), check_mailbox_name(self.new_name)
        if new in state.by_name:
            raise MailboxExists("a mailbox of the new name exists")
        mailbox = state.by_name.get(old)
        inferiors = state.inferiors(old)
        if mailbox is None and not inferiors:
            raise NoSuchMailbox("no such mailbox")
        if new.startswith(old + SEPARATOR) and old != INBOX:
            raise CannotChange("a mailbox cannot become its own inferior")
        changes: list[Change] = []
        validity = max(self.uid_validity, state.uid_validity + 1)
        levels = new.split(SEPARATOR)
        for depth, id in zip(range(1, len(levels)), self.ids, strict=False):
            level = SEPARATOR.join(levels[:depth])
            if level not in state.by_name:
                changes.append(MailboxCreated(id.octets, level, validity))
                validity += 1
        if old == INBOX:
            inbox = state.inbox
            columns = _loaded(inbox)
            target = self.ids[-1]
            changes.append(MailboxCreated(target.octets, new, validity))
            if columns.live:
                moved: tuple[AddedMessage, ...] = _copies(columns, columns.live)
                changes.append(MessagesAdded(target.octets, moved))
                changes.append(_expunged(inbox, columns, columns.live))
            return Plan(tuple(changes))
        if mailbox is not None:
            changes.append(MailboxRenamed(mailbox.id.octets, new))
        for inferior in inferiors:
            renamed = check_mailbox_name(new + inferior.name[len(old) :])
            if renamed in state.by_name:
                raise MailboxExists("a mailbox of an inferior's new name exists")
            changes.append(MailboxRenamed(inferior.id.octets, renamed))
        return Plan(tuple(changes))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None


class Subscribe(Intent[None], frozen=True, kw_only=True, tag="subscribe"):
    """SUBSCRIBE and UNSUBSCRIBE; a name need not exist (RFC 9051 section 6.3.7)."""

    cause: ClassVar[str] = "subscribe"
    name: str
    on: bool = True

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        name = normal_mailbox_name(self.name)
        if (name in state.subscriptions) == self.on:
            return Plan()
        if self.on and len(state.subscriptions) >= MAX_MAILBOXES:
            raise LimitReached(f"more than {MAX_MAILBOXES} subscriptions")
        return Plan((Subscribed(name, self.on),))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None
