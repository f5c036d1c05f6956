"""The real server with filters of others: OpenDKIM, clamav-milter, postgrey; behind HAProxy, and behind one that says XCLIENT."""

from __future__ import annotations

import contextlib
import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import dkim
import pytest

from tests.services import running as services
from tests.services.clamav_milter import clamav_milter
from tests.services.clamd import EICAR
from tests.services.haproxy import HAProxy
from tests.services.opendkim import OpenDKIM
from tests.services.postgrey import Postgrey
from tests.services.processes import free_port
from tests.signatures.support import RSA
from tests.whole.running import PASSWORD, RunningServer

BOB = "bob@demo.example"
PLAIN = b"From: Ann <ann@example.org>\r\nTo: bob@demo.example\r\nSubject: %s\r\nDate: " + formatdate().encode() + b"\r\n" \
    b"Message-ID: <%s@example.org>\r\n\r\n%s\r\n"  # fmt: skip


class House:
    """A server, its filters, and the proxy before it."""

    def __init__(self, folder: Path) -> None:
        self.opendkim = OpenDKIM(services.new_folder("opendkim-whole"), keys={"od1._domainkey.example.org": RSA.record()})
        self.postgrey = Postgrey(services.new_folder("postgrey-whole"), delay=1)
        self.behind = free_port()
        self.server = RunningServer(
            folder,
            extra=f"""
[dns]
servers = ["127.0.0.1:9"]
[smtp]
trusted = ["127.0.0.0/8"]
[filters]
trusted = []
origin = false
rates = []
early_talkers = 0
builtin_score = "off"
policies = [{{ address = "127.0.0.1:{self.postgrey.port}", name = "postgrey" }}]
milters = [
    {{ address = "inet:{self.opendkim.port}@127.0.0.1", name = "opendkim" }},
    {{ address = "127.0.0.1:{clamav_milter().port}", name = "clamav-milter", when_down = "defer" }},
]
""",
        )
        text = self.server.config.read_text()
        plain = f'smtp = ["tcp:{self.server.ports["smtp"]}:interface=127.0.0.1"'
        assert plain in text
        behind = f', "haproxy:tcp:{self.behind}:interface=127.0.0.1"'
        self.server.config.write_text(text.replace(plain, plain + behind))
        self.proxy = HAProxy(services.new_folder("haproxy-whole"), self.behind, "send-proxy-v2 proxy-v2-options crc32c")

    def start(self) -> None:
        self.opendkim.start()
        self.postgrey.start()
        self.server.populate()
        self.server.start()
        self.proxy.start()

    def stop(self) -> None:
        self.proxy.stop()
        if self.server.process is not None:
            self.server.stop()
        self.postgrey.kill()
        self.postgrey.stop()
        self.opendkim.kill()
        self.opendkim.stop()

    def send(self, address: str, octets: bytes) -> None:
        """As a peer at *address*, which a server in front names; again as long as it is told to come back."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], "front.example", timeout=30) as client:
            client.ehlo()
            assert "xclient" in client.esmtp_features
            assert client.docmd("XCLIENT", f"ADDR={address} PORT=4711 NAME=[UNAVAILABLE]")[0] == 220
            client.ehlo_resp = client.helo_resp = None
            client.ehlo("mail.example.org")
            client.sendmail("ann@example.org", [BOB], octets)

    def send_in_time(self, address: str, octets: bytes) -> None:
        for _ in range(20):
            try:
                return self.send(address, octets)
            except smtplib.SMTPRecipientsRefused:
                time.sleep(0.3)
        raise AssertionError("it is put off for ever")

    def read(self, subject: str) -> bytes:
        """The one message of bob's with that subject."""
        with imaplib.IMAP4("127.0.0.1", self.server.ports["imap"]) as client:
            client.login(BOB, PASSWORD)
            client.select("INBOX")
            _, found = client.search(None, "SUBJECT", subject)
            (number,) = found[0].split()
            _, fetched = client.fetch(number.decode(), "(BODY.PEEK[])")
            assert isinstance(fetched[0], tuple)
            return bytes(fetched[0][1])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("existing-filters"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def letter(subject: bytes, text: bytes = b"Hello", *, signed: bool = False) -> bytes:
    octets = PLAIN % (subject, subject, text)
    return bytes(dkim.sign(octets, b"od1", b"example.org", RSA.pem())) + octets if signed else octets


def test_a_message_has_what_every_filter_adds_to_it(house: House) -> None:
    forged = b"Authentication-Results: opendkim.example; dkim=pass header.d=bank.example\r\n"
    with pytest.raises(smtplib.SMTPRecipientsRefused) as put_off:
        house.send("203.0.113.5", letter(b"greeted"))
    assert put_off.value.recipients[BOB][0] == 450
    assert b"Greylisted" in put_off.value.recipients[BOB][1]
    house.send_in_time("203.0.113.5", forged + letter(b"several", signed=True))
    got = house.read("several")
    assert b"Received: from mail.example.org ([203.0.113.5]" in got
    assert b"X-Greylist: delayed" in got
    results = [part for part in got.split(b"\r\n") if part.startswith(b"Authentication-Results: opendkim.example")]
    assert len(results) == 1 and b"dkim=pass" in got and b"bank.example" not in got
    assert b"X-Virus-Scanned: " in got
    assert got.endswith(b"\r\n\r\nHello\r\n")
    assert dkim.verify(got, dnsfunc=lambda *_, **__: RSA.record().encode()), "its own octets are untouched"


def test_what_a_milter_refuses_is_refused_with_its_words(house: House) -> None:
    for _ in range(20):
        try:
            house.send("203.0.113.6", letter(b"infected", EICAR))
        except smtplib.SMTPRecipientsRefused:
            time.sleep(0.3)
        except smtplib.SMTPDataError as error:
            assert error.smtp_code // 100 == 5
            assert isinstance(error.smtp_error, bytes) and b"Infected: " in error.smtp_error
            return
    raise AssertionError("it was taken")


def test_through_haproxy_the_client_is_the_client(house: House) -> None:
    def send() -> None:
        with smtplib.SMTP(
            "127.0.0.1", house.proxy.port, "mail.example.org", timeout=30, source_address=("127.77.1.1", 0)
        ) as client:
            client.sendmail("ann@example.org", [BOB], letter(b"through"))

    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send()
    for _ in range(20):
        try:
            send()
            break
        except smtplib.SMTPRecipientsRefused:
            time.sleep(0.3)
    assert b"([127.77.1.1]" in house.read("through")


def test_who_is_no_proxy_is_hung_up_on_and_the_server_goes_on(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.behind), 10) as client:
        client.sendall(b"EHLO mail.example.org\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    house.send_in_time("203.0.113.5", letter(b"still there"))


def test_a_milter_that_is_gone_is_done_without_and_the_trace_says_so(house: House) -> None:
    house.opendkim.kill()
    house.send_in_time("203.0.113.5", letter(b"without", signed=True))
    got = house.read("without")
    assert b"opendkim.example" not in got and b"X-Virus-Scanned: " in got
    assert "opendkim: no answer" in house.server.mailctl("trace", "<without@example.org>")
