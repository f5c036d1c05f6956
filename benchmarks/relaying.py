"""Relaying whole: messages go in by SMTP, through the queue, and out to smtp-sink; ours beside Debian's Postfix, with Postfix's
own smtp-source in front of both and its smtp-sink behind. Neither asks for a login: both trust the network.

Postfix is as Debian has it, but for a limit of 20 connections to a destination, as ours has. It writes its log by postlogd into a
file, as ours writes one; what that costs is told apart, since with syslog another program bears it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.servers import family
from tests.services.postfix import Postfix, Sink
from tests.services.processes import Process, free_port

__all__ = ["Load", "OursRelaying", "PostfixRelaying", "Relayed", "Relaying", "relay"]

DOMAIN: Final = "bench.example"
PASSWORD: Final = b"correct-horse-battery\n"
SOURCE: Final = "/usr/sbin/smtp-source"
WARM: Final = 100
"""Messages before the measurement: processes are started, connections opened."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    messages: int
    size: int
    connections: int
    each_connects: bool = False
    """A connection for each message, instead of many messages over each."""

    def words(self, port: int, messages: int) -> list[str]:
        """smtp-source, with a recipient of its own for each message."""
        keep = [] if self.each_connects else ["-d"]
        counts = ["-s", str(self.connections), "-m", str(messages), "-l", str(self.size), "-N"]
        names = ["-M", f"client.{DOMAIN}", "-S", "A message to be relayed", "-f", f"user@{DOMAIN}", "-t", "user@there.example"]
        return [SOURCE, *keep, *counts, *names, f"127.0.0.1:{port}"]


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a run has cost."""

    messages: int
    seconds: float
    """Until the last one was in the sink."""
    taken_seconds: float
    """Until the last one was taken."""
    cpu: Counter[str]
    """Seconds of CPU by the name of the program."""

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each message, of all processes of the server."""
        return sum(self.cpu.values()) / self.messages * 1e6

    @property
    def logging_us(self) -> float:
        """Of those, what a process that only writes the log took."""
        return self.cpu["postlogd"] / self.messages * 1e6


def _cpu(root: int) -> Counter[str]:
    """User and system time so far of a process and all below it, by program, those that have ended with their parents; to the
    nanosecond for those that run, where the kernel says."""
    found: Counter[str] = Counter()
    for pid in family(root):
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            ended = sum(int(field) for field in fields[13:15]) / 100
            own = sum(int(field) for field in fields[11:13]) / 100
            with contextlib.suppress(OSError, ValueError):
                own = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
            found[name] += ended + own  # type: ignore[assignment]  # seconds are no whole numbers
    return found


class Relaying(ABC):
    """A server that relays everything to one place."""

    name: str
    port: int

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def pid(self) -> int: ...


class OursRelaying(Relaying):
    """`twistd mail`: submission, the embedded queue, the relay. It signs nothing, as Postfix does not by itself either."""

    name = "ours"

    def __init__(self, folder: Path, sink_port: int, *, profile: str = "", settings: str = "") -> None:
        """*profile*: a file for cProfile's figures. *settings*: more TOML."""
        folder.mkdir(parents=True)
        self.port = free_port()
        (folder / "mail.toml").write_text(
            f'hostname = "mx.{DOMAIN}"\ndata = "data"\n[listen]\nsubmission = ["tcp:{self.port}:interface=127.0.0.1"]\n'
            f'[smtp.submitters]\n"127.0.0.0/8" = "user@{DOMAIN}"\n[limits]\nconnections_per_address = 0\n'
            f'[relay]\n[relay.routes]\n"*" = "smtp://127.0.0.1:{sink_port}"\n{settings}'
        )
        scripts = Path(sys.executable).parent
        self._ctl = [str(scripts / "mailctl"), "--config", str(folder / "mail.toml")]
        profiled = ["--profile", profile, "--profiler", "cprofile", "--savestats"] if profile else []
        words = [str(scripts / "twistd"), "-n", "--pidfile=", *profiled, "mail", "--config", "mail.toml"]
        self.process = Process("ours", words, folder)

    def start(self) -> None:
        for words, given in (
            (["domain", "add", DOMAIN], b""),
            (["user", "add", f"user@{DOMAIN}", "--password-stdin"], PASSWORD),
        ):
            subprocess.run([*self._ctl, *words], input=given, check=True, capture_output=True)
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


def relay(server: type[Relaying], folder: Path, load: Load, profile: str = "") -> Relayed:
    """One run. Raises TimeoutError, if not every message arrives."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    sink = Sink(folder, "-M", str(load.messages + WARM))
    sink.start()
    server_folder = folder / server.name
    relaying: Relaying = (
        OursRelaying(server_folder, sink.port, profile=profile)
        if server is OursRelaying
        else PostfixRelaying(server_folder, sink.port)
    )
    try:
        relaying.start()
        subprocess.run(load.words(relaying.port, WARM), check=True, timeout=60)
        time.sleep(2.0)
        before, begin = _cpu(relaying.pid()), time.perf_counter()
        subprocess.run(load.words(relaying.port, load.messages), check=True, timeout=600)
        taken = time.perf_counter() - begin
        deadline = time.monotonic() + 600
        while sink.process.running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{relaying.name}: not every message has arrived")
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
        time.sleep(0.5)  # what is written down afterwards belongs to it
        cpu = _cpu(relaying.pid())
        cpu.subtract(before)
        return Relayed(load.messages, seconds, taken, +cpu)
    finally:
        relaying.stop()
        sink.stop()
