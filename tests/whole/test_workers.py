"""Several processes serve one store: all see each other's changes, and one may die."""

from __future__ import annotations

import os
import signal
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_round_trips import all_bodies, imap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path, workers=2)
    running.populate()
    running.start()
    both_are_there(running)
    yield running
    running.stop()


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def both_are_there(server: RunningServer, seconds: float = 20) -> None:
    """A worker that dies again and again is started later each time, up to a minute."""
    assert server.process is not None
    deadline = time.monotonic() + seconds
    while len(children(server.process.pid)) < 2:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def deliver(server: RunningServer, subject: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=10) as smtp:
                smtp.sendmail("x@elsewhere.example", ["ann@demo.example"], f"Subject: {subject}\r\n\r\n".encode())
            return
        except (OSError, smtplib.SMTPException):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_every_session_in_every_worker_hears_of_new_mail(server: RunningServer) -> None:
    clients = []
    for _ in range(8):
        client = IMAPClient("127.0.0.1", server.ports["imap"], ssl=False)
        client.login("ann@demo.example", PASSWORD)
        client.select_folder("INBOX")
        client.idle()
        clients.append(client)
    deliver(server, "one")
    for client in clients:
        heard: list[tuple[object, ...]] = []
        deadline = time.monotonic() + 10
        while (1, b"EXISTS") not in heard and time.monotonic() < deadline:
            heard += client.idle_check(timeout=1)
        assert (1, b"EXISTS") in heard
        client.idle_done()
        client.logout()


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_dies_takes_nothing_along(server: RunningServer, which: int) -> None:
    for number in range(5):
        deliver(server, f"before {number}")
    assert server.process is not None
    os.kill(sorted(children(server.process.pid))[which], signal.SIGKILL)
    for number in range(5):
        deliver(server, f"after {number}")
    both_are_there(server)
    connection = imap(server)
    subjects = [body.partition(b"Subject: ")[2].split(b"\r")[0].decode() for body in all_bodies(connection, "INBOX")]
    connection.logout()
    assert subjects[:5] == [f"before {number}" for number in range(5)]
    # a try whose answer was cut off may have been delivered, and was sent again
    assert list(dict.fromkeys(subjects[5:])) == [f"after {number}" for number in range(5)]
