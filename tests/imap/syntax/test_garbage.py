"""Whatever the octets: a command or a BadCommand, and the way from commands to octets and back."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imap.syntax.reading import by_meaning, drive, whole_if_it_fits
from twisted_mail.imap.commands.auth import decode_response
from twisted_mail.imap.registry import COMMANDS, announced, parse
from twisted_mail.imap.syntax import BadCommand, BadSyntax, Command, CommandLine, Modes
from twisted_mail.imap.wire import CommandReceived, Limits

WORDS = [
    *sorted(COMMANDS),
    *(b" ", b"(", b")", b"[", b"]", b"<0.5>", b'"', b'"x y"', b"{2+}\r\nab", b"~{1+}\r\n\0", b"{3}\r\n", b"{0+}\r\n"),
    *(b"INBOX", b"1:*", b"$", b"3,5", b"\\Seen", b"FLAGS", b"BODY", b"BODY.PEEK[", b"HEADER.FIELDS", b"TEXT", b"NIL"),
    *(b"RETURN", b"STATUS", b"MESSAGES", b"CHARSET", b"UTF-8", b"OR", b"NOT", b"MODSEQ", b"CHANGEDSINCE", b"QRESYNC"),
    *(b"1-Feb-1994", b'" 1-Feb-1994 00:00:00 +0000"', b"&AOQ-", b"&", b"\xff", b"\0", b"\r", b"*", b"%", b"USE", b"="),
]
TEXTS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=3), max_size=12).map(b" ".join) | st.lists(
    st.sampled_from(WORDS), max_size=14
).map(b"".join)
LINES = [
    b"a1 UID FETCH 1:* (FLAGS BODY.PEEK[1.HEADER.FIELDS (Date From)]<0.5> PREVIEW (LAZY)) (CHANGEDSINCE 5 VANISHED)",
    b'a1 UID SEARCH RETURN (MIN COUNT) CHARSET UTF-8 OR FROM "x" (NOT SINCE 1-Feb-1994 MODSEQ "/flags/x" all 5) $',
    b"a1 STORE 1,2:5 (UNCHANGEDSINCE 7) +FLAGS.SILENT (\\Seen $Junk)",
    b'a1 APPEND "in box" (\\Seen) " 7-Feb-1994 21:54:05 -0800" UTF8 (~{3+}\r\nabc) {1+}\r\nx',
    b'a1 LIST (SUBSCRIBED RECURSIVEMATCH) "" (a% "b*") RETURN (CHILDREN STATUS (MESSAGES UNSEEN))',
    b"a1 SELECT &AOQ- (CONDSTORE QRESYNC (1 2 1:5 (1,2 3,4)))",
    b'a1 ID ("name" "x" "os" NIL)',
    b'a1 LOGIN "a\\"b" {3+}\r\nabc',
    b"a1 CREATE x (USE (\\Sent))",
    b"a1 AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=",
]
MODES = st.sampled_from(
    [Modes(), Modes(utf8=True, charset_forbidden=True), Modes(depth=2, list_elements=2, set_elements=2)]
)


def all_commands(octets: bytes, modes: Modes) -> list[Command]:
    events, _ = drive([octets], by_meaning)
    tagged = [parse(event.line, modes) for event in events if isinstance(event, CommandReceived)]
    for command in tagged:
        if isinstance(command.command, BadCommand):
            assert command.command.tag == command.tag
            assert command.command.why
    return [command.command for command in tagged]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, modes=MODES)
def test_words_in_any_order_are_a_command_or_a_bad_one(text: bytes, modes: Modes) -> None:
    for command in all_commands(b"a1 " + text + b"\r\n", modes):
        hash(command)


@settings(max_examples=300, deadline=None)
@given(octets=st.binary(max_size=60), modes=MODES)
def test_octets_at_random_are_bad_commands(octets: bytes, modes: Modes) -> None:
    all_commands(octets + b"\r\n", modes)
    parse(CommandLine(octets), modes)
    announced(CommandLine(octets), 5, modes)


@settings(max_examples=500, deadline=None)
@given(line=st.sampled_from(LINES), at=st.integers(0, 200), change=st.binary(max_size=3), cut=st.integers(0, 4))
def test_a_damaged_command_is_a_command_or_a_bad_one(line: bytes, at: int, change: bytes, cut: int) -> None:
    at = min(at, len(line))
    all_commands(line[:at] + change + line[at + cut :] + b"\r\n", Modes())


@pytest.mark.parametrize("line", LINES)
def test_every_beginning_of_a_command_is_refused_with_its_tag(line: bytes) -> None:
    """Cut anywhere, a command is well-formed or BAD with its tag; with its last octet missing or doubled it is BAD."""
    assert not isinstance(all_commands(line + b"\r\n", Modes())[-1], BadCommand)
    for end in range(3, len(line)):
        for command in all_commands(line[:end] + b"\r\n", Modes()):
            if isinstance(command, BadCommand):
                assert command.tag == b"a1" or b"\r\n" in line[:end]
    assert isinstance(all_commands(line + b" \r\n", Modes())[-1], BadCommand)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("octet", [b"\0", b"\r", b"\xff", b"\x7f", b"\t"])
def test_no_command_has_such_octets_outside_its_strings(line: bytes, octet: bytes) -> None:
    for at in range(len(line)):
        if b'"' in line[:at] or b"{" in line[:at]:
            break
        damaged = line[:at] + octet + line[at:]
        # Where the damage shows before a literal, the literal is refused and no command comes at all.
        commands = all_commands(damaged + b"\r\n", Modes())
        assert all(isinstance(command, BadCommand) for command in commands), damaged
        assert commands or b"{" in line


@settings(max_examples=200, deadline=None)
@given(line=st.binary(max_size=20))
def test_responses_of_sasl_are_decoded_or_refused(line: bytes) -> None:
    try:
        decode_response(line)
    except BadSyntax:
        pass


HUGE = Limits(line=2_000_000, literal=2_000_000, command=4_000_000)


@pytest.mark.parametrize(
    "line",
    [
        b'a1 LOGIN "' + b"\\\\" * 500_000,
        b'a1 LOGIN "' + b'\\"' * 500_000 + b'" x',
        b"a1 LOGIN " + b"x" * 1_000_000,
        b"a1 STORE 1 FLAGS (" + b"a " * 500_000,
        b"a1 STORE 1 FLAGS " + b"a " * 500_000,
        b"a1 FETCH 1 (" + b"UID " * 250_000,
        b"a1 FETCH 1 BODY[" + b"1." * 500_000,
        b"a1 FETCH 1 BODY[HEADER.FIELDS (" + b"a " * 500_000,
        b"a1 FETCH 1 PREVIEW (" + b"LAZY " * 200_000,
        b"a1 SEARCH " + b"(" * 1_000_000,
        b"a1 SEARCH " + b"NOT " * 250_000,
        b"a1 SEARCH " + b"SEEN " * 200_000,
        b'a1 LIST "" (' + b"a " * 500_000,
        b"a1 CREATE " + b"&AOQ-" * 200_000,
        b"a1 CREATE " + b"&" * 1_000_000,
        b"a1 ENABLE " + b"x " * 500_000,
        b"a1 ID (" + b'"a" "b" ' * 125_000,
        b"a1 FETCH " + b"9" * 1_000_000 + b" FLAGS",
        b"a1 FETCH " + b":" * 1_000_000 + b" FLAGS",
        b"a1 AUTHENTICATE PLAIN " + b"A" * 1_000_001,
        b"a1 " * 300_000,
        b" " * 1_000_000,
        b"{" * 1_000_000,
        b"1" * 1_000_000 + b"}",
        b"{" + b"1" * 1_000_000,
    ],
    ids=lambda line: line[:24].decode(),
)
def test_a_megabyte_of_nonsense_takes_no_time(line: bytes) -> None:
    started = time.process_time()
    events, _ = drive([line + b"\r\n", b"z9 NOOP\r\n"], whole_if_it_fits, HUGE)
    for event in events:
        if isinstance(event, CommandReceived):
            parse(event.line)
    assert time.process_time() - started < 3
    assert events[-1] == CommandReceived(CommandLine(b"z9 NOOP"))


def test_nothing_here_needs_a_deep_stack() -> None:
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(400)
        text = b"a1 SEARCH " + b"(NOT (" * 15 + b"1" + b"))" * 15
        assert not isinstance(parse(CommandLine(text)).command, BadCommand)
    finally:
        sys.setrecursionlimit(limit)
