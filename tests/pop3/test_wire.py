"""Cutting lines, stuffing dots, cutting the top off a message: chunks change nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.pop3.parser import SYNTAX, BadCommand, Command, parse_command
from twisted_mail.pop3.states import VALID
from twisted_mail.pop3.wire import Head, Input, LineFault, Stuffed

messages = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"Subject: x", b"\r\n.\r\n", b"\0", b"\xff"]),
    max_size=30,
).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]


def stuffed(chunks: list[bytes]) -> bytes:
    out = Stuffed()
    return b"".join([out.feed(chunk) for chunk in chunks]) + out.finish()


def received(wire: bytes) -> bytes:
    """What a client by RFC 1939 section 3 makes of a response."""
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""] and b"." not in lines[:-2]
    return b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines[:-2])


def as_sent(message: bytes) -> bytes:
    """The message with CRLF line ends."""
    message = re.sub(rb"(?<!\r)\n", b"\r\n", message)
    return message if not message or message.endswith(b"\r\n") else message + b"\r\n"


@settings(max_examples=400, deadline=None)
@given(messages, st.lists(st.integers(0, 100), max_size=6))
def test_a_client_gets_the_message_however_it_is_cut(message: bytes, places: list[int]) -> None:
    assert received(stuffed(cut(message, places))) == as_sent(message)


@settings(max_examples=400, deadline=None)
@given(messages, st.integers(0, 8), st.lists(st.integers(0, 100), max_size=6))
def test_the_top_is_the_header_and_so_many_lines_however_it_is_cut(
    message: bytes, lines: int, places: list[int]
) -> None:
    all_lines = message.split(b"\n")
    whole = [line + b"\n" for line in all_lines[:-1]] + ([all_lines[-1]] if all_lines[-1] else [])
    blank = next((at for at, line in enumerate(whole) if line in (b"\n", b"\r\n")), len(whole))
    expected = b"".join(whole[: blank + 1 + lines])
    head, out = Head(lines), b""
    for chunk in cut(message, places):
        if not head.done:
            out += head.feed(chunk)
    assert out == expected


def test_nothing_of_a_message_is_held_back_for_long() -> None:
    out = Stuffed()
    assert out.feed(b"a\r") == b"a"
    assert out.feed(b"\n.") == b"\r\n.."
    assert out.feed(b"") == b""
    assert out.finish() == b"\r\n.\r\n"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"NOOP", b"\r\n", b"\n", b"\r", b"x" * 30, b" "]), max_size=20).map(b"".join), st.data()
)
def test_lines_are_the_same_however_they_come(wire: bytes, data: st.DataObject) -> None:
    def lines(chunks: list[bytes]) -> list[bytes | LineFault]:
        source, found = Input(), []
        for chunk in chunks:
            source.feed(chunk)
            while (line := source.line(40)) is not None:
                found.append(line)
        return found

    places = data.draw(st.lists(st.integers(0, 200), max_size=5))
    assert lines(cut(wire, places)) == lines([wire]) == lines([bytes((octet,)) for octet in wire])


def test_a_line_without_end_takes_no_memory_and_is_given_up() -> None:
    source, found = Input(), []
    for _ in range(200):
        source.feed(b"x" * 10_000)
        if (line := source.line(100)) is not None:
            found.append(line)
        if found[-1] is LineFault.ENDLESS:
            break
        assert len(source) <= 10_000
    assert found == [LineFault.TOO_LONG, LineFault.ENDLESS]


# --- commands


def test_every_command_has_its_states() -> None:
    assert set(SYNTAX) == set(VALID)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"stat", Command("STAT")),
        (b"List", Command("LIST")),
        (b"LIST  7 ", Command("LIST", 7)),
        (b"TOP 1  10", Command("TOP", 1, 10)),
        (b"USER  ann@example.org ", Command("USER", text="ann@example.org")),
        (b"PASS  a b ", Command("PASS", text=" a b ")),
        (b"AUTH plain", Command("AUTH", text="PLAIN")),
        (b"AUTH PLAIN =", Command("AUTH", text="PLAIN", initial="=")),
        (b"AUTH", Command("AUTH")),
        (b"LANG", Command("LANG")),
    ],
)
def test_commands(line: bytes, command: Command) -> None:
    assert parse_command(line) == command


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.sampled_from(sorted(SYNTAX)).flatmap(
    lambda verb: st.text(max_size=20).map(lambda rest: f"{verb} {rest}".encode("utf-8", "replace"))
)))  # fmt: skip
def test_anything_is_a_command_or_is_not(line: bytes) -> None:
    result = parse_command(line)
    assert isinstance(result, (Command, BadCommand))
    assert result.verb in SYNTAX or isinstance(result, BadCommand)
