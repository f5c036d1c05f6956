"""Replies: several lines, bounds, and what is none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.smtp.client.offers import Offers
from twisted_mail.smtp.client.replies import LINE_BYTES, REPLY_BYTES, TEXT_CHARACTERS, Replies, Reply, ReplyFault


def parse(data: bytes, size: int | None = None) -> list[Reply | ReplyFault]:
    replies, found = Replies(), []
    for at in range(0, len(data), size or len(data) or 1):
        replies.feed(data[at : at + (size or len(data))])
        while (reply := replies.next()) is not None:
            found.append(reply)
            if isinstance(reply, ReplyFault):
                return found
    return found


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"250 OK\r\n", Reply(250, "", "OK")),
        (b"250\r\n", Reply(250, "", "")),
        (b"250 \r\n", Reply(250, "", "")),
        (b"250 2.1.5 fine\r\n", Reply(250, "2.1.5", "fine")),
        (b"250 2.1.5\r\n", Reply(250, "2.1.5", "")),
        (b"550 2.1.5 is no code of this class\r\n", Reply(550, "", "2.1.5 is no code of this class")),
        (b"550 5.1.1234 is none either\r\n", Reply(550, "", "5.1.1234 is none either")),
        (b"421 bare line feed\n", Reply(421, "", "bare line feed")),
        (b"550 a\tb\x00\x1b[31mc\xff\r\n", Reply(550, "", "a b?[31mc?")),
        ("550 bücher\r\n".encode(), Reply(550, "", "bücher")),
        (
            b"550-5.7.1 Our system\r\n550-5.7.1 has detected\r\n550 5.7.1 something. x - gsmtp\r\n",
            Reply(
                550,
                "5.7.1",
                "Our system has detected something. x - gsmtp",
                ("5.7.1 Our system", "5.7.1 has detected", "5.7.1 something. x - gsmtp"),
            ),
        ),
        (b"250-a\r\n451 b\r\n", Reply(451, "", "a b", ("a", "b"))),
    ],
)
def test_a_reply_is_read_however_it_is_cut(wire: bytes, reply: Reply) -> None:
    for size in (None, 1, 2, 3):
        assert parse(wire + wire, size) == [reply, reply]


def test_a_reply_on_one_line_has_its_codes_first() -> None:
    assert Reply(550, "5.1.1", "no such user").line == "550 5.1.1 no such user"
    assert Reply(550, "", "").line == "550"


@pytest.mark.parametrize("wire", [b"\r\n", b"hello\r\n", b"25 x\r\n", b"2500 x\r\n", b"650 x\r\n", b"199 x\r\n", b"\xb250 x\r\n",
                                  b"HTTP/1.1 400 Bad Request\r\n", b"250_x\r\n", b"\n", b"22\n"])  # fmt: skip
def test_what_is_no_reply_is_a_fault(wire: bytes) -> None:
    for size in (None, 1):
        assert parse(wire, size) == [ReplyFault.CODE]


def test_ten_megabytes_end_at_the_bounds_and_cost_nothing() -> None:
    began = time.process_time()
    assert parse(b"2" * 10_000_000, 4096) == [ReplyFault.LONG_LINE]
    assert parse(b"250-" + b"x" * 10_000_000) == [ReplyFault.LONG_LINE]
    endless = b"250-" + b"x" * 996 + b"\r\n"
    assert parse(endless * 10_000, 1 << 16) == [ReplyFault.LONG_REPLY]
    assert parse(endless[:1000] * 70, 1) == [ReplyFault.LONG_LINE]
    assert time.process_time() - began < 10


def test_replies_at_the_bounds_are_whole() -> None:
    (reply,) = parse(b"250 " + b"x" * (LINE_BYTES - 5) + b"\r\n", 1)
    assert isinstance(reply, Reply) and len(reply.text) == TEXT_CHARACTERS
    line = b"250-" + b"x" * 496 + b"\r\n"
    (reply,) = parse(line * (REPLY_BYTES // 500) + b"250 end\r\n")
    assert isinstance(reply, Reply) and len(reply.lines) == REPLY_BYTES // 500 + 1


@given(st.binary(max_size=300), st.integers(1, 50))
def test_garbage_gives_replies_or_one_fault_and_cutting_changes_nothing(data: bytes, size: int) -> None:
    for wire in (data, b"250" + data, b"550-" + data.replace(b"\n", b"\n550-") + b"\n550 x\r\n"):
        assert parse(wire, size) == parse(wire)


def test_what_ehlo_lists() -> None:
    offers = Offers.parse(
        ["hello there", "pipelining", "SIZE 1000", "Auth PLAIN scram-sha-256", "AUTH=LOGIN PLAIN", "DELIVERBY 240",
         "LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", "8BITMIME", "REQUIRETLS", "MT-PRIORITY STANAG4406", "x?!"]
    )  # fmt: skip
    assert offers == Offers(
        pipelining=True, size=1000, auth=("PLAIN", "SCRAM-SHA-256", "LOGIN"), deliver_by=240, most_recipients=20,
        most_messages=5, most_domains=1, eight_bit=True, requiretls=True, priority=True,
    )  # fmt: skip
    assert Offers.parse(["STARTTLS"]) == Offers() == Offers.parse([])
    assert Offers.parse(["x", "SIZE", "DELIVERBY", "LIMITS RCPTMAX=many =3"]) == Offers(size=0, deliver_by=0)
    assert Offers.parse(["x", "SIZE 12x"]) == Offers(size=0)
