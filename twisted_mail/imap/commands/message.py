"""Commands on the messages of the selected mailbox, and IDLE (RFC 9051 section 6.4, RFC 2177, 4315, 6851, 7162)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.sequence import NumberSet
from twisted_mail.imap.syntax import LOGGED_IN, SELECTED, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["COMMANDS", "Check", "Copy", "Expunge", "Idle", "Move", "Store", "StoreMode"]

StoreMode = Literal["add", "remove", "replace"]

_MODES: Final[dict[bytes, tuple[StoreMode, bool]]] = {
    b"FLAGS": ("replace", False),
    b"FLAGS.SILENT": ("replace", True),
    b"+FLAGS": ("add", False),
    b"+FLAGS.SILENT": ("add", True),
    b"-FLAGS": ("remove", False),
    b"-FLAGS.SILENT": ("remove", True),
}


@dataclass(frozen=True, slots=True)
class Idle(Command):
    """IDLE (RFC 2177, RFC 9051 section 6.3.13). The ``DONE`` that ends it is a line of its own."""


@dataclass(frozen=True, slots=True)
class Check(Command):
    """CHECK (RFC 3501 section 6.4.1)."""


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """EXPUNGE (RFC 9051 section 6.4.3), or UID EXPUNGE with `uids` (RFC 4315 section 2.1)."""

    uids: NumberSet | None = None


@dataclass(frozen=True, slots=True)
class Store(Command):
    """STORE and UID STORE (RFC 9051 section 6.4.6); `unchanged_since` is RFC 7162's section 3.1.3."""

    uid: bool
    numbers: NumberSet
    mode: StoreMode
    silent: bool
    flags: tuple[str, ...]
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY and UID COPY (RFC 9051 section 6.4.7)."""

    uid: bool
    numbers: NumberSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Move(Command):
    """MOVE and UID MOVE (RFC 9051 section 6.4.8, RFC 6851)."""

    uid: bool
    numbers: NumberSet
    mailbox: str


def parse_idle(args: Cursor) -> Idle:
    """``idle = "IDLE" CRLF "DONE"`` (RFC 2177 section 4)."""
    args.end()
    return Idle()


def parse_check(args: Cursor) -> Check:
    """``"CHECK"`` (RFC 3501 section 6.4.1)."""
    args.end()
    return Check()


def parse_expunge(args: Cursor) -> Expunge:
    """``"EXPUNGE"`` (RFC 9051 section 6.4.3)."""
    args.end()
    return Expunge()


def parse_uid_expunge(args: Cursor) -> Expunge:
    """``uid-expunge = "UID" SP "EXPUNGE" SP sequence-set`` (RFC 4315 section 4)."""
    uids = args.space().sequence_set()
    args.end()
    return Expunge(uids)


def parse_store(args: Cursor) -> Store:
    """``store = "STORE" SP sequence-set [store-modifiers] SP store-att-flags`` (RFC 9051 section 9)."""
    return _store(args, uid=False)


def parse_uid_store(args: Cursor) -> Store:
    """``uid = "UID" SP store`` (RFC 9051 section 9)."""
    return _store(args, uid=True)


def _store(args: Cursor, *, uid: bool) -> Store:
    """``store-modifiers = SP "(" "UNCHANGEDSINCE" SP mod-sequence-valzer ")"`` (RFC 7162 section 7);
    ``store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))``."""
    numbers = args.space().sequence_set()
    args.space()
    unchanged: int | None = None
    if args.peek() == b"(":

        def modifier() -> None:
            nonlocal unchanged
            if args.keyword() != b"UNCHANGEDSINCE" or unchanged is not None:
                raise BadSyntax("unknown modifier")
            unchanged = args.space().mod_sequence()

        args.list_of(modifier)
        args.space()
    item = _MODES.get(args.keyword())
    if item is None:
        raise BadSyntax("unknown item to store")
    args.space()
    if args.peek() == b"(":
        flags = args.flag_list()
    else:
        several = [args.flag()]
        while not args.at_end():
            several.append(args.space().flag())
        flags = tuple(several)
    args.end()
    return Store(uid, numbers, item[0], item[1], flags, unchanged)


def parse_copy(args: Cursor) -> Copy:
    """``copy = "COPY" SP sequence-set SP mailbox`` (RFC 9051 section 6.4.7)."""
    return Copy(False, *_target(args))


def parse_uid_copy(args: Cursor) -> Copy:
    """``uid = "UID" SP copy`` (RFC 9051 section 9)."""
    return Copy(True, *_target(args))


def parse_move(args: Cursor) -> Move:
    """``move = "MOVE" SP sequence-set SP mailbox`` (RFC 6851 section 6)."""
    return Move(False, *_target(args))


def parse_uid_move(args: Cursor) -> Move:
    """``uid = "UID" SP move`` (RFC 6851 section 6)."""
    return Move(True, *_target(args))


def _target(args: Cursor) -> tuple[NumberSet, str]:
    numbers = args.space().sequence_set()
    mailbox = args.space().mailbox()
    args.end()
    return numbers, mailbox


COMMANDS: Syntaxes = {
    b"IDLE": Syntax(parse_idle, LOGGED_IN),
    b"CHECK": Syntax(parse_check, SELECTED),
    b"EXPUNGE": Syntax(parse_expunge, SELECTED),
    b"UID EXPUNGE": Syntax(parse_uid_expunge, SELECTED),
    b"STORE": Syntax(parse_store, SELECTED),
    b"UID STORE": Syntax(parse_uid_store, SELECTED),
    b"COPY": Syntax(parse_copy, SELECTED),
    b"UID COPY": Syntax(parse_uid_copy, SELECTED),
    b"MOVE": Syntax(parse_move, SELECTED),
    b"UID MOVE": Syntax(parse_uid_move, SELECTED),
}
