"""FETCH and UID FETCH (RFC 9051 section 6.4.5, RFC 7162 sections 3.1.4 and 3.2.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, cast

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.fetch_items import (
    Attribute,
    Binary,
    BinarySize,
    Body,
    FetchItem,
    Part,
    Preview,
    Section,
    Text,
)
from twisted_mail.imap.sequence import NumberSet
from twisted_mail.imap.syntax import SELECTED, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["COMMANDS", "Fetch"]

MACROS: Final[dict[bytes, tuple[FetchItem, ...]]] = {
    b"FAST": (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.RFC822_SIZE),
    b"ALL": (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.RFC822_SIZE, Attribute.ENVELOPE),
    b"FULL": (
        Attribute.FLAGS,
        Attribute.INTERNALDATE,
        Attribute.RFC822_SIZE,
        Attribute.ENVELOPE,
        Attribute.BODY,
    ),
}
PATH_LEVELS: Final = 100
"""Part numbers in a section; a deeper one names no part of any message that is kept."""

_ATTRIBUTES: Final = {item.value: item for item in Attribute}
# What clients send is nearly always a list of plain names; the rest goes one by one.
_ATOM_LIST: Final = re.compile(rb"\(([A-Za-z0-9-]+(?: [A-Za-z0-9-]+)*)\)")
_NAME: Final = re.compile(rb"[A-Za-z0-9.]+")
_LAZY: Final = re.compile(rb" \(LAZY(?: LAZY)*\)", re.IGNORECASE)
_SECTION: Final = re.compile(
    rb"\[([1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,9})*)?"
    rb"(?:(?:(?<=\[)|(?<=[0-9])\.)(HEADER\.FIELDS\.NOT|HEADER\.FIELDS|HEADER|TEXT|MIME)(?=[] ]))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """FETCH and UID FETCH: `items` each once, macros expanded, in the client's order.

    `changed_since` and `vanished` are the modifiers of RFC 7162. UID is not added here for UID FETCH, nor MODSEQ for
    CHANGEDSINCE.
    """

    uid: bool
    numbers: NumberSet
    items: tuple[FetchItem, ...]
    changed_since: int | None = None
    vanished: bool = False


def parse_fetch(args: Cursor) -> Fetch:
    """``fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")")
    [fetch-modifiers]`` (RFC 9051 section 9, RFC 4466 section 2.3)."""
    return _fetch(args, uid=False)


def parse_uid_fetch(args: Cursor) -> Fetch:
    """``uid = "UID" SP fetch`` (RFC 9051 section 9)."""
    return _fetch(args, uid=True)


def _fetch(args: Cursor, *, uid: bool) -> Fetch:
    numbers = args.space().sequence_set()
    args.space()
    items: tuple[FetchItem, ...]
    if args.peek() == b"(":
        listed = args.list_of(lambda: fetch_item(args))
        items = tuple(dict.fromkeys(listed)) if len(listed) > 1 else tuple(listed)
    else:
        match = _NAME.match(args.text, args.at)
        macro = MACROS.get(match.group().upper()) if match else None
        if match and macro:
            args.at = match.end()
            items = macro
        else:
            items = (fetch_item(args),)
    if args.at_end():
        return Fetch(uid, numbers, items)
    changed, vanished = _modifiers(args.space(), uid=uid)
    args.end()
    return Fetch(uid, numbers, items, changed, vanished)


def _modifiers(args: Cursor, *, uid: bool) -> tuple[int | None, bool]:
    """``"(" "CHANGEDSINCE" SP mod-sequence-value [SP "VANISHED"] ")"`` (RFC 7162 section 7)."""
    changed: int | None = None
    vanished = False

    def modifier() -> None:
        nonlocal changed, vanished
        name = args.keyword()
        if name == b"CHANGEDSINCE" and changed is None:
            changed = args.space().mod_sequence()
        elif name == b"VANISHED" and not vanished:
            vanished = True
        else:
            raise BadSyntax("unknown modifier")

    args.list_of(modifier)
    if vanished and (changed is None or not uid):
        raise BadSyntax("VANISHED needs UID FETCH and CHANGEDSINCE")
    return changed, vanished


def fetch_item(args: Cursor) -> FetchItem:
    """``fetch-att`` (RFC 9051 section 9)."""
    match = _NAME.match(args.text, args.at)
    if match is None:
        raise BadSyntax("expected an item to fetch")
    args.at = match.end()
    name = match.group().upper()
    if args.peek() == b"[":
        match name:
            case b"BODY" | b"BODY.PEEK":
                section = _section(args)
                return Body(section, name == b"BODY.PEEK", _partial(args))
            case b"BINARY" | b"BINARY.PEEK":
                path = _part(args)
                return Binary(path, name == b"BINARY.PEEK", _partial(args))
            case b"BINARY.SIZE":
                return BinarySize(_part(args))
    item = _ATTRIBUTES.get(name)
    if item is not None:
        return item
    if name == b"PREVIEW":
        return _preview(args)
    raise BadSyntax("unknown item to fetch")


def _preview(args: Cursor) -> Preview:
    """``"PREVIEW" [SP "(" preview-mod *(SP preview-mod) ")"]`` with ``LAZY`` (RFC 8970 section 6).

    Behind the only item, ``(`` may also begin the modifiers of FETCH.
    """
    match = _LAZY.match(args.text, args.at)
    if match is None:
        return Preview()
    args.at = match.end()
    return Preview(True)


def _section(args: Cursor) -> Section:
    """``section = "[" [section-spec] "]"`` (RFC 9051 section 9)."""
    match = _SECTION.match(args.text, args.at)
    if match is None:
        raise BadSyntax("expected a section")
    path = _numbers(match.group(1))
    text = match.group(2)
    what = cast(Text, text.decode("ascii").upper()) if text else None
    if what == "MIME" and not path:
        raise BadSyntax("MIME needs a part")
    args.at = match.end()
    fields: tuple[bytes, ...] = ()
    if what is not None and what.startswith("HEADER.FIELDS"):
        fields = _header_list(args.space())
    args.expect(b"]")
    return Section(path, what, fields)


def _header_list(args: Cursor) -> tuple[bytes, ...]:
    """``header-list = "(" header-fld-name *(SP header-fld-name) ")"``, of ``astring`` (RFC 9051 section 9)."""
    match = _ATOM_LIST.match(args.text, args.at)
    if match is None:
        return tuple(args.list_of(args.astring))
    args.at = match.end()
    names: list[bytes] = match.group(1).split(b" ")
    if len(names) > args.modes.list_elements:
        raise BadSyntax("the list is too long")
    return tuple(names)


def _part(args: Cursor) -> Part:
    """``section-binary = "[" [section-part] "]"`` (RFC 9051 section 9)."""
    match = _SECTION.match(args.text, args.at)
    if match is None or match.group(2):
        raise BadSyntax("expected a part")
    args.at = match.end()
    args.expect(b"]")
    return _numbers(match.group(1))


def _numbers(text: bytes | None) -> Part:
    if not text:
        return ()
    numbers = text.split(b".")
    if len(numbers) > PATH_LEVELS:
        raise BadSyntax("the part is nested too deeply")
    return tuple(map(int, numbers))


def _partial(args: Cursor) -> tuple[int, int] | None:
    """``partial = "<" number64 "." nz-number64 ">"`` (RFC 9051 section 9)."""
    if not args.skip(b"<"):
        return None
    first = args.number(63)
    most = args.expect(b".").nz_number(63)
    args.expect(b">")
    return first, most


COMMANDS: Syntaxes = {
    b"FETCH": Syntax(parse_fetch, SELECTED),
    b"UID FETCH": Syntax(parse_uid_fetch, SELECTED),
}
