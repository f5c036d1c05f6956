"""No octets but CRLF "." CRLF end a message, and whoever tries others gets one refusal and no second message."""

from __future__ import annotations

import itertools

import pytest

from tests.smtp.fakes import Conversation, after_rcpt
from twisted_mail.smtp.profiles import MX, Limits

ENDS = [b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\r\x00\n", b"\x00\n", b"\r\x00", b"\n\n", b"\r\n\x00", b"\x85"]
VARIANTS = [
    before + b"." + after
    for before, after in itertools.product(ENDS, ENDS)
    if not (before.endswith(b"\r\n") and after.startswith(b"\r\n"))
]
SECOND = (
    b"MAIL FROM:<smuggled@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nsmuggled\r\n"
)
BARE = b"550 5.6.11 Lines must end with CR LF; a CR or LF alone is not accepted\r\n"


def _is_bare(octets: bytes) -> bool:
    rest = octets.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def talk(limits: Limits | None = None) -> Conversation:
    conversation = Conversation(MX, limits=limits)
    after_rcpt(conversation)
    assert conversation.say(b"DATA\r\n").endswith(b"354 End the message with <CRLF>.<CRLF>\r\n")
    return conversation


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
@pytest.mark.parametrize("pieces", ["whole", "octets", "around the dot"])
def test_no_variant_ends_a_message(variant: bytes, pieces: str) -> None:
    conversation = talk()
    wire = b"first" + variant + SECOND
    if pieces == "whole":
        said = conversation.say(wire)
    elif pieces == "octets":
        said = b"".join(conversation.say(bytes((octet,))) for octet in wire)
    else:
        cut = wire.index(b".")
        said = conversation.say(wire[:cut]) + conversation.say(wire[cut : cut + 1]) + conversation.say(wire[cut + 1 :])
    assert said == b"", "something was taken for the end"
    assert conversation.intake.messages == []
    said = conversation.say(b".\r\n")
    if _is_bare(b"first" + variant):
        assert said == BARE
        assert conversation.intake.messages == []
        assert conversation.intake.begun[0].aborted
    else:
        assert said.startswith(b"250 ")
        assert len(conversation.intake.messages) == 1
    assert conversation.say(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n", "the connection is in sync"
    assert len(conversation.intake.begun) == 1


@pytest.mark.parametrize("variant", [b"\r", b"\n", b"\n\r", b"a\rb", b"a\nb", b"\r\r\n"], ids=repr)
def test_a_bare_cr_or_lf_anywhere_refuses_the_message(variant: bytes) -> None:
    conversation = talk()
    assert conversation.say(b"text" + variant + b"text\r\n.\r\n") == BARE
    assert conversation.intake.messages == []


def test_bare_cr_before_the_end() -> None:
    conversation = talk()
    assert conversation.say(b"text\r\r\n.\r\n") == BARE


@pytest.mark.parametrize("variant", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\n"], ids=repr)
@pytest.mark.parametrize("cut", range(1, 10))
def test_without_strict_line_ends_those_at_a_dot_still_refuse(variant: bytes, cut: int) -> None:
    conversation = talk(Limits(strict_line_ends=False))
    wire = b"first" + variant + b"x\r\n.\r\n"
    assert conversation.say(wire[:cut]) + conversation.say(wire[cut:]) == BARE
    assert conversation.intake.messages == []


@pytest.mark.parametrize("text", [b"a\nb\r\n", b"a\n..\r\nb\r\n", b"\n.a\r\n", b"a\n"], ids=repr)
def test_without_strict_line_ends_others_are_taken_as_they_are(text: bytes) -> None:
    conversation = talk(Limits(strict_line_ends=False))
    wire = text if text.endswith(b"\r\n") else text + b"\r\n"
    assert conversation.say(wire + b".\r\n").startswith(b"250 ")
    assert conversation.intake.messages[0][1] == wire


def test_a_line_end_within_a_command_never_makes_two() -> None:
    conversation = Conversation()
    conversation.say(b"EHLO x\r\n")
    said = conversation.say(b"MAIL FROM:<a@b.example>\nRCPT TO:<ann@example.org>\r\nRSET\r\n")
    assert said.split(b"\r\n")[0].startswith(b"500 5.5.2")
    assert said.count(b"\r\n") == 2
    said = conversation.say(b"MAIL FROM:<a@b.example\rRCPT TO:<ann@example.org>\r\n")
    assert said.startswith(b"500 5.5.2")
    assert said.count(b"\r\n") == 1


def test_what_has_no_line_end_at_all_is_given_up() -> None:
    conversation = Conversation()
    said = b""
    conversation.session.take_output()
    for _ in range(40):
        said += conversation.say(b"x" * 65536)
    assert said.count(b"\r\n") == 2
    assert b"500 5.5.2 Line too long" in said
    assert b"421 4.5.0" in said
    assert conversation.session.closing
