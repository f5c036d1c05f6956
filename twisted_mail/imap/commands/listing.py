"""LIST with its extensions, and LSUB (RFC 9051 section 6.3.9, RFC 5258, RFC 5819, RFC 6154)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted_mail.imap.commands.mailbox import status_items
from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.syntax import LOGGED_IN, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["COMMANDS", "List", "Lsub"]

SELECTION: Final = frozenset((b"SUBSCRIBED", b"REMOTE", b"RECURSIVEMATCH", b"SPECIAL-USE"))
RETURN: Final = frozenset((b"SUBSCRIBED", b"CHILDREN", b"SPECIAL-USE"))


@dataclass(frozen=True, slots=True)
class List(Command):
    """LIST. `select` and `returns` hold option names in capitals; `status` is None without RETURN (STATUS …).

    `extended` is the new syntax of RFC 5258 section 3: there ``LIST () "" ""`` does not ask for the separator.
    """

    reference: str
    patterns: tuple[str, ...]
    select: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] | None = None
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Lsub(Command):
    """LSUB (RFC 3501 section 6.3.9)."""

    reference: str
    pattern: str


def parse_list(args: Cursor) -> List:
    """``list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]``
    (RFC 9051 section 9, RFC 5258 section 6)."""
    args.space()
    extended = False
    select: frozenset[str] = frozenset()
    if args.peek() == b"(":
        extended = True
        select = frozenset(args.list_of(lambda: _selection(args), empty=True))
        if "RECURSIVEMATCH" in select and not select & {"SUBSCRIBED", "SPECIAL-USE"}:
            raise BadSyntax("RECURSIVEMATCH needs another selection option")
        args.space()
    reference = args.mailbox()
    args.space()
    if args.peek() == b"(":
        extended = True
        patterns = tuple(args.list_of(args.list_mailbox))
    else:
        patterns = (args.list_mailbox(),)
    returns: set[str] = set()
    status: tuple[str, ...] | None = None
    if not args.at_end():
        extended = True
        if not args.space().word(b"RETURN"):
            raise BadSyntax("expected RETURN")

        def option() -> None:
            nonlocal status
            name = args.keyword()
            if name == b"STATUS":
                status = status_items(args.space())
            elif name in RETURN:
                returns.add(name.decode("ascii"))
            else:
                raise BadSyntax("unknown return option")

        args.space().list_of(option, empty=True)
    args.end()
    return List(reference, patterns, select, frozenset(returns), status, extended)


def _selection(args: Cursor) -> str:
    name = args.keyword()
    if name not in SELECTION:
        raise BadSyntax("unknown selection option")
    return name.decode("ascii")


def parse_lsub(args: Cursor) -> Lsub:
    """``lsub = "LSUB" SP mailbox SP list-mailbox`` (RFC 3501 section 9)."""
    reference = args.space().mailbox()
    pattern = args.space().list_mailbox()
    args.end()
    return Lsub(reference, pattern)


COMMANDS: Syntaxes = {
    b"LIST": Syntax(parse_list, LOGGED_IN),
    b"LSUB": Syntax(parse_lsub, LOGGED_IN),
}
