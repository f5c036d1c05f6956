"""Responses: conditions (OK, NO, BAD, BYE) and untagged data (RFC 9051 section 7), each printed with its CRLF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from twisted_mail.account import errors
from twisted_mail.imap import codes, printing
from twisted_mail.imap.codes import Code
from twisted_mail.imap.names import encode_name
from twisted_mail.imap.sequence import Range, render

__all__ = [
    "REPLIES",
    "Condition",
    "Kind",
    "NamespaceItem",
    "bad",
    "bye",
    "capability",
    "condition_for",
    "continuation",
    "enabled",
    "esearch",
    "exists",
    "expunge",
    "fetch",
    "flags",
    "id_response",
    "list_response",
    "lsub_response",
    "namespace",
    "no",
    "ok",
    "recent",
    "search",
    "status",
    "vanished",
]

Kind = Literal["OK", "NO", "BAD", "BYE", "PREAUTH"]


@dataclass(frozen=True, slots=True)
class Condition:
    """``resp-cond-state``: how something ended, or what is the matter. `text` is for people, in US-ASCII or UTF-8."""

    kind: Kind
    text: str
    code: Code | None = None

    def tagged(self, tag: bytes | None) -> bytes:
        """The answer to the command with *tag*; without one it is untagged (RFC 9051 section 7.1.3)."""
        text = self.text.encode("utf-8", "replace").replace(b"\r", b" ").replace(b"\n", b" ") or b"."
        kind = self.kind.encode("ascii")
        if self.code is not None:
            return b"%s %s %s %s\r\n" % (tag or b"*", kind, bytes(self.code), text)
        return b"%s %s %s\r\n" % (tag or b"*", kind, text)

    def untagged(self) -> bytes:
        return self.tagged(None)


def ok(text: str, code: Code | None = None) -> Condition:
    return Condition("OK", text, code)


def no(text: str, code: Code | None = None) -> Condition:
    return Condition("NO", text, code)


def bad(text: str, code: Code | None = None) -> Condition:
    return Condition("BAD", text, code)


def bye(text: str, code: Code | None = None) -> Condition:
    return Condition("BYE", text, code)


REPLIES: Final[Mapping[type[Exception], Condition]] = {
    errors.NoSuchMailbox: no("No such mailbox", codes.NONEXISTENT),
    errors.NoSuchMessage: no("Some of the messages no longer exist", codes.EXPUNGEISSUED),
    errors.MailboxExists: no("A mailbox of that name exists", codes.ALREADYEXISTS),
    errors.MailboxHasChildren: no("The mailbox has inferior names", codes.HASCHILDREN),
    errors.InvalidMailboxName: no("That name cannot be a mailbox's", codes.CANNOT),
    errors.CannotChange: no("That cannot be done to this mailbox", codes.CANNOT),
    errors.UseTaken: no("Another mailbox has that special use", codes.USEATTR),
    errors.LimitReached: no("That would be too many", codes.LIMIT),
    errors.OverQuota: no("The quota would be exceeded", codes.OVERQUOTA),
    errors.Refused: no("That cannot be done", codes.CANNOT),
    errors.AccountUnavailable: no("The store does not answer, try again later", codes.UNAVAILABLE),
}
"""How errors are put on the wire. `OutcomeUnknown` is missing on purpose: it has no tagged answer."""


def condition_for(
    error: Exception, *, target: bool = False, table: Mapping[type[Exception], Condition] = REPLIES
) -> Condition | None:
    """The condition for *error*, or for the nearest class it derives from; None where *table* has none.

    With *target* a mailbox that does not exist is where messages were to go: TRYCREATE (RFC 9051 section 7.1).
    """
    for kind in type(error).__mro__:
        found = table.get(kind)
        if found is not None:
            return replace(found, code=codes.TRYCREATE) if target and found.code == codes.NONEXISTENT else found
    return None


def continuation(octets: bytes) -> bytes:
    """``continue-req``: text, or a challenge in base64 (RFC 9051 section 7.6)."""
    return b"+ " + octets + b"\r\n"


def capability(names: Iterable[str]) -> bytes:
    """``* CAPABILITY`` (RFC 9051 section 7.2.2)."""
    return b"* CAPABILITY " + " ".join(names).encode("ascii") + b"\r\n"


def enabled(names: Iterable[str]) -> bytes:
    """``* ENABLED``, perhaps with no name (RFC 9051 section 7.2.1)."""
    return " ".join(("* ENABLED", *names)).encode("ascii") + b"\r\n"


def flags(names: Iterable[str]) -> bytes:
    """``* FLAGS`` (RFC 9051 section 7.3.5)."""
    return b"* FLAGS " + printing.flag_list(names) + b"\r\n"


def exists(count: int) -> bytes:
    """``* n EXISTS`` (RFC 9051 section 7.4.1)."""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """``* n RECENT`` (RFC 3501 section 7.3.2)."""
    return b"* %d RECENT\r\n" % count


def expunge(number: int) -> bytes:
    """``* n EXPUNGE`` (RFC 9051 section 7.5.1)."""
    return b"* %d EXPUNGE\r\n" % number


def vanished(uids: Sequence[Range], *, earlier: bool = False) -> bytes:
    """``* VANISHED``, with ``(EARLIER)`` in answer to what a client knew before (RFC 7162 section 3.2.10)."""
    return b"* VANISHED %s%s\r\n" % (b"(EARLIER) " if earlier else b"", render(uids))


def fetch(number: int, items: Iterable[bytes]) -> bytes:
    """``* n FETCH (…)`` of items already printed, name and value (RFC 9051 section 7.5.2)."""
    return b"* %d FETCH (%s)\r\n" % (number, b" ".join(items))


def search(numbers: Iterable[int], modseq: int | None = None) -> bytes:
    """``* SEARCH``, with MODSEQ where the search had it and found anything (RFC 3501 section 7.2.5, RFC 7162)."""
    text = b" ".join([b"* SEARCH", *[b"%d" % number for number in numbers]])
    return text + (b" (MODSEQ %d)\r\n" % modseq if modseq is not None else b"\r\n")


def esearch(
    tag: bytes,
    *,
    uid: bool,
    least: int | None = None,
    greatest: int | None = None,
    count: int | None = None,
    all_of: Sequence[Range] = (),
    modseq: int | None = None,
) -> bytes:
    """``* ESEARCH (TAG …)``; what is None or empty is left out (RFC 9051 section 7.3.4, RFC 4731 section 3.1)."""
    out = [b"* ESEARCH (TAG ", printing.quoted(tag), b")"]
    if uid:
        out.append(b" UID")
    for name, value in ((b" MIN %d", least), (b" MAX %d", greatest), (b" COUNT %d", count)):
        if value is not None:
            out.append(name % value)
    if all_of:
        out += [b" ALL ", render(all_of)]
    if modseq is not None:
        out.append(b" MODSEQ %d" % modseq)
    out.append(b"\r\n")
    return b"".join(out)


def list_response(
    name: str,
    attributes: Iterable[str] = (),
    *,
    separator: str | None = "/",
    utf8: bool = False,
    child_info: Sequence[str] = (),
    old_name: str | None = None,
) -> bytes:
    """``* LIST`` (RFC 9051 section 7.3.1): *attributes* as ``\\HasChildren``; *child_info* the selection options
    that children match (RFC 5258 section 3.5); *old_name* what a name was or became (RFC 9051 section 6.3.9.7)."""
    extended: list[bytes] = []
    if child_info:
        options = b" ".join([printing.quoted(option.encode("ascii")) for option in child_info])
        extended.append(b'"CHILDINFO" (' + options + b")")
    if old_name is not None:
        extended.append(b'"OLDNAME" (' + printing.mailbox(old_name, utf8=utf8) + b")")
    tail = b" (" + b" ".join(extended) + b")" if extended else b""
    return b"* LIST %s %s %s%s\r\n" % (
        printing.flag_list(attributes),
        _separator(separator),
        printing.mailbox(name, utf8=utf8),
        tail,
    )


def lsub_response(
    name: str, attributes: Iterable[str] = (), *, separator: str | None = "/", utf8: bool = False
) -> bytes:
    """``* LSUB`` (RFC 3501 section 7.2.3)."""
    return b"* LSUB %s %s %s\r\n" % (
        printing.flag_list(attributes),
        _separator(separator),
        printing.mailbox(name, utf8=utf8),
    )


def _separator(separator: str | None) -> bytes:
    return b"NIL" if separator is None else printing.quoted(separator.encode("ascii"))


def status(name: str, items: Iterable[tuple[str, int | str | None]], *, utf8: bool = False) -> bytes:
    """``* STATUS`` (RFC 9051 section 7.3.2): numbers as they are, None as NIL (APPENDLIMIT without a limit, RFC 7889
    section 5), text in parentheses (MAILBOXID, RFC 8474 section 4.3)."""
    out = []
    for item, value in items:
        if isinstance(value, int):
            out.append(f"{item} {value}")
        else:
            out.append(f"{item} NIL" if value is None else f"{item} ({value})")
    return b"* STATUS %s (%s)\r\n" % (printing.mailbox(name, utf8=utf8), " ".join(out).encode("ascii"))


NamespaceItem = tuple[str, str | None]
"""Prefix and separator."""


def namespace(
    personal: Sequence[NamespaceItem] = (),
    others: Sequence[NamespaceItem] = (),
    shared: Sequence[NamespaceItem] = (),
    *,
    utf8: bool = False,
) -> bytes:
    """``* NAMESPACE``: an empty kind is NIL (RFC 9051 section 7.3.3)."""
    kinds = []
    for items in (personal, others, shared):
        described = [
            b"(%s %s)" % (printing.string(encode_name(prefix, utf8=utf8), utf8=utf8), _separator(separator))
            for prefix, separator in items
        ]
        kinds.append(b"(" + b"".join(described) + b")" if described else b"NIL")
    return b"* NAMESPACE " + b" ".join(kinds) + b"\r\n"


def id_response(fields: Mapping[str, str | None] | None) -> bytes:
    """``* ID`` (RFC 2971 section 3.2)."""
    if not fields:
        return b"* ID NIL\r\n"
    pairs = [
        printing.string(field.encode()) + b" " + printing.nstring(None if value is None else value.encode())
        for field, value in fields.items()
    ]
    return b"* ID (" + b" ".join(pairs) + b")\r\n"
