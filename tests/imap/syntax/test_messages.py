"""APPEND, REPLACE and FETCH: the RFCs' own lines, and malformed ones."""

from __future__ import annotations

import pytest

from tests.imap.syntax.reading import read, refusal
from twisted_mail.imap.commands.append import Append, AppendMessage, Replace
from twisted_mail.imap.commands.fetch import Fetch
from twisted_mail.imap.cursor import InternalDate, MessageLiteral
from twisted_mail.imap.fetch_items import (
    Attribute,
    Binary,
    BinarySize,
    Body,
    FetchItem,
    Preview,
    Section,
    item_name,
)
from twisted_mail.imap.registry import Argument, announced
from twisted_mail.imap.sequence import SAVED, SequenceSet
from twisted_mail.imap.syntax import BadCommand, CommandLine, Modes, Streamed

A = Attribute


def numbers(text: bytes) -> SequenceSet:
    return SequenceSet.parse(text)


# --- APPEND, REPLACE --------------------------------------------------------------------------------------------------

WHEN = InternalDate(760686845, -480)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (
            b"APPEND saved-messages (\\Seen) {3}\r\nabc",
            Append("saved-messages", (AppendMessage(MessageLiteral(3, False, b"abc"), ("\\Seen",)),)),
        ),
        (b"APPEND INBOX {0+}\r\n", Append("INBOX", (AppendMessage(MessageLiteral(0, False, b"")),))),
        (
            b'append "in box" () " 7-Feb-1994 21:54:05 -0800" ~{3+}\r\na\0b',
            Append("in box", (AppendMessage(MessageLiteral(3, True, b"a\0b"), (), WHEN),)),
        ),
        # RFC 3502 section 6.3.11
        (
            b'APPEND saved (\\Seen $x) {1}\r\na (\\Draft) " 7-Feb-1994 22:43:04 -0800" {1}\r\nb {1+}\r\nc',
            Append(
                "saved",
                (
                    AppendMessage(MessageLiteral(1, False, b"a"), ("\\Seen", "$x")),
                    AppendMessage(MessageLiteral(1, False, b"b"), ("\\Draft",), InternalDate(760689784, -480)),
                    AppendMessage(MessageLiteral(1, False, b"c")),
                ),
            ),
        ),
        # RFC 6855 section 4
        (
            b"APPEND INBOX (\\Seen) UTF8 (~{2+}\r\nab) {1+}\r\nc",
            Append(
                "INBOX",
                (
                    AppendMessage(MessageLiteral(2, True, b"ab"), ("\\Seen",), None, True),
                    AppendMessage(MessageLiteral(1, False, b"c")),
                ),
            ),
        ),
        # RFC 8508 section 3.2
        (
            b"REPLACE 4 Drafts (\\Seen \\Draft $MDNSent) {1}\r\nx",
            Replace(
                False,
                4,
                "Drafts",
                AppendMessage(MessageLiteral(1, False, b"x"), ("\\Seen", "\\Draft", "$MDNSent")),
            ),
        ),
        (
            b"UID REPLACE * Drafts {1}\r\nx",
            Replace(True, None, "Drafts", AppendMessage(MessageLiteral(1, False, b"x"))),
        ),
    ],
)
def test_messages(arguments: bytes, command: Append | Replace) -> None:
    assert read(arguments) == command


@pytest.mark.parametrize(
    "arguments",
    [
        *(b"APPEND", b"APPEND x", b"APPEND x ", b"APPEND x (\\Seen)", b"APPEND x abc", b'APPEND x "abc"'),
        *(b"APPEND x{1+}\r\na", b"APPEND x (\\Seen){1+}\r\na", b"APPEND x  {1+}\r\na", b"APPEND x {1+}\r\na "),
        *(b"APPEND x {1+}\r\na{1+}\r\nb", b'APPEND x " 7-Feb-1994 21:54:05 -0800" () {1+}\r\na'),
        *(b'APPEND x "7-Feb-1994 21:54:05 -0800" {1+}\r\na', b'APPEND x " 7-Feb-94 21:54:05 -0800" {1+}\r\na'),
        *(b'APPEND x "30-Feb-1994 21:54:05 -0800" {1+}\r\na', b'APPEND x "07-Foo-1994 21:54:05 -0800" {1+}\r\na'),
        *(b'APPEND x "07-Feb-1994 24:00:00 -0800" {1+}\r\na', b'APPEND x "07-Feb-1994 23:00:61 -0800" {1+}\r\na'),
        *(b'APPEND x "07-Feb-1994 23:00:00 +2400" {1+}\r\na', b'APPEND x "07-Feb-0000 23:00:00 +0000" {1+}\r\na'),
        *(b'APPEND x "07-Feb-1994 23:00:00 0000" {1+}\r\na', b'APPEND x "07-Feb-1994 23:00:00 UTC" {1+}\r\na'),
        *(b"APPEND x UTF8 {1+}\r\na", b"APPEND x UTF8 ({1+}\r\na)", b"APPEND x UTF8 (~{1+}\r\na", b"APPEND x UTF8"),
        b'APPEND x CATENATE (URL "/x")',
        *(b"REPLACE 1:2 x {1+}\r\na", b"REPLACE 0 x {1+}\r\na", b"REPLACE 1 x {1+}\r\na {1+}\r\nb", b"UID REPLACE x y"),
    ],
)
def test_malformed_messages(arguments: bytes) -> None:
    assert refusal(arguments)


def test_what_an_announced_literal_is() -> None:
    def kind(text: bytes, *literals: bytes | Streamed) -> object:
        return announced(CommandLine(text, literals), 310).command

    seen = AppendMessage(MessageLiteral(310), ("\\Seen",))
    assert kind(b"a1 APPEND {5}\r\n") == Argument()
    assert kind(b"a1 LOGIN {5}\r\n") == Argument()
    assert kind(b"a1 LOGIN {4}\r\n {5}\r\n", b"user") == Argument()
    assert kind(b"a1 SEARCH OR FROM {310}\r\n") == Argument()
    assert kind(b"a1 APPEND saved (\\Seen) {310}\r\n") == Append("saved", (seen,))
    assert kind(b"a1 APPEND {5+}\r\n (\\Seen) {310+}\r\n", b"inbox") == Append("INBOX", (seen,))
    assert kind(b"a1 APPEND x {9}\r\n (\\Seen) {310+}\r\n", Streamed(9)) == Append(
        "x", (AppendMessage(MessageLiteral(9)), seen)
    )
    assert kind(b"a1 APPEND x UTF8 (~{310}\r\n") == Append("x", (AppendMessage(MessageLiteral(310, True), utf8=True),))
    assert kind(b"a1 APPEND x UTF8 (~{3}\r\n) (\\Seen) {310}\r\n", Streamed(3)) == Append(
        "x", (AppendMessage(MessageLiteral(3, True), utf8=True), seen)
    )
    assert kind(b"a1 UID REPLACE 7 x (\\Seen) {310}\r\n") == Replace(True, 7, "x", seen)
    for text in (
        b"a1 FOO {310}\r\n",
        b"a1 NOOP {310}\r\n",
        b"a1 APPEND (x) {310}\r\n",
        b"a1 APPEND x (\\Seen){310}\r\n",
        b"a1 APPEND x FOO {310}\r\n",
        b"a1 APPEND x{310}\r\n",
        b"a1 FETCH 1 {310}\r\n",
        b"a1 APPEND x UTF8 (~{3}\r\n {310}\r\n",
        b"a1 SELECT ~{310}\r\n",
        b"a1 {310}\r\n",
    ):
        tagged = announced(CommandLine(text, (Streamed(3),) if text.count(b"{") > 1 else ()), 310)
        assert isinstance(tagged.command, BadCommand), text
        assert tagged.tag == tagged.command.tag == b"a1"


# --- FETCH ------------------------------------------------------------------------------------------------------------


def body(text: bytes) -> FetchItem:
    command = read(b"FETCH 1 " + text)
    assert isinstance(command, Fetch) and len(command.items) == 1
    return command.items[0]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (b"FETCH 2:4 (FLAGS)", Fetch(False, numbers(b"2:4"), (A.FLAGS,))),
        (b"UID FETCH 1:* flags", Fetch(True, numbers(b"1:*"), (A.FLAGS,))),
        (b"FETCH $ FAST", Fetch(False, SAVED, (A.FLAGS, A.INTERNALDATE, A.RFC822_SIZE))),
        (b"FETCH 1 all", Fetch(False, numbers(b"1"), (A.FLAGS, A.INTERNALDATE, A.RFC822_SIZE, A.ENVELOPE))),
        (b"FETCH 1 FULL", Fetch(False, numbers(b"1"), (A.FLAGS, A.INTERNALDATE, A.RFC822_SIZE, A.ENVELOPE, A.BODY))),
        (
            b"FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])",
            Fetch(False, numbers(b"2:4"), (A.FLAGS, Body(Section((), "HEADER.FIELDS", (b"DATE", b"FROM"))))),
        ),
        (
            b"FETCH 1 (UID RFC822 RFC822.HEADER RFC822.SIZE RFC822.TEXT BODY BODYSTRUCTURE ENVELOPE MODSEQ EMAILID"
            b" THREADID SAVEDATE INTERNALDATE)",
            Fetch(
                False,
                numbers(b"1"),
                (
                    *(A.UID, A.RFC822, A.RFC822_HEADER, A.RFC822_SIZE, A.RFC822_TEXT, A.BODY, A.BODYSTRUCTURE),
                    *(A.ENVELOPE, A.MODSEQ, A.EMAILID, A.THREADID, A.SAVEDATE, A.INTERNALDATE),
                ),
            ),
        ),
        (b"FETCH 1 (FLAGS UID FLAGS)", Fetch(False, numbers(b"1"), (A.FLAGS, A.UID))),
        # RFC 7162 sections 3.1.4.1 and 3.2.6
        (b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)", Fetch(True, numbers(b"1:*"), (A.FLAGS,), 12345)),
        (
            b"UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)",
            Fetch(True, numbers(b"300:500"), (A.FLAGS,), 12345, True),
        ),
        (
            b"UID FETCH 300:500 (FLAGS) (VANISHED CHANGEDSINCE 12345)",
            Fetch(True, numbers(b"300:500"), (A.FLAGS,), 12345, True),
        ),
        # RFC 8970 section 5
        (b"FETCH 1 (RFC822.SIZE PREVIEW)", Fetch(False, numbers(b"1"), (A.RFC822_SIZE, Preview()))),
        (b"FETCH 1 (PREVIEW (LAZY))", Fetch(False, numbers(b"1"), (Preview(True),))),
        (b"FETCH 1 PREVIEW (lazy)", Fetch(False, numbers(b"1"), (Preview(True),))),
        (b"FETCH 1 (PREVIEW (LAZY) UID)", Fetch(False, numbers(b"1"), (Preview(True), A.UID))),
        (b"FETCH 1 PREVIEW (CHANGEDSINCE 5)", Fetch(False, numbers(b"1"), (Preview(),), 5)),
        (b"FETCH 1 PREVIEW (LAZY) (CHANGEDSINCE 5)", Fetch(False, numbers(b"1"), (Preview(True),), 5)),
    ],
)
def test_fetch(arguments: bytes, command: Fetch) -> None:
    assert read(arguments) == command


@pytest.mark.parametrize(
    ("text", "item", "label"),
    [
        # RFC 9051 section 6.4.5.1, RFC 3516 section 5
        (b"BODY[]", Body(Section()), b"BODY[]"),
        (b"body.peek[]", Body(Section(), True), b"BODY[]"),
        (b"BODY[HEADER]", Body(Section((), "HEADER")), b"BODY[HEADER]"),
        (b"BODY[TEXT]", Body(Section((), "TEXT")), b"BODY[TEXT]"),
        (b"BODY[1]", Body(Section((1,))), b"BODY[1]"),
        (b"BODY[3.HEADER]", Body(Section((3,), "HEADER")), b"BODY[3.HEADER]"),
        (b"BODY[4.2.2.1]", Body(Section((4, 2, 2, 1))), b"BODY[4.2.2.1]"),
        (b"BODY[4.2.text]", Body(Section((4, 2), "TEXT")), b"BODY[4.2.TEXT]"),
        (b"BODY[4.2.MIME]", Body(Section((4, 2), "MIME")), b"BODY[4.2.MIME]"),
        (
            b"BODY.PEEK[3.HEADER.FIELDS.NOT (Subject {1+}\r\nx)]<5.10>",
            Body(Section((3,), "HEADER.FIELDS.NOT", (b"Subject", b"x")), True, (5, 10)),
            b"BODY[3.HEADER.FIELDS.NOT (Subject x)]<5>",
        ),
        (
            b'BODY[HEADER.FIELDS ("To" "a b" "")]',
            Body(Section((), "HEADER.FIELDS", (b"To", b"a b", b""))),
            b'BODY[HEADER.FIELDS (To "a b" "")]',
        ),
        (b"BODY[]<0.2048>", Body(Section(), False, (0, 2048)), b"BODY[]<0>"),
        (b"BODY[]<4294967296.4294967297>", Body(Section(), False, (2**32, 2**32 + 1)), b"BODY[]<4294967296>"),
        (b"BINARY[1.2]", Binary((1, 2)), b"BINARY[1.2]"),
        (b"BINARY.PEEK[]<1.2>", Binary((), True, (1, 2)), b"BINARY[]<1>"),
        (b"BINARY.SIZE[7]", BinarySize((7,)), b"BINARY.SIZE[7]"),
        (b"PREVIEW (LAZY)", Preview(True), b"PREVIEW"),
        (b"rfc822.size", A.RFC822_SIZE, b"RFC822.SIZE"),
    ],
)
def test_items(text: bytes, item: FetchItem, label: bytes) -> None:
    assert body(text) == item
    assert item_name(item) == label


@pytest.mark.parametrize(
    "arguments",
    [
        *(b"FETCH", b"FETCH 1", b"FETCH 1 ", b"FETCH 1 ()", b"FETCH x FLAGS", b"FETCH 1 FOO", b"FETCH 1 (FLAGS"),
        *(b"FETCH 1 FLAGS)", b"FETCH 1 (FLAGS  UID)", b"FETCH 1 (FLAGS UID )", b"FETCH 1 (ALL)", b"FETCH 1 FLAGS UID"),
        *(b"FETCH 1 BODY[", b"FETCH 1 BODY[]]", b"FETCH 1 BODY[FOO]", b"FETCH 1 BODY[0]", b"FETCH 1 BODY[01]"),
        *(
            b"FETCH 1 BODY[1.]",
            b"FETCH 1 BODY[.1]",
            b"FETCH 1 BODY[.TEXT]",
            b"FETCH 1 BODY[1TEXT]",
            b"FETCH 1 BODY[1..2]",
        ),
        *(b"FETCH 1 BODY[MIME]", b"FETCH 1 BODY[TEXT.1]", b"FETCH 1 BODY[HEADER.FIELDS]", b"FETCH 1 BODY[HEADERS]"),
        *(b"FETCH 1 BODY[HEADER.FIELDS ()]", b"FETCH 1 BODY[HEADER.FIELDS(To)]", b"FETCH 1 BODY[HEADER (To)]"),
        *(b"FETCH 1 BODY[HEADER.FIELDS (To]", b"FETCH 1 BODY[HEADER.FIELDS.FOO (To)]", b"FETCH 1 BODY [1]"),
        *(
            b"FETCH 1 BODY[]<0>",
            b"FETCH 1 BODY[]<0.0>",
            b"FETCH 1 BODY[]<-1.5>",
            b"FETCH 1 BODY[]<1.2",
            b"FETCH 1 BODY<1.2>",
        ),
        *(b"FETCH 1 BODY[]<1.99999999999999999999>", b"FETCH 1 BODY[99999999999]", b"FETCH 1 RFC822[1]"),
        b"FETCH 1 BODY[" + b".".join([b"1"] * 101) + b"]",
        *(b"FETCH 1 BINARY", b"FETCH 1 BINARY[TEXT]", b"FETCH 1 BINARY[1.HEADER]", b"FETCH 1 BINARY.SIZE[1]<1.2>"),
        *(b"FETCH 1 BODYSTRUCTURE[1]", b"FETCH 1 PREVIEW (FOO)", b"FETCH 1 (PREVIEW (FOO))", b"FETCH 1 PREVIEW ()"),
        *(b"FETCH 1 (FLAGS) ()", b"FETCH 1 (FLAGS) (FOO)", b"FETCH 1 (FLAGS) (CHANGEDSINCE)", b"FETCH 1 FLAGS ("),
        *(b"UID FETCH 1 (FLAGS) (VANISHED)", b"FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)"),
        *(b"FETCH 1 (FLAGS) (CHANGEDSINCE 1 CHANGEDSINCE 2)", b"FETCH 1 (FLAGS)(CHANGEDSINCE 1)"),
    ],
)
def test_malformed_fetch(arguments: bytes) -> None:
    assert refusal(arguments)


def test_lists_of_header_fields_are_bounded() -> None:
    modes = Modes(list_elements=2)
    for text in (b"(a b c)", b'("a" b c)'):
        assert refusal(b"FETCH 1 BODY[HEADER.FIELDS " + text + b"]", modes) == "the list is too long"
        read(b"FETCH 1 BODY[HEADER.FIELDS " + text.replace(b" c", b"") + b"]", modes)
