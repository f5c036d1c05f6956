"""The master of several workers: real processes, kept short."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_mail.tap.configuration import load
from twisted_mail.tap.master import Backoff, Master, worker_command

PROGRAM = """
import os, sys
from pathlib import Path
from twisted.application.reactors import installReactor
installReactor(sys.argv[2])
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import FileLogObserver, globalLogBeginner, eventAsText
from twisted_mail.tap.configuration import load
from twisted_mail.tap.listeners import AdoptedSocket, StartError
from twisted_mail.tap.master import Backoff, Master
from twisted_mail.tap.service import MailService
from twisted_mail.tap.worker import arguments, begin_logging, fail, ready, run

configuration = load(None, os.environ)

class Session(Protocol):
    def connectionMade(self):
        self.factory.there.add(self)
        self.transport.write(b"pid %d\\r\\n" % os.getpid())
    def dataReceived(self, data):
        self.transport.write(data)
    def connectionLost(self, reason):
        self.factory.there.discard(self)

class Suite:
    def __init__(self):
        self.factory = Factory.forProtocol(Session)
        self.factory.there = set()
    async def start(self):
        if os.environ.get("BROKEN"):
            raise StartError("tls.certificate: is broken")
        return {"imap": self.factory}
    def reload(self):
        Path(os.environ["TOLD"], f"hup-{os.getpid()}").touch()
    def drain(self):
        for each in list(self.factory.there):
            each.transport.write(b"* BYE\\r\\n")
            each.transport.loseConnection()
    async def stop(self):
        Path(os.environ["TOLD"], f"stopped-{os.getpid()}").touch()

if sys.argv[1] == "worker":
    given = arguments(sys.argv[3:])
    begin_logging()
    run(reactor, MailService(reactor, configuration, Suite, sockets=given.socket, ready=ready, fail=fail))
else:
    def command(number, sockets):
        words = [sys.executable, __file__, "worker", sys.argv[2], "--number", str(number)]
        for each in sockets:
            words += ["--socket", str(each)]
        return words
    master = Master(reactor, configuration, command, backoff=lambda: Backoff(first=0.1))
    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stderr, lambda e: (eventAsText(e) or "") + "\\n")], redirectStandardIO=False)
    master.startService()
    for listener in master.listeners:
        print(listener.port.getHost().port, flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", master.stopService)
    reactor.run()
"""


class Running:
    """A master, its port, and what its workers have left in a folder."""

    def __init__(self, folder: Path, reactor: str = "asyncio", **environment: str) -> None:
        self.told = folder / "told"
        self.told.mkdir()
        program = folder / "program.py"
        program.write_text(textwrap.dedent(PROGRAM))
        names = ("SMTP", "SUBMISSION", "SUBMISSIONS", "LMTP", "IMAPS", "POP3", "POP3S", "MANAGESIEVE")
        settings = {f"TWISTED_MAIL__LISTEN__{name}": "" for name in names} | {
            "TWISTED_MAIL__LISTEN__IMAP": "tcp:0:interface=127.0.0.1",
            "TWISTED_MAIL__DATA": str(folder / "data"),
            "TWISTED_MAIL__PROCESS__WORKERS": "2",
            "TWISTED_MAIL__PROCESS__DRAIN": "5s",
            "TOLD": str(self.told),
        }
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, "master", reactor],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **settings, **environment},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line) if line else 0

    def connect(self) -> tuple[socket.socket, int]:
        """A session, and the process that serves it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return connection, int(connection.recv(100).split()[1])

    def wait_for(self, what: str, times: int) -> str:
        """The log, once it says *what* that often."""
        deadline = time.monotonic() + 20
        while (text := self.log.read_text()).count(what) < times:
            assert time.monotonic() < deadline, text
            assert self.process.poll() is None, text
            time.sleep(0.02)
        return text

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(params=["asyncio", "epoll"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    master = Running(tmp_path, request.param)
    try:
        yield master
    finally:
        master.stop()


def test_a_master_restarts_what_dies_passes_hangups_on_and_drains(running: Running) -> None:
    running.wait_for(" serves", 2)
    session, victim = running.connect()
    os.kill(victim, signal.SIGKILL)
    assert session.recv(10) == b""
    session.close()
    running.wait_for(" serves", 3)

    survivor, serving = running.connect()
    assert serving != victim
    running.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while len(list(running.told.glob("hup-*"))) < 2:
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.02)

    survivor.sendall(b"in flight\r\n")
    assert survivor.recv(100) == b"in flight\r\n"
    running.process.send_signal(signal.SIGTERM)
    assert survivor.recv(100) == b"* BYE\r\n"
    assert survivor.recv(100) == b""
    survivor.close()
    assert running.process.wait(20) == 0
    assert len(list(running.told.glob("stopped-*"))) == 2
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


def test_workers_leave_when_the_master_is_gone(tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        running.wait_for(" serves", 2)
        running.process.kill()
        running.process.wait(10)
        deadline = time.monotonic() + 10
        while len(list(running.told.glob("stopped-*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        running.stop()


def test_if_the_first_worker_cannot_start_the_master_says_its_words_and_exits_with_1(tmp_path: Path) -> None:
    running = Running(tmp_path, BROKEN="yes")
    assert running.process.wait(20) == 1
    text = running.log.read_text()
    assert text.count("cannot start: tls.certificate: is broken\n") >= 1
    assert "Traceback" not in text
    running.stop()


def test_a_port_in_use_is_one_message_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        running = Running(tmp_path, TWISTED_MAIL__LISTEN__IMAP=endpoint)
        assert running.process.wait(20) == 1
        text = running.log.read_text()
        assert f'cannot start: listen.imap: "{endpoint}" is in use' in text
        assert "Traceback" not in text
        running.stop()


def test_waiting_doubles_and_is_forgotten_after_a_healthy_life() -> None:
    backoff = Backoff(first=1, most=5, healthy=60)
    assert [backoff.after(0.1) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.after(61) == 1
    assert backoff.after(0.1) == 2


def test_a_worker_is_started_with_what_the_master_was_given() -> None:
    command = worker_command("epoll", "/etc/mail.toml", ["memory:a:b"])(2, [])
    assert command[0] == sys.executable
    assert "installReactor('epoll')" in command[2]
    assert list(command[3:]) == ["--number", "2", "--auth", "memory:a:b", "--config", "/etc/mail.toml"]


class NoProcesses(Clock):
    """A machine that has no room for another process, at first."""

    started = 0

    def spawnProcess(self, *arguments: Any, **options: Any) -> None:
        self.started += 1
        if self.started == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_worker_for_which_there_is_no_room_is_started_later() -> None:
    reactor = NoProcesses()
    master = Master(reactor, load(None, {"TWISTED_MAIL__PROCESS__WORKERS": "2"}), lambda number, sockets: ["worker"])
    master._started = True
    master._start_worker(2)
    assert master.process_ids == {} and 2 not in master._workers
    reactor.advance(1)
    assert reactor.started == 2 and 2 in master._workers
