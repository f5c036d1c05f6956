"""SEARCH: the RFCs' own lines, and malformed ones."""

from __future__ import annotations

from datetime import date

import pytest

from tests.imap.syntax.reading import read, refusal
from twisted_mail.imap.commands.search import BadCharset, Search
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
from twisted_mail.imap.sequence import SAVED, SequenceSet
from twisted_mail.imap.syntax import Modes


def numbers(text: bytes) -> SequenceSet:
    return SequenceSet.parse(text)


def key(text: bytes, modes: Modes | None = None) -> SearchKey:
    command = read(b"SEARCH " + text, modes)
    assert isinstance(command, Search)
    return command.key


DAY = date(1994, 2, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"ALL", All()),
        (b"1:3,5", SequenceKey(numbers(b"1:3,5"))),
        (b"*", SequenceKey(numbers(b"*"))),
        (b"$", SequenceKey(SAVED)),
        (b"UID 1:*", UidKey(numbers(b"1:*"))),
        (b"uid $", UidKey(SAVED)),
        (b"ANSWERED", FlagKey("\\Answered")),
        (b"DELETED", FlagKey("\\Deleted")),
        (b"DRAFT", FlagKey("\\Draft")),
        (b"FLAGGED", FlagKey("\\Flagged")),
        (b"seen", FlagKey("\\Seen")),
        (b"RECENT", FlagKey("\\Recent")),
        (b"UNANSWERED", FlagKey("\\Answered", False)),
        (b"UNDELETED", FlagKey("\\Deleted", False)),
        (b"UNDRAFT", FlagKey("\\Draft", False)),
        (b"UNFLAGGED", FlagKey("\\Flagged", False)),
        (b"UNSEEN", FlagKey("\\Seen", False)),
        (b"OLD", FlagKey("\\Recent", False)),
        (b"NEW", And((FlagKey("\\Recent"), FlagKey("\\Seen", False)))),
        (b"KEYWORD $Junk", FlagKey("$Junk")),
        (b"UNKEYWORD x", FlagKey("x", False)),
        (b"BEFORE 1-Feb-1994", DateKey("internal", "before", DAY)),
        (b'ON "01-FEB-1994"', DateKey("internal", "on", DAY)),
        (b"SINCE 1-feb-1994", DateKey("internal", "since", DAY)),
        (b"SENTBEFORE 1-Feb-1994", DateKey("sent", "before", DAY)),
        (b"SENTON 1-Feb-1994", DateKey("sent", "on", DAY)),
        (b"SENTSINCE 1-Feb-1994", DateKey("sent", "since", DAY)),
        (b"SAVEDBEFORE 1-Feb-1994", DateKey("saved", "before", DAY)),
        (b"SAVEDON 1-Feb-1994", DateKey("saved", "on", DAY)),
        (b"SAVEDSINCE 1-Feb-1994", DateKey("saved", "since", DAY)),
        (b"SAVEDATESUPPORTED", SaveDateSupported()),
        (b"LARGER 100", SizeKey("larger", 100)),
        (b"SMALLER 5000000000", SizeKey("smaller", 5_000_000_000)),
        (b"LARGER 0", SizeKey("larger", 0)),
        (b'FROM "Smith"', HeaderKey("from", "Smith")),
        (b"TO {4+}\r\na\r\nb", HeaderKey("to", "a\r\nb")),
        (b"CC x", HeaderKey("cc", "x")),
        (b"BCC x", HeaderKey("bcc", "x")),
        (b'SUBJECT ""', HeaderKey("subject", "")),
        (b'HEADER Message-ID "<a@b>"', HeaderKey("message-id", "<a@b>")),
        (b'HEADER "X-Spam" ""', HeaderKey("x-spam", "")),
        (b"BODY word", BodyKey("word")),
        (b"TEXT {6}\r\n\xd0\x96\xd0\xb8\xd0\xb2", TextKey("Жив")),
        ('TEXT "straße"'.encode(), TextKey("straße")),
        (b"OLDER 3600", OlderKey(3600)),
        (b"YOUNGER 1", YoungerKey(1)),
        (b"MODSEQ 620162338", ModSeqKey(620162338)),
        (b"MODSEQ 0", ModSeqKey(0)),
        (b'MODSEQ "/flags/\\\\draft" all 620162338', ModSeqKey(620162338, ("/flags/\\draft", "all"))),
        (b"EMAILID M6d99ac3275bb4e", EmailIdKey("M6d99ac3275bb4e")),
        (b'THREADID "T64b478a75b7ea9"', ThreadIdKey("T64b478a75b7ea9")),
        (b"NOT SEEN", Not(FlagKey("\\Seen"))),
        (b"NOT NOT 1", Not(Not(SequenceKey(numbers(b"1"))))),
        (b"OR SEEN (DRAFT UNFLAGGED)", Or(FlagKey("\\Seen"), And((FlagKey("\\Draft"), FlagKey("\\Flagged", False))))),
        (b"((SEEN))", FlagKey("\\Seen")),
        (
            b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"',
            And((FlagKey("\\Flagged"), DateKey("internal", "since", DAY), Not(HeaderKey("from", "Smith")))),
        ),
        (b"OR OR 1 2 3", Or(Or(*(SequenceKey(numbers(n)) for n in (b"1", b"2"))), SequenceKey(numbers(b"3")))),
    ],
)
def test_search_keys(text: bytes, expected: SearchKey) -> None:
    assert key(text) == expected


def test_search_programs() -> None:
    assert read(b"SEARCH ALL") == Search(False, All())
    assert read(b"UID SEARCH ALL") == Search(True, All())
    # RFC 9051 section 6.4.4, RFC 4731, RFC 5182
    assert read(b"SEARCH RETURN (MIN COUNT) SEEN") == Search(False, FlagKey("\\Seen"), frozenset(("MIN", "COUNT")))
    assert read(b"SEARCH RETURN () SEEN") == Search(False, FlagKey("\\Seen"), frozenset(("ALL",)))
    assert read(b"SEARCH return (save) SEEN") == Search(False, FlagKey("\\Seen"), frozenset(("SAVE",)))
    assert read(b"SEARCH CHARSET UTF-8 TEXT {2}\r\n\xc3\xa4") == Search(False, TextKey("ä"), None, "UTF-8")
    assert read(b'SEARCH CHARSET "us-ascii" ALL') == Search(False, All(), None, "US-ASCII")
    assert read(b"UID SEARCH RETURN (ALL) CHARSET utf-8 ALL") == Search(True, All(), frozenset(("ALL",)), "UTF-8")


def test_a_charset_that_is_not_known_is_said_so_and_the_rest_is_still_read() -> None:
    assert read(b"SEARCH CHARSET KOI8-R TEXT {2}\r\n\xc3\xff") == BadCharset("KOI8-R")
    refusal(b"SEARCH CHARSET KOI8-R FOO")


def test_no_charset_once_utf8_is_accepted() -> None:
    modes = Modes(utf8=True, charset_forbidden=True)
    assert "CHARSET" in refusal(b"SEARCH CHARSET UTF-8 ALL", modes)
    assert key('TEXT "ä"'.encode(), modes) == TextKey("ä")


@pytest.mark.parametrize(
    "arguments",
    [
        *(b"SEARCH", b"SEARCH ", b"SEARCH FOO", b"SEARCH ALL ", b"SEARCH ()", b"SEARCH (ALL", b"SEARCH ALL)"),
        *(b"SEARCH NOT", b"SEARCH OR 1", b"SEARCH OR 1 ", b"SEARCH KEYWORD", b"SEARCH KEYWORD \\Seen", b"SEARCH FROM"),
        *(
            b"SEARCH FROM (a)",
            b"SEARCH HEADER x",
            b'SEARCH HEADER "a b" c',
            b'SEARCH HEADER "a:" c',
            b'SEARCH HEADER "" c',
        ),
        *(
            b"SEARCH BEFORE 1994-02-01",
            b"SEARCH BEFORE 31-Feb-1994",
            b'SEARCH BEFORE "1-Feb-1994',
            b"SEARCH ON 1-Feb-94",
        ),
        *(
            b"SEARCH LARGER -1",
            b"SEARCH LARGER x",
            b"SEARCH LARGER 99999999999999999999",
            b"SEARCH OLDER 0",
            b"SEARCH YOUNGER",
        ),
        *(
            b"SEARCH MODSEQ",
            b'SEARCH MODSEQ "/flags/x" 5',
            b'SEARCH MODSEQ "x" all 5',
            b'SEARCH MODSEQ "/flags/x" foo 5',
        ),
        *(
            b"SEARCH EMAILID",
            b'SEARCH EMAILID "a b"',
            b"SEARCH THREADID " + b"x" * 256,
            b"SEARCH UID",
            b"SEARCH 0",
            b"SEARCH 1:",
        ),
        *(
            b"SEARCH RETURN ALL ALL",
            b"SEARCH RETURN (FOO) ALL",
            b"SEARCH RETURN (MIN)",
            b"SEARCH RETURN",
            b"SEARCH CHARSET UTF-8",
        ),
        *(
            b"SEARCH CHARSET",
            b"SEARCH RETURN (MIN MAX ALL",
            b"SEARCH TEXT {1+}\r\n\xff",
            b'SEARCH TEXT "\xff"',
            b"SEARCH TEXT \xff",
        ),
        *(b"SEARCH TEXT {1+}\r\n\0", b"SEARCH (ALL)ALL", b"SEARCH ALL  ALL", b"SEARCH $,1"),
    ],
)
def test_malformed_search(arguments: bytes) -> None:
    assert refusal(arguments)


def test_nesting_is_bounded() -> None:
    modes = Modes(depth=5)
    assert key(b"((((1))))", modes) == SequenceKey(numbers(b"1"))
    for deep in (
        b"(((((1)))))",
        b"NOT NOT NOT NOT NOT 1",
        b"OR 1 OR 1 OR 1 OR 1 OR 1 1",
        b"((NOT OR (1) 2) (NOT (NOT 1)))",
    ):
        assert refusal(b"SEARCH " + deep, modes) == "the search keys are nested too deeply"
    for endless in (b"(" * 20_000, b"NOT " * 10_000 + b"1", b"OR " * 10_000):
        assert refusal(b"SEARCH " + endless)


def test_the_number_of_keys_is_bounded() -> None:
    modes = Modes(list_elements=4)
    assert isinstance(key(b"1 2 3 4", modes), And)
    assert refusal(b"SEARCH 1 2 3 4 5", modes) == "too many search keys"
    assert refusal(b"SEARCH (1 2) (3 4)", modes) == "too many search keys"
