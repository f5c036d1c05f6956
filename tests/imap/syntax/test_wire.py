"""The cutter: lines, literals of every kind, limits, and that sync is never lost."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imap.syntax.reading import by_meaning, drive, stream_if_allowed, whole_if_it_fits
from twisted_mail.imap.registry import parse, tag_of
from twisted_mail.imap.syntax import BadCommand, CommandLine, Streamed
from twisted_mail.imap.wire import (
    CommandReceived,
    Limits,
    Line,
    LineTooLong,
    LiteralAnnounced,
    LiteralData,
    LiteralEnd,
    Refused,
    Wire,
)

NOOP = CommandReceived(CommandLine(b"z9 NOOP"))


def command(text: bytes, *literals: bytes | Streamed) -> CommandReceived:
    return CommandReceived(CommandLine(text, literals))


def test_pipelined_lines_are_commands_in_order() -> None:
    events, sent = drive([b"a1 NOOP\r\na2 CAPABILITY\r\na3 LOG"])
    assert events == [command(b"a1 NOOP"), command(b"a2 CAPABILITY")]
    assert sent == b""


def test_a_bare_lf_ends_a_line_and_a_bare_cr_stays_in_it() -> None:
    events, _ = drive([b"a1 NOOP\na2 NO\rOP\r\na3 NOOP\r\r\n"])
    assert events == [command(b"a1 NOOP"), command(b"a2 NO\rOP"), command(b"a3 NOOP\r")]
    assert isinstance(events[1], CommandReceived) and isinstance(events[2], CommandReceived)
    assert isinstance(parse(events[1].line).command, BadCommand)
    assert isinstance(parse(events[2].line).command, BadCommand)


def test_a_synchronising_literal_gets_a_continuation_and_becomes_part_of_the_command() -> None:
    wire = Wire()
    wire.receive(b"A001 LOGIN {11}\r\n")
    announced = wire.next_event()
    assert announced == LiteralAnnounced(CommandLine(b"A001 LOGIN {11}\r\n"), 11, True, False, True, True)
    assert wire.accept_literal() == b"+ Ready for the literal\r\n"
    wire.receive(b"FRED FOOBAR {7}\r\n")
    second = wire.next_event()
    assert second == LiteralAnnounced(
        CommandLine(b"A001 LOGIN {11}\r\n {7}\r\n", (b"FRED FOOBAR",)), 7, True, False, True, True
    )
    assert wire.accept_literal().startswith(b"+ ")
    wire.receive(b"fat man\r\n")
    assert wire.next_event() == command(b"A001 LOGIN {11}\r\n {7}\r\n", b"FRED FOOBAR", b"fat man")
    assert wire.between_commands


def test_non_synchronising_literals_get_no_continuation() -> None:
    events, sent = drive([b"A001 LOGIN {11+}\r\nFRED FOOBAR {7+}\r\nfat man\r\nz9 NOOP\r\n"])
    assert sent == b""
    assert events[2:] == [command(b"A001 LOGIN {11+}\r\n {7+}\r\n", b"FRED FOOBAR", b"fat man"), NOOP]


def test_a_literal_may_hold_line_ends_and_announcements() -> None:
    events, _ = drive([b"a1 X {8+}\r\n{9+}\r\n\r\n\r\nz9 NOOP\r\n"])
    assert events[1:] == [command(b"a1 X {8+}\r\n", b"{9+}\r\n\r\n"), NOOP]


def test_a_literal8_is_marked() -> None:
    events, _ = drive([b"a1 APPEND x ~{3+}\r\na\0b\r\n"])
    assert isinstance(events[0], LiteralAnnounced) and events[0].binary and not events[0].synchronising
    assert events[1] == command(b"a1 APPEND x ~{3+}\r\n", b"a\0b")


def test_empty_literals() -> None:
    for decide in (whole_if_it_fits, stream_if_allowed):
        events, _ = drive([b"a1 X {0+}\r\n {0}\r\n\r\nz9 NOOP\r\n"], decide)
        assert isinstance(events[-2], CommandReceived)
        assert len(events[-2].line.literals) == 2
        assert events[-1] == NOOP


def test_a_streamed_literal_passes_through_and_is_not_kept() -> None:
    message = b"x" * 100
    events, _ = drive([b"a1 APPEND INBOX {100+}\r\n" + message + b"\r\nz9 NOOP\r\n"], stream_if_allowed)
    assert events[1:] == [
        LiteralData(message),
        LiteralEnd(),
        command(b"a1 APPEND INBOX {100+}\r\n", Streamed(100)),
        NOOP,
    ]


def test_streaming_holds_no_more_than_what_was_received() -> None:
    wire = Wire()
    wire.receive(b"a1 APPEND INBOX {50000000+}\r\n")
    wire.next_event()
    wire.accept_literal(stream=True)
    chunk = b"m" * 50_000
    tracemalloc.start()
    for _ in range(1000):
        wire.receive(chunk)
        event = wire.next_event()
        assert isinstance(event, LiteralData) and len(event.octets) == 50_000
        assert wire.buffered == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert isinstance(wire.next_event(), LiteralEnd)


def test_a_refused_synchronising_literal_costs_one_command() -> None:
    events, sent = drive([b"a1 APPEND INBOX {4294967296}\r\n", b"z9 NOOP\r\n"], whole_if_it_fits)
    assert sent == b""
    assert events[1:] == [Refused(CommandLine(b"a1 APPEND INBOX {4294967296}\r\n")), NOOP]


def test_a_refused_non_synchronising_literal_is_swallowed_with_the_rest_of_its_command() -> None:
    octets = b"a1 FOO {20+}\r\n" + b"a1 NOOP\r\n" + b"y" * 11 + b" (x) {3+}\r\nabc rest\r\nz9 NOOP\r\n"
    events, _ = drive([octets], lambda event: "refuse")
    assert events[1:] == [Refused(CommandLine(b"a1 FOO {20+}\r\n")), NOOP]


def test_a_synchronising_literal_in_what_is_swallowed_ends_the_command() -> None:
    octets = b"a1 FOO {3+}\r\nabc {5}\r\n" + b"z9 NOOP\r\n"
    events, _ = drive([octets], lambda event: "refuse")
    assert events[1:] == [Refused(CommandLine(b"a1 FOO {3+}\r\n")), NOOP]


def test_four_gigabytes_that_are_refused_are_counted_not_stored() -> None:
    wire = Wire()
    wire.receive(b"a1 APPEND INBOX {400000000+}\r\n")
    assert isinstance(wire.next_event(), LiteralAnnounced)
    wire.refuse_literal()
    chunk = b"0" * 1_000_000
    tracemalloc.start()
    for _ in range(400):
        wire.receive(chunk)
        assert wire.next_event() is None
        assert wire.buffered == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    wire.receive(b"\r\nz9 NOOP\r\n")
    assert isinstance(wire.next_event(), Refused)
    assert wire.next_event() == NOOP


@pytest.mark.parametrize("size", [b"99999999999999999999", b"9" * 4000, b"0" * 5000 + b"7" * 30])
def test_an_absurd_size_is_announced_and_does_not_fit(size: bytes) -> None:
    events, _ = drive([b"a1 APPEND INBOX {" + size + b"}\r\n", b"z9 NOOP\r\n"])
    assert isinstance(events[0], LiteralAnnounced)
    assert events[0].size >= 10**19 and not events[0].fits
    assert events[-1] == NOOP


def test_leading_zeros_of_a_size_count_for_nothing() -> None:
    events, _ = drive([b"a1 X {" + b"0" * 100 + b"3+}\r\nabc\r\n"])
    assert isinstance(events[1], CommandReceived) and events[1].line.literals == (b"abc",)


@pytest.mark.parametrize("text", [b"a1 X {}", b"a1 X {+}", b"a1 X {5", b"a1 X {-5}", b"a1 X {5+} ", b"a1 X {x}", b"}"])
def test_what_announces_nothing_is_the_end_of_the_line(text: bytes) -> None:
    events, _ = drive([text + b"\r\n", b"z9 NOOP\r\n"])
    assert events == [command(text), NOOP]


def test_an_over_long_line_is_swallowed_and_its_tag_kept() -> None:
    limits = Limits(line=100)
    events, _ = drive([b"t7 LOGIN " + b"x" * 5000 + b"\r\nz9 NOOP\r\n"], limits=limits)
    assert len(events) == 2 and isinstance(events[0], LineTooLong)
    assert tag_of(events[0].start) == b"t7"
    assert events[1] == NOOP


def test_a_line_as_long_as_the_limit_is_a_command() -> None:
    for end in (b"\r\n", b"\n"):
        events, _ = drive([b"a" * 100 + end, b"b" * 101 + end], limits=Limits(line=100))
        assert events == [command(b"a" * 100), LineTooLong(b"b" * 100)]


def test_an_over_long_line_holds_no_memory_while_it_comes() -> None:
    wire = Wire(Limits(line=1000))
    for _ in range(1000):
        wire.receive(b"a" * 1000)
        assert wire.next_event() is None
        assert wire.buffered <= 2002
    wire.receive(b"\nz9 NOOP\r\n")
    assert isinstance(wire.next_event(), LineTooLong)
    assert wire.next_event() == NOOP


def test_a_literal_announced_by_an_over_long_line_is_swallowed_too() -> None:
    long = b"t7 LOGIN " + b"x" * 5000
    events, _ = drive([long + b" {9+}\r\nz1 NOOP\r\n\r\nz9 NOOP\r\n"], limits=Limits(line=100))
    assert [type(event) for event in events] == [LineTooLong, CommandReceived]
    assert events[1] == NOOP
    events, _ = drive([long + b" {9}\r\nz9 NOOP\r\n"], limits=Limits(line=100))
    assert [type(event) for event in events] == [LineTooLong, CommandReceived]


def test_all_lines_of_a_command_count_together() -> None:
    limits = Limits(line=100)
    octets = b"t7 X" + b" {1+}\r\ny" * 50 + b"\r\nz9 NOOP\r\n"
    events, _ = drive([octets], limits=limits)
    failed = events[-2]
    assert isinstance(failed, LineTooLong) and tag_of(failed.start) == b"t7"
    assert events[-1] == NOOP


def test_the_literals_of_a_command_count_together() -> None:
    limits = Limits(literal=60, command=100)
    events, _ = drive([b"t7 X {60+}\r\n" + b"y" * 60 + b" {60+}\r\n" + b"y" * 60 + b"\r\nz9 NOOP\r\n"], limits=limits)
    fits = [event.fits for event in events if isinstance(event, LiteralAnnounced)]
    assert fits == [True, False]
    assert isinstance(events[-2], Refused) and events[-1] == NOOP


def test_the_rule_of_literal_minus() -> None:
    limits = Limits(non_synchronising=4096)
    for announcement, allowed in ((b"{4096+}", True), (b"{4097+}", False), (b"{4097}", True), (b"~{5000+}", False)):
        wire = Wire(limits)
        wire.receive(b"a1 APPEND INBOX " + announcement + b"\r\n")
        event = wire.next_event()
        assert isinstance(event, LiteralAnnounced)
        assert event.allowed is allowed
        if not allowed:
            with pytest.raises(ValueError):
                wire.accept_literal(stream=True)
            wire.refuse_literal()


def test_the_number_of_literals_is_bounded() -> None:
    octets = b"t7 APPEND x" + b" {1+}\r\ny" * 4 + b"\r\nz9 NOOP\r\n"
    for decide in (whole_if_it_fits, stream_if_allowed):
        events, _ = drive([octets], decide, Limits(literals=3))
        allowed = [event.allowed for event in events if isinstance(event, LiteralAnnounced)]
        assert allowed == [True, True, True, False]
        assert isinstance(events[-2], Refused) and events[-1] == NOOP


def test_a_thousand_literals_in_a_command_are_read_in_time() -> None:
    octets = b"t7 SEARCH" + b" TEXT {1+}\r\ny" * 1000 + b"\r\nz9 NOOP\r\n"
    started = time.process_time()
    events, _ = drive([octets], by_meaning)
    assert time.process_time() - started < 5
    assert isinstance(events[-2], CommandReceived) and len(events[-2].line.literals) == 1000


def test_decisions_are_asked_for_once() -> None:
    wire = Wire()
    with pytest.raises(RuntimeError):
        wire.accept_literal()
    wire.receive(b"a1 X {3}\r\n")
    wire.next_event()
    with pytest.raises(RuntimeError):
        wire.next_event()
    wire.refuse_literal()
    with pytest.raises(RuntimeError):
        wire.refuse_literal()
    with pytest.raises(RuntimeError):
        wire.abort_literal()


def test_a_stream_can_be_given_up_half_way() -> None:
    wire = Wire()
    wire.receive(b"a1 APPEND INBOX {10+}\r\n01234")
    wire.next_event()
    wire.accept_literal(stream=True)
    assert wire.next_event() == LiteralData(b"01234")
    wire.abort_literal()
    wire.receive(b"56789 (x) {3+}\r\nabc\r\nz9 NOOP\r\n")
    assert wire.next_event() == Refused(CommandLine(b"a1 APPEND INBOX {10+}\r\n"))
    assert wire.next_event() == NOOP


def test_what_is_pipelined_behind_starttls_can_be_thrown_away() -> None:
    wire = Wire()
    wire.receive(b"a1 STARTTLS\r\na2 LOGIN a b\r\n")
    assert wire.next_event() == command(b"a1 STARTTLS")
    assert wire.discard_buffered() == len(b"a2 LOGIN a b\r\n")
    assert wire.next_event() is None
    wire.receive(b"z9 NOOP\r\n")
    assert wire.next_event() == NOOP


def test_what_follows_compress_can_be_taken_out() -> None:
    wire = Wire()
    wire.receive(b"a1 COMPRESS DEFLATE\r\n\x01\x02\n\x03")
    wire.next_event()
    assert wire.take_rest() == b"\x01\x02\n\x03"
    assert wire.buffered == 0 and wire.between_commands
    wire.receive(b"z9 NOOP\r\n")
    assert wire.next_event() == NOOP


def test_plain_lines_between_commands() -> None:
    wire = Wire(Limits(line=20))
    wire.receive(b"a1 IDLE\r\nDONE\r\n")
    assert wire.next_event() == command(b"a1 IDLE")
    assert wire.next_line() == Line(b"DONE")
    assert wire.next_line() is None
    wire.receive(b"{5+}\r\nz9 NOOP\r\n")
    assert wire.next_line() == Line(b"{5+}")
    assert wire.next_event() == NOOP


def test_a_plain_line_that_is_too_long_is_swallowed() -> None:
    wire = Wire(Limits(line=20))
    for _ in range(50):
        wire.receive(b"QUJD" * 10)
        assert wire.next_line() is None
        assert wire.buffered <= 40
    wire.receive(b" {5+}\r\nz9 NOOP\r\n")
    assert wire.next_line() == LineTooLong(b"QUJD" * 5)
    assert wire.next_event() == NOOP


def test_plain_lines_are_not_read_inside_a_command() -> None:
    wire = Wire()
    wire.receive(b"a1 X {3}\r\n")
    wire.next_event()
    with pytest.raises(RuntimeError):
        wire.next_line()


def test_ten_thousand_unterminated_commands_cost_one_answer_each() -> None:
    octets = b'a1 LOGIN "open (\r\n' * 10_000 + b"z9 NOOP\r\n"
    events, _ = drive([octets])
    assert len(events) == 10_001 and events[-1] == NOOP
    assert isinstance(events[0], CommandReceived)
    assert isinstance(parse(events[0].line).command, BadCommand)


def test_ten_thousand_literals_in_a_refused_command() -> None:
    octets = b"a1 X {0+}\r\n" + b"{0+}\r\n" * 10_000 + b"\r\nz9 NOOP\r\n"
    events, _ = drive([octets], lambda event: "refuse")
    assert [type(event) for event in events] == [LiteralAnnounced, Refused, CommandReceived]


def test_a_line_that_comes_octet_by_octet_is_scanned_once() -> None:
    wire = Wire(Limits(line=300_000))
    for _ in range(200_000):
        wire.receive(b"x")
        assert wire.next_event() is None
    wire.receive(b"\n")
    assert wire.next_event() == command(b"x" * 200_000)


PIECES = st.sampled_from(
    [
        b"a1 NOOP\r\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"a2 LOGIN ",
        b'"x y"',
        b" APPEND x",
        b" {3}\r\n",
        b"{3+}\r\n",
        b"~{4+}\r\n",
        b"{0+}\n",
        b"{70+}\r\n",
        b"abc",
        b"0123456789" * 6,
        b"{99999999999999999999}\r\n",
        b"a3 APPEND INBOX (\\Seen) {12+}\r\n",
        b"}",
        b"{",
        b"\xff",
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=8), max_size=25).map(b"".join)
SMALL = Limits(line=48, literal=40, command=90, non_synchronising=64)


@settings(max_examples=400, deadline=None)
@given(octets=STREAMS, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_chunking_never_changes_the_events(octets: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    chunks = [octets[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
    single = [octets[at : at + 1] for at in range(len(octets))]
    for decide in (whole_if_it_fits, stream_if_allowed, by_meaning):
        expected = drive([octets], decide, SMALL)
        assert drive(chunks, decide, SMALL) == expected
        assert drive(single, decide, SMALL) == expected


@settings(max_examples=200, deadline=None)
@given(octets=STREAMS)
def test_sync_comes_back_after_anything_that_ends(octets: bytes) -> None:
    """After whatever came, blank lines (for what was open) bring the next command through untouched."""
    wire = Wire(SMALL)
    drive([octets], wire=wire)
    events, _ = drive([b"\r\n" * 200, b"z9 NOOP\r\n"], wire=wire)
    assert events[-1] == NOOP


@settings(max_examples=300, deadline=None)
@given(octets=STREAMS)
def test_no_octets_make_the_cutter_or_the_parser_raise(octets: bytes) -> None:
    events, _ = drive([octets], by_meaning, SMALL)
    for event in events:
        if isinstance(event, CommandReceived):
            tagged = parse(event.line)
            assert tagged.name or isinstance(tagged.command, BadCommand)
