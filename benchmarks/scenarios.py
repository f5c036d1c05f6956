"""What is measured. Each scenario prepares, then times a number of operations; the server's CPU time is read around it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.clients import IMAP, POP3, SMTP
from benchmarks.servers import PASSWORD, Server, user

__all__ = ["SCENARIOS", "Measured", "Scenario", "fill", "message"]

_WORDS = (
    "meeting budget report invoice holiday server release garden music weather station paper number "
    "question answer project deadline review coffee morning evening train ticket window letter"
).split()
HEADERS = b"From To Cc Subject Date Message-ID References In-Reply-To Content-Type Reply-To"


def message(number: int, size: int = 5000) -> bytes:
    """A plain message of about *size* octets, CRLF line ends, no line that begins with a dot."""
    chance = random.Random(number)
    lines = [
        f"From: Sender {number % 97} <sender{number % 97}@elsewhere.example>",
        f"To: {user()}",
        f"Subject: {' '.join(chance.choices(_WORDS, k=5))} {number}",
        f"Date: Tue, {1 + number % 28:02} Sep 2026 {number % 24:02}:{number % 60:02}:00 +0200",
        f"Message-ID: <{number}.{chance.getrandbits(48)}@elsewhere.example>",
        f"References: <{number - 1}.ref@elsewhere.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "X-Mailer: bench",
        "",
    ]
    length = sum(len(line) + 2 for line in lines)
    while length < size:
        line = " ".join(chance.choices(_WORDS, k=10))
        lines.append(line)
        length += len(line) + 2
    if number % 50 == 0:
        lines.append("the needle in this haystack")
    return "\r\n".join(lines).encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Measured:
    """Operations, the seconds they took, and the server's CPU seconds."""

    operations: int
    seconds: float
    cpu_seconds: float
    bytes_each: float = 0.0
    """For memory: octets an operation, instead of time."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name, the service it needs, and what is done."""

    name: str
    service: str
    unit: str
    run: Callable[[Server, int], Measured]
    filled: bool = False
    """Needs the mailbox of user 0 to be filled."""


def timed(server: Server, operations: int, work: Callable[[], object]) -> Measured:
    """Time *work*, which does *operations*."""
    cpu, start = server.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    time.sleep(0.05)
    return Measured(operations, seconds, server.cpu_seconds() - cpu)


def fill(server: Server, count: int) -> None:
    """Bring the INBOX of user 0 to *count* messages."""
    with IMAP(server.ports["imap"], user(), PASSWORD) as imap:
        have = int(imap.command(b"STATUS INBOX (MESSAGES)").split(b"MESSAGES")[1].strip(b" )\r\n"))
        for number in range(have, count):
            imap.command(b"APPEND INBOX" + (b" (\\Seen)" if number % 3 else b""), message(number))


def _deliveries(service: str, connections: int) -> Callable[[Server, int], Measured]:
    def run(server: Server, count: int) -> Measured:
        each = max(count // connections, 1)
        prepared = [message(number) for number in range(min(each, 200))]
        clients = [SMTP(server.ports[service], lmtp=service == "lmtp") for _ in range(connections)]

        def one(index: int) -> None:
            for number in range(each):
                clients[index].send(user(index + 1 if index < 7 else 7), prepared[number % len(prepared)])

        def work() -> None:
            threads = [threading.Thread(target=one, args=(index,)) for index in range(connections)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        measured = timed(server, each * connections, work)
        for client in clients:
            client.socket.close()
        if service == "smtp":
            measured = _with_the_rest(server, measured)
        return measured

    return run


def _with_the_rest(server: Server, measured: Measured) -> Measured:
    """A server that queues has not delivered yet: add the CPU it uses until it is quiet."""
    before, extra = server.cpu_seconds(), 0.0
    for _ in range(100):
        time.sleep(0.3)
        now = server.cpu_seconds()
        extra += now - before
        if now - before < 0.02:
            break
        before = now
    return Measured(measured.operations, measured.seconds, measured.cpu_seconds + extra)


def _imap(
    command: Callable[[int], bytes], per: Callable[[int], int], repeat: int = 1
) -> Callable[[Server, int], Measured]:
    def run(server: Server, count: int) -> Measured:
        with IMAP(server.ports["imap"], user(), PASSWORD) as imap:
            imap.command(b"SELECT INBOX")
            text = command(count)

            def work() -> None:
                for _ in range(repeat):
                    imap.command(text)

            return timed(server, per(count) * repeat, work)

    return run


def _append(server: Server, count: int) -> Measured:
    with IMAP(server.ports["imap"], user(1), PASSWORD) as imap:
        prepared = [message(number) for number in range(min(count, 200))]
        return timed(
            server,
            count,
            lambda: [imap.command(b"APPEND Trash", prepared[n % len(prepared)]) for n in range(count)],
        )


def _select(server: Server, count: int) -> Measured:
    with IMAP(server.ports["imap"], user(), PASSWORD) as imap:
        return timed(server, count, lambda: [imap.command(b"SELECT INBOX") for _ in range(count)])


def _login(server: Server, count: int) -> Measured:
    def work() -> None:
        for number in range(count):
            with IMAP(server.ports["imap"], user(number % 4), PASSWORD) as imap:
                imap.command(b"LOGOUT")

    work()
    return timed(server, count, work)


def _pop3(server: Server, count: int) -> Measured:
    pop = POP3(server.ports["pop3"], user(), PASSWORD)
    measured = timed(server, count, lambda: pop.drain(count))
    pop.command(b"QUIT")
    pop.socket.close()
    return measured


def _idle(server: Server, count: int) -> Measured:
    def idle() -> IMAP:
        client = IMAP(server.ports["imap"], user(), PASSWORD)
        client.command(b"SELECT INBOX")
        client.socket.sendall(b"i IDLE\r\n")
        client.line()
        return client

    clients = [idle() for _ in range(count)]  # these pay for what is only needed once
    time.sleep(0.5)
    before = server.memory_bytes()
    clients += [idle() for _ in range(count)]
    time.sleep(0.5)
    grown = server.memory_bytes() - before
    for client in clients:
        client.socket.close()
    return Measured(count, 0.0, 0.0, grown / count)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("SMTP delivery, 1 connection", "smtp", "messages", _deliveries("smtp", 1)),
    Scenario("SMTP delivery, 8 connections", "smtp", "messages", _deliveries("smtp", 8)),
    Scenario("LMTP delivery, 1 connection", "lmtp", "messages", _deliveries("lmtp", 1)),
    Scenario("LMTP delivery, 8 connections", "lmtp", "messages", _deliveries("lmtp", 8)),
    Scenario("APPEND", "imap", "messages", _append),
    Scenario(
        "header sync",
        "imap",
        "messages",
        _imap(
            lambda n: (
                b"UID FETCH 1:%d (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (%s)])" % (n, HEADERS)
            ),
            lambda n: n,
        ),
        True,
    ),
    Scenario("flags", "imap", "messages", _imap(lambda n: b"FETCH 1:%d (FLAGS)" % n, lambda n: n, 3), True),
    Scenario("bodies", "imap", "messages", _imap(lambda n: b"FETCH 1:%d (BODY.PEEK[])" % n, lambda n: n), True),
    Scenario("search BODY", "imap", "messages", _imap(lambda n: b"SEARCH 1:%d BODY needle" % n, lambda n: n), True),
    Scenario(
        "search SUBJECT", "imap", "messages", _imap(lambda n: b"SEARCH 1:%d SUBJECT holiday" % n, lambda n: n, 3), True
    ),
    Scenario("SELECT", "imap", "commands", _select, True),
    Scenario("login", "imap", "connections", _login),
    Scenario("POP3 drain", "pop3", "messages", _pop3, True),
    Scenario("memory per idle connection", "imap", "KiB", _idle, True),
)
