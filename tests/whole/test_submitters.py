"""The real server takes mail for others without a login, from the networks that are listed, and from nobody else."""

from __future__ import annotations

import imaplib
import json
import smtplib
import time
from collections.abc import Iterator

import pytest

from tests.whole.running import PASSWORD, RunningServer

EXTRA = """
[smtp.submitters]
"127.0.0.2/32" = "ann@demo.example"
"127.0.0.3/32" = "nobody@demo.example"
[relay]
[relay.routes]
"*" = "smtp://127.0.0.1:1"
"""
"""Nobody listens where it would go: it stays in the queue."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("submitters"), extra=EXTRA)
    made.populate()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def send(
    server: RunningServer, listener: str, address: str, recipient: str, name: str, sender: str = "ann@demo.example"
) -> None:
    message = f"From: {sender}\r\nTo: {recipient}\r\nSubject: {name}\r\nMessage-ID: <{name}@demo.example>\r\n\r\nHello\r\n"
    with smtplib.SMTP("127.0.0.1", server.ports[listener], "printer", 60, (address, 0)) as client:
        client.sendmail(sender, [recipient], message)


@pytest.mark.parametrize("listener", ["submission", "smtp"])
def test_a_listed_client_sends_to_the_world(server: RunningServer, listener: str) -> None:
    send(server, listener, "127.0.0.2", "you@elsewhere.example", f"world-{listener}")
    steps = json.loads(server.mailctl("--json", "queue", "trace", f"world-{listener}@demo.example"))
    first = next(step for step in steps if step["what"] == "queued")
    assert (first["login"], first["client"]) == ("ann@demo.example", "127.0.0.2")


def test_what_it_sends_to_us_says_how_it_came(server: RunningServer) -> None:
    send(server, "submission", "127.0.0.2", "bob@demo.example", "here")
    deadline = time.monotonic() + 60
    with imaplib.IMAP4("127.0.0.1", server.ports["imap"]) as client:
        client.login("bob@demo.example", PASSWORD)
        while True:
            client.select("INBOX")
            found = client.search(None, "SUBJECT", "here")[1][0]
            if found:
                break
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)
        fetched = client.fetch(found.decode(), "(BODY.PEEK[HEADER])")[1][0]
    assert isinstance(fetched, tuple)
    header = bytes(fetched[1]).decode()
    assert "from printer ([127.0.0.2])\r\n\tby localhost with ESMTP id " in header, header


@pytest.mark.parametrize(
    ("listener", "address", "sender", "code"),
    [
        ("submission", "127.0.0.1", "ann@demo.example", 530),
        ("submission", "127.0.0.3", "nobody@demo.example", 530),
        ("submission", "127.0.0.2", "bob@demo.example", 550),
        ("smtp", "127.0.0.1", "ann@demo.example", 550),
        ("smtp", "127.0.0.3", "nobody@demo.example", 550),
        ("smtp", "127.0.0.2", "bob@demo.example", 550),
    ],
)
def test_nobody_else_does(server: RunningServer, listener: str, address: str, sender: str, code: int) -> None:
    with smtplib.SMTP("127.0.0.1", server.ports[listener], "printer", 60, (address, 0)) as client:
        client.ehlo()
        said = client.mail(sender)
        if said[0] == 250:
            said = client.rcpt("you@elsewhere.example")
        assert said[0] == code, said
