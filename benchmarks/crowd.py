"""Scenarios with many senders or accounts: one hot account, a thousand accounts, IDLE across nodes, an import next door."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from benchmarks.clients import IMAP, SMTP
from benchmarks.figures import Cost, Figure, measured, percentile, times
from benchmarks.scenarios import message
from benchmarks.senders import send_all
from benchmarks.servers import PASSWORD, user
from benchmarks.stores import Distributed

__all__ = ["contend", "hot", "idle", "import_beside", "many"]

SENDERS: Final = 64
WARM_SECONDS: Final = 120.0
"""How long the stores work before one hot account is measured: the compilers of Cassandra take as much as its work at first."""
BY_LMTP: Final = "whole server by LMTP, clients on the same cores"


def _inside(found: dict[str, Any], name: str) -> Cost:
    return Cost(**found[name])


def _bodies() -> list[bytes]:
    return [message(number, 4000) + b".\r\n" for number in range(200)]


def _by_lmtp(server: Distributed, accounts: int, first: int, count: int) -> tuple[Cost, Figure]:
    """Deliveries to users *first* and on, in turn, by `SENDERS` connections; and what the senders took."""
    senders = 0.0
    names = [user(first + number).encode() for number in range(accounts)]

    def send(how_many: int) -> None:
        nonlocal senders
        port, bodies, start = server.ports["lmtp"], _bodies(), time.process_time()
        send_all(port, SENDERS, lambda number: names[number % accounts], bodies, how_many, lmtp=True)
        senders = time.process_time() - start

    send(max(accounts, count // 10))  # accounts are opened, statements prepared
    cost = measured(count, server.cpu_seconds, server.stores.cpu_seconds, lambda: send(count))
    return cost, Figure(f"{BY_LMTP}: the senders' CPU", senders / count * 1e6, "us each")


def hot(server: Distributed, scale: float) -> list[Figure]:
    """One account, 64 senders; and what of two cores each part takes."""
    server.inside("warm", seconds=WARM_SECONDS * scale, width=SENDERS)
    found = server.inside("deliveries", accounts=1, count=int(6000 * scale), width=SENDERS)
    goal = "1,000/s on three nodes"
    wide = _inside(server.inside("deliveries", accounts=1, count=int(6000 * scale), width=2 * SENDERS), "whole")
    by_lmtp, senders = _by_lmtp(server, 1, 1, int(2500 * scale))
    return [
        *_inside(found, "commits").figures("account alone, commits (rows lie there)", goal=goal),
        *_inside(found, "whole").figures("account alone, whole deliveries (parse, row, commit)", goal=goal),
        *wide.figures(f"the same, {2 * SENDERS} producers"),
        *by_lmtp.figures(BY_LMTP),
        senders,
    ]


def many(server: Distributed, scale: float) -> list[Figure]:
    """A thousand accounts, one message after the other."""
    accounts = max(int(1000 * scale), 10)
    found = server.inside("deliveries", accounts=accounts, count=int(6000 * scale), width=SENDERS)
    users = max(int(300 * scale), 10)
    server.inside("people", first=1000, count=users)
    by_lmtp, senders = _by_lmtp(server, users, 1000, int(2000 * scale))
    return [
        Figure("accounts, inside", accounts, "accounts"),
        *_inside(found, "whole").figures("accounts alone, whole deliveries"),
        Figure("accounts, whole server", users, "accounts"),
        *by_lmtp.figures(BY_LMTP),
        senders,
    ]


def idle(server: Distributed, scale: float) -> list[Figure]:
    """A message that is delivered on one node, and a client in IDLE on another one."""
    here, there = (server.cluster.port(name, at) for name, at in (("lmtp", 0), ("imap", -1)))
    count = max(int(200 * scale), 10)
    seen: list[float] = []
    with IMAP(there, user(2), PASSWORD) as watcher, SMTP(here, lmtp=True) as sender:
        watcher.command(b"SELECT INBOX")
        watcher.socket.sendall(b"i IDLE\r\n")
        watcher.line()

        def watch() -> None:
            while len(seen) < count:
                if watcher.line().rstrip().endswith(b"EXISTS"):
                    seen.append(time.perf_counter())

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        begun, ended = [], []
        for number in range(count):
            body = message(number, 4000)
            begun.append(time.perf_counter())
            sender.send(user(2), body)
            ended.append(time.perf_counter())
            while len(seen) <= number and time.perf_counter() < ended[-1] + 10:
                time.sleep(0.0005)
            time.sleep(0.02)
        watching.join(10)
    goal = "50 ms p50"
    return [
        *times("from the answer 250 to EXISTS on the other node", [b - a for a, b in zip(ended, seen, strict=True)], goal_p50=goal),
        *times("from MAIL FROM to EXISTS on the other node", [b - a for a, b in zip(begun, seen, strict=True)], goal_p50=goal),
        *times("the delivery itself", [b - a for a, b in zip(begun, ended, strict=True)]),
    ]


def contend(server: Distributed, scale: float) -> list[Figure]:
    """Six sessions on two nodes change flags of one mailbox without a pause; then three of one node alone."""
    name, sessions = user(6), 6
    with IMAP(server.cluster.port("imap", 0), name, PASSWORD) as imap:
        for number in range(sessions):
            imap.command(b"APPEND INBOX", message(number, 1000))
    figures: list[Figure] = []
    seconds = max(20.0 * scale, 3.0)
    for what, at in (("six sessions on two nodes", (0, -1)), ("three sessions on one", (0,))):
        taken: list[float] = []
        failed = [0]
        ends = time.perf_counter() + seconds + 3.0

        def change(number: int, at: tuple[int, ...] = at, taken: list[float] = taken, ends: float = ends) -> None:
            with IMAP(server.cluster.port("imap", at[number % len(at)]), name, PASSWORD) as imap:
                imap.command(b"SELECT INBOX")
                turn = 0
                while (start := time.perf_counter()) < ends:
                    sign = b"-" if turn % 2 else b"+"
                    imap.command(b"STORE %d %sFLAGS (k%d)" % (number + 1, sign, number))
                    if start > ends - seconds:  # the first seconds are for nodes to find out who contends
                        taken.append(time.perf_counter() - start)
                    turn += 1

        def safely(number: int, failed: list[int] = failed) -> None:
            try:
                change(number)
            except Exception:  # a tagged NO, or a connection that was ended: what was asked for has not been had
                failed[0] += 1

        threads = [threading.Thread(target=safely, args=(number,)) for number in range(3 * len(at))]
        ours, stores = server.cpu_seconds(), server.stores.cpu_seconds()
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        ours, stores = server.cpu_seconds() - ours, server.stores.cpu_seconds() - stores
        figures += [
            Figure(f"{what}: changes of flags", len(taken) / seconds, "changes/s"),
            *times(f"{what}: a change", taken),
            Figure(f"{what}: our CPU and the stores'", (ours + stores) / max(len(taken), 1) * 1e6, "us each"),
            Figure(f"{what}: sessions that were refused or ended", failed[0], "sessions"),
        ]
    return figures


class _Neighbour:
    """Reads fifty messages and appends one, over and over, with pauses; how long each took."""

    def __init__(self, server: Distributed, name: str) -> None:
        self.reads: list[float] = []
        self.appends: list[float] = []
        self._imap = IMAP(server.ports["imap"], name, PASSWORD)
        for number in range(100):
            self._imap.command(b"APPEND INBOX", message(number, 2000))
        self._imap.command(b"SELECT INBOX")

    def work(self, seconds: float) -> None:
        self.reads.clear()
        self.appends.clear()
        ends, number = time.perf_counter() + seconds, 0
        while time.perf_counter() < ends:
            start = time.perf_counter()
            self._imap.command(b"FETCH 1:50 (UID FLAGS ENVELOPE)")
            between = time.perf_counter()
            self._imap.command(b"APPEND Trash", message(number, 2000))
            self.reads.append(between - start)
            self.appends.append(time.perf_counter() - between)
            number += 1
            time.sleep(0.02)

    def close(self) -> None:
        self._imap.socket.close()


def import_beside(server: Distributed, scale: float) -> list[Figure]:
    """What an import by one account does to another one's answers."""
    neighbour, seconds = _Neighbour(server, user(4)), max(12.0 * scale, 2.0)
    neighbour.work(seconds / 4)
    neighbour.work(seconds)
    alone = list(neighbour.reads), list(neighbour.appends)
    prepared = [message(number, 2000) for number in range(100)]
    imported = 0
    ended = threading.Event()

    def import_() -> None:
        nonlocal imported
        with IMAP(server.ports["imap"], user(3), PASSWORD) as imap:
            while not ended.is_set():
                commands = b"".join(
                    b"q%d APPEND INBOX {%d+}\r\n%s\r\n" % (n, len(prepared[n]), prepared[n]) for n in range(100)
                )
                imap.socket.sendall(commands)
                imap.until(b"q99")
                imported += 100

    importing = threading.Thread(target=import_, daemon=True)
    importing.start()
    time.sleep(1.0)
    start, before = time.perf_counter(), imported
    neighbour.work(seconds)
    rate = (imported - before) / (time.perf_counter() - start)
    ended.set()
    importing.join(30)
    beside = neighbour.reads, neighbour.appends
    neighbour.close()
    figures = [Figure("import by the other account meanwhile", rate, "messages/s")]
    for name, without, with_it in zip(("FETCH of 50", "APPEND"), alone, beside, strict=True):
        figures += times(f"{name}, alone", without) + times(f"{name}, beside the import", with_it)
        ratio = percentile(with_it, 0.99) / percentile(without, 0.99)
        figures.append(Figure(f"{name}: p99 beside the import / alone", ratio, "times", "2"))
    return figures
