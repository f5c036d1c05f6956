"""APPEND and REPLACE: commands that bring messages (RFC 9051 section 6.3.12, RFC 3502, 3516, 6855, 8508)."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.imap.cursor import Cursor, InternalDate, MessageLiteral
from twisted_mail.imap.syntax import LOGGED_IN, SELECTED, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["COMMANDS", "Append", "AppendMessage", "Replace"]


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message with what is said about it; `utf8` for ``UTF8 (~{n})`` (RFC 6855 section 4)."""

    data: MessageLiteral
    flags: tuple[str, ...] = ()
    date: InternalDate | None = None
    utf8: bool = False


@dataclass(frozen=True, slots=True)
class Append(Command):
    """APPEND; several messages are MULTIAPPEND (RFC 3502). Read from an open line, the last is the one announced."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace(Command):
    """REPLACE and UID REPLACE (RFC 8508): `number` is a message number or a UID, None for ``*``."""

    uid: bool
    number: int | None
    mailbox: str
    message: AppendMessage


def _message(args: Cursor) -> AppendMessage:
    """``append-message = [SP flag-list] [SP date-time] *(SP append-ext) SP append-data``;
    ``append-data = literal / literal8 / "UTF8" SP "(" literal8 ")"`` (RFC 4466 section 2.5, RFC 6855 section 4).

    What comes instead of a literal is chosen here by its keyword: CATENATE's place (RFC 4469).
    """
    args.space()
    flags: tuple[str, ...] = ()
    date: InternalDate | None = None
    if args.peek() == b"(":
        flags = args.flag_list()
        args.space()
    if args.peek() == b'"':
        date = args.date_time()
        args.space()
    if args.word(b"UTF8"):
        args.space().expect(b"(")
        data = args.message()
        if not data.binary:
            raise BadSyntax("UTF8 needs a literal8")
        if not (args.open and args.at_end()):
            args.expect(b")")
        return AppendMessage(data, flags, date, True)
    return AppendMessage(args.message(), flags, date)


def parse_append(args: Cursor) -> Append:
    """``append = "APPEND" SP mailbox 1*append-message`` (RFC 9051 section 9, RFC 3502 section 6.3.11)."""
    mailbox = args.space().mailbox()
    messages = [_message(args)]
    while not args.at_end():
        messages.append(_message(args))
    return Append(mailbox, tuple(messages))


def parse_replace(args: Cursor) -> Replace:
    """``replace = "REPLACE" SP seq-number SP mailbox append-message`` (RFC 8508 section 5)."""
    return _replace(args, uid=False)


def parse_uid_replace(args: Cursor) -> Replace:
    """``uid = "UID" SP replace`` (RFC 8508 section 5)."""
    return _replace(args, uid=True)


def _replace(args: Cursor, *, uid: bool) -> Replace:
    args.space()
    number = None if args.skip(b"*") else args.nz_number()
    mailbox = args.space().mailbox()
    message = _message(args)
    args.end()
    return Replace(uid, number, mailbox, message)


COMMANDS: Syntaxes = {
    b"APPEND": Syntax(parse_append, LOGGED_IN),
    b"REPLACE": Syntax(parse_replace, SELECTED),
    b"UID REPLACE": Syntax(parse_uid_replace, SELECTED),
}
