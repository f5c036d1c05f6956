"""SMTP, submission and LMTP sessions over this room and stores in memory: octets in, octets in the mailbox."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest

from tests.delivery.support import PEER, House, run
from twisted_mail.services import Identity, MailRefused, Peer, Refusal
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits, Profile
from twisted_mail.smtp.replies import refused
from twisted_mail.smtp.session import Session
from twisted_mail.values import AccountId

ANN, BOB = "ann@example.org", "bob@example.org"


class Ann:
    """Lets Ann in with anything."""

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        return ("PLAIN",)

    def cleartext_allowed(self, peer: Peer) -> bool:
        return True

    def begin(self, mechanism: str, peer: Peer) -> Any:
        return self

    async def step(self, response: bytes | None) -> Identity:
        return Identity(AccountId(bytes(16)), ANN)

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        return Identity(AccountId(bytes(16)), ANN)

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        return address == ANN


class Talk:
    def __init__(self, house: House, profile: Profile, **limits: Any) -> None:
        self.session = Session(profile, Limits(**limits), house.intake, Ann(), PEER, "mx.example.org")
        self.say(b"LHLO x\r\n" if profile is LMTP else b"EHLO x\r\n")
        if profile is SUBMISSION:
            self.say(b"AUTH PLAIN =\r\n")

    def say(self, data: bytes) -> list[str]:
        self.session.receive(data)
        run(self.session.advance())
        return self.session.take_output().decode().splitlines()


@pytest.fixture
def house() -> House:
    house = House()
    house.user(ANN)
    house.user(BOB)
    return house


def message(number: int) -> bytes:
    """Lines of every kind, up to a few that need a blob."""
    chance = random.Random(number)
    lines = [b"Date: x", b"From: ann@example.org", b"Message-ID: <1@x>", b""]
    for _ in range(chance.choice((0, 3, 50, 5000))):
        lines.append(chance.choice((b"", b".", b"..", b"." * 70, b"text", b"\xe9\x00\xff", b"x" * 2000)))
    return b"\r\n".join(lines) + b"\r\n"


@pytest.mark.parametrize("profile", [MX, SUBMISSION, LMTP], ids=lambda profile: profile.name)
@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_messages_come_octet_for_octet(house: House, profile: Profile, by: str) -> None:
    talk = Talk(house, profile)
    sent = [message(number) for number in range(25)]
    for number, octets in enumerate(sent):
        said = talk.say(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\n")
        if by == "DATA":
            said += talk.say(b"DATA\r\n")
            wire = re.sub(rb"(?m)^\.", b"..", octets) + b".\r\n"
        else:
            wire = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (20, octets[:20], len(octets) - 20, octets[20:])
        step = random.Random(number).choice((100, 4096, 65536))
        for at in range(0, len(wire), step):
            said += talk.say(wire[at : at + step])
        assert said[-1].startswith("250 2."), said
    got = house.mailbox(BOB)
    assert len(got) == len(sent)
    for octets, wanted in zip(got, sent, strict=True):
        assert octets.endswith(b"\r\n" + wanted)
        assert octets[: -len(wanted)].count(b"\r\n") == 5
        assert octets.startswith(b"Return-Path: <ann@example.org>\r\nReceived: from x ")


def test_lmtp_says_for_each_recipient_what_became_of_it(house: House) -> None:
    house.user("small@example.org")
    house.breaks("small@example.org")
    talk = Talk(house, LMTP)
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nRCPT TO:<small@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")
    said = talk.say(b"text\r\n.\r\n")
    assert said == [
        "250 2.1.5 <ann@example.org> delivered",
        "451 4.3.0 try again later",
        "250 2.1.5 <bob@example.org> delivered",
    ]


def test_smtp_says_250_only_if_all_have_it(house: House) -> None:
    house.user("small@example.org")
    house.breaks("small@example.org")
    talk = Talk(house, MX)
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nRCPT TO:<small@example.org>\r\nDATA\r\n")
    assert talk.say(b"text\r\n.\r\n") == ["451 4.3.0 try again later"]
    assert len(house.mailbox(ANN)) == 1


def test_a_full_mailbox_is_refused_at_rcpt_and_what_was_accepted_is_stored(house: House) -> None:
    house.user("small@example.org", quota_bytes=50)
    talk = Talk(house, MX)
    said = talk.say(b"MAIL FROM:<>\r\nRCPT TO:<small@example.org>\r\nDATA\r\n" + b"text\r\n" * 100 + b".\r\n")
    assert said[-1].startswith("250"), "there was room for something when it was asked"
    assert len(house.mailbox("small@example.org")) == 1
    assert talk.say(b"MAIL FROM:<>\r\nRCPT TO:<small@example.org>\r\n")[-1] == "452 4.2.2 mailbox full"


def test_a_loop_is_refused_at_the_end(house: House) -> None:
    talk = Talk(house, MX)
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n")
    assert talk.say(b"Received: x\r\n" * 100) == []
    assert talk.say(b"\r\n.\r\nNOOP\r\n") == ["554 5.4.6 mail loop", "250 2.0.0 Ok"]
    assert house.mailbox(ANN) == []


def test_a_message_that_is_refused_or_cut_off_leaves_nothing(house: House) -> None:
    talk = Talk(house, MX, message_bytes=300_000)
    for body in (b"x" * 290_000 + b"\n.\r\n", b"y" * 300_001):
        talk.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n")
        said = talk.say(body + b"\r\n.\r\n")
        assert said[0].startswith("55"), said
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n" + b"z" * 200_000)
    talk.session.leave()
    run(talk.session.abandon())
    assert house.mailbox(ANN) == []

    async def blobs() -> list[Any]:
        return [ref async for ref in house.engine.blobs.iterate()]

    assert run(blobs()) == []


def test_somebodys_own_words_for_a_refusal_may_have_several_lines() -> None:
    error = MailRefused(Refusal.POLICY, "AntiSpam engine thinks your message is spam.\r\nIt is refused.\n\u00fc", code=550, enhanced="5.7.1")
    assert refused(error).encode() == (
        b"550-5.7.1 AntiSpam engine thinks your message is spam.\r\n550-5.7.1 It is refused.\r\n550 5.7.1 ?\r\n"
    )
    assert refused(MailRefused(Refusal.BAD_ADDRESS, "a\r\nb")).encode() == b"553 5.1.3 a?b\r\n"
