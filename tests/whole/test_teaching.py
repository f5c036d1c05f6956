"""The real server: what a user moves by IMAP, SpamAssassin has learned for the next message."""

from __future__ import annotations

import imaplib
import re
import smtplib
import time
from collections.abc import Iterator

import pytest

from tests.services.spamd import spamd
from tests.whole.running import PASSWORD, RunningServer

ANN = "ann@demo.example"


def letter(number: int, *words: str) -> bytes:
    text = "\r\n".join(" ".join(f"{word}{line}" for word in words) for line in range(20))
    return (
        f"Date: Tue, 24 Nov 2026 22:00:00 +0000\r\nFrom: Carl <carl@far.example>\r\nTo: Ann <{ANN}>\r\n"
        f"Subject: letter {number}\r\nMessage-ID: <{number}@far.example>\r\n\r\n{text}\r\n"
    ).encode()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(
        tmp_path_factory.mktemp("teaching"),
        extra='[dns]\nservers = ["127.0.0.1:9"]\n[filters]\ntrusted = []\norigin = false\ngreeting = "0s"\nrates = []\n'
        f'reject_score = 0\nspamassassin = {{ address = "{spamd().address}" }}\n',
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
