"""Dot-stuffing against what reads it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.smtp.client.body import DotStuffing
from twisted_mail.smtp.wire import DotStuffed


def stuffed(pieces: list[bytes]) -> tuple[bytes, bool]:
    stuffing = DotStuffing()
    wire = b"".join(map(stuffing.feed, pieces)) + stuffing.end()
    return wire, stuffing.unsafe


words = st.sampled_from([b".", b"..", b"\r\n", b"\r\n.", b"a", b"", b".\r\n", b"\r", b"\n"])


@given(st.lists(words, max_size=20), st.integers(1, 5))
@settings(max_examples=60)
def test_what_is_read_is_what_was_given(parts: list[bytes], size: int) -> None:
    message = b"".join(parts)
    wire, unsafe = stuffed([message[at : at + size] for at in range(0, len(message), size)])
    assert (wire, unsafe) == stuffed([message])
    reading = DotStuffed(look_for_lone_dots=True)
    got, rest = reading.feed(wire)
    assert reading.ended and rest == b""
    assert got == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")
    if not unsafe:
        assert not reading.lone_dot


@pytest.mark.parametrize("message", [b"a\n.\n", b"a\n.\r\nMAIL FROM:<>\r\n", b"a\r.\r\n", b"a\r\n.\rb", b"x\n."])
def test_a_dot_that_others_may_take_for_the_end_is_seen(message: bytes) -> None:
    if message != b"a\r\n.\rb":  # stuffed: a dot stands before it
        assert stuffed([message])[1]
        assert stuffed([bytes((octet,)) for octet in message])[1]
    else:
        assert not stuffed([message])[1]


def test_line_ends_alone_that_no_dot_is_between_are_left_as_they_are() -> None:
    assert stuffed([b"a\nb\r\n"]) == (b"a\nb\r\n.\r\n", False)
