"""Servers with different roles over one store: one only takes mail, the other delivers and serves it."""

from __future__ import annotations

import contextlib
import json
import re
import smtplib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.services.processes import free_port
from tests.whole.running import RunningServer
from tests.whole.test_round_trips import all_bodies, imap

LARGE = b"0123456789abcdef0123456789abcdef\r\n" * 10_000


class RoleServer(RunningServer):
    """A server with some roles; several share the folder of the first."""

    def __init__(self, folder: Path, name: str, *roles: str) -> None:
        own = folder / name
        own.mkdir()
        super().__init__(own)
        self.watched = "imap" if "imap" in roles else "smtp"
        self.ports["metrics"] = free_port()
        text = self.config.read_text().replace('data = "data"', f'data = "{folder / "data"}"')
        text = text.replace("[listen]\n", f'[listen]\nmetrics = ["tcp:{self.ports["metrics"]}:interface=127.0.0.1"]\n')
        self.config.write_text(f'node = "{name}"\nroles = {json.dumps(roles)}\n{text}[delivery]\nlease = "3s"\n')

    def _greets(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports[self.watched]), 1) as connection,
        ):
            connection.settimeout(2)
            return bool(connection.recv(4))
        return False

    def readiness(self) -> dict[str, object]:
        with urlopen(f"http://127.0.0.1:{self.ports['metrics']}/readyz", timeout=10) as answer:
            found: dict[str, object] = json.load(answer)
        return found


@pytest.fixture
def front(tmp_path: Path) -> Iterator[RoleServer]:
    server = RoleServer(tmp_path, "front", "smtp")
    server.populate()
    server.start()
    yield server
    if server.process is not None:
        server.stop()


@pytest.fixture
def back(front: RoleServer, tmp_path: Path) -> Iterator[RoleServer]:
    server = RoleServer(tmp_path, "back", "delivery", "imap")
    yield server
    if server.process is not None:
        server.stop()


def give(server: RoleServer, *subjects: str, body: bytes = b"text\r\n") -> None:
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20) as smtp:
        for subject in subjects:
            message = f"Subject: {subject}\r\n\r\n".encode() + body
            smtp.sendmail("x@elsewhere.example", ["ann@demo.example", "bob@demo.example"], message)


def subjects(server: RoleServer, user: str) -> Counter[str]:
    with imap(server, user) as client:
        found = all_bodies(client, "INBOX")
    return Counter(re.search(rb"^Subject: (.*?)\r$", each, re.M)[1].decode() for each in found)  # type: ignore[index]


def wait_for(server: RoleServer, user: str, count: int, seconds: float = 30) -> Counter[str]:
    deadline = time.monotonic() + seconds
    while True:
        found = subjects(server, user)
        if sum(found.values()) >= count:
            return found
        assert time.monotonic() < deadline, (found, server.log())
        time.sleep(0.2)


def test_one_takes_mail_the_other_delivers_and_serves_it(front: RoleServer, back: RoleServer) -> None:
    back.start()
    assert front.readiness()["roles"] == ["smtp"] and back.readiness()["ready"] is True
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", front.ports["imap"]), 1)
    give(front, "small")
    give(front, "large", body=LARGE)
    for user in ("ann", "bob"):
        assert wait_for(back, user, 2) == Counter(["small", "large"])
    with imap(back, "ann") as client:
        assert any(each.endswith(LARGE) for each in all_bodies(client, "INBOX"))
    assert back.mailctl("queue", "list") == ""


def test_mail_waits_while_nobody_delivers_and_comes_once_however_often_they_die(
    front: RoleServer, back: RoleServer
) -> None:
    sent = [f"m{number}" for number in range(40)]
    give(front, *sent)
    waiting = json.loads(back.mailctl("queue", "list", "--json"))
    assert len(waiting) == 80 and {each["state"] for each in waiting} == {"due"}
    front.kill()  # what was answered 250 is durable
    for _ in range(2):
        back.start()
        back.kill()
    back.start()
    for user in ("ann", "bob"):
        assert wait_for(back, user, 40) == Counter(sent)
    deadline = time.monotonic() + 20
    while back.mailctl("queue", "list"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert subjects(back, "ann") == subjects(back, "bob") == Counter(sent)
    front.start()
    give(front, "after")
    assert wait_for(back, "ann", 41)["after"] == 1
