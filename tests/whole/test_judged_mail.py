"""The real server with spamd, clamd and a script that its user has uploaded: what a person finds in the mailbox, and why."""

from __future__ import annotations

import base64
import imaplib
import io
import json
import smtplib
import subprocess
import time
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.services import running as services
from tests.services.clamd import EICAR, Clamd
from tests.services.spamd import GTUBE, spamd
from tests.whole.running import PASSWORD, RunningServer

ANN, BOB = "ann@demo.example", "bob@demo.example"
SCRIPT = """\
require ["fileinto", "mailbox", "vacation", "variables", "imap4flags"];
if header :matches "subject" "[*] *" {
    fileinto :create "Lists/${1}";
} elsif header :contains "subject" "invoice" {
    addflag "\\\\Flagged";
    keep;
}
vacation :days 7 :addresses ["ann@demo.example"] :subject "Away" "I am on the moon.";
"""


class House:
    """A server, its daemons, and who sends mail to it."""

    def __init__(self, folder: Path) -> None:
        self.clamd = Clamd(services.new_folder("clamd-whole"))
        self.server = RunningServer(
            folder,
            extra=f"""
[smtp]
trusted = ["127.0.0.0/8"]
[dns]
servers = ["127.0.0.1:9"]
[filters]
trusted = []
origin = false
greeting = "0s"
rates = []
reject_score = 0
attachments = "mark"
spamassassin = {{ address = "{spamd().address}" }}
clamav = {{ address = "{self.clamd.address}", when_down = "defer", timeout = "10s" }}
""",
        )
    def start(self) -> None:
        self.clamd.start()
        self.server.populate()
        self.server.start()

    def stop(self) -> None:
        if self.server.process is not None:
            self.server.stop()
        self.clamd.kill()
        self.clamd.stop()

    def send(self, octets: bytes, *recipients: str, sender: str = "carl@far.example", address: str = "192.0.2.7") -> None:
        """As another server, at *address*."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], "front.example", timeout=60) as client:
            client.ehlo()
            assert client.docmd("XCLIENT", f"ADDR={address} PORT=4711 NAME=[UNAVAILABLE]")[0] == 220
            client.ehlo_resp = client.helo_resp = None
            client.ehlo("mail.far.example")
            client.sendmail(sender, recipients or (ANN,), octets)

    def submit(self, octets: bytes, sender: str, *recipients: str) -> None:
        """As a user."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["submission"], timeout=60) as client:
            client.login(sender, PASSWORD)
            client.sendmail(sender, recipients, octets)

    def mailbox(self, user: str, name: str) -> list[bytes]:
        """Its messages, as a mail client gets them."""
        with imaplib.IMAP4("127.0.0.1", self.server.ports["imap"]) as client:
            client.login(user, PASSWORD)
            if client.select(f'"{name}"', readonly=True)[0] != "OK":
                return []
            numbers = client.search(None, "ALL")[1][0].split()
            found = []
            for number in numbers:
                (fetched, *_) = client.fetch(number.decode(), "(FLAGS BODY.PEEK[])")[1]
                assert isinstance(fetched, tuple)
                found.append(fetched[0] + fetched[1])
            return found

    def everywhere(self, user: str, words: bytes) -> list[str]:
        """The mailboxes with a message that has *words*."""
        names = ("INBOX", "Junk", "Trash", "Archive", "Lists/elm")
        return [name for name in names if any(words in octets for octets in self.mailbox(user, name))]

    def wait_for(self, user: str, name: str, words: bytes) -> bytes:
        """The one message with *words* in it."""
        deadline = time.monotonic() + 30
        while True:
            found = [octets for octets in self.mailbox(user, name) if words in octets]
            if found:
                assert len(found) == 1
                return found[0]
            assert time.monotonic() < deadline, self.server.log()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("judged"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def letter(
    subject: str, text: str = "Dear Ann,\nhow are you?\n", *, to: str = ANN, sender: str = "Carl <carl@far.example>"
) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"], message["Message-ID"] = formatdate(), f"<{subject.replace(' ', '.').strip('[]')}@far.example>"
    message.set_content(text)
    return message


def octets_of(message: EmailMessage) -> bytes:
    return message.as_bytes().replace(b"\n", b"\r\n")


def zipped(content: bytes, times: int) -> bytes:
    for _ in range(times):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.zip" if content[:2] == b"PK" else "eicar.com", content)
        content = file.getvalue()
    return content


def test_spam_is_in_junk_and_nowhere_else_and_a_client_sees_why(house: House) -> None:
    house.send(octets_of(letter("cheap watches", f"buy\n{GTUBE.decode() if isinstance(GTUBE, bytes) else GTUBE}\n")))
    octets = house.wait_for(ANN, "Junk", b"Subject: cheap watches")
    assert b"X-Spam-Flag: YES\r\n" in octets and b"$Junk" in octets
    assert house.everywhere(ANN, b"Subject: cheap watches") == ["Junk"]


@pytest.mark.parametrize("packed", [0, 1, 2], ids=["plain", "zipped", "nested"])
def test_a_virus_is_refused_by_smtp_and_is_nowhere(house: House, packed: int) -> None:
    message = letter(f"bill {packed}")
    message.add_attachment(zipped(EICAR, packed), maintype="application", subtype="octet-stream", filename="bill.zip")
    assert base64.b64encode(EICAR)[:20] in message.as_bytes() or packed
    with pytest.raises(smtplib.SMTPDataError) as caught:
        house.send(octets_of(message))
    assert caught.value.smtp_code == 550 and "5.7.1" in str(caught.value.smtp_error)
    assert house.everywhere(ANN, b"Subject: bill %d" % packed) == []


def test_our_own_users_cannot_send_a_virus_either(house: House) -> None:
    message = letter("from bob", EICAR.decode(), sender=BOB)
    with pytest.raises(smtplib.SMTPDataError) as caught:
        house.submit(octets_of(message), BOB, ANN)
    assert caught.value.smtp_code == 550


def test_with_the_scanner_down_mail_waits_at_its_sender_and_comes_when_it_is_back(house: House) -> None:
    house.clamd.kill()
    with pytest.raises(smtplib.SMTPDataError) as caught:
        house.send(octets_of(letter("patience")))
    assert 400 <= caught.value.smtp_code < 500
    assert house.everywhere(ANN, b"Subject: patience") == []
    house.clamd.start()
    house.send(octets_of(letter("patience")))
    house.wait_for(ANN, "INBOX", b"Subject: patience")


def test_mail_is_sorted_by_a_script_that_a_client_uploads_and_the_sender_is_answered_once(
    house: House, tmp_path: Path
) -> None:
    file = tmp_path / "holiday.sieve"
    file.write_text(SCRIPT)
    for words in (["--localsieve", str(file), "--upload"], ["--activate"]):
        done = subprocess.run(
            ["sieve-connect", "--server", "127.0.0.1", "--port", str(house.server.ports["managesieve"]), "--user", ANN, "--notlsverify",
             "--remotesieve", "holiday", "--passwordfd", "0", *words],
            input=PASSWORD + "\n", capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    house.send(octets_of(letter("[elm] news", sender="List <list@lists.example>")), sender="list-bounces@lists.example")
    house.wait_for(ANN, "Lists/elm", b"[elm] news")
    for number in (1, 2):
        house.submit(octets_of(letter(f"invoice {number}", sender=BOB)), BOB, ANN)
    for number in (1, 2):
        assert b"\\Flagged" in house.wait_for(ANN, "INBOX", b"Subject: invoice %d" % number)
    answer = house.wait_for(BOB, "INBOX", b"I am on the moon.")
    assert b"Auto-Submitted: auto-replied" in answer and b"Subject: Away" in answer
    assert b"In-Reply-To: <invoice." in answer
    assert len([octets for octets in house.mailbox(BOB, "INBOX") if b"on the moon" in octets]) == 1


def test_the_trace_of_a_message_reads_like_a_story(house: House) -> None:
    with pytest.raises(smtplib.SMTPDataError):
        house.send(octets_of(letter("a bad story", EICAR.decode())))
    house.send(octets_of(letter("a story")))
    house.wait_for(ANN, "INBOX", b"Subject: a story")
    deadline = time.monotonic() + 10
    while True:
        told = json.loads(house.server.mailctl("trace", "a.story@far.example", "--json"))["story"]
        if told or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    first = told[0]
    assert (first["what"], first["client"], first["helo"]) == ("accepted", "192.0.2.7", "mail.far.example")
    lines = "\n".join(first["lines"])
    assert "spamassassin: " in lines and " ms" in lines
    text = house.server.mailctl("trace", ANN, "--limit", "1000")
    assert "clamav: " in text and "refused from [192.0.2.7] (mail.far.example)" in text
