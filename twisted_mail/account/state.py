"""The state of an account: its mailboxes, subscriptions, settings and sums, and each mailbox's columns when loaded.

There is one state per account and node. `apply` changes it in place; everybody else reads. The head (everything but
the columns) is enough to deliver mail; columns come when a mailbox is looked into, and until then the changes that
concern them wait in the mailbox's backlog.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twisted_mail.account.columns import Columns, canonical_flag
from twisted_mail.account.entries import Change
from twisted_mail.account.errors import InvalidMailboxName, NoSuchMailbox
from twisted_mail.values import MailboxId, ModSeq

__all__ = [
    "BUCKET_BYTES",
    "ROW_BYTES",
    "DAY_SECONDS",
    "INBOX",
    "MAX_LEVELS",
    "MAX_MAILBOXES",
    "MAX_NAME_OCTETS",
    "SEPARATOR",
    "AccountState",
    "Columns",
    "Mailbox",
    "canonical_flag",
    "check_mailbox_name",
    "normal_mailbox_name",
]

SEPARATOR: Final = "/"
"""Between levels of a mailbox name here; what clients see is the IMAP listener's setting."""
INBOX: Final = "INBOX"
MAX_NAME_OCTETS: Final = 1000
MAX_LEVELS: Final = 100
MAX_MAILBOXES: Final = 10_000
BUCKET_BYTES: Final = 64 * 1024 * 1024
"""A bucket of message rows closes at this sum of message sizes, each with `ROW_BYTES` more."""
ROW_BYTES: Final = 3 * 1024
"""What a row has besides a message's own octets: its header is there three times and short text twice, rendered. Measured
with messages of 1 kB, whose cells have 3.3 kB; from 4 kB on the cells, which are compressed, take less than the message."""
DAY_SECONDS: Final = 86_400


def normal_mailbox_name(name: str) -> str:
    """*name* with INBOX, alone or as its first level, in capitals (RFC 9051 section 5.1)."""
    first, separator, rest = name.partition(SEPARATOR)
    return INBOX + separator + rest if first.isascii() and first.upper() == INBOX else name


def check_mailbox_name(name: str) -> str:
    """The normal form of a name that may be created.

    Raises InvalidMailboxName: empty or empty levels, control characters (RFC 5198), ``*`` and ``%``, a lone
    surrogate, too long (more than 1000 octets of UTF-8), too deep (more than 100 levels).
    """
    name = normal_mailbox_name(name)
    levels = name.split(SEPARATOR)
    if not name or any(not level for level in levels):
        raise InvalidMailboxName("a level of the mailbox name is empty")
    if len(levels) > MAX_LEVELS:
        raise InvalidMailboxName(f"more than {MAX_LEVELS} levels")
    if any(level in (".", "..") for level in levels):
        raise InvalidMailboxName("a level of the mailbox name is only dots")
    for character in name:
        code = ord(character)
        if code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029):
            raise InvalidMailboxName("control character in the mailbox name")
        if 0xD800 <= code < 0xE000:
            raise InvalidMailboxName("the mailbox name is not valid Unicode")
    if "*" in name or "%" in name:
        raise InvalidMailboxName("wildcards cannot be part of a mailbox name")
    if len(name.encode()) > MAX_NAME_OCTETS:
        raise InvalidMailboxName(f"longer than {MAX_NAME_OCTETS} octets")
    return name


class Mailbox:
    """One mailbox: what its head says, and its columns when they are loaded."""

    __slots__ = (
        "backlog",
        "columns",
        "created",
        "deleted",
        "highest_modseq",
        "id",
        "messages",
        "name",
        "size",
        "special_use",
        "uid_next",
        "uid_validity",
        "unseen",
    )

    def __init__(
        self,
        id: MailboxId,
        name: str,
        uid_validity: int,
        special_use: tuple[str, ...],
        modseq: int,
        columns: Columns | None,
    ) -> None:
        self.id = id
        self.name = name
        self.uid_validity = uid_validity
        self.special_use = special_use
        """As IMAP shows it, e.g. ``\\Sent`` (RFC 6154)."""
        self.created = modseq
        self.highest_modseq = modseq
        """This mailbox's own last change to its messages (RFC 7162), never the account's number."""
        self.uid_next = 1
        self.messages = 0
        self.unseen = 0
        """Messages without ``\\Seen``."""
        self.deleted = 0
        """Messages with ``\\Deleted`` (RFC 9051 STATUS DELETED)."""
        self.size = 0
        """Sum of the messages' sizes, octets (RFC 8438)."""
        self.columns = columns
        self.backlog: list[tuple[int, int, int, Change]] = []
        """(modseq, seconds, first UID, change) that the columns lack while they are not loaded."""

    def __repr__(self) -> str:
        return f"<Mailbox {self.name!r} {self.messages} messages, next UID {self.uid_next}>"


class AccountState:
    """All of one account, as of `modseq`."""

    __slots__ = (
        "bucket",
        "bucket_bytes",
        "by_name",
        "delivered",
        "dropped",
        "mailboxes",
        "messages",
        "modseq",
        "settings",
        "size",
        "subscriptions",
        "uid_validity",
    )

    def __init__(self) -> None:
        self.modseq = ModSeq(0)
        self.mailboxes: dict[MailboxId, Mailbox] = {}
        self.by_name: dict[str, Mailbox] = {}
        self.subscriptions: set[str] = set()
        self.settings: dict[str, str] = {}
        self.messages = 0
        self.size = 0
        """Octets of all messages in all mailboxes: what a quota counts (RFC 9208 STORAGE)."""
        self.uid_validity = 0
        """The last UIDVALIDITY that was given; they only ascend."""
        self.bucket = 0
        self.bucket_bytes = 0
        """The bucket that takes new message rows, and how many octets of messages lie in it."""
        self.delivered: dict[bytes, tuple[int, int]] = {}
        """DeliveryId -> (modseq, day) of deliveries since the newest checkpoint, for rule 6 of the architecture."""

        self.dropped: list[tuple[int, Mailbox]] = []
        """(modseq, mailbox) of mailboxes deleted since the newest checkpoint, as they were: their messages are to be
        swept one day."""

    def forget_left(self, modseq: int) -> None:
        """A checkpoint of *modseq* has what left mailboxes up to it."""
        self.dropped = [item for item in self.dropped if item[0] > modseq]
        for mailbox in self.mailboxes.values():
            if mailbox.columns is not None:
                mailbox.columns.forget_left(modseq)

    # --- reading

    def mailbox(self, name: str) -> Mailbox:
        """By name, INBOX in any case. Raises NoSuchMailbox."""
        found = self.by_name.get(normal_mailbox_name(name))
        if found is None:
            raise NoSuchMailbox("no such mailbox")
        return found

    def mailbox_by_id(self, id: MailboxId) -> Mailbox:
        """Raises NoSuchMailbox."""
        found = self.mailboxes.get(id)
        if found is None:
            raise NoSuchMailbox("the mailbox has been deleted")
        return found

    @property
    def inbox(self) -> Mailbox:
        """Raises NoSuchMailbox in an account that was never opened."""
        return self.mailbox(INBOX)

    def with_use(self, use: str) -> Mailbox | None:
        """The mailbox of a special use such as ``\\Junk``, compared without case."""
        lowered = use.lower()
        for mailbox in self.mailboxes.values():
            if any(own.lower() == lowered for own in mailbox.special_use):
                return mailbox
        return None

    def inferiors(self, name: str) -> list[Mailbox]:
        """The mailboxes below *name*, by name."""
        prefix = normal_mailbox_name(name) + SEPARATOR
        return sorted((m for n, m in self.by_name.items() if n.startswith(prefix)), key=lambda m: m.name)

    def has_inferiors(self, name: str) -> bool:
        """Whether any mailbox lies below *name*."""
        prefix = normal_mailbox_name(name) + SEPARATOR
        return any(n.startswith(prefix) for n in self.by_name)

    def in_order(self) -> Iterator[Mailbox]:
        """INBOX first, then by name."""
        return iter(sorted(self.by_name.values(), key=lambda m: (m.name != INBOX, m.name)))
