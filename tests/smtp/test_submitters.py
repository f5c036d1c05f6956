"""Networks that submit without a login: who is in one, as whom, and what stays a stranger's."""

from __future__ import annotations

from typing import Any

from tests.smtp.fakes import Conversation, FakeSubmitters
from tests.smtp.test_xclient import PROXY, Visited
from twisted_mail.services import Identity, MailRefused, Peer, Refusal
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION

PRINTER = Peer("10.1.2.3", 4711)
STRANGER = Peer("192.0.2.9", 4711)
BODY = b"DATA\r\nSubject: scan\r\nBcc: eve@example.org\r\n\r\nhello\r\n.\r\n"


def talk(profile: Any = SUBMISSION, peer: Peer = PRINTER, **options: Any) -> Conversation:
    options.setdefault("submitters", FakeSubmitters())
    conversation = Conversation(profile, peer=peer, **options)
    conversation.session.take_output()
    return conversation


def sent(conversation: Conversation, sender: bytes = b"ann@example.org", to: bytes = b"bob@example.org") -> bytes:
    return conversation.say(b"EHLO printer\r\nMAIL FROM:<" + sender + b">\r\nRCPT TO:<" + to + b">\r\n" + BODY)


# --- on a submission listener


def test_a_listed_peer_submits_without_a_login() -> None:
    conversation = talk()
    assert b"250 2.0.0" in sent(conversation)
    envelope, octets = conversation.intake.messages[0]
    assert envelope.identity is not None and envelope.identity.login == "ann@example.org"
    assert b"Message-ID:" in octets and b"Bcc" not in octets, "its header is completed as that of any submission"


def test_the_trace_does_not_claim_a_login() -> None:
    """RFC 3848: the A of ESMTPA is for a session with AUTH."""
    conversation = talk()
    sent(conversation)
    assert conversation.intake.messages[0][0].protocol == "ESMTP"


def test_others_log_in_as_before() -> None:
    assert b"530 5.7.0 Log in first\r\n" in talk(peer=STRANGER).say(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n")
    assert b"530 5.7.0 Log in first\r\n" in talk(submitters=None).say(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n")


def test_a_listed_peer_is_held_to_the_addresses_of_its_account() -> None:
    assert b"550 5.7.1 This sender address is not yours\r\n" in sent(talk(), b"boss@example.org")


def test_a_listed_peer_may_log_in_all_the_same() -> None:
    conversation = talk()
    said = conversation.say(b"EHLO x\r\nAUTH PLAIN AHRlc3QAMTIzNA==\r\n")
    assert b"AUTH PLAIN" in said and b"235 2.7.0" in said
    sent(conversation, b"test@example.org")
    envelope, _ = conversation.intake.messages[0]
    assert (envelope.identity and envelope.identity.login, envelope.protocol) == ("test@example.org", "ESMTPA")


def test_an_account_that_is_gone_lets_nobody_in() -> None:
    submitters = FakeSubmitters()
    submitters.gone = True
    assert b"530 5.7.0 Log in first\r\n" in talk(submitters=submitters).say(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n")


def test_who_need_not_log_in_is_not_hurried_to() -> None:
    assert not talk().session.anonymous
    assert talk(peer=STRANGER).session.anonymous


def test_a_client_that_a_front_names_counts_by_its_own_address() -> None:
    conversation = talk(peer=PROXY, trusted=True)
    conversation.say(b"XCLIENT ADDR=10.1.2.3\r\n")
    assert b"250 2.0.0" in sent(conversation)
    conversation.say(b"XCLIENT ADDR=192.0.2.9\r\n")
    assert b"530 5.7.0" in sent(conversation)


# --- on SMTP


def test_what_a_listed_peer_sends_from_its_address_is_a_submission_on_smtp_too() -> None:
    conversation = talk(MX)
    sent(conversation)
    envelope, octets = conversation.intake.messages[0]
    assert (envelope.identity and envelope.identity.login, envelope.protocol) == ("ann@example.org", "ESMTP")
    assert b"Message-ID:" in octets


def test_anything_else_that_it_sends_there_is_a_strangers() -> None:
    """Other servers may live in the same network: what they forward is for us, and for nobody else."""
    conversation = talk(MX)
    assert b"250 2.0.0" in sent(conversation, b"eve@elsewhere.example")
    envelope, octets = conversation.intake.messages[0]
    assert envelope.identity is None
    assert octets.startswith(b"Subject: scan\r\nBcc:"), "a stranger's message is not touched"
    assert b"550 5.7.1" in sent(conversation, b"eve@elsewhere.example", b"you@elsewhere.example")


def test_one_message_does_not_make_the_next_one_a_submission() -> None:
    conversation = talk(MX)
    sent(conversation)
    sent(conversation, b"eve@elsewhere.example")
    sent(conversation)
    assert [envelope.identity is not None for envelope, _ in conversation.intake.messages] == [True, False, True]


def test_a_stranger_on_smtp_may_not_send_as_one_of_ours() -> None:
    conversation = talk(MX, STRANGER)
    sent(conversation)
    assert conversation.intake.messages[0][0].identity is None


def test_lmtp_knows_no_such_networks() -> None:
    conversation = talk(LMTP)
    conversation.say(b"LHLO x\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\n" + BODY)
    assert conversation.intake.messages[0][0].identity is None


# --- filters


class Visits:
    """Visits that write a diary; strangers are refused at the greeting if *refusing*."""

    def __init__(self, *, refusing: bool = False) -> None:
        self.diary: list[str] = []
        self._refusing = refusing

    def __call__(self, peer: Peer) -> Visited:
        visited = Visited(self.diary, Peer(peer.service or "smtp"))
        if self._refusing and peer.service != "submission":
            visited.refusal = MailRefused(Refusal.POLICY, "Go away", code=554, enhanced="5.7.1")
        return visited


def test_a_submission_by_smtp_is_looked_at_as_a_submission() -> None:
    visits = Visits()
    conversation = talk(MX, visits=visits)
    sent(conversation)
    sent(conversation)
    began = [line for line in visits.diary if line.endswith("connected")]
    assert began == ["submission connected"], "lists in the DNS and names are not asked about one's own printer"


def test_a_strangers_mail_from_a_listed_network_is_looked_at_as_such() -> None:
    visits = Visits()
    conversation = talk(MX, visits=visits)
    sent(conversation)
    sent(conversation, b"eve@elsewhere.example")
    assert [line for line in visits.diary if line.split()[1] in ("connected", "greeted", "sender", "closed")] == [
        "submission connected", "submission greeted by 10.1.2.3", "submission sender",
        "submission greeted by 10.1.2.3",  # EHLO again, before it is known what comes
        "submission closed", "smtp connected", "smtp greeted by 10.1.2.3", "smtp sender",
    ]  # fmt: skip


def test_a_stranger_who_is_refused_is_refused_each_time() -> None:
    conversation = talk(MX, visits=Visits(refusing=True))
    for _ in range(2):
        assert b"554 5.7.1 Go away\r\n" in conversation.say(b"EHLO x\r\nMAIL FROM:<eve@elsewhere.example>\r\n")
    assert b"250 2.0.0" in sent(conversation), "and its own mail goes on"


def test_who_is_in_no_listed_network_is_looked_at_before_the_greeting() -> None:
    visits = Visits()
    talk(MX, STRANGER, visits=visits).say(b"")
    assert visits.diary == ["smtp connected"]


def test_the_identity_is_what_the_account_is() -> None:
    conversation = talk()
    sent(conversation)
    assert isinstance(conversation.intake.messages[0][0].identity, Identity)
