"""Streams: what kind of mail a message is, and so by which pools it may leave.

A message is in exactly one stream: the first, in the order of the configuration, whose match holds; `normal` takes what
no other does, and is always there. What a message causes (a retry, a bounce, a forward, a report) stays in the stream of
its cause: `MessageFacts.cause`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from twisted_mail.mime.block import Block
from twisted_mail.mime.headers import decode_header
from twisted_mail.relay.tables import Table, Wrong

__all__ = ["NORMAL", "Match", "MessageFacts", "Stream", "Streams"]

NORMAL: Final = "normal"
"""The stream that takes what no other does."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class MessageFacts:
    """What streams are told by. Not slotted: the header is looked into once, and only if a rule asks."""

    listener: str = ""
    """By which it came: ``submission``, ``smtp``, ``lmtp``, …; ``internal`` for mail of the server's own."""
    login: str = ""
    """Canonical address of who logged in; empty: nobody."""
    sender: str = ""
    """The reverse-path; empty for the null one."""
    header: bytes = b""
    """The header block."""
    recipients: int = 1
    """How many the message has, over all rows of the queue."""
    cause: str = ""
    """Name of the stream of the message that caused this one; empty: nothing did."""

    @cached_property
    def fields(self) -> Mapping[bytes, bytes]:
        """First value of each field, unfolded, by its name in lower case."""
        return Block(self.header).first


@dataclass(frozen=True, slots=True)
class Match:
    """When a stream takes a message: all that is given must hold, of a list any."""

    listener: tuple[str, ...] = ()
    login: tuple[str, ...] = ()
    """Addresses, or patterns as in `sender`."""
    sender: tuple[str, ...] = ()
    """Addresses (``news@example.org``), domains (``example.org``, ``@example.org``), domains below one
    (``.example.org``), patterns with ``*`` and ``?`` (``news-*@example.org``), or ``<>`` for the null reverse-path. Without
    distinction of case."""
    header: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(Field name, patterns): the field is there, and its first value (decoded, unfolded) is like one of the patterns, where
    ``*`` is any text. No pattern: it is enough that it is there."""
    list_unsubscribe: bool | None = None
    """Whether List-Unsubscribe (RFC 2369) is there."""
    precedence: tuple[str, ...] = ()
    """Values of Precedence: ``bulk``, ``list``, ``junk`` (RFC 2076 section 3.9)."""
    recipients: int | None = None
    """So many or more."""

    def holds(self, facts: MessageFacts) -> bool:
        """Whether everything that is given holds; an empty match never does."""
        if self == _EMPTY:
            return False
        if self.listener and facts.listener.lower() not in self.listener:
            return False
        if self.recipients is not None and facts.recipients < self.recipients:
            return False
        if self.login and not (facts.login and _any_address(self.login, facts.login)):
            return False
        if self.sender and not _any_address(self.sender, facts.sender):
            return False
        if self.list_unsubscribe is not None and (b"list-unsubscribe" in facts.fields) is not self.list_unsubscribe:
            return False
        if self.precedence:
            value = facts.fields.get(b"precedence", b"").decode("latin-1").strip().lower()
            if value not in self.precedence:
                return False
        for name, patterns in self.header:
            found = facts.fields.get(name.encode("latin-1"))
            if found is None:
                return False
            text = decode_header(found)
            if patterns and not any(_pattern(pattern).match(text) for pattern in patterns):
                return False
        return True


_EMPTY: Final = Match()


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    # only * and ? mean something: a bracket stands for itself
    return re.compile(fnmatch.translate(text.replace("[", "[[]")), re.IGNORECASE | re.DOTALL)


def _any_address(patterns: Sequence[str], address: str) -> bool:
    address = address.lower()
    domain = address.rpartition("@")[2]
    for pattern in patterns:
        if pattern == "<>":
            if not address:
                return True
        elif not address:
            continue
        elif pattern.startswith("."):
            if domain.endswith(pattern):
                return True
        elif "@" not in pattern.lstrip("@"):
            if _pattern(pattern.lstrip("@")).match(domain):
                return True
        elif _pattern(pattern).match(address):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of mail."""

    name: str
    pools: tuple[str, ...]
    """Names of the pools that it may leave by, and by no others."""
    match: Match = field(default_factory=Match)
    one_click: bool = False
    """Its mail must carry one-click unsubscribe (RFC 8058): it is added where it is missing, and an address that
    unsubscribed or complained gets nothing more of this stream."""
    suppress: bool = True
    """Addresses that bounced for good are not written to again for a while. Not in `normal`: who writes to a person wants
    the server's own answer."""
    bulk: bool = False
    """It comes in such numbers that other mail must not stand behind it in the queue."""


class Streams:
    """All streams, in the order in which they are asked."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        """Raises: Wrong (two of a name; `normal` is missing)."""
        self._streams = {each.name: each for each in streams}
        if len(self._streams) != len(streams):
            raise Wrong([("relay.streams", "two streams have the same name")])
        if NORMAL not in self._streams:
            raise Wrong([("relay.streams", f"the stream {NORMAL!r} is missing")])

    def all(self) -> Sequence[Stream]:
        """In order."""
        return list(self._streams.values())

    def named(self, name: str) -> Stream | None:
        """None if there is no such stream any more."""
        return self._streams.get(name)

    def of(self, facts: MessageFacts) -> Stream:
        """The one stream of a message.

        Raises: KeyError: the stream of what caused it is no longer configured. It is not for us to say that it may
        leave by another's addresses.
        """
        if facts.cause:
            return self._streams[facts.cause]
        for stream in self._streams.values():
            if stream.name != NORMAL and stream.match.holds(facts):
                return stream
        return self._streams[NORMAL]

    @classmethod
    def read(cls, tables: object, pools: Collection[str], default: Sequence[str] = ()) -> Streams:
        """The streams of ``[relay.streams]``; *pools*: the names of those that exist; *default*: the pools of
        `normal` where it is not configured.

        Raises: Wrong.
        """
        problems: list[tuple[str, str]] = []
        table = Table(tables, "relay.streams", problems)
        streams = [_read_stream(table.table(name), name, pools) for name in table.names()]
        for stream in streams:
            if not _NAME.fullmatch(stream.name):
                problems.append((f"{table.key}.{stream.name}", "a name has small letters, digits, - and _, at most 63"))
        if all(stream.name != NORMAL for stream in streams):
            if not default:
                problems.append((f"{table.key}.{NORMAL}", "is missing: it takes what no other stream does"))
            streams.append(Stream(NORMAL, tuple(default), suppress=False))
        if problems:
            raise Wrong(problems)
        return cls(streams)


def _read_stream(table: Table, name: str, pools: Collection[str]) -> Stream:
    named = table.texts("pools")
    if not named:
        table.wrong("pools", "at least one pool is wanted")
    for each in named:
        if each not in pools:
            table.wrong("pools", f"there is no pool {each!r}; there are: {', '.join(sorted(pools)) or 'none'}")
    match = Match()
    if table.has("match"):
        if name == NORMAL:
            table.wrong("match", f"{NORMAL!r} takes what no other stream does, and has no match")
        match = _read_match(table.table("match"))
    elif name != NORMAL:
        table.wrong("match", "is missing: without it no message would ever be in this stream")
    one_click, suppress, bulk = table.flag("one_click"), table.flag("suppress"), table.flag("bulk")
    if name == NORMAL and bulk:
        table.wrong("bulk", f"{NORMAL!r} is what must not wait for bulk mail")
    table.end()
    return Stream(
        name,
        tuple(dict.fromkeys(named)),
        match,
        # marketing is what mailbox providers ask one-click unsubscribe of
        name == "marketing" if one_click is None else one_click,
        name != NORMAL if suppress is None else suppress,
        name == "marketing" if bulk is None else bulk,
    )


def _read_match(table: Table) -> Match:
    header: list[tuple[str, tuple[str, ...]]] = []
    fields = table.table("header")
    for name in fields.names():
        if not re.fullmatch(r"[!-9;-~]+", name):
            fields.wrong(name, "is not the name of a header field")
        header.append((name.lower(), () if fields.has_true(name) else fields.texts(name)))
    found = Match(
        listener=tuple(each.lower() for each in table.texts("listener")),
        login=tuple(each.lower() for each in table.texts("login")),
        sender=tuple(each.lower() for each in table.texts("sender")),
        header=tuple(header),
        list_unsubscribe=table.flag("list_unsubscribe"),
        precedence=tuple(each.lower() for each in table.texts("precedence")),
        recipients=table.whole("recipients", None, 1),
    )
    table.end()
    if found == _EMPTY:
        table.wrong("", "is empty, and would never hold")
    return found
