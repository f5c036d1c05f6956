"""The intent of a delivery: one message into some mailboxes, and what else belongs to the same decision.

Whom a vacation answered, which ids `duplicate` has seen, and whether the owner was told of a script that fails are settings
of the account, one each, so that two nodes that deliver at once find out in its log who was first::

    ~v/<key>   until.delivery            answered under this key
    ~d/<key>   until.delivery.seen       seen under this key

Keys are hashes, times are seconds since 1970 in hexadecimal, and *delivery* is a short form of the delivery's id: a delivery
that is repeated recognises what it wrote itself. What has expired goes with the next entry that writes one, and of more than
`MOST` of a kind those that expire first.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Final, Self

import msgspec

from twisted_mail.account.apply import Applied
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import (
    AddedMessage,
    Change,
    MailboxCreated,
    MessagesAdded,
    SettingChanged,
    Subscribed,
)
from twisted_mail.account.errors import InvalidMailboxName, LimitReached
from twisted_mail.account.intents import TREE, Intent, NewMessage, Plan, Scope, _flags, _key
from twisted_mail.account.state import MAX_MAILBOXES, SEPARATOR, AccountState, check_mailbox_name
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.values import MailboxId, MessageKey

__all__ = ["MOST", "TOLD", "Another", "DeliverMessage", "Delivered", "Place", "Remember", "Seen", "memory_key"]

ANSWERED: Final = "~v/"
SEEN: Final = "~d/"
TOLD: Final = "~told"
"""The setting that says of which version of a script its owner was told that it fails."""
MOST: Final = {ANSWERED: 1000, SEEN: 500}
"""Answers: RFC 5230 section 4.2 wants 1,000. Some 20 octets each, in the account's head chunk, which has 64 KiB."""
_REMEMBERED: Final = b"remembered"


def memory_key(*texts: str) -> str:
    """A short hash of *texts*, which may be long."""
    digest = blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8, person=b"remembered").digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mailbox that the message is to go into: INBOX where there is none such (any more)."""

    mailbox: MailboxId | None = None
    """None: INBOX, or what `create` says."""
    flags: tuple[str, ...] = ()
    create: CreateMailbox | None = None
    """It is made, unless there is one of that special use or that name by then."""


class Another(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another form of the message of a delivery, as a script has made it, with the places that get that one."""

    message: NewMessage
    places: tuple[Place, ...]


class Remember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that is remembered under a `memory_key`."""

    key: str
    until: int
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of a delivery. What it causes is for this very delivery to do, however often it asks."""

    answers: tuple[str, ...] = ()
    """The keys of `DeliverMessage.answers` that it has to answer."""
    tell: bool = False
    """It has to tell the account's owner of the script that fails."""
    mailboxes: tuple[MailboxId, ...] = ()
    """Where the message went, as far as this attempt has put it there."""
    modseq: int = 0
    """The number of the entry; 0 if there is none of this attempt."""


class DeliverMessage(Intent[Delivered], frozen=True, kw_only=True, omit_defaults=True, tag="deliver"):
    """Put a stored message into mailboxes and remember what belongs to it; nothing is done where the delivery stands already.

    There is no quota here: room was looked for when the recipient was accepted, and what was accepted is stored. As in
    `AddMessages`, with `repeated` the delivery is looked up in older checkpoints first.
    """

    cause: ClassVar[str] = "deliver"
    delivery: bytes
    message: NewMessage | None = None
    """None: there are no places."""
    places: tuple[Place, ...] = ()
    others: tuple[Another, ...] = ()
    """A mailbox gets one of them: the first that names it."""
    repeated: bool = False
    now: int = 0
    """Seconds since 1970."""
    answers: tuple[Remember, ...] = ()
    """Vacation: each is answered (and remembered) unless it was by another delivery."""
    seen: tuple[Remember, ...] = ()
    """Ids of duplicate; each replaces what was remembered under its key."""
    told: str = ""
    """A version of a script that fails, of which the owner is to be told."""

    def new_rows(self) -> tuple[bytes, ...]:
        return tuple([message.message for message, _ in self._messages()])

    def new_keys(self) -> tuple[MessageKey, ...]:
        return tuple([_key(message) for message, _ in self._messages()])

    def _messages(self) -> list[tuple[NewMessage, tuple[Place, ...]]]:
        first = [] if self.message is None else [(self.message, self.places)]
        return [*first, *[(other.message, other.places) for other in self.others]]

    def again(self) -> Self | None:
        return msgspec.structs.replace(self, repeated=True)

    def asks_for_delivery(self) -> bytes | None:
        return self.delivery if self.repeated else None

    def scope(self) -> Scope:
        alone = {b"delivery:" + self.delivery}
        places = [place for _, places in self._messages() for place in places]
        shared = {b"add:" + place.mailbox.octets for place in places if place.mailbox is not None}
        if self.answers or self.seen or self.told:
            alone.add(_REMEMBERED)
        if any(place.create is not None for place in places):
            alone.add(TREE)
        else:
            shared.add(TREE)
        return Scope(frozenset(alone), frozenset(shared))

    def run(self, state: AccountState) -> Plan:
        if self.delivery in state.delivered:
            return Plan()
        changes: list[Change] = []
        mailboxes = self._place(state, changes)
        changes += self._remember(state)
        return Plan(tuple(changes), mailboxes, self.delivery if changes else b"")

    def _place(self, state: AccountState, changes: list[Change]) -> tuple[MailboxId, ...]:
        making = _Making(state)
        wanted: dict[MailboxId, tuple[NewMessage, list[str]]] = {}
        for message, places in self._messages():
            for place in places:
                _, flags = wanted.setdefault(making.mailbox(place), (message, []))
                flags += (*message.flags, *place.flags)
        changes += making.changes
        for id, (message, flags) in wanted.items():
            mailbox = state.mailboxes.get(id)
            columns = None if mailbox is None else mailbox.columns
            added = AddedMessage(
                message.message,
                message.bucket,
                message.size,
                message.received,
                message.zone,
                message.sent_days,
                _possible_flags(flags, columns),
            )
            changes.append(MessagesAdded(id.octets, (added,)))
        return tuple(wanted)

    def _remember(self, state: AccountState) -> Iterator[Change]:
        tag = _tag(self.delivery)
        answers = [each for each in self.answers if not _stands(state, ANSWERED + each.key, self.now)]
        new: dict[str, str] = {}
        for each in answers:
            new[ANSWERED + each.key] = f"{max(each.until, 0):x}.{tag}"
        for each in self.seen:
            new[SEEN + each.key] = f"{max(each.until, 0):x}.{tag}.{self.now:x}"
        if self.answers or self.seen:
            for name in _outdated(state, new, self.now):
                if name not in new:
                    yield SettingChanged(name, None)
        for name, value in new.items():
            yield SettingChanged(name, value)
        if self.told and state.settings.get(TOLD, "").partition(".")[0] != self.told:
            yield SettingChanged(TOLD, f"{self.told}.{tag}")

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> Delivered:
        tag = _tag(self.delivery)
        answers = tuple(
            each.key
            for each in self.answers
            if (value := state.settings.get(ANSWERED + each.key)) is not None and _Value.of(value).tag == tag
        )
        tell = bool(self.told) and state.settings.get(TOLD) == f"{self.told}.{tag}"
        if applied is None:
            return Delivered(answers, tell)
        mailboxes: tuple[MailboxId, ...] = plan.note or ()
        return Delivered(answers, tell, mailboxes, int(applied.modseq))


class _Making:
    """Finds the mailboxes of places, and makes those that are to be made."""

    def __init__(self, state: AccountState) -> None:
        self.changes: list[Change] = []
        self._state = state
        self._made: dict[str, MailboxId] = {}
        self._uses: dict[str, MailboxId] = {}
        self._validity = state.uid_validity

    def mailbox(self, place: Place) -> MailboxId:
        state = self._state
        if place.create is not None:
            try:
                return self._make(place.create)
            except (InvalidMailboxName, LimitReached):
                return state.inbox.id
        if place.mailbox is not None and place.mailbox in state.mailboxes:
            return place.mailbox
        return state.inbox.id

    def _make(self, wanted: CreateMailbox) -> MailboxId:
        state = self._state
        for use in wanted.special_use:
            found = state.with_use(use)
            if found is not None or use in self._uses:
                return found.id if found is not None else self._uses[use]
        name = check_mailbox_name(wanted.name)
        there = self._named(name)
        if there is not None:
            return there
        levels = name.split(SEPARATOR)
        if len(levels) != len(wanted.ids) or len(state.mailboxes) + len(self._made) + len(levels) > MAX_MAILBOXES:
            raise LimitReached("too many mailboxes")
        self._validity = max(wanted.uid_validity, self._validity + 1)
        for depth, id in enumerate(wanted.ids, 1):
            level = SEPARATOR.join(levels[:depth])
            if self._named(level) is None:
                uses = wanted.special_use if depth == len(levels) else ()
                self.changes += (MailboxCreated(id.octets, level, self._validity, uses), Subscribed(level, True))
                self._validity += 1
                self._made[level] = id
                self._uses.update(dict.fromkeys(uses, id))
        self._validity -= 1
        return self._made[name]

    def _named(self, name: str) -> MailboxId | None:
        found = self._state.by_name.get(name)
        return found.id if found is not None else self._made.get(name)


def _possible_flags(flags: Sequence[str], columns: Columns | None) -> tuple[str, ...]:
    """A mailbox that has too many keywords gets the message without more of them: nothing is lost for a flag."""
    try:
        return _flags(flags, columns)
    except LimitReached:
        return _flags([flag for flag in flags if flag.startswith("\\")], columns)


# --- what is remembered


@dataclass(frozen=True, slots=True)
class _Value:
    until: int
    tag: str
    seen: int = 0

    @classmethod
    def of(cls, text: str) -> _Value:
        """What does not look as it should has expired."""
        until, _, rest = text.partition(".")
        tag, _, seen = rest.partition(".")
        try:
            return cls(int(until, 16), tag, int(seen, 16) if seen else 0)
        except ValueError:
            return cls(0, "")


def _tag(delivery: bytes) -> str:
    return urlsafe_b64encode(delivery[-4:]).decode().rstrip("=")


def _stands(state: AccountState, name: str, now: int) -> bool:
    value = state.settings.get(name)
    return value is not None and _Value.of(value).until > now


def _outdated(state: AccountState, new: Mapping[str, str], now: int) -> Iterator[str]:
    """What has expired, and what is too much with *new*."""
    for kind, most in MOST.items():
        kept: list[tuple[int, str]] = []
        for name, value in state.settings.items():
            if name.startswith(kind) and name not in new:
                until = _Value.of(value).until
                if until <= now:
                    yield name
                else:
                    kept.append((until, name))
        more = len(kept) + sum(name.startswith(kind) for name in new) - most
        if more > 0:
            for _, name in sorted(kept)[:more]:
                yield name


class Seen(Mapping[str, float]):
    """The ids that `duplicate` (RFC 7352) has seen, by themselves: when, seconds since 1970. What *delivery* itself has
    seen does not count. Only keys that are asked for can be told."""

    def __init__(self, state: AccountState, delivery: bytes, now: float) -> None:
        self._settings = state.settings
        self._tag = _tag(delivery)
        self._now = now

    def __getitem__(self, key: str) -> float:
        value = self._settings.get(SEEN + memory_key(key))
        if value is not None:
            known = _Value.of(value)
            if known.until > self._now and known.tag != self._tag:
                return float(known.seen)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the account keeps hashes of ids, not ids")

    def __len__(self) -> int:
        return sum(name.startswith(SEEN) for name in self._settings)
