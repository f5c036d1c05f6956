"""The real server in a process of its own, on loopback, with two accounts: what clients and people meet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.admin.calling import Mailctl
from tests.services.processes import free_port

__all__ = ["PASSWORD", "RunningServer"]

PASSWORD = "wise owls hoot at 3"
SERVICES = ("smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "managesieve")


class RunningServer:
    """`twistd mail` over a fresh data folder with ann@demo.example and bob@demo.example."""

    def __init__(self, folder: Path, *, workers: int = 1, extra: str = "") -> None:
        self.folder = folder
        self.workers = workers
        self.ports = {service: free_port() for service in SERVICES}
        listen = "\n".join(f'{name} = ["tcp:{port}:interface=127.0.0.1"]' for name, port in self.ports.items())
        self.config = folder / "mail.toml"
        self.config.write_text(
            f'hostname = "localhost"\ndata = "data"\n[listen]\n{listen}\n'
            f"[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
            f'[process]\ndrain = "5s"\n{extra}'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.scripts = Path(sys.executable).parent

    def mailctl(self, *words: str, given: str = "") -> str:
        """Run a mailctl command; returns what it printed."""
        done = subprocess.run(
            [self.scripts / "mailctl", "--config", self.config, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def populate(self) -> None:
        """The domain and its two accounts. By mailctl in this process: a process takes seconds to import everything."""
        ctl = Mailctl(self.folder)
        ctl.good("domain", "add", "demo.example", "--no-dkim")
        for name in ("ann", "bob"):
            ctl.good("user", "add", f"{name}@demo.example", "--password-stdin", given=PASSWORD + "\n")

    def start(self) -> None:
        """Start it and wait until it answers. Raises AssertionError with its log."""
        command = [str(self.scripts / "twistd"), "-n", "--pidfile=", "mail", "--config", str(self.config)]
        if self.workers > 1:
            command += ["--workers", str(self.workers)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._greets():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _greets(self) -> bool:
        """Ports are open early, and silent until everything is ready."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports["imap"]), 1) as connection,
        ):
            connection.settimeout(2)
            return connection.recv(4).startswith(b"* OK")
        return False

    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
