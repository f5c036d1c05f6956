"""Scenarios of size: a million messages in one mailbox, a POP3 mailbox that is drained, changes without end."""

from __future__ import annotations

import random
import time

from benchmarks.clients import IMAP, POP3
from benchmarks.figures import Cost, Figure, times
from benchmarks.scenarios import message
from benchmarks.servers import PASSWORD, user
from benchmarks.stores import Distributed
from benchmarks.tracing import Tracer

__all__ = ["changes", "drain", "million"]

_ENVELOPES = b"(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"


def _timed(imap: IMAP, command: bytes, literal: bytes | None = None) -> float:
    start = time.perf_counter()
    imap.command(command, literal)
    return time.perf_counter() - start


def _cold(server: Distributed, name: str) -> tuple[IMAP, float, float]:
    """On a node that has just begun, and served another account: a session, seconds of LOGIN and of SELECT."""
    node = next(iter(server.cluster.nodes.values()))
    node.stop()
    node.start()
    for _ in range(5):
        with IMAP(server.ports["imap"], user(1), PASSWORD) as other:
            other.command(b"SELECT INBOX")
    imap = IMAP(server.ports["imap"])
    login = _timed(imap, f'LOGIN "{name}" "{PASSWORD}"'.encode())
    return imap, login, _timed(imap, b"SELECT INBOX")


def _everyday(server: Distributed, name: str, messages: int, repeat: int) -> dict[str, list[float]]:
    """What is done in a mailbox of *messages*, seconds each."""
    chance = random.Random(1)
    found: dict[str, list[float]] = {}
    with IMAP(server.ports["imap"], name, PASSWORD) as imap:
        imap.command(b"SELECT INBOX")
        for _ in range(repeat):
            at = chance.randrange(1, messages - 50)
            found.setdefault("FETCH of 50 in a row", []).append(_timed(imap, b"FETCH %d:%d %s" % (at, at + 49, _ENVELOPES)))
            some = b",".join(b"%d" % number for number in sorted(chance.sample(range(1, messages), 50)))
            found.setdefault("FETCH of 50 from anywhere", []).append(_timed(imap, b"FETCH %s %s" % (some, _ENVELOPES)))
            at = chance.randrange(1, messages)
            found.setdefault("STORE of a flag", []).append(_timed(imap, b"STORE %d +FLAGS.SILENT (\\Flagged)" % at))
            found.setdefault("APPEND", []).append(_timed(imap, b"APPEND INBOX", message(at, 1000)))
    return found


def million(server: Distributed, scale: float) -> list[Figure]:
    """A mailbox of a million messages beside one of a thousand."""
    count, rows = max(int(1_000_000 * scale), 2000), max(int(100_000 * scale), 1000)
    filled = server.inside("fill", address=user(5), count=count, rows=rows)
    server.inside("fill", address=user(6), count=1000, rows=1000)
    imap, login, select = _cold(server, user(5))
    again = [_timed(imap, b"SELECT INBOX") for _ in range(20)]
    imap.socket.close()
    _, small_login, small_select = _cold(server, user(6))
    large = _everyday(server, user(5), count, 60)
    small = _everyday(server, user(6), 1000, 60)
    figures = [
        Figure("messages in the mailbox", count, "messages"),
        Figure("of which rows of their own", rows, "rows"),
        Figure("filled in", filled["seconds"], "s"),
        Figure("LOGIN cold", login * 1e3, "ms"),
        Figure("SELECT cold", select * 1e3, "ms", "1 s"),
        Figure("LOGIN cold, a mailbox of 1,000", small_login * 1e3, "ms"),
        Figure("SELECT cold, a mailbox of 1,000", small_select * 1e3, "ms"),
        *times("SELECT warm", again),
    ]
    for name, seconds in large.items():
        figures += times(name, seconds, goal_p50="50 ms" if "FETCH" in name else "as with a thousand")
        figures += times(f"{name}, a mailbox of 1,000", small[name])
    megabyte = 1024 * 1024
    return [
        *figures,
        Figure("largest partition of rows (cells as given)", filled["largest_bucket"] / megabyte, "MB", "100 MB"),
        Figure("partition of the log, untrimmed (a week's entries)", filled["log_octets"] / megabyte, "MB", "100 MB"),
        *_tombstones(server, filled["account"]),
    ]


def _tombstones(server: Distributed, account: str) -> list[Figure]:
    """The most that any read of *account* meets."""
    with Tracer(server.storage.metadata) as tracer:
        return [
            Figure(f"tombstones met: {name}", met, "", "1,000") for name, met in tracer.tombstones(account).items()
        ]


def drain(server: Distributed, scale: float) -> list[Figure]:
    """POP3 fetches and deletes everything; afterwards the mailbox is as quick as one that was never full."""
    count = max(int(20_000 * scale), 200)
    filled = server.inside("fill", address=user(7), count=count, rows=count)
    pop = POP3(server.ports["pop3"], user(7), PASSWORD)
    start = time.perf_counter()
    pop.drain(count)
    read = time.perf_counter() - start
    start = time.perf_counter()
    for first in range(1, count + 1, 500):
        numbers = range(first, min(first + 500, count + 1))
        pop.socket.sendall(b"".join(b"DELE %d\r\n" % number for number in numbers))
        for _ in numbers:
            pop.line()
    deleted = time.perf_counter() - start
    start = time.perf_counter()
    pop.command(b"QUIT")
    ended = time.perf_counter() - start
    pop.socket.close()
    with IMAP(server.ports["imap"], user(7), PASSWORD) as imap:
        after = [_timed(imap, b"SELECT INBOX") for _ in range(20)]
        appended = [_timed(imap, b"APPEND INBOX", message(number, 1000)) for number in range(50)]
    return [
        Figure("messages drained", count, "messages"),
        Figure("RETR", count / read, "messages/s"),
        Figure("DELE", count / deleted, "messages/s"),
        Figure("QUIT, which expunges them", ended * 1e3, "ms"),
        *times("SELECT afterwards", after),
        *times("APPEND afterwards", appended),
        *_tombstones(server, filled["account"]),
    ]


def changes(server: Distributed, scale: float) -> list[Figure]:
    """Fifty thousand messages marked as read; then one flag of one message, over and over."""
    count, flags = max(int(50_000 * scale), 500), max(int(5000 * scale), 100)
    server.inside("fill", address=user(3), count=count, rows=min(count, 1000))
    with IMAP(server.ports["imap"], user(3), PASSWORD) as imap:
        imap.command(b"SELECT INBOX")
        marked = _timed(imap, b"STORE 1:* +FLAGS.SILENT (\\Seen)")
        unseen = _timed(imap, b"SEARCH UNSEEN")
    found = server.inside("flagging", address=user(3), count=flags)
    tenths = [Cost(**tenth) for tenth in found["tenths"]]
    return [
        Figure("messages marked as read by one STORE", count, "messages"),
        Figure("that STORE", marked * 1e3, "ms"),
        Figure("SEARCH UNSEEN right after", unseen * 1e3, "ms"),
        Figure("changes of one flag", flags, "changes"),
        Figure("the first tenth of them, each", tenths[0].seconds / tenths[0].operations * 1e3, "ms"),
        Figure("the last tenth of them, each", tenths[-1].seconds / tenths[-1].operations * 1e3, "ms", "as the first"),
        Figure("our CPU, the first tenth", tenths[0].ours / tenths[0].operations * 1e6, "us each"),
        Figure("our CPU, the last tenth", tenths[-1].ours / tenths[-1].operations * 1e6, "us each", "as the first"),
        *_tombstones(server, found["account"]),
    ]
