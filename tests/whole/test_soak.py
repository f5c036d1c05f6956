"""The real server under mixed load, with workers that are killed: what was acknowledged is there, and the account checks out."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import random
import signal
import smtplib
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_workers import both_are_there, children


class Load:
    """Deliverers, readers and an expunger, each in a thread, until told to stop."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.ends = threading.Event()
        self.acknowledged: set[str] = set()
        self.unsure: set[str] = set()
        self.expunged: set[str] = set()
        self.defects: list[str] = []
        self._lock = threading.Lock()

    def deliver(self, number: int) -> None:
        """By SMTP and LMTP in turn; a message whose answer was cut off may be there or not."""
        chance = random.Random(self.seed * 1000 + number)
        count = 0
        while not self.ends.is_set():
            lmtp = chance.random() < 0.5
            token = ""
            with contextlib.suppress(OSError, smtplib.SMTPException):
                kind = smtplib.LMTP if lmtp else smtplib.SMTP
                with kind("127.0.0.1", self.server.ports["lmtp" if lmtp else "smtp"], timeout=20) as peer:
                    for _ in range(chance.randrange(1, 10)):
                        count += 1
                        token = f"t{self.seed}-{number}-{count}-"
                        with self._lock:
                            self.unsure.add(token)
                        body = "x" * chance.choice([10, 1000, 1000, 100_000])
                        peer.sendmail("x@elsewhere.example", ["ann@demo.example"], f"Subject: {token}\r\n\r\n{body}\r\n")
                        with self._lock:
                            self.acknowledged.add(token)
                            self.unsure.discard(token)
                        if self.ends.is_set():
                            break

    def read(self, number: int) -> None:
        """Looks, flags and files; what it is told must hold together."""
        chance = random.Random(self.seed * 2000 + number)
        while not self.ends.is_set():
            try:
                connection = imaplib.IMAP4("127.0.0.1", self.server.ports["imap"], timeout=20)
                connection.login("ann@demo.example", PASSWORD)
                connection.select("INBOX")
                for _ in range(20):
                    typ, data = connection.uid("SEARCH", "ALL")
                    uids = data[0].split() if data and data[0] else []
                    assert typ == "OK" and uids == sorted(set(uids), key=int)
                    if uids:
                        uid = chance.choice(uids).decode()
                        connection.uid("STORE", uid, "+FLAGS", chance.choice(["\\Seen", "\\Flagged", "$x"]))
                        connection.uid("FETCH", uid, "(FLAGS ENVELOPE BODY.PEEK[])")
                        if chance.random() < 0.1:
                            connection.uid("MOVE", uid, "Archive")
                    connection.noop()
                    if self.ends.is_set():
                        break
                connection.logout()
            except (OSError, imaplib.IMAP4.abort):
                time.sleep(0.05)  # a worker was killed
            except Exception as error:
                with self._lock:
                    self.defects.append(repr(error))
                return

    def kill(self, every: float) -> None:
        """Kills one of the two workers now and then."""
        chance = random.Random(self.seed)
        while not self.ends.wait(every):
            assert self.server.process is not None
            alive = children(self.server.process.pid)
            if len(alive) == 2:
                os.kill(chance.choice(alive), signal.SIGKILL)

    def run(self, seconds: float, kill_every: float) -> None:
        threads = [threading.Thread(target=self.deliver, args=(number,)) for number in range(3)]
        threads += [threading.Thread(target=self.read, args=(number,)) for number in range(2)]
        threads.append(threading.Thread(target=self.kill, args=(kill_every,)))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.ends.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def subjects(server: RunningServer) -> list[str]:
    """The tokens of all messages, wherever they were filed."""
    connection = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    connection.login("ann@demo.example", PASSWORD)
    found = []
    for name in ("INBOX", "Archive"):
        _, count = connection.select(name, readonly=True)
        if count != [b"0"]:
            _, answers = connection.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
            found += [a[1].decode().partition(":")[2].strip() for a in answers if isinstance(a, tuple)]
    connection.logout()
    return found


def soak(folder: Path, seconds: float, kill_every: float) -> None:
    server = RunningServer(folder, workers=2)
    server.populate()
    server.start()
    try:
        both_are_there(server)
        load = Load(server, 1)
        load.run(seconds, kill_every)
        assert not load.defects, load.defects
        both_are_there(server, 90)
        wait_until_quiet(server)
        there = subjects(server)
        assert len(load.acknowledged) > 20
        assert not load.acknowledged - set(there), "acknowledged and not there"
        assert len(there) == len(set(there)), "there twice"
        assert set(there) <= load.acknowledged | load.unsure
        report = json.loads(server.mailctl("account", "check", "ann@demo.example", "--deep", "--json"))
        assert report["result"] == "ok", report
    finally:
        server.stop()


def wait_until_quiet(server: RunningServer) -> None:
    """The restarted worker answers too."""
    deadline = time.monotonic() + 30
    good = 0
    while good < 6:
        assert time.monotonic() < deadline, server.log()
        try:
            with socket.create_connection(("127.0.0.1", server.ports["imap"]), 5) as connection:
                connection.settimeout(5)
                good = good + 1 if connection.recv(4) == b"* OK" else 0
        except OSError:
            good = 0
        time.sleep(0.05)


def test_a_short_soak(tmp_path: Path) -> None:
    soak(tmp_path, seconds=10, kill_every=4)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_long_soak(tmp_path: Path) -> None:
    soak(tmp_path, seconds=float(os.environ.get("SOAK_SECONDS", "600")), kill_every=20)
