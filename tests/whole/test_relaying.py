"""Nodes of the role `relay` over one queue, on SQLite and on JetStream with three nodes: whoever is killed at whatever moment,
nothing is lost, and nothing is sent twice but what was on the wire at that moment."""

from __future__ import annotations

import contextlib
import email
import imaplib
import json
import re
import smtplib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.services import running
from tests.services.processes import free_port
from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_round_trips import all_bodies, imap

MESSAGES = 120
PER_CONNECTION = 3
"""Conversations at a time that a destination begins with: what a killed node can have on the wire."""


class Node(RunningServer):
    """One node of a server at which mail is submitted; all share one data folder and one queue."""

    def __init__(self, folder: Path, name: str, roles: list[str], messaging: str, receiver: int) -> None:
        own = folder / name
        own.mkdir()
        super().__init__(own)
        self.metrics = free_port()
        kept = {role: port for role, port in self.ports.items() if role in roles}
        listen = "".join(f'{role} = ["tcp:{port}:interface=127.0.0.1"]\n' for role, port in kept.items())
        storage = f'[storage]\nmessaging = "{messaging}"\n' if messaging else ""
        self.config.write_text(
            f'hostname = "sender.example"\nnode = "{name}"\nroles = {json.dumps(roles)}\ndata = "{folder / "data"}"\n'
            f'[listen]\n{listen}metrics = ["tcp:{self.metrics}:interface=127.0.0.1"]\n'
            f"[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n{storage}"
            f'[dns]\nservers = ["127.0.0.1:1"]\n[relay]\nconnections = {PER_CONNECTION}\nretry = ["1s"]\nlease = "30s"\n'
            f'[relay.routes]\n"demo.example" = "smtp://127.0.0.1:{receiver}"\n'
        )

    def _greets(self) -> bool:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=10) as answer:
            return bool(json.load(answer)["ready"])
        return False


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningServer]:
    folder = tmp_path / "receiver"
    folder.mkdir()
    server = RunningServer(folder)
    server.populate()
    server.start()
    yield server
    server.stop()


def submit(node: Node, numbers: range) -> None:
    with smtplib.SMTP("127.0.0.1", node.ports["submission"], timeout=60) as smtp:
        smtp.login("eve@sender.example", PASSWORD)
        for number in numbers:
            smtp.sendmail("eve@sender.example", ["ann@demo.example"], f"Subject: m{number}\r\n\r\ntext\r\n")


def arrived(receiver: RunningServer) -> Counter[str]:
    with imap(receiver, "ann") as client:
        found = all_bodies(client, "INBOX")
    return Counter(re.search(rb"^Subject: (m\d+)\r$", each, re.M)[1].decode() for each in found)  # type: ignore[index]


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("queue", ["sqlite", "nats"])
def test_workers_of_the_relay_are_killed(tmp_path: Path, receiver: RunningServer, queue: str) -> None:
    messaging = running.nats_cluster(3).url() if queue == "nats" else ""
    front = Node(tmp_path, "front", ["submission"], messaging, receiver.ports["smtp"])
    front.mailctl("domain", "add", "sender.example")
    front.mailctl("user", "add", "eve@sender.example", "--password-stdin", given=PASSWORD + "\n")
    workers = [Node(tmp_path, f"relay{n}", ["relay"], messaging, receiver.ports["smtp"]) for n in range(2)]
    kills = 0
    try:
        front.start()
        for worker in workers:
            worker.start()
        for part in range(4):
            submit(front, range(part * MESSAGES // 4, (part + 1) * MESSAGES // 4))
            victim = workers[part % 2]
            victim.kill()
            kills += 1
            victim.start()
        deadline = time.monotonic() + 240
        while len(found := arrived(receiver)) < MESSAGES or front.mailctl("queue", "list", "--use", "outbound"):
            assert time.monotonic() < deadline, (len(found), front.mailctl("queue", "list"), workers[0].log()[-3000:])
            time.sleep(1)
    finally:
        for node in (front, *workers):
            if node.process is not None:
                node.stop()
    found = arrived(receiver)
    assert set(found) == {f"m{number}" for number in range(MESSAGES)}
    again = sum(found.values()) - MESSAGES
    assert again <= kills * PER_CONNECTION, found.most_common(5)


def test_who_waits_is_warned_in_words_that_a_mail_program_reads(tmp_path: Path) -> None:
    node = Node(tmp_path, "all", ["submission", "imap", "delivery", "relay"], "", free_port())
    text = node.config.read_text()
    node.config.write_text(text.replace('retry = ["1s"]\n', 'retry = ["1s"]\nwarn = "1s"\n'))
    node.mailctl("domain", "add", "sender.example")
    node.mailctl("user", "add", "eve@sender.example", "--password-stdin", given=PASSWORD + "\n")
    node.start()
    try:
        submit(node, range(1))
        deadline = time.monotonic() + 120
        with imaplib.IMAP4("127.0.0.1", node.ports["imap"]) as client:
            client.login("eve@sender.example", PASSWORD)
            while not (found := all_bodies(client, "INBOX")):
                assert time.monotonic() < deadline, node.log()[-3000:]
                time.sleep(0.3)
    finally:
        node.stop()
    warning = email.message_from_bytes(found[0])
    assert warning["Return-Path"] == "<>" and warning["Auto-Submitted"].startswith("auto-replied")
    assert warning.get_content_type() == "multipart/report" and warning.get_param("report-type") == "delivery-status"
    parts: Any = warning.get_payload()  # of the email package, whose types do not tell a multipart from a text
    text_part, status, original = parts
    about = [str(each) for each in status.get_payload()]
    assert "Action: delayed" in about[1] and "ann@demo.example" in about[1] and "Will-Retry-Until:" in about[1]
    assert "ann@demo.example" in text_part.get_payload(decode=True).decode()
    assert "Subject: m0" in str(original)


def test_a_relay_needs_no_listener_and_says_when_its_queue_is_away(tmp_path: Path) -> None:
    node = Node(tmp_path, "relay", ["relay"], "", 1)
    node.start()
    try:
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", node.ports["smtp"]), 1)
        with urlopen(f"http://127.0.0.1:{node.metrics}/metrics", timeout=10) as answer:
            assert b'relay_in_flight{node="relay"} 0' in answer.read()
    finally:
        node.stop()
