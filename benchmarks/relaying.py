"""Relaying whole: messages go in by SMTP, through the queue, and out to smtp-sink; ours beside Debian's Postfix, one after the
other, with the same client in front and the same sink behind."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenarios import message
from benchmarks.servers import family
from tests.services.postfix import Postfix, Sink
from tests.services.processes import Process, free_port

__all__ = ["OursRelaying", "PostfixRelaying", "Relayed", "Relaying", "relay"]

DOMAIN = "bench.example"
PASSWORD = "correct-horse-battery"


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a run has cost."""

    messages: int
    seconds: float
    """Until the last one was in the sink."""
    taken_seconds: float
    """Until the last one was taken."""
    cpu_seconds: float
    """Of all processes of the server."""

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each message."""
        return self.cpu_seconds / self.messages * 1e6


def _cpu(root: int) -> float:
    """User and system time so far of a process and all below it, those that have ended included; to the nanosecond for those
    that run, where the kernel says."""
    total = 0.0
    for pid in family(root):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ended = sum(int(field) for field in fields[13:15]) / 100
            own = sum(int(field) for field in fields[11:13]) / 100
            with contextlib.suppress(OSError, ValueError):
                own = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
            total += ended + own
    return total


class Relaying(ABC):
    """A server that relays everything to one place."""

    name: str
    port: int
    login: tuple[str, str] | None = None

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def pid(self) -> int: ...


class OursRelaying(Relaying):
    """`twistd mail`: submission, the embedded queue, the relay. It signs nothing, as Postfix does not by itself either."""

    name = "ours"

    def __init__(self, folder: Path, sink_port: int, workers: int = 1, *, signed: bool = False) -> None:
        folder.mkdir(parents=True)
        self._signed = signed
        self.port = free_port()
        self.login = (f"user@{DOMAIN}", PASSWORD)
        self._folder = folder
        (folder / "mail.toml").write_text(
            f'hostname = "mx.{DOMAIN}"\ndata = "data"\n[listen]\nsubmission = ["tcp:{self.port}:interface=127.0.0.1"]\n'
            "[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
            f'[relay]\n[relay.routes]\n"*" = "smtp://127.0.0.1:{sink_port}"\n'
        )
        scripts = Path(sys.executable).parent
        self._ctl = [str(scripts / "mailctl"), "--config", str(folder / "mail.toml")]
        words = [str(scripts / "twistd"), "-n", "--pidfile=", "mail", "--config", "mail.toml"]
        self.process = Process("ours", [*words, *(["--workers", str(workers)] if workers > 1 else [])], folder)

    def start(self) -> None:
        for words, given in (
            (["domain", "add", DOMAIN], b""),
            (["user", "add", f"user@{DOMAIN}", "--password-stdin"], PASSWORD.encode() + b"\n"),
        ):
            subprocess.run([*self._ctl, *words], input=given, check=True, capture_output=True)
        if not self._signed:
            listed = subprocess.run([*self._ctl, "--json", "dkim", "list", DOMAIN], check=True, capture_output=True).stdout
            for key in json.loads(listed):
                words = [*self._ctl, "dkim", "delete", DOMAIN, key["selector"], "--yes"]
                subprocess.run(words, check=True, capture_output=True)
        self.process.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10) as probe:
                if probe.recv(1):
                    return
            self.process.check(deadline, 60)
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.stop()

    def pid(self) -> int:
        return self.process.pid


class PostfixRelaying(Relaying):
    """Debian's Postfix as it comes, but for as many connections to the sink as ours may have."""

    name = "postfix"

    def __init__(self, folder: Path, sink_port: int) -> None:
        more = {
            "relayhost": f"[127.0.0.1]:{sink_port}",
            "default_destination_concurrency_limit": "20",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
        }
        self._postfix = Postfix(folder, 0, DOMAIN, more=more)
        self.port = self._postfix.port

    def start(self) -> None:
        self._postfix.start()

    def stop(self) -> None:
        self._postfix.stop()

    def pid(self) -> int:
        return self._postfix.process.pid


class _Client:
    """One connection that sends messages, each in two round trips."""

    def __init__(self, server: Relaying) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._replies(1)
        self._say(b"EHLO bench.example\r\n", 1)
        if server.login is not None:
            user, password = server.login
            token = base64.b64encode(f"\0{user}\0{password}".encode())
            self._say(b"AUTH PLAIN " + token + b"\r\n", 1)

    def _say(self, data: bytes, replies: int) -> None:
        self._socket.sendall(data)
        self._replies(replies)

    def _replies(self, wanted: int) -> None:
        while wanted:
            got = self._socket.recv(65_536)
            if not got:
                raise RuntimeError("the server closed the connection")
            *lines, self._rest = (self._rest + got).split(b"\r\n")
            for line in lines:
                if line[:1] not in b"23":
                    raise RuntimeError(line.decode(errors="replace"))
                wanted -= line[3:4] != b"-"

    def send(self, number: int, body: bytes) -> None:
        to = b"user%d@d%d.example" % (number, number % 50)
        self._say(b"MAIL FROM:<user@bench.example>\r\nRCPT TO:<%s>\r\nDATA\r\n" % to, 3)
        self._say(body, 1)

    def close(self) -> None:
        self._socket.close()


def _put_in(server: Relaying, numbers: Iterator[int], body: bytes, connections: int) -> None:
    failed: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        try:
            client = _Client(server)
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return client.close()
                client.send(number, body)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def relay(kind: type[OursRelaying] | type[PostfixRelaying], folder: Path, messages: int, size: int, connections: int) -> Relayed:
    """One run. Raises TimeoutError, if not every message arrives."""
    warm = 50
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    sink = Sink(folder, "-M", str(messages + warm))
    sink.start()
    server = kind(folder / kind.name, sink.port)
    body = message(1, size) + b".\r\n"
    try:
        server.start()
        _put_in(server, iter(range(warm)), body, connections)
        time.sleep(2.0)
        cpu, begin = _cpu(server.pid()), time.perf_counter()
        _put_in(server, iter(range(messages)), body, connections)
        taken = time.perf_counter() - begin
        deadline = time.monotonic() + 600
        while sink.process.running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{server.name}: not every message has arrived")
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
        time.sleep(0.5)  # what is written down afterwards belongs to it
        return Relayed(messages, seconds, taken, _cpu(server.pid()) - cpu)
    finally:
        server.stop()
        sink.stop()
