"""The mix of IMAP requests that Apache James has published figures of, scaled to one machine.

Theirs (distributed James: Cassandra, S3, OpenSearch, RabbitMQ; 10,000 users, one server of 6 cores): 704 requests/s,
SELECT at login p50 366 ms, APPEND p99 648 ms, ``SEARCH DELETED`` p50 360 ms, 200 kB of heap for a session.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from benchmarks.clients import IMAP
from benchmarks.figures import Figure, percentile, times
from benchmarks.scenarios import message
from benchmarks.servers import PASSWORD, user
from benchmarks.stores import Distributed

__all__ = ["mix"]

FIRST: Final = 5000
"""Number of the first user."""
WIDTH: Final = 8
"""Requests under way at once."""
_THEIRS_PER_CORE: Final = 704 / 6

_SHARES: Final = (
    ("APPEND", 15), ("FETCH FLAGS", 20), ("FETCH headers", 15), ("FETCH body", 10), ("STORE \\Seen", 12),
    ("STORE \\Deleted", 5), ("SEARCH DELETED", 8), ("EXPUNGE", 3), ("SELECT", 7), ("NOOP", 5),
)  # fmt: skip


class _User:
    """One session, and how long each kind of its requests took."""

    def __init__(self, port: int, number: int) -> None:
        self.chance = random.Random(number)
        self.name = user(FIRST + number)
        self.seconds: list[tuple[str, float]] = []
        self.imap = IMAP(port)
        self.lock = threading.Lock()
        self.messages = 0

    def timed(self, name: str, command: bytes, literal: bytes | None = None) -> None:
        start = time.perf_counter()
        self.imap.command(command, literal)
        self.seconds.append((name, time.perf_counter() - start))

    def begin(self) -> None:
        self.timed("LOGIN", f'LOGIN "{self.name}" "{PASSWORD}"'.encode())
        self.timed("SELECT at login", b"SELECT INBOX")

    def request(self) -> None:
        """One, as the shares are."""
        (name,) = self.chance.choices([name for name, _ in _SHARES], [share for _, share in _SHARES])
        number = self.chance.randrange(1, 1 << 20)
        if self.messages == 0 and name not in ("SELECT", "NOOP"):
            name = "APPEND"
        one = self.chance.randrange(1, self.messages + 1) if self.messages else 1
        match name:
            case "APPEND":
                self.timed(name, b"APPEND INBOX", message(number % 500, 4000))
                self.messages += 1
            case "FETCH FLAGS":
                self.timed(name, b"FETCH 1:* (UID FLAGS)")
            case "FETCH headers":
                wanted = b"(UID FLAGS ENVELOPE BODY.PEEK[HEADER.FIELDS (From To Subject Date)])"
                self.timed(name, b"FETCH 1:%d %s" % (min(self.messages, 10), wanted))
            case "FETCH body":
                self.timed(name, b"FETCH %d (UID BODY.PEEK[])" % one)
            case "STORE \\Seen":
                self.timed(name, b"STORE %d +FLAGS (\\Seen)" % one)
            case "STORE \\Deleted":
                self.timed(name, b"STORE %d +FLAGS (\\Deleted)" % one)
            case "SEARCH DELETED":
                self.timed(name, b"SEARCH DELETED")
            case "EXPUNGE":
                self.timed(name, b"EXPUNGE")
                self.messages = 0  # for as long as SELECT has not said how many are left
                self.messages = int(self.imap.command(b"STATUS INBOX (MESSAGES)").split(b"MESSAGES")[1].strip(b" )\r\n"))
            case "SELECT":
                self.timed(name, b"SELECT INBOX")
            case "NOOP":
                self.timed(name, b"NOOP")


def _in_turn(users: list[_User], work: Callable[[_User], object], until: Callable[[int], bool], pause: float = 0.0) -> float:
    """Have users do *work*, `WIDTH` at a time, until that many were done; the seconds it took."""
    done, lock, chance = 0, threading.Lock(), random.Random(7)

    def worker() -> None:
        nonlocal done
        while True:
            with lock:
                if until(done):
                    return
                number, done = done, done + 1
            one = users[number] if number < len(users) and pause < 0 else chance.choice(users)
            with one.lock:
                work(one)
            if pause > 0:
                time.sleep(pause)

    start = time.perf_counter()
    workers = [threading.Thread(target=worker) for _ in range(WIDTH)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return time.perf_counter() - start


def _by_name(users: list[_User]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in users:
        for name, seconds in one.seconds:
            found.setdefault(name, []).append(seconds)
        one.seconds.clear()
    return found


def mix(server: Distributed, scale: float) -> list[Figure]:
    """As many sessions as users, and requests from any of them."""
    count, requests = max(int(600 * scale), 20), max(int(6000 * scale), 200)
    server.inside("people", first=FIRST, count=count)
    port = server.ports["imap"]
    users = [_User(port, number) for number in range(count)]
    half = count // 2
    _in_turn(users[:half], _User.begin, lambda done: done >= half, -1.0)
    _in_turn(users[:half], _User.request, lambda done: done >= half, 0.0)
    time.sleep(1.0)
    memory = server.memory_bytes()
    _by_name(users)
    others = users[half:]
    _in_turn(others, _User.begin, lambda done: done >= len(others), -1.0)
    time.sleep(1.0)
    grown = (server.memory_bytes() - memory) / len(others)
    login = _by_name(users)
    # as many requests a second as theirs for each core that our process has here: one
    _in_turn(users, _User.request, lambda done: done >= requests // 3, WIDTH / _THEIRS_PER_CORE)
    steady = _by_name(users)
    ours, stores = server.cpu_seconds(), server.stores.cpu_seconds()
    seconds = _in_turn(users, _User.request, lambda done: done >= requests, 0.0)
    ours, stores = server.cpu_seconds() - ours, server.stores.cpu_seconds() - stores
    full = _by_name(users)
    for one in users:
        one.imap.socket.close()
    figures = [
        Figure("users, each with a session", count, "users"),
        Figure("requests/s, as many as it takes (8 under way)", requests / seconds, "requests/s"),
        Figure("requests for each CPU second of ours", requests / ours, "requests", "117 (704/s on 6 cores)"),
        Figure("requests for each CPU second of ours and the stores'", requests / (ours + stores), "requests"),
        Figure("memory of a session with its account", grown / 1024, "KiB", "200"),
        *times("LOGIN", login["LOGIN"]),
        *times("SELECT at login", login["SELECT at login"], goal_p50="366 ms"),
    ]
    for name, _ in _SHARES:
        for when, found in (("117 requests/s", steady), ("all it takes", full)):
            if name in found:
                goal = {"APPEND": "p99 648 ms", "SEARCH DELETED": "p50 360 ms"}.get(name, "")
                p50, p99 = (percentile(found[name], part) * 1e3 for part in (0.5, 0.99))
                figures.append(Figure(f"{name} p50 ({when})", p50, "ms", goal if "p50" in goal else ""))
                figures.append(Figure(f"{name} p99 ({when})", p99, "ms", goal if "p99" in goal else ""))
    return figures
