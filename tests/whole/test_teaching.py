"""The real server: what a user moves by IMAP, SpamAssassin has learned for the next message; and only who judged it is taught."""

from __future__ import annotations

import imaplib
import json
import re
import smtplib
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.services.spamd import spamd
from tests.whole.running import PASSWORD, RunningServer

TODAY = formatdate()
"""Filters look at the Date, and at the clock."""

ANN = "ann@demo.example"


def letter(number: int, *words: str) -> bytes:
    text = "\r\n".join(" ".join(f"{word}{line}" for word in words) for line in range(20))
    return (
        f"Date: {TODAY}\r\nFrom: Carl <carl@far.example>\r\nTo: Ann <{ANN}>\r\n"
        f"Subject: letter {number}\r\nMessage-ID: <{number}@far.example>\r\n\r\n{text}\r\n"
    ).encode()


class Rspamd(ThreadingHTTPServer):
    """Speaks as rspamd's two workers do; it judges nothing that says so, and keeps what it is taught."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.taught: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        octets = self.rfile.read(int(self.headers["Content-Length"]))
        status, said = 200, {"score": 0.0, "required_score": 15.0, "action": "no action", "success": True}
        if self.path != "/checkv2":
            assert isinstance(self.server, Rspamd)
            subject = re.search(rb"(?m)^Subject: (.*?)\r$", octets)
            assert subject is not None and b"Judged-By" not in octets
            self.server.taught.append(subject[1].decode())
        elif b"X-Rspamd-Is: down" in octets:
            status = 500
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def rspamd() -> Iterator[Rspamd]:
    made = Rspamd()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, rspamd: Rspamd) -> Iterator[RunningServer]:
    made = RunningServer(
        tmp_path_factory.mktemp("teaching"),
        extra='[dns]\nservers = ["127.0.0.1:9"]\n[filters]\ntrusted = []\norigin = false\ngreeting = "0s"\nrates = []\n'
        f'reject_score = 0\nspamassassin = {{ address = "{spamd().address}" }}\n'
        f'rspamd = {{ url = "{rspamd.url}", controller = "{rspamd.url}" }}\n',
    )
    made.populate()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def send(server: RunningServer, octets: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], "front.example", timeout=60) as client:
        client.sendmail("carl@far.example", ANN, octets)


def rules(client: imaplib.IMAP4, mailbox: str, number: int) -> str:
    """What SpamAssassin found in that letter, which is on its way to *mailbox*."""
    deadline = time.monotonic() + 30
    while True:
        client.select(mailbox)
        found = client.search(None, "SUBJECT", f'"letter {number}"')[1][0].split()
        if found:
            (fetched, *_) = client.fetch(found[0].decode(), "(BODY.PEEK[HEADER.FIELDS (X-Spam-Status)])")[1]
            assert isinstance(fetched, tuple)
            return re.sub(r"\s+", "", fetched[1].decode())
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_next_message_of_its_kind_is_known(server: RunningServer) -> None:
    with imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=60) as client:
        client.login(ANN, PASSWORD)
        send(server, letter(1, "casino", "jackpot", "roulette"))
        send(server, letter(2, "orchestra", "rehearsal", "violin"))
        assert "BAYES_" not in rules(client, "INBOX", 1).replace("BAYES_50", "")
        assert rules(client, "INBOX", 2)
        number = client.search(None, "SUBJECT", '"letter 1"')[1][0].decode()
        assert client._simple_command("MOVE", number, "Junk")[0] == "OK"
        client.select("INBOX")
        number = client.search(None, "SUBJECT", '"letter 2"')[1][0].decode()
        assert client.store(number, "+FLAGS", "($NotJunk)")[0] == "OK"
        # Nobody is told when it has been learned: letters of that kind come until one is known.
        for again in range(10, 40):
            send(server, letter(again, "casino", "jackpot", "roulette"))
            where = "INBOX"
            found = ""
            deadline = time.monotonic() + 30
            while not found and time.monotonic() < deadline:
                for where in ("INBOX", "Junk"):
                    client.select(where)
                    if client.search(None, "SUBJECT", f'"letter {again}"')[1][0]:
                        found = rules(client, where, again)
                        break
            if "BAYES_99" in found:
                break
            time.sleep(0.3)
        else:
            pytest.fail(server.log()[-3000:])


def wait_for(client: imaplib.IMAP4, number: int) -> str:
    """The sequence number of that letter in INBOX."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        client.select("INBOX")
        if found := client.search(None, "SUBJECT", f'"letter {number}"')[1][0].split():
            return str(found[0].decode())
        time.sleep(0.1)
    pytest.fail(f"letter {number} does not come")


def test_who_was_down_when_a_message_came_is_not_taught_by_it_and_what_nobody_judged_teaches_all(
    server: RunningServer, rspamd: Rspamd
) -> None:
    with imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=60) as client:
        client.login(ANN, PASSWORD)
        send(server, b"X-Rspamd-Is: down\r\n" + letter(101, "garden", "tulip", "spade"))
        send(server, letter(102, "garden", "tulip", "rake"))
        wait_for(client, 101)
        wait_for(client, 102)
        (fetched, *_) = client.fetch(wait_for(client, 101), "(BODY.PEEK[])")[1]
        assert isinstance(fetched, tuple)
        assert re.search(rb"(?m)^X-Spam-Judged-By: spamassassin; ", fetched[1])
        forged = fetched[1].replace(b"letter 101", b"letter 103").replace(b"<101@", b"<103@")
        assert client.append("INBOX", "", imaplib.Time2Internaldate(0), forged)[0] == "OK"
        for number in (101, 102, 103):
            assert client._simple_command("MOVE", wait_for(client, number), "Junk")[0] == "OK"
    deadline = time.monotonic() + 30
    while "letter 103" not in rspamd.taught and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [each for each in rspamd.taught if each[-3:] in ("101", "102", "103")] == ["letter 102", "letter 103"]
