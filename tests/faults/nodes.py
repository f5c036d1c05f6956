"""Mail nodes: `twistd mail` processes with a configuration each, which tests kill, pause and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.services.processes import NotReady, Process, free_port

__all__ = ["PASSWORD", "MailNode", "mailctl", "populate"]

PASSWORD: Final = "wise owls hoot at 3"
_SCRIPTS: Final = Path(sys.executable).parent
START_SECONDS: Final = 60.0


class MailNode:
    """One `twistd mail`, under *folder*, with the listeners *services* (of smtp, lmtp, imap, pop3)."""

    def __init__(
        self,
        folder: Path,
        name: str,
        services: Sequence[str],
        *,
        roles: Sequence[str] = (),
        storage: Mapping[str, str] | None = None,
        workers: int = 1,
        extra: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.services = tuple(services)
        self.ports = {service: free_port() for service in services}
        self.metrics = free_port()
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.config = self.folder / "mail.toml"
        listen = [f'{service} = ["tcp:{port}:interface=127.0.0.1"]' for service, port in self.ports.items()]
        lines = ['hostname = "localhost"', 'data = "data"', f'node = "{name}"']
        if roles:
            lines.append(f"roles = {list(roles)!r}".replace("'", '"'))
        lines += ["[listen]", *listen, f'metrics = ["tcp:{self.metrics}:interface=127.0.0.1"]']
        lines += ["[auth]", "failures_per_minute = 0", 'argon2_memory = "64KiB"', "argon2_passes = 1"]
        lines += ["[limits]", "connections_per_address = 0", "[process]", 'drain = "5s"']
        if storage:
            lines += ["[storage]", *(f'{key} = "{url}"' for key, url in storage.items())]
        self.config.write_text("\n".join(lines) + "\n" + extra)
        words = [str(_SCRIPTS / "twistd"), "-n", "--pidfile=", "mail", "--config", str(self.config)]
        if workers > 1:
            words += ["--workers", str(workers)]
        self.process = Process("mail", words, self.folder, {"PYTHONUNBUFFERED": "1", **(environment or {})})

    @property
    def running(self) -> bool:
        return self.process.running

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it answers. Raises NotReady with the end of its log."""
        self.process.start()
        if wait:
            self.ready()

    def ready(self, seconds: float = START_SECONDS) -> None:
        """Until each listener greets: ports are open early, and silent until everything is there. Raises NotReady."""
        deadline = time.monotonic() + seconds
        for service in self.services:
            while not self._greets(service):
                self.process.check(deadline, seconds)
                time.sleep(0.1)
        while not self.services and not self.state():
            self.process.check(deadline, seconds)
            time.sleep(0.1)

    def _greets(self, service: str) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports[service]), 1) as connection,
        ):
            connection.settimeout(2)
            return connection.recv(3) in (b"* O", b"220", b"+OK")
        return False

    def state(self, path: str = "/readyz") -> str:
        """What a probe is answered, e.g. which store is down; empty while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def log(self) -> str:
        """What it has logged."""
        return self.process.log.read_text(errors="replace") if self.process.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL, to workers too."""
        with contextlib.suppress(NotReady, ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.stop(20)


def mailctl(node: MailNode, *words: str, given: str = "", seconds: float = 120) -> str:
    """Run a mailctl command with the node's configuration; returns what it printed. Raises AssertionError."""
    done = subprocess.run(
        [_SCRIPTS / "mailctl", "--config", node.config, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"mailctl {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def populate(node: MailNode, accounts: Sequence[str]) -> None:
    """The accounts' domains, and the accounts, all with `PASSWORD`."""
    for domain in sorted({account.rpartition("@")[2] for account in accounts}):
        mailctl(node, "domain", "add", domain)
    for account in accounts:
        mailctl(node, "user", "add", account, "--password-stdin", given=PASSWORD + "\n")
