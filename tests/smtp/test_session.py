"""What the transcripts do not show: effects on what stands behind a session."""

from __future__ import annotations

import time

import pytest

from tests.smtp.fakes import Conversation, after_rcpt, run
from twisted_mail.services import MailRefused, Peer, Refusal
from twisted_mail.smtp.commands import BadCommand
from twisted_mail.smtp.parser import VERBS, parse_command
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits
from twisted_mail.smtp.replies import REFUSALS, Reply, refused
from twisted_mail.smtp.session import _CARRY_OUT

ONE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\n"


@pytest.mark.parametrize("ending", [b"RSET\r\n", b"EHLO again\r\n", b"HELO again\r\n", b"QUIT\r\n"])
def test_a_message_by_chunks_that_is_given_up_leaves_nothing(ending: bytes) -> None:
    conversation = Conversation()
    after_rcpt(conversation)
    conversation.say(b"BDAT 4\r\ntext" + ending)
    assert conversation.intake.begun[0].aborted
    assert conversation.intake.messages == []


def test_a_store_that_fails_within_a_message_costs_451_and_the_sync_stays() -> None:
    conversation = Conversation()
    conversation.intake.fail_at = 10
    after_rcpt(conversation)
    conversation.say(b"DATA\r\n")
    assert conversation.say(b"twenty octets or more\r\n" * 10) == b""
    assert conversation.say(b".\r\nNOOP\r\n") == b"451 4.3.0 Local error, try again later\r\n250 2.0.0 Ok\r\n"
    assert conversation.intake.begun[0].aborted
    assert [type(error) for error in conversation.failures] == [OSError]
    assert b"disk" not in conversation.session.take_output()


@pytest.mark.parametrize("profile", [MX, LMTP], ids=lambda profile: profile.name)
def test_what_refuses_a_message_at_its_end_refuses_it_for_all(profile: object) -> None:
    conversation = Conversation(profile)  # type: ignore[arg-type]
    conversation.intake.refuse_at_finish = MailRefused(Refusal.UNAVAILABLE)
    hello = b"LHLO x\r\n" if profile is LMTP else b"EHLO x\r\n"
    conversation.say(hello + ONE + b"RCPT TO:<bob@example.org>\r\nDATA\r\n")
    said = conversation.say(b"text\r\n.\r\n")
    assert said == b"451 4.3.0 try again later\r\n" * (2 if profile is LMTP else 1)


def test_lmtp_refuses_a_last_chunk_once_for_each_recipient() -> None:
    conversation = Conversation(LMTP)
    conversation.say(b"LHLO x\r\nMAIL FROM:<loop@example.org>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n")
    assert conversation.say(b"BDAT 4 LAST\r\ntextNOOP\r\n") == b"554 5.4.6 mail loop\r\n" * 2 + b"250 2.0.0 Ok\r\n"


def test_the_envelope_has_everything_that_was_said() -> None:
    conversation = Conversation(peer=Peer("192.0.2.7", secure=True))
    conversation.say(
        b"EHLO client.example\r\n"
        b"MAIL FROM:<a@b.example> SIZE=123 BODY=8BITMIME RET=HDRS ENVID=Q+2B1 SMTPUTF8\r\n"
        b"RCPT TO:<ann@example.org> NOTIFY=success,delay ORCPT=rfc822;Ann+2B@example.org\r\n"
        b"DATA\r\n.\r\n"
    )
    envelope, _ = conversation.intake.messages[0]
    assert (envelope.sender, envelope.helo, envelope.protocol) == ("a@b.example", "client.example", "UTF8SMTPS")
    assert (envelope.size, envelope.body, envelope.smtputf8) == (123, "8BITMIME", True)
    assert (envelope.dsn_return, envelope.envelope_id) == ("HDRS", "Q+2B1")
    recipient = envelope.recipients[0]
    assert recipient.notify == {"SUCCESS", "DELAY"}
    assert recipient.original == "rfc822;Ann+2B@example.org"


@pytest.mark.parametrize(
    ("profile", "hello", "secure", "login", "keyword"),
    [
        (MX, b"HELO x\r\n", False, b"", "SMTP"),
        (MX, b"EHLO x\r\n", False, b"", "ESMTP"),
        (MX, b"EHLO x\r\n", True, b"", "ESMTPS"),
        (SUBMISSION, b"EHLO x\r\n", True, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", "ESMTPSA"),
        (SUBMISSION, b"EHLO x\r\n", False, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", "ESMTPA"),
        (LMTP, b"LHLO x\r\n", False, b"", "LMTP"),
        (LMTP, b"LHLO x\r\n", True, b"", "LMTPS"),
    ],
)
def test_received_names_the_protocol(profile: object, hello: bytes, secure: bool, login: bytes, keyword: str) -> None:
    conversation = Conversation(profile, peer=Peer("192.0.2.7", secure=secure))  # type: ignore[arg-type]
    conversation.say(hello + login + ONE.replace(b"a@b.example", b"ann@example.org") + b"DATA\r\n.\r\n")
    assert conversation.intake.messages[0][0].protocol == keyword


def test_draining_ends_an_idle_session_at_once() -> None:
    conversation = Conversation()
    conversation.session.take_output()
    conversation.session.drain()
    assert conversation.say(b"").startswith(b"421 4.3.2")
    assert conversation.session.closing


def test_login_is_forgotten_by_the_handshake() -> None:
    conversation = Conversation(SUBMISSION, tls=True)
    conversation.say(b"EHLO x\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nSTARTTLS\r\n")
    conversation.handshake()
    assert conversation.session.identity is None
    assert conversation.say(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n").endswith(b"530 5.7.0 Log in first\r\n")


def test_abandoning_twice_is_harmless() -> None:
    conversation = Conversation()
    after_rcpt(conversation)
    conversation.say(b"DATA\r\nhalf")
    conversation.session.leave()
    run(conversation.session.abandon())
    run(conversation.session.abandon())
    assert conversation.intake.begun[0].aborted


def test_every_refusal_has_its_codes() -> None:
    assert set(REFUSALS) == set(Refusal)
    for (code, enhanced), (later, later_enhanced) in REFUSALS.values():
        assert 550 <= code <= 554 and enhanced.startswith("5.")
        assert 450 <= later <= 452 and later_enhanced.startswith("4.")
    assert refused(MailRefused(Refusal.MAILBOX_FULL)).code == 452
    assert refused(MailRefused(Refusal.NO_SUCH_RECIPIENT, temporary=True)).code == 450


def test_a_reply_is_one_printable_line_of_at_most_512_octets() -> None:
    octets = Reply(550, "5.1.1", "no\r\n250 ok é" + "x" * 1000).encode()
    assert octets.startswith(b"550 5.1.1 no?250 ok ?xxx")
    assert octets.count(b"\n") == 1
    assert len(octets) <= 512


def test_every_verb_is_carried_out_or_refused_by_name() -> None:
    made = {kind.__name__.upper() for kind in _CARRY_OUT}
    assert made == {verb.decode() for verb in VERBS} - {"TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML"}


def test_a_big_message_is_never_held_whole() -> None:
    conversation = Conversation(limits=Limits(message_bytes=10_000_000))
    after_rcpt(conversation)
    conversation.say(b"DATA\r\n")
    for _ in range(100):
        conversation.say(b"x" * 9_998 + b"\r\n")
        assert conversation.session.waiting == 0
    assert conversation.say(b".\r\n").startswith(b"250 ")


@pytest.mark.parametrize(
    "path",
    [
        "a" * 2000,
        "<" + "a" * 2000,
        "<" + "a." * 1000,
        "<a@" + "a-" * 1000,
        "<a@" + "a." * 1000,
        "<@" + "a-" * 1000 + ":a@b>",
        "<" + "@a," * 600 + ":a@b>",
        '<"' + '\\"' * 1000,
        "<a@[" + "1" * 2000,
        "<a@b> NOTIFY=" + "DELAY," * 300,
        "<a@b> ORCPT=x;" + "+2" * 900,
        "<a@b>" + " A=B" * 400,
    ],
    ids=lambda path: path[:12],
)
def test_hostile_lines_cost_little(path: str) -> None:
    before = time.process_time()
    for _ in range(20):
        for verb in ("MAIL FROM:", "RCPT TO:"):
            assert isinstance(parse_command((verb + path).encode()), BadCommand)
    assert time.process_time() - before < 1.0
