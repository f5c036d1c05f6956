"""Marketing mail through two real servers: it leaves with a link of one click, and who follows it gets nothing more."""

from __future__ import annotations

import email
import imaplib
import json
import re
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.services.processes import free_port
from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_round_trips import all_bodies


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningServer]:
    folder = tmp_path / "receiver"
    folder.mkdir()
    server = RunningServer(folder)
    server.populate()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sender(tmp_path: Path, receiver: RunningServer) -> Iterator[RunningServer]:
    folder, port = tmp_path / "sender", free_port()
    folder.mkdir()
    server = RunningServer(
        folder,
        extra=(
            f'[dns]\nservers = ["127.0.0.1:1"]\n[relay]\nunsubscribe = "https://news.example/unsubscribe"\n'
            f'[relay.routes]\n"demo.example" = "smtp://127.0.0.1:{receiver.ports["smtp"]}"\n'
            '[relay.pools.main]\naddresses = { "127.0.0.1" = "mx.sender.example" }\n'
            '[relay.pools.bulk]\naddresses = { "127.0.0.9" = "news.sender.example" }\n'
            '[relay.streams.normal]\npools = ["main"]\n'
            '[relay.streams.marketing]\npools = ["bulk"]\nmatch = { sender = ["news@sender.example"] }\n'
        ),
    )
    text = server.config.read_text()
    server.config.write_text(text.replace("[listen]\n", f'[listen]\nhttp = ["tcp:{port}:interface=127.0.0.1"]\n'))
    server.ports["http"] = port
    server.mailctl("domain", "add", "sender.example")
    for name in ("news", "eve"):
        server.mailctl("user", "add", f"{name}@sender.example", "--password-stdin", given=PASSWORD + "\n")
    server.start()
    yield server
    server.stop()


def submit(server: RunningServer, name: str, subject: str) -> None:
    address = f"{name}@sender.example"
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=60) as smtp:
        smtp.login(address, PASSWORD)
        smtp.sendmail(address, ["ann@demo.example"], f"From: {address}\r\nSubject: {subject}\r\n\r\ntext\r\n")


def inbox(server: RunningServer, user: str, count: int) -> list[email.message.Message]:
    """What is there once *count* messages are."""
    deadline = time.monotonic() + 120
    while True:
        with imaplib.IMAP4("127.0.0.1", server.ports["imap"]) as client:
            client.login(user, PASSWORD)
            found = all_bodies(client, "INBOX")
        if len(found) >= count:
            return [email.message_from_bytes(each) for each in found]
        assert time.monotonic() < deadline, server.log()[-2000:]
        time.sleep(0.3)


@pytest.mark.timeout(600)
def test_a_click_ends_marketing_mail_and_nothing_else(sender: RunningServer, receiver: RunningServer) -> None:
    submit(sender, "news", "offer 1")
    submit(sender, "eve", "hello 1")
    found = {str(each["Subject"]): each for each in inbox(receiver, "ann@demo.example", 2)}
    offer, hello = found["offer 1"], found["hello 1"]
    assert "127.0.0.9" in offer.get_all("Received", [])[0] and "127.0.0.1" in hello.get_all("Received", [])[0]
    assert str(offer["Return-Path"]).startswith("<b+") and hello["Return-Path"] == "<eve@sender.example>"
    assert offer["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click" and "List-Unsubscribe" not in hello
    signed = " ".join(re.sub(r"\s+", "", str(each)) for each in offer.get_all("DKIM-Signature", []))
    assert "list-unsubscribe:" in signed.lower() and len(hello.get_all("DKIM-Signature", [])) == 2

    link = re.search(r"<(https://news\.example/unsubscribe[^>]*)>", str(offer["List-Unsubscribe"]).replace("\r\n", ""))
    assert link is not None
    path = link[1].removeprefix(f"https://{urlsplit(link[1]).netloc}")
    here = f"http://127.0.0.1:{sender.ports['http']}{path}"
    with urlopen(here, timeout=30) as page:
        assert b"<form" in page.read()
    with urlopen(Request(here, b"List-Unsubscribe=One-Click"), timeout=30) as page:
        assert page.status == 200

    submit(sender, "news", "offer 2")
    submit(sender, "eve", "hello 2")
    (bounce,) = inbox(sender, "news@sender.example", 1)
    assert bounce.get_content_type() == "multipart/report" and "unsubscribed" in bounce.as_string()
    assert {str(each["Subject"]) for each in inbox(receiver, "ann@demo.example", 3)} == {"offer 1", "hello 1", "hello 2"}
    (row,) = json.loads(sender.mailctl("suppression", "list", "sender.example", "--json"))
    assert (row["address"], row["source"]) == ("ann@demo.example", "unsubscribe")
