"""SEARCH and UID SEARCH (RFC 9051 section 6.4.4, RFC 4731, 5032, 5182, 7162, 8474, 8514)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.search_keys import (
    All,
    And,
    BodyKey,
    DateKey,
    EmailIdKey,
    FlagKey,
    HeaderKey,
    ModSeqKey,
    Not,
    OlderKey,
    Or,
    SaveDateSupported,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
    ThreadIdKey,
    UidKey,
    YoungerKey,
)
from twisted_mail.imap.syntax import SELECTED, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["CHARSETS", "COMMANDS", "BadCharset", "Search", "parse_search_program"]

CHARSETS: Final = ("US-ASCII", "UTF-8")
RETURN: Final = frozenset((b"MIN", b"MAX", b"ALL", b"COUNT", b"SAVE"))
_OBJECT_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,255}")
_HEADER_NAME: Final = re.compile(rb"[!-9;-~]+")


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH and UID SEARCH. `returns` is None without RETURN; ``RETURN ()`` is ``{"ALL"}``."""

    uid: bool
    key: SearchKey
    returns: frozenset[str] | None = None
    charset: str | None = None


@dataclass(frozen=True, slots=True)
class BadCharset(Command):
    """A SEARCH in a charset that is not known: ``NO [BADCHARSET (US-ASCII UTF-8)]`` (RFC 9051 section 6.4.4)."""

    charset: str


class Reader:
    """Reads search keys: the charset, how deep it is, and how many it has read."""

    __slots__ = ("args", "charset", "depth", "keys")

    def __init__(self, args: Cursor, charset: str):
        self.args = args
        self.charset = charset
        self.depth = 0
        self.keys = 0

    def text(self) -> str:
        """``SP astring`` in the charset. US-ASCII is read as UTF-8, which holds it."""
        try:
            return self.args.space().astring().decode(self.charset)
        except UnicodeDecodeError:
            raise BadSyntax("the text to search for is not UTF-8")

    def key(self) -> SearchKey:
        """``search-key`` (RFC 9051 section 9)."""
        args = self.args
        self.keys += 1
        if self.keys > args.modes.list_elements:
            raise BadSyntax("too many search keys")
        if self.depth >= args.modes.depth:
            raise BadSyntax("the search keys are nested too deeply")
        first = args.peek()
        if first == b"(":
            self.depth += 1
            keys = args.list_of(self.key)
            self.depth -= 1
            return keys[0] if len(keys) == 1 else And(tuple(keys))
        if first.isdigit() or first in (b"*", b"$"):
            return SequenceKey(args.sequence_set())
        read = KEYS.get(args.keyword())
        if read is None:
            raise BadSyntax("unknown search key")
        return read(self)

    def inner(self) -> SearchKey:
        """``SP search-key``, one level down."""
        self.args.space()
        self.depth += 1
        key = self.key()
        self.depth -= 1
        return key


Read = Callable[[Reader], SearchKey]


def _always(key: SearchKey) -> Read:
    return lambda reader: key


def _header(field: str) -> Read:
    return lambda reader: HeaderKey(field, reader.text())


def _date(field: Literal["internal", "sent", "saved"], relation: Literal["before", "on", "since"]) -> Read:
    return lambda reader: DateKey(field, relation, reader.args.space().date())


def _size(relation: Literal["larger", "smaller"]) -> Read:
    return lambda reader: SizeKey(relation, reader.args.space().number(63))


def _keyword(present: bool) -> Read:
    return lambda reader: FlagKey(reader.args.space().atom().decode("ascii"), present)


def _any_header(reader: Reader) -> HeaderKey:
    name = reader.args.space().astring()
    if not _HEADER_NAME.fullmatch(name):
        raise BadSyntax("that is no name of a header field")
    return HeaderKey(name.decode("ascii").lower(), reader.text())


def _or(reader: Reader) -> Or:
    left = reader.inner()
    return Or(left, reader.inner())


def _modseq(reader: Reader) -> ModSeqKey:
    """``"MODSEQ" [SP entry-name SP entry-type-req] SP mod-sequence-valzer`` (RFC 7162 section 7)."""
    args = reader.args.space()
    if args.peek() != b'"':
        return ModSeqKey(args.mod_sequence())
    name = args.string()
    if not name.startswith(b"/flags/") or not name.isascii():
        raise BadSyntax("unknown metadata item")
    kind = args.space().keyword().lower()
    if kind not in (b"priv", b"shared", b"all"):
        raise BadSyntax("unknown type of metadata item")
    return ModSeqKey(args.space().mod_sequence(), (name.decode("ascii"), kind.decode("ascii")))


def _object_id(reader: Reader) -> str:
    """``objectid = 1*255(ALPHA / DIGIT / "_" / "-")`` (RFC 8474 section 7)."""
    name = reader.args.space().astring()
    if not _OBJECT_ID.fullmatch(name):
        raise BadSyntax("bad object id")
    return name.decode("ascii")


KEYS: Final[Mapping[bytes, Read]] = {
    b"ALL": _always(All()),
    b"ANSWERED": _always(FlagKey("\\Answered")),
    b"BCC": _header("bcc"),
    b"BEFORE": _date("internal", "before"),
    b"BODY": lambda reader: BodyKey(reader.text()),
    b"CC": _header("cc"),
    b"DELETED": _always(FlagKey("\\Deleted")),
    b"DRAFT": _always(FlagKey("\\Draft")),
    b"EMAILID": lambda reader: EmailIdKey(_object_id(reader)),
    b"FLAGGED": _always(FlagKey("\\Flagged")),
    b"FROM": _header("from"),
    b"HEADER": _any_header,
    b"KEYWORD": _keyword(True),
    b"LARGER": _size("larger"),
    b"MODSEQ": _modseq,
    b"NEW": _always(And((FlagKey("\\Recent"), FlagKey("\\Seen", False)))),
    b"NOT": lambda reader: Not(reader.inner()),
    b"OLD": _always(FlagKey("\\Recent", False)),
    b"OLDER": lambda reader: OlderKey(reader.args.space().nz_number()),
    b"ON": _date("internal", "on"),
    b"OR": _or,
    b"RECENT": _always(FlagKey("\\Recent")),
    b"SAVEDATESUPPORTED": _always(SaveDateSupported()),
    b"SAVEDBEFORE": _date("saved", "before"),
    b"SAVEDON": _date("saved", "on"),
    b"SAVEDSINCE": _date("saved", "since"),
    b"SEEN": _always(FlagKey("\\Seen")),
    b"SENTBEFORE": _date("sent", "before"),
    b"SENTON": _date("sent", "on"),
    b"SENTSINCE": _date("sent", "since"),
    b"SINCE": _date("internal", "since"),
    b"SMALLER": _size("smaller"),
    b"SUBJECT": _header("subject"),
    b"TEXT": lambda reader: TextKey(reader.text()),
    b"THREADID": lambda reader: ThreadIdKey(_object_id(reader)),
    b"TO": _header("to"),
    b"UID": lambda reader: UidKey(reader.args.space().sequence_set()),
    b"UNANSWERED": _always(FlagKey("\\Answered", False)),
    b"UNDELETED": _always(FlagKey("\\Deleted", False)),
    b"UNDRAFT": _always(FlagKey("\\Draft", False)),
    b"UNFLAGGED": _always(FlagKey("\\Flagged", False)),
    b"UNKEYWORD": _keyword(False),
    b"UNSEEN": _always(FlagKey("\\Seen", False)),
    b"YOUNGER": lambda reader: YoungerKey(reader.args.space().nz_number()),
}


def parse_search(args: Cursor) -> Search | BadCharset:
    """``search = "SEARCH" [SP "RETURN" SP "(" [option *(SP option)] ")"] SP search-program`` (RFC 9051 section 9)."""
    return _search(args, uid=False)


def parse_uid_search(args: Cursor) -> Search | BadCharset:
    """``uid = "UID" SP search`` (RFC 9051 section 9)."""
    return _search(args, uid=True)


def _search(args: Cursor, *, uid: bool) -> Search | BadCharset:
    args.space()
    returns: frozenset[str] | None = None
    if args.word(b"RETURN"):
        options = args.space().list_of(lambda: _option(args), empty=True)
        returns = frozenset(options) or frozenset(("ALL",))
        args.space()
    charset: str | None = None
    if args.word(b"CHARSET"):
        if args.modes.charset_forbidden:
            raise BadSyntax("CHARSET is not allowed once UTF8=ACCEPT is enabled")
        charset = args.space().astring().decode("latin-1").upper()
        args.space()
    key, known = parse_search_program(args, charset)
    args.end()
    return Search(uid, key, returns, charset) if known else BadCharset(charset or "")


def parse_search_program(args: Cursor, charset: str | None) -> tuple[SearchKey, bool]:
    """``search-key *(SP search-key)``, and whether *charset* is known. SORT and THREAD have the same programs."""
    known = charset is None or charset in CHARSETS
    reader = Reader(args, "utf-8" if known else "latin-1")
    keys = [reader.key()]
    while args.peek() == b" ":
        args.space()
        keys.append(reader.key())
    return keys[0] if len(keys) == 1 else And(tuple(keys)), known


def _option(args: Cursor) -> str:
    name = args.keyword()
    if name not in RETURN:
        raise BadSyntax("unknown return option")
    return name.decode("ascii")


COMMANDS: Syntaxes = {
    b"SEARCH": Syntax(parse_search, SELECTED),
    b"UID SEARCH": Syntax(parse_uid_search, SELECTED),
}
