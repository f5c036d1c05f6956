"""The sending engine against our own receiving one, against garbage, and where a transcript would be clumsy."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smtp.client.talking import Message, Talk, To, verdict
from tests.smtp.fakes import PROFILES
from tests.smtp.fakes import Conversation as Receiver
from twisted_mail.smtp.client.conversation import Conversation, Event
from twisted_mail.smtp.client.envelope import portion
from twisted_mail.smtp.client.offers import Offers
from twisted_mail.smtp.profiles import Limits

EHLO = b"220 x\r\n250-x\r\n250 PIPELINING\r\n"


def ready(**options: bool) -> Conversation:
    talk = Conversation("here.example", **options)
    assert talk.receive(b"220 x\r\n") is None
    assert talk.receive(b"250-x\r\n250 PIPELINING\r\n") is Event.READY
    talk.take_output()
    return talk


def meet(talk: Talk, receiver: Receiver) -> None:
    said = receiver.session.take_output()
    talk.hear(said)
    while talk.sent:
        sent, talk.sent = talk.sent, b""
        talk.hear(receiver.say(sent))
        if talk.handshake_due:
            receiver.handshake()
            talk.handshake()


addresses = st.sampled_from(
    ["ann@example.org", "green@example.org", "full@example.org", "bob@elsewhere.example", "ann@пример.example", "gone@bar.com"]
)
bodies = st.lists(st.sampled_from([b"text", b".", b"\r\n", b"..", b"\xc3\xa9"]), max_size=12).map(b"".join)


@given(
    profile=st.sampled_from(["smtp", "lmtp"]),
    messages=st.lists(st.tuples(st.lists(addresses, min_size=1, max_size=5), bodies), min_size=1, max_size=4),
    tls=st.booleans(),
    chunking=st.booleans(),
    pipelining=st.booleans(),
    block=st.integers(1, 30),
)
@settings(max_examples=30, deadline=None)
def test_both_engines_agree_about_what_was_taken(
    profile: str,
    messages: list[tuple[list[str], bytes]],
    tls: bool,
    chunking: bool,
    pipelining: bool,
    block: int,
) -> None:
    receiver = Receiver(PROFILES[profile], tls=True, limits=Limits(message_bytes=100))
    client = Conversation("here.example", lmtp=profile == "lmtp", chunking=chunking, pipelining=pipelining)
    errands = [
        (Message(size=len(body), eight_bit=not body.isascii(), smtputf8=any(not a.isascii() for a in to)), list(map(To, to)), body)
        for to, body in messages
    ]
    talk = Talk(client, errands, tls=tls, block=block)
    meet(talk, receiver)
    assert receiver.session.closing and client.ended is not None and client.ended.reply.code == 221
    assert not receiver.failures
    assert talk.secure is tls
    verdicts = iter(talk.verdicts)
    taken = iter(receiver.intake.messages)
    for to, body in messages:
        heard = list(itertools.islice(verdicts, len(to)))
        expected = body if (chunking and pipelining) or body.endswith(b"\r\n") or not body else body + b"\r\n"
        good = [a for a in to if a.partition("@")[0] != "green" and not a.endswith("elsewhere.example")]
        if good:
            envelope, octets = next(taken)
            assert octets == expected
            assert [each.address for each in envelope.recipients] == good
        for address, said in zip(to, heard, strict=True):
            if address not in good:
                assert said.startswith("rcpt 550")
            elif profile == "lmtp":
                assert said.startswith({"full": "end 452", "gone": "end 550"}.get(address.partition("@")[0], "end 250"))
            else:
                assert said.startswith("end ")
    assert next(taken, None) is None and next(verdicts, None) is None


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([
    b"220 x\r\n", b"250 ok\r\n", b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n", b"354 go\r\n", b"421 no\r\n", b"550 no\r\n", b"450 no\r\n",
    b"334 \r\n", b"235 ok\r\n", b"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n"])), max_size=25))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_whatever_a_server_says_every_recipient_has_a_verdict_in_the_end(said: list[bytes]) -> None:
    messages = [(Message(), [To("a@x"), To("b@x")], b"text\r\n") for _ in range(3)]
    talk = Talk(Conversation("here.example"), messages, tls=True, login=("u", "p"), private=True)
    for data in said:
        if talk.handshake_due:
            talk.handshake()
        talk.hear(data)
    talk.close()
    assert talk.conversation.ended is not None
    assert len(talk.verdicts) % 2 == 0
    assert "nothing" not in talk.verdicts
    assert talk.conversation.receive(b"250 late\r\n") is None


def test_a_time_limit_ends_it_where_it_stands() -> None:
    talk = Conversation("here.example")
    assert talk.timed_out() is Event.ENDED
    assert verdict(talk.ended) == "greeting! 421 4.4.2 The server did not answer within the time limit"
    talk = ready()
    talk.send(Message(), [To("a@x")])
    talk.receive(b"250 ok\r\n")
    assert talk.timed_out() is Event.DONE
    assert [verdict(each) for each in talk.outcomes] == ["rcpt! 421 4.4.2 The server did not answer within the time limit"]


def test_what_died_before_it_answered_is_told_from_what_had_answered() -> None:
    for said, answered in ((b"", False), (b"421 idle\r\n", False), (b"250 ok\r\n", True)):
        talk = ready()
        talk.send(Message(), [To("a@x")])
        talk.receive(said)
        talk.closed()
        assert talk.answered is answered


def test_the_answer_to_rset_is_none_to_the_message() -> None:
    talk = ready()
    talk.send(Message(), [To("a@x")])
    assert talk.receive(b"250 ok\r\n550 no\r\n554 no\r\n") is Event.DONE
    talk.send(Message(), [To("a@x")])
    assert talk.take_output().split(b"\r\n")[3:5] == [b"RSET", b"MAIL FROM:<ann@here.example>"]
    talk.receive(b"250 ok\r\n")
    assert talk.closed() is Event.DONE
    assert not talk.answered


def test_once_the_end_was_sent_the_stage_is_the_end_whatever_else_is_awaited() -> None:
    talk = Conversation("here.example")
    talk.receive(b"220 x\r\n")
    talk.receive(b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    talk.send(Message(), [To("a@x")])
    talk.receive(b"250 ok\r\n250 ok\r\n")
    talk.chunk(b"x" * 10)
    talk.chunk(b"y", last=True)
    talk.closed()
    assert [verdict(each) for each in talk.outcomes] == ["end! 421 4.4.2 The server closed the connection"]


def test_a_server_that_has_seen_enough_of_a_message_is_believed() -> None:
    talk = ready()
    talk.send(Message(), [To("a@x")])
    assert talk.receive(b"250 ok\r\n250 ok\r\n354 go\r\n") is Event.BODY
    talk.chunk(b"x" * 10)
    assert talk.receive(b"552 5.3.4 too large\r\n") is Event.DONE
    assert [verdict(each) for each in talk.outcomes] == ["body 552 5.3.4 too large"]
    assert not talk.wants_body and talk.chunk(b"more") == b"" and talk.ended is not None


def test_a_message_that_smuggles_is_not_sent() -> None:
    talk = ready()
    talk.send(Message(), [To("a@x")])
    talk.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.chunk(b"a\n.\r\nMAIL FROM:<>\r\n") == b""
    assert talk.broken and [verdict(each) for each in talk.outcomes] == [
        "body 554 5.6.0 The message has line ends that are not safe to send by DATA"
    ]


def test_a_421_behind_the_last_answer_spoils_no_verdict() -> None:
    talk = ready()
    talk.send(Message(), [To("a@x")])
    talk.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.chunk(b"a\r\n", last=True)
    assert talk.receive(b"250 ok\r\n421 that is all\r\n") is Event.DONE
    assert [verdict(each) for each in talk.outcomes] == ["end 250 ok"]
    assert talk.ended is not None and not talk.idle


def test_what_has_ended_takes_no_message() -> None:
    for said in (b"421 idle\r\n", b"221 bye\r\n"):
        talk = ready()
        if said.startswith(b"221"):
            talk.quit()
            talk.take_output()
        assert talk.receive(said) is Event.ENDED
        assert talk.send(Message(), [To("a@x"), To("b@x")]) is Event.DONE
        assert [verdict(each) for each in talk.outcomes] == ["mail! 421 4.4.2 The connection had ended before"] * 2
        assert not talk.answered and talk.take_output() == b""


def test_quit_is_answered_or_not() -> None:
    for said in (b"221 bye\r\n", b"421 bye\r\n", b"500 what?\r\n"):
        talk = ready()
        talk.quit()
        assert talk.receive(said) is Event.ENDED and talk.broken


@pytest.mark.parametrize(
    ("offers", "count"), [(Offers(), 100), (Offers(most_recipients=3), 3), (Offers(most_domains=2), 6), (Offers(most_domains=1), 3)]
)
def test_transactions_are_as_large_as_the_server_takes(offers: Offers, count: int) -> None:
    to = [To(f"user@{at // 3}.example") for at in range(150)]
    assert portion(to, offers) == count
    assert portion(to[:2], offers) == 2
