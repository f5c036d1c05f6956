"""SEARCH against a plain predicate over the same messages: any tree of keys, whatever part the columns decide."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.account.house import START
from tests.imap.session.fakes import Node, Talk, add

WORDS = ("alpha", "Beta", "GAMMA", "delta", "Straße", "é", "日本")
FLAGS = ("\\Seen", "\\Flagged", "\\Deleted", "$One", "two")
COUNT = 60
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Known:
    """A message, and what is true of it."""

    number: int
    subject: str
    sender: str
    body: str
    flags: frozenset[str]
    received: int
    zone: int
    sent: date
    size: int


@cache
def mailbox() -> tuple[Talk, tuple[Known, ...]]:
    node, chance, known = Node(), random.Random(1), []
    for number in range(1, COUNT + 1):
        subject = " ".join(chance.choices(WORDS, k=2))
        sender = chance.choice(("ann@example.org", "bob@example.net"))
        body = " ".join(chance.choices(WORDS, k=4))
        flags = frozenset(flag for flag in FLAGS if chance.random() < 0.4)
        sent = date(2023, 11, 1) + timedelta(days=chance.randrange(10))
        received = int(START) - chance.randrange(10 * 86_400)
        zone = chance.choice((0, 60, -720, 840))
        octets = (
            f"From: {sender}\r\nSubject: {subject}\r\nDate: {sent.day} {sent:%b %Y} 10:00:00 +0000\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
        ).encode()
        add(node, octets, flags=tuple(sorted(flags)), received=received, zone=zone)
        known.append(Known(number, subject, sender, body, flags, received, zone, sent, len(octets)))
    talk = node.talk().login().select()
    talk.say("x ENABLE UTF8=ACCEPT")
    return talk, tuple(known)


Predicate = Callable[[Known], bool]
Key = tuple[str, Predicate]


def fold(text: str) -> str:
    return text.casefold()


def imap_date(day: date) -> str:
    return f"{day.day}-{day:%b-%Y}"


def local_day(message: Known) -> date:
    return EPOCH + timedelta(days=(message.received + message.zone * 60) // 86_400)


@st.composite
def leaves(draw: Any) -> Key:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        flag = draw(st.sampled_from(("Seen", "Flagged", "Deleted")))
        yes = draw(st.booleans())
        return f"{'' if yes else 'UN'}{flag}", lambda m: (f"\\{flag}" in m.flags) == yes
    if kind == 1:
        word = draw(st.sampled_from(("$one", "TWO", "never")))
        return f"KEYWORD {word}", lambda m: any(flag.lower() == word.lower() for flag in m.flags)
    if kind == 2:
        word = draw(st.sampled_from(WORDS))[:3]
        return f'SUBJECT "{word}"', lambda m: fold(word) in fold(m.subject)
    if kind == 3:
        word = draw(st.sampled_from((*WORDS, "example")))
        return f'BODY "{word.upper()}"', lambda m: fold(word.upper()) in fold(m.body)
    if kind == 4:
        word = draw(st.sampled_from((*WORDS, "bob")))
        return f'TEXT "{word}"', lambda m: any(fold(word) in fold(part) for part in (m.subject, m.sender, m.body))
    if kind == 5:
        who = draw(st.sampled_from(("ann", "BOB", "example")))
        return f"FROM {who}", lambda m: who.lower() in m.sender
    if kind == 6:
        low = draw(st.integers(1, COUNT))
        high = draw(st.integers(low, COUNT))
        uid = draw(st.sampled_from(("", "UID ")))
        return f"{uid}{low}:{high}", lambda m: low <= m.number <= high
    if kind == 7:
        size = draw(st.integers(120, 220))
        if draw(st.booleans()):
            return f"LARGER {size}", lambda m: m.size > size
        return f"SMALLER {size}", lambda m: m.size < size
    day = date(2023, 11, 1) + timedelta(days=draw(st.integers(0, 14)))
    prefix = draw(st.sampled_from(("", "SENT")))
    relation = draw(st.sampled_from(("BEFORE", "ON", "SINCE")))
    if kind == 8:
        seconds = draw(st.integers(1, 10 * 86_400))
        if draw(st.booleans()):
            return f"YOUNGER {seconds}", lambda m: m.received >= int(START) - seconds
        return f"OLDER {seconds}", lambda m: m.received <= int(START) - seconds

    def compare(message: Known) -> bool:
        value = message.sent if prefix else local_day(message)
        return value < day if relation == "BEFORE" else value == day if relation == "ON" else value >= day

    return f"{prefix}{relation} {imap_date(day)}", compare


def _not(key: Key) -> Key:
    return f"NOT {key[0]}", lambda m: not key[1](m)


def _or(keys: tuple[Key, Key]) -> Key:
    return f"OR {keys[0][0]} {keys[1][0]}", lambda m: keys[0][1](m) or keys[1][1](m)


def _and(keys: list[Key]) -> Key:
    return f"({' '.join(key[0] for key in keys)})", lambda m: all(key[1](m) for key in keys)


KEYS = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(_not), st.tuples(inner, inner).map(_or), st.lists(inner, min_size=1, max_size=3).map(_and)
    ),
    max_leaves=6,
)


@given(key=KEYS)
@settings(max_examples=400, deadline=None)
def test_any_tree_of_keys(key: Key) -> None:
    talk, known = mailbox()
    answer = talk.say(f"s SEARCH {key[0]}").decode()
    match = re.match(r"\* SEARCH((?: \d+)*)\r\ns OK ", answer)
    assert match is not None, (key[0], answer)
    assert list(map(int, match[1].split())) == [m.number for m in known if key[1](m)], key[0]


def test_only_what_is_undecided_is_read() -> None:
    talk, known = mailbox()
    session: Any = talk.session
    asked: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(account, name)

        def rows(self, keys: Any, columns: Any) -> Any:
            asked.append(len(keys))
            assert list(columns) == ["search_header"]
            return account.rows(keys, columns)

    account = session._account
    session._account = Counting()
    try:
        talk.say("s SEARCH DELETED SUBJECT alpha")
        talk.say("s SEARCH OR NOT DELETED SUBJECT alpha")
        talk.say("s SEARCH 5 SUBJECT alpha")
        talk.say("s SEARCH KEYWORD nothing SUBJECT alpha")
    finally:
        session._account = account
    deleted = sum("\\Deleted" in message.flags for message in known)
    assert asked == [deleted, deleted, 1]
