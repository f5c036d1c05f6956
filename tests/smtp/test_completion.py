"""What submission adds (RFC 6409 section 8), and what it leaves alone."""

from __future__ import annotations

import time

import pytest

from tests.smtp.fakes import NOW, run
from twisted_mail.services import MailRefused, Refusal
from twisted_mail.smtp.completion import Author, HeaderCompletion


async def _may_use(address: str) -> bool:
    return address == "ann@example.org"


def complete(message: bytes, *, step: int = 10_000, limit: int = 1000, sender: str = "ann@example.org") -> bytes:
    completion = HeaderCompletion(Author("ann@example.org", sender, _may_use), "mx.example.org", lambda: NOW, limit)
    out = b"".join(run(completion.feed(message[at : at + step])) for at in range(0, len(message), step))
    return out + run(completion.close())


FULL = b"Date: x\r\nMessage-ID: <1@x>\r\nFrom: ann@example.org\r\n"


@pytest.mark.parametrize("step", [1, 3, 10_000])
@pytest.mark.parametrize("body", [b"", b"\r\ntext\r\n", b"\r\n", b"To: b@example.org\r\n\r\nDate: no\r\n\r\nx\r\n"])
def test_a_complete_message_is_left_alone(body: bytes, step: int) -> None:
    assert complete(FULL + body, step=step) == FULL + body


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize(
    ("message", "added", "separated"),
    [
        (b"Subject: x\r\n\r\nDate: in the body\r\n", {b"Date", b"Message-ID", b"From"}, False),
        (b"date: x\r\nFROM : ann@example.org\r\n\r\n", {b"Message-ID"}, False),
        (b"\r\nno header at all\r\n", {b"Date", b"Message-ID", b"From"}, False),
        (b"text alone\r\n", {b"Date", b"Message-ID", b"From"}, True),
        (b"text alone\r\n\r\nand more\r\n", {b"Date", b"Message-ID", b"From"}, True),
        (b"", {b"Date", b"Message-ID", b"From"}, True),
        (FULL.replace(b"ann@", b"ceo@") + b"\r\n", {b"Sender"}, False),
        (FULL.replace(b"ann@", b"ceo@") + b"Sender: ann@example.org\r\n\r\n", set(), False),
        (FULL.replace(b"ann@", b"ceo@example.org, A <ann@"), set(), False),
        (FULL.replace(b"From: ann@example.org", b'From: "ann@example.org" <ceo@example.org>'), {b"Sender"}, False),
    ],
)
def test_what_is_missing_is_put_in_front(message: bytes, added: set[bytes], separated: bool, step: int) -> None:
    out = complete(message, step=step)
    assert out.endswith(message)
    front = out[: len(out) - len(message)]
    assert front.endswith(b"\r\n\r\n") == separated
    assert {line.partition(b":")[0] for line in front.split(b"\r\n") if line} == added


def test_from_is_the_sender_of_the_envelope_or_else_who_logged_in() -> None:
    assert b"\r\nFrom: other@example.org\r\n" in complete(b"Subject: x\r\n\r\n", sender="other@example.org")
    assert b"\r\nFrom: ann@example.org\r\n" in complete(b"Subject: x\r\n\r\n", sender="")


def test_a_header_without_end_is_passed_on_unread() -> None:
    message = b"X: " + b"x" * 5000 + b"\r\n\r\nbody\r\n"
    assert complete(message, step=100) == message


@pytest.mark.parametrize("value", [b"x" * 900_000, b'"' * 900_000, b'\\"' * 450_000, b"a@" * 450_000, b"<" * 900_000])
def test_a_hostile_from_costs_little(value: bytes) -> None:
    message = FULL.replace(b"ann@example.org", value) + b"\r\n"
    before = time.process_time()
    assert complete(message, limit=1 << 20, step=1 << 20) == b"Sender: ann@example.org\r\n" + message
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize("step", [1, 3, 10_000])
@pytest.mark.parametrize("blind", [b"Bcc: eve@example.net\r\n", b"BCC :\r\n a@example.net,\r\n\tb@example.net\r\n", b"Resent-Bcc: x\r\n"])
def test_who_was_copied_blindly_is_not_told_to_the_others(blind: bytes, step: int) -> None:
    rest = b"X-Bcc: stays\r\nTo: bob@example.net\r\n"
    body = b"\r\nBcc: in the body\r\n\r\nx\r\n"
    assert complete(blind + FULL + blind + rest + blind + body, step=step) == FULL + rest + body
    assert complete(FULL + blind, step=step) == FULL
    assert complete(FULL + rest + blind.removesuffix(b"\r\n"), step=step) == FULL + rest


def test_a_header_of_nothing_but_blind_copies_is_completed() -> None:
    out = complete(b"Bcc: eve@example.net\r\n\r\nbody\r\n")
    assert b"eve" not in out and out.endswith(b"\r\n\r\nbody\r\n") and b"From: ann@example.org\r\n" in out


def test_blind_copies_are_never_passed_on_for_want_of_room() -> None:
    with pytest.raises(MailRefused) as refused:
        complete(FULL + b"Bcc: " + b"eve@example.net,\r\n " * 500 + b"x@example.net\r\n\r\nbody\r\n", step=100)
    assert refused.value.reason is Refusal.TOO_LARGE


def test_many_blind_copies_cost_little() -> None:
    before = time.process_time()
    complete(FULL + b"Bcc: a\r\n b\r\n" * 80_000 + b"\r\n", limit=1 << 20, step=1 << 20)
    assert time.process_time() - before < 1.0
