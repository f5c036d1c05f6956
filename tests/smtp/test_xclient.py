"""XCLIENT: whom a trusted server in front names is the client from then on; nobody else is believed."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.services.knot import program
from tests.smtp.fakes import Conversation, FakeAuthentication, FakeIntake
from twisted_mail.services import AuthenticationFailed, Identity, MailRefused, Peer, Recipient, Refusal
from twisted_mail.smtp.commands import BadCommand, Xclient
from twisted_mail.smtp.parser import parse_command
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits
from twisted_mail.smtp.server import SMTPServerFactory
from twisted_mail.values import AccountId

reactor: Any = _reactor
GREETING = b"220 mx.example.org ESMTP\r\n"
PROXY = Peer("192.0.2.7", 4711, service="smtp")


class Vouches(FakeAuthentication):
    """Believes in ``ann``."""

    async def vouched(self, login: str, peer: Peer) -> Identity:
        if login == "down":
            raise AuthenticationFailed("unavailable", "try again", temporary=True)
        if login != "ann":
            raise AuthenticationFailed()
        return Identity(AccountId(bytes(16)), "ann@example.org")


def behind(profile: Any = MX, **options: Any) -> Conversation:
    conversation = Conversation(profile, trusted=True, peer=PROXY, **options)
    conversation.session.take_output()
    return conversation


def offered(conversation: Conversation) -> list[str]:
    said = conversation.say(b"EHLO proxy.example\r\n").decode()
    return [line[4:] for line in said.splitlines() if line[4:].startswith("XCLIENT")]


# --- what is offered, and to whom


def test_it_is_offered_to_who_is_trusted_only() -> None:
    assert offered(behind()) == ["XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"]
    assert offered(Conversation(peer=PROXY)) == []


def test_logins_are_offered_where_people_log_in() -> None:
    assert offered(behind(SUBMISSION, authentication=Vouches())) == ["XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"]
    assert offered(behind(SUBMISSION)) == ["XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"]
    assert offered(behind(MX, authentication=Vouches())) == ["XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"]


def test_lmtp_has_none() -> None:
    conversation = behind(LMTP)
    assert b"XCLIENT" not in conversation.say(b"LHLO x\r\n")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\n").startswith(b"550 5.7.0 ")


def test_who_is_not_trusted_is_not_believed() -> None:
    conversation = Conversation(peer=PROXY)
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\n").endswith(b"550 5.7.0 You are not believed when you say for whom you come\r\n")
    conversation.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")
    assert conversation.intake.messages[0][0].peer.address == "192.0.2.7"


# --- what it does


def test_the_example_of_the_readme() -> None:
    """XCLIENT_README, "XCLIENT Example"; the lines that are ours differ."""
    conversation = behind()
    conversation.say(b"EHLO client.example.com\r\n")
    assert conversation.say(b"XCLIENT NAME=spike.porcupine.org ADDR=168.100.189.2\r\n") == GREETING
    assert conversation.say(b"EHLO spike.porcupine.org\r\n").startswith(b"250-mx.example.org\r\n")
    conversation.say(b"MAIL FROM:<wietse@porcupine.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n. . .\r\n.\r\n")
    envelope, _ = conversation.intake.messages[0]
    assert envelope.peer == Peer("168.100.189.2", 0, service="smtp")
    assert envelope.helo == "spike.porcupine.org"


@pytest.mark.parametrize(
    ("attributes", "address", "port"),
    [
        (b"ADDR=203.0.113.5 PORT=4000", "203.0.113.5", 4000),
        (b"addr=203.0.113.5 port=[unavailable]", "203.0.113.5", 0),
        (b"ADDR=IPV6:2001:db8::5 PORT=4000", "2001:db8::5", 4000),
        (b"ADDR=2001:DB8:0::5", "2001:db8::5", 0),
        (b"ADDR=IPV6:::ffff:203.0.113.5", "203.0.113.5", 0),
        (b"NAME=[TEMPUNAVAIL] ADDR=203.0.113.5 PROTO=ESMTP HELO=a+20b DESTADDR=192.0.2.1 DESTPORT=25", "203.0.113.5", 0),
        (b"ADDR=[UNAVAILABLE] PORT=25", "192.0.2.7", 4711),
        (b"NAME=x.example", "192.0.2.7", 4711),
    ],
)
def test_the_peer_is_the_one_that_is_named(attributes: bytes, address: str, port: int) -> None:
    """Without an address it stays the server in front: who has none counts as this machine, which may do more."""
    conversation = behind()
    assert conversation.say(b"XCLIENT " + attributes + b"\r\n") == GREETING
    conversation.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")
    assert conversation.intake.messages[0][0].peer == Peer(address, port, service="smtp")


def test_a_client_may_follow_another() -> None:
    conversation = behind()
    for address in (b"203.0.113.5", b"203.0.113.6"):
        assert conversation.say(b"XCLIENT ADDR=" + address + b"\r\n") == GREETING
        conversation.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")
    assert [envelope.peer.address for envelope, _ in conversation.intake.messages] == ["203.0.113.5", "203.0.113.6"]


def test_the_session_begins_anew() -> None:
    conversation = behind()
    conversation.say(b"EHLO proxy.example\r\nXCLIENT ADDR=203.0.113.5\r\n")
    assert conversation.say(b"MAIL FROM:<a@b.example>\r\n") == b"503 5.5.1 Send EHLO first\r\n"


def test_a_transaction_is_not_interrupted() -> None:
    conversation = behind()
    conversation.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\n").startswith(b"503 5.5.1 ")
    assert conversation.say(b"RCPT TO:<ann@example.org>\r\n").startswith(b"250 ")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\nRSET\r\n").startswith(b"503 5.5.1 ")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\n") == GREETING


def test_after_starttls_the_client_is_still_the_one_that_was_named() -> None:
    conversation = behind(tls=True)
    conversation.say(b"XCLIENT ADDR=203.0.113.5 PORT=1\r\nEHLO x\r\nSTARTTLS\r\n")
    conversation.handshake()
    conversation.say(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")
    peer = conversation.intake.messages[0][0].peer
    assert (peer.address, peer.port, peer.secure) == ("203.0.113.5", 1, True)


class Visited:
    """A visit that keeps a diary."""

    greeting_seconds = 0.0

    def __init__(self, diary: list[str], peer: Peer) -> None:
        self._diary, self._name = diary, peer.address
        self.refusal: MailRefused | None = None

    def _write(self, what: str) -> None:
        self._diary.append(f"{self._name} {what}")

    async def connected(self) -> None:
        self._write("connected")
        if self.refusal is not None:
            raise self.refusal

    def early(self) -> None:
        self._write("early")

    async def greeted(self, helo: str, peer: Peer, *, extended: bool) -> None:
        self._write(f"greeted by {peer.address}")

    async def sender(self, address: str, **more: Any) -> None:
        self._write("sender")

    async def recipient(self, recipient: Recipient) -> None:
        self._write("recipient")

    async def unknown(self, address: str) -> None:
        self._write("unknown")

    async def strange(self, line: str) -> None:
        self._write("strange")

    async def ended(self) -> None:
        self._write("ended")

    async def closed(self) -> None:
        self._write("closed")


def visited(refused: str = "") -> tuple[Conversation, list[str]]:
    diary: list[str] = []

    def visit(peer: Peer) -> Visited:
        made = Visited(diary, peer)
        if peer.address == refused:
            made.refusal = MailRefused(Refusal.POLICY, "Go away", code=554, enhanced="5.7.1")
        return made

    conversation = behind()
    conversation.say(b"")
    assert conversation.intake.visit(PROXY) is None
    conversation.intake.visits = visit
    return conversation, diary


def test_the_visit_of_the_proxy_ends_and_that_of_the_client_begins() -> None:
    conversation, diary = visited()
    conversation.say(b"XCLIENT ADDR=203.0.113.5\r\nXCLIENT ADDR=203.0.113.6\r\nEHLO x\r\n")
    assert diary == ["203.0.113.5 connected", "203.0.113.5 closed",
                     "203.0.113.6 connected", "203.0.113.6 ended", "203.0.113.6 greeted by 203.0.113.6"]  # fmt: skip


def test_a_client_may_be_refused_as_if_it_had_connected() -> None:
    conversation, _ = visited(refused="203.0.113.5")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5\r\n") == b"554 5.7.1 Go away\r\n"
    assert conversation.session.closing


# --- logins


def test_a_login_that_the_server_in_front_has_checked_counts() -> None:
    conversation = behind(SUBMISSION, authentication=Vouches())
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5 LOGIN=ann\r\n") == GREETING
    assert b"AUTH" not in conversation.say(b"EHLO x\r\n")
    conversation.say(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n.\r\n")
    identity = conversation.intake.messages[0][0].identity
    assert identity is not None and identity.login == "ann@example.org"
    assert conversation.say(b"MAIL FROM:<bob@example.org>\r\n").startswith(b"550 5.7.1 "), "he is held to his own addresses"


def test_another_client_is_not_logged_in_by_the_first_ones_login() -> None:
    conversation = behind(SUBMISSION, authentication=Vouches())
    conversation.say(b"XCLIENT LOGIN=ann\r\n")
    assert conversation.say(b"XCLIENT ADDR=203.0.113.6 LOGIN=[UNAVAILABLE]\r\n") == GREETING
    assert conversation.say(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n").endswith(b"530 5.7.0 Log in first\r\n")


@pytest.mark.parametrize(
    ("login", "said"), [(b"nobody", b"535 5.7.8 authentication failed\r\n"), (b"down", b"454 4.7.0 try again\r\n")]
)
def test_a_login_that_is_nobodys_changes_nothing(login: bytes, said: bytes) -> None:
    conversation = behind(SUBMISSION, authentication=Vouches())
    assert conversation.say(b"XCLIENT ADDR=203.0.113.5 LOGIN=" + login + b"\r\n") == said
    assert conversation.session._peer == PROXY


def test_there_are_no_logins_elsewhere() -> None:
    assert behind(MX, authentication=Vouches()).say(b"XCLIENT LOGIN=ann\r\n") == b"501 5.5.4 There is no login here\r\n"
    assert behind(SUBMISSION).say(b"XCLIENT LOGIN=ann\r\n") == b"501 5.5.4 There is no login here\r\n"


# --- syntax


@pytest.mark.parametrize(
    "line",
    [b"XCLIENT", b"XCLIENT ", b"XCLIENT ADDR", b"XCLIENT ADDR=", b"XCLIENT ADDR=nonsense", b"XCLIENT ADDR=IPV6:203.0.113.555",
     b"XCLIENT ADDR=fe80::1%25eth0", b"XCLIENT WHO=me", b"XCLIENT ADDR=203.0.113.5 ADDR=203.0.113.6", b"XCLIENT PORT=70000",
     b"XCLIENT PORT=x", b"XCLIENT PROTO=HTTP", b"XCLIENT NAME=a+0Ab", b"XCLIENT NAME=+ZZ", b"XCLIENT HELO=" + b"x" * 256],
)  # fmt: skip
def test_what_is_malformed_is_refused(line: bytes) -> None:
    command = parse_command(line)
    assert isinstance(command, BadCommand) and command.code == 501


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_any_arguments_are_a_command_or_none(arguments: bytes) -> None:
    assert isinstance(parse_command(b"XCLIENT " + arguments), (Xclient, BadCommand))


# --- a client that others have written


class SwaksTests(TestCase):
    """Debian's swaks over a real socket."""

    timeout = 30

    async def test_swaks_speaks_for_somebody(self) -> None:
        swaks = shutil.which("swaks") or program("swaks", "swaks")
        intake = FakeIntake()
        factory = SMTPServerFactory(
            MX, intake, None, Limits(), None, reactor, "mx.example.org", trusted=lambda address: address == "127.0.0.1"
        )
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        words = ["--server", "127.0.0.1", "--port", str(port.getHost().port), "--from", "a@b.example", "--to", "ann@example.org",
                 "--helo", "client.example", "--xclient-addr", "203.0.113.5", "--xclient-name", "client.example",
                 "--xclient-port", "4000", "--timeout", "10"]  # fmt: skip
        out, err, code = await getProcessOutputAndValue(swaks, words, env=os.environ)
        assert code == 0, (out + err).decode()
        envelope, _ = intake.messages[0]
        assert (envelope.peer.address, envelope.peer.port, envelope.helo) == ("203.0.113.5", 4000, "client.example")
