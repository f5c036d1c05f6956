"""The real server and strangers: lists in a real name server, greylisting, limits, and who speaks too soon."""

from __future__ import annotations

import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.calling import Mailctl
from tests.filters.letters import HAM, SPAM
from tests.services.knot import Knot
from tests.whole.running import PASSWORD, RunningServer

ANN = "ann@example.org"
LISTED, WELCOME, STRANGER = "8.8.4.4", "8.8.8.8", "9.9.9.9"
"""Addresses that no documentation has, so that lists are asked about them; nothing is sent there."""
ZONE = """
2.0.0.127.bl A 127.0.0.2
4.4.8.8.bl A 127.0.0.2
8.8.8.8.wl A 127.0.10.3
mx A 9.9.9.9
"""


class House:
    """A server and the DNS that it asks."""

    def __init__(self, folder: Path) -> None:
        self.knot = Knot({"example": ZONE, "in-addr.arpa": "9.9.9.9 PTR mx.example.\n"}, signed=frozenset())
        self.server = RunningServer(
            folder,
            extra=f"""
[dns]
servers = ["{self.knot.address}:{self.knot.port}"]
[smtp]
trusted = ["127.0.0.0/8"]
[filters]
trusted = []
early_talkers = "reject"
greeting = "500ms"
greylisting = true
greylisting_delay = "1s"
dnsbl = {{ "bl.example" = 6.0, "wl.example" = {{ "127.0.*.3" = -3.0 }} }}
rates = ["messages per sender 3/1h", "unknown per address 2/1h tarpit"]
""",
        )
        self.mailctl = Mailctl(folder)

    def start(self) -> None:
        self.knot.start()
        self.mailctl.good("domain", "add", "example.org", "--no-dkim")
        self.mailctl.good("user", "add", ANN, "--password-stdin", given=PASSWORD + "\n")
        self.server.start()

    def stop(self) -> None:
        if self.server.process is not None:
            self.server.stop()
        self.knot.stop()

    def visit(self, address: str, helo: str = "mx.example") -> smtplib.SMTP:
        """A peer at *address* has said HELO."""
        client = smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], "front.example", timeout=60)
        client.ehlo()
        assert client.docmd("XCLIENT", f"ADDR={address} PORT=4711 NAME=[UNAVAILABLE]")[0] == 220
        client.ehlo_resp = client.helo_resp = None
        client.ehlo(helo)
        return client

    def mailbox(self, subject: str) -> str:
        """Where the message with that subject is, once it is anywhere."""
        deadline = time.monotonic() + 60
        with imaplib.IMAP4("127.0.0.1", self.server.ports["imap"]) as client:
            client.login(ANN, PASSWORD)
            while time.monotonic() < deadline:
                for name in ("INBOX", "Junk"):
                    client.select(name)
                    if client.search(None, "SUBJECT", f'"{subject}"')[1][0]:
                        return name
                time.sleep(0.1)
        raise AssertionError(self.server.log())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("strangers"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_stranger_is_put_off_once_and_its_mail_is_judged(house: House) -> None:
    letter = HAM[0].octets.decode()
    with house.visit(STRANGER) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail("bob@one.example", [ANN], letter)
        assert refused.value.recipients[ANN] == (451, b"4.7.1 Greylisted: please come back in 1 minute")
        time.sleep(1.1)
        client.sendmail("bob@one.example", [ANN], letter)
    assert house.mailbox("Lunch?") == "INBOX"
    story = house.mailctl.good("trace", ANN).out
    assert "as honest servers do (greylisting)" in story


def test_who_is_listed_lands_in_junk_and_the_trace_says_by_whom(house: House) -> None:
    letter = HAM[0].octets.replace(b"Lunch?", b"Dinner?").replace(b"4711.abc", b"4712").decode()
    with house.visit(LISTED, "localhost") as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("bob@two.example", [ANN], letter)
        time.sleep(1.1)
        client.sendmail("bob@two.example", [ANN], letter)
    assert house.mailbox("Dinner?") == "Junk"
    assert "8.8.4.4 is listed by bl.example" in house.mailctl.good("trace", "4712@example.net").out


def test_whom_a_list_speaks_for_does_not_wait_but_spam_is_spam(house: House) -> None:
    letter = SPAM[0].octets.replace(b"4711.abc", b"4713").decode()
    with house.visit(WELCOME) as client:
        client.sendmail(
            "bob@three.example",
            [ANN],
            HAM[0].octets.replace(b"Lunch?", b"Supper?").replace(b"4711.abc", b"4714").decode(),
        )
        client.sendmail("eve@three.example", [ANN], letter.replace("undisclosed-recipients:;", "you"))
    assert house.mailbox("Supper?") == "INBOX"
    assert "builtin_score: As it looks, it speaks of money" in house.mailctl.good("trace", "4713@example.net").out


def test_a_sender_has_a_limit(house: House) -> None:
    with house.visit(WELCOME) as client:
        for _ in range(3):
            assert client.mail("many@four.example")[0] == 250
            client.rset()
        code, text = client.mail("many@four.example")
        assert (code, text.partition(b",")[0]) == (451, b"4.7.0 Too many messages")
        assert client.mail("few@four.example")[0] == 250


def test_who_guesses_addresses_waits_for_each_answer(house: House) -> None:
    with house.visit(WELCOME) as client:
        client.mail("bob@five.example")
        took = []
        for number in range(3):
            began = time.monotonic()
            assert client.rcpt(f"guess{number}@example.org")[0] == 550
            took.append(time.monotonic() - began)
    assert took[2] > 5.0 > took[0]


def test_who_speaks_before_the_greeting_is_refused(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.server.ports["smtp"]), timeout=30) as peer:
        peer.sendall(b"EHLO hasty.example\r\n")
        replies = b""
        while replies.count(b"\r\n") < 2 and (octets := peer.recv(4096)):
            replies += octets
    assert replies.startswith(b"220 ")
    assert b"\r\n554 5.5.1 You spoke before the greeting" in replies
