"""Commands on mailboxes as a whole (RFC 9051 section 6.3, RFC 6154, RFC 7162)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.sequence import SequenceSet
from twisted_mail.imap.syntax import LOGGED_IN, SELECTED, BadSyntax, Command, Syntax, Syntaxes

__all__ = [
    "COMMANDS",
    "STATUS_ITEMS",
    "Close",
    "Create",
    "Delete",
    "QResync",
    "Rename",
    "Select",
    "Status",
    "Subscribe",
    "Unselect",
    "Unsubscribe",
    "status_items",
]

STATUS_ITEMS: Final = frozenset(
    (
        b"MESSAGES",  # RFC 9051 section 6.3.11
        b"RECENT",  # RFC 3501 section 6.3.10
        b"UIDNEXT",
        b"UIDVALIDITY",
        b"UNSEEN",
        b"DELETED",
        b"SIZE",  # RFC 8438
        b"HIGHESTMODSEQ",  # RFC 7162
        b"APPENDLIMIT",  # RFC 7889
        b"MAILBOXID",  # RFC 8474
    )
)


@dataclass(frozen=True, slots=True)
class QResync:
    """What the client knows of a mailbox (RFC 7162 section 3.2.5): `known_uids` None means all below UIDNEXT.

    `matches` are message numbers and UIDs that belonged together, for finding out where the two diverge.
    """

    uid_validity: int
    modseq: int
    known_uids: SequenceSet | None = None
    matches: tuple[SequenceSet, SequenceSet] | None = None


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, and EXAMINE with `readonly` (RFC 9051 sections 6.3.2 and 6.3.3)."""

    mailbox: str
    readonly: bool = False
    condstore: bool = False
    qresync: QResync | None = None


@dataclass(frozen=True, slots=True)
class Close(Command):
    """CLOSE (RFC 9051 section 6.4.1)."""


@dataclass(frozen=True, slots=True)
class Unselect(Command):
    """UNSELECT (RFC 9051 section 6.4.2, RFC 3691)."""


@dataclass(frozen=True, slots=True)
class Create(Command):
    """CREATE (RFC 9051 section 6.3.4); `special_use` as ``\\Sent`` (RFC 6154 section 3), as it was spelt."""

    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """DELETE (RFC 9051 section 6.3.5)."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME (RFC 9051 section 6.3.6)."""

    mailbox: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """SUBSCRIBE (RFC 9051 section 6.3.7)."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Unsubscribe(Command):
    """UNSUBSCRIBE (RFC 9051 section 6.3.8)."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Status(Command):
    """STATUS (RFC 9051 section 6.3.11): items in capitals, each once, in the client's order."""

    mailbox: str
    items: tuple[str, ...]


def parse_select(args: Cursor) -> Select:
    """``select = "SELECT" SP mailbox [select-params]`` (RFC 9051 section 9, RFC 4466 section 2.4)."""
    return _select(args, readonly=False)


def parse_examine(args: Cursor) -> Select:
    """``examine = "EXAMINE" SP mailbox [select-params]`` (RFC 9051 section 9, RFC 4466 section 2.4)."""
    return _select(args, readonly=True)


def _select(args: Cursor, *, readonly: bool) -> Select:
    """``select-params = SP "(" select-param *(SP select-param) ")"``; ``"CONDSTORE"`` or
    ``"QRESYNC" SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")"`` (RFC 7162 section 7).
    """
    mailbox = args.space().mailbox()
    condstore = False
    qresync: QResync | None = None
    if not args.at_end():

        def parameter() -> None:
            nonlocal condstore, qresync
            name = args.keyword()
            if name == b"CONDSTORE":
                condstore = True
            elif name == b"QRESYNC":
                if qresync is not None:
                    raise BadSyntax("QRESYNC is given twice")
                qresync = _qresync(args.space())
            else:
                raise BadSyntax("unknown parameter")

        args.space().list_of(parameter)
    args.end()
    return Select(mailbox, readonly, condstore, qresync)


def _qresync(args: Cursor) -> QResync:
    args.expect(b"(")
    validity = args.nz_number()
    modseq = args.space().nz_number(63)
    known: SequenceSet | None = None
    matches: tuple[SequenceSet, SequenceSet] | None = None
    if args.skip(b" "):
        if args.peek() != b"(":
            known = args.known_set()
            if known.tail is not None:
                raise BadSyntax("* is not allowed in known UIDs")
        if known is None or args.skip(b" "):
            args.expect(b"(")
            numbers = args.known_set()
            uids = args.space().known_set()
            args.expect(b")")
            if numbers.tail is not None or uids.tail is not None:
                raise BadSyntax("* is not allowed in sequence match data")
            matches = (numbers, uids)
    args.expect(b")")
    return QResync(validity, modseq, known, matches)


def parse_close(args: Cursor) -> Close:
    """``"CLOSE"`` (RFC 9051 section 6.4.1)."""
    args.end()
    return Close()


def parse_unselect(args: Cursor) -> Unselect:
    """``"UNSELECT"`` (RFC 9051 section 6.4.2)."""
    args.end()
    return Unselect()


def parse_create(args: Cursor) -> Create:
    """``create = "CREATE" SP mailbox [create-params]`` with ``"USE" SP "(" [use-attr *(SP use-attr)] ")"``
    (RFC 9051 section 6.3.4, RFC 6154 section 6, RFC 4466 section 2.2)."""
    mailbox = args.space().mailbox()
    uses: list[str] = []
    if not args.at_end():

        def parameter() -> None:
            if args.keyword() != b"USE":
                raise BadSyntax("unknown parameter")
            uses.extend(args.space().flag_list())

        args.space().list_of(parameter)
        if not all(use.startswith("\\") for use in uses):
            raise BadSyntax("a special use starts with a backslash")
    args.end()
    return Create(mailbox, tuple(dict.fromkeys(uses)))


def parse_delete(args: Cursor) -> Delete:
    """``delete = "DELETE" SP mailbox`` (RFC 9051 section 6.3.5)."""
    mailbox = args.space().mailbox()
    args.end()
    return Delete(mailbox)


def parse_rename(args: Cursor) -> Rename:
    """``rename = "RENAME" SP mailbox SP mailbox`` (RFC 9051 section 6.3.6)."""
    mailbox = args.space().mailbox()
    new = args.space().mailbox()
    args.end()
    return Rename(mailbox, new)


def parse_subscribe(args: Cursor) -> Subscribe:
    """``subscribe = "SUBSCRIBE" SP mailbox`` (RFC 9051 section 6.3.7)."""
    mailbox = args.space().mailbox()
    args.end()
    return Subscribe(mailbox)


def parse_unsubscribe(args: Cursor) -> Unsubscribe:
    """``unsubscribe = "UNSUBSCRIBE" SP mailbox`` (RFC 9051 section 6.3.8)."""
    mailbox = args.space().mailbox()
    args.end()
    return Unsubscribe(mailbox)


def status_items(args: Cursor) -> tuple[str, ...]:
    """``"(" status-att *(SP status-att) ")"`` (RFC 9051 section 9)."""

    def item() -> str:
        name = args.keyword()
        if name not in STATUS_ITEMS:
            raise BadSyntax("unknown status item")
        return name.decode("ascii")

    return tuple(dict.fromkeys(args.list_of(item)))


def parse_status(args: Cursor) -> Status:
    """``status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"`` (RFC 9051 section 6.3.11)."""
    mailbox = args.space().mailbox()
    items = status_items(args.space())
    args.end()
    return Status(mailbox, items)


COMMANDS: Syntaxes = {
    b"SELECT": Syntax(parse_select, LOGGED_IN),
    b"EXAMINE": Syntax(parse_examine, LOGGED_IN),
    b"CLOSE": Syntax(parse_close, SELECTED),
    b"UNSELECT": Syntax(parse_unselect, SELECTED),
    b"CREATE": Syntax(parse_create, LOGGED_IN),
    b"DELETE": Syntax(parse_delete, LOGGED_IN),
    b"RENAME": Syntax(parse_rename, LOGGED_IN),
    b"SUBSCRIBE": Syntax(parse_subscribe, LOGGED_IN),
    b"UNSUBSCRIBE": Syntax(parse_unsubscribe, LOGGED_IN),
    b"STATUS": Syntax(parse_status, LOGGED_IN),
}
