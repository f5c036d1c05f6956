"""Sequence sets: reading, resolving, printing, and a million elements."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imap.syntax.reading import read, refusal
from twisted_mail.imap.commands.fetch import Fetch
from twisted_mail.imap.registry import parse
from twisted_mail.imap.sequence import SAVED, SequenceSet, compress, merge, render
from twisted_mail.imap.syntax import BadCommand, CommandLine, Modes


@pytest.mark.parametrize(
    ("text", "ranges", "tail"),
    [
        # RFC 9051 section 9, the comments of seq-number, seq-range and sequence-set
        (b"2:4", ((2, 4),), None),
        (b"4:2", ((2, 4),), None),
        (b"3291:*", (), 3291),
        (b"*:3291", (), 3291),
        (b"2,4:7,9,12:*", ((2, 2), (4, 7), (9, 9)), 12),
        (b"*:4,5:7", ((5, 7),), 4),
        (b"*", (), 4294967295),
        (b"*:*", (), 4294967295),
        (b"1", ((1, 1),), None),
        (b"4294967295", ((4294967295, 4294967295),), None),
        (b"5,3,4,3,1", ((1, 1), (3, 5)), None),
        (b"1:3,4:5,2:9,11", ((1, 9), (11, 11)), None),
        (b"7:*,5:*,*", (), 5),
    ],
)
def test_reading(text: bytes, ranges: tuple[tuple[int, int], ...], tail: int | None) -> None:
    numbers = SequenceSet.parse(text)
    assert numbers == SequenceSet(ranges, tail)
    assert SequenceSet.parse(bytes(numbers)) == numbers


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b",", b"1,", b",1", b"1,,2", b"0", b"0:5", b"1:0", b"01", b"1:02", b"1,02", b"1:", b":1", b"1:2:3"),
        *(b"4294967296", b"1:4294967296", b"1,4294967296", b"99999999999999999999", b"9" * 5000, b"**", b"1*", b"*1"),
    ],
)
def test_malformed_sets(text: bytes) -> None:
    with pytest.raises(ValueError):
        SequenceSet.parse(text)
    refusal(b"FETCH " + text + b" FLAGS")


@pytest.mark.parametrize(
    ("text", "largest", "resolved", "within"),
    [
        (b"2,4:7,9,12:*", 15, ((2, 2), (4, 7), (9, 9), (12, 15)), ((2, 2), (4, 7), (9, 9), (12, 15))),
        (b"*:4,5:7", 10, ((4, 10),), ((4, 10),)),
        (b"559:*", 500, ((500, 500),), ((500, 500),)),  # RFC 9051 section 6.4.9: always the last message
        (b"*", 8, ((8, 8),), ((8, 8),)),
        (b"1:*", 0, (), ()),
        (b"3,1:*", 0, ((3, 3),), ()),
        (b"2:20,30", 10, ((2, 20), (30, 30)), ((2, 10),)),
        (b"20:30", 10, ((20, 30),), ()),
        (b"8,*", 7, ((7, 8),), ((7, 7),)),
    ],
)
def test_resolving(text: bytes, largest: int, resolved: object, within: object) -> None:
    numbers = SequenceSet.parse(text)
    assert numbers.resolve(largest) == resolved
    assert numbers.within(largest) == within


def test_the_highest_number_named() -> None:
    assert [SequenceSet.parse(text).highest for text in (b"1:*", b"*", b"3,9", b"9:*,3", b"2:5,3:*")] == [1, 0, 9, 9, 5]


def test_compressing() -> None:
    assert compress([]) == b""
    assert compress([1, 2, 3, 5, 7, 8]) == b"1:3,5,7:8"
    assert compress([3, 2, 1]) == b"3,2,1"  # the order is the caller's: COPYUID depends on it
    assert render([(304, 304), (319, 320)]) == b"304,319:320"
    assert bytes(SequenceSet.of([9, 1, 2, 2])) == b"1:2,9"


@settings(max_examples=200, deadline=None)
@given(ranges=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=12), star=st.booleans())
def test_a_set_holds_what_its_elements_hold(ranges: list[tuple[int, int]], star: bool) -> None:
    largest = 40
    elements = [b"%d:%d" % pair for pair in ranges] + ([b"*:50"] if star else []) or [b"1"]
    numbers = SequenceSet.parse(b",".join(elements))
    expected = {n for low, high in ranges for n in range(min(low, high), max(low, high) + 1)}
    expected |= {40} | set(range(40, 51)) & {40} if star else set()
    expected = expected or {1}
    held = [n for low, high in numbers.resolve(largest) for n in range(low, high + 1)]
    assert sorted(held) == held
    assert set(held) == expected
    assert all(a[1] + 1 < b[0] for a, b in zip(numbers.ranges, numbers.ranges[1:], strict=False))


@settings(max_examples=100, deadline=None)
@given(numbers=st.sets(st.integers(1, 200), min_size=1))
def test_of_and_printing_round_trip(numbers: set[int]) -> None:
    text = bytes(SequenceSet.of(numbers))
    assert SequenceSet.parse(text) == SequenceSet.of(numbers)
    assert text == compress(sorted(numbers))


def test_merging_joins_what_touches() -> None:
    assert merge([(5, 6), (1, 2), (3, 4), (8, 9), (8, 8)]) == ((1, 6), (8, 9))
    assert merge([]) == ()


def test_a_million_elements_are_read_in_well_under_a_second() -> None:
    numbers = random.Random(7).sample(range(1, 4_000_000), 1_000_000)
    text = b",".join(b"%d" % number for number in numbers)
    started = time.process_time()
    command = parse(CommandLine(b"a1 UID FETCH " + text + b" FLAGS")).command
    spent = time.process_time() - started
    assert isinstance(command, Fetch) and isinstance(command.numbers, SequenceSet)
    assert sum(high - low + 1 for low, high in command.numbers.ranges) == 1_000_000
    assert spent < 3, spent  # a slow, shared machine; usually 0.4 s


def test_a_million_overlapping_ranges_become_one() -> None:
    text = b",".join(b"%d:%d" % (number, number + 2) for number in range(1, 1_000_001, 1))
    started = time.process_time()
    command = parse(CommandLine(b"a1 UID FETCH " + text + b" FLAGS")).command
    assert time.process_time() - started < 5
    assert isinstance(command, Fetch) and command.numbers == SequenceSet(((1, 1_000_002),))


def test_more_elements_than_the_limit_are_refused() -> None:
    modes = Modes(set_elements=3)
    for text in (b"1,3,5,7", b"1:2,4:5,7:8,10:*"):
        command = parse(CommandLine(b"a1 FETCH " + text + b" FLAGS"), modes).command
        assert command == BadCommand(b"a1", "too many elements in the sequence set")
    assert isinstance(parse(CommandLine(b"a1 FETCH 1,3,5 FLAGS"), modes).command, Fetch)


def test_the_saved_result_stands_alone() -> None:
    command = read(b"FETCH $ FLAGS")
    assert isinstance(command, Fetch) and command.numbers == SAVED
    refusal(b"FETCH 1,$ FLAGS")
    refusal(b"FETCH $,1 FLAGS")


@pytest.mark.parametrize("text", [b"1,2,", b",1", b"1,,2", b"1,2,a"])
def test_an_empty_element_is_said_in_our_own_words(text: bytes) -> None:
    with pytest.raises(ValueError, match="bad number in the sequence set"):
        SequenceSet.parse(text)
