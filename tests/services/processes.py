"""A server in a process of its own that can be killed, paused, and started again over the same data."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Killable", "KillableGroup", "NotReady", "Process", "free_port", "loopback_address"]


class NotReady(Exception):
    """A server did not start; the text has the end of its log."""


_given_ports: set[int] = set()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port below the ephemeral range that nobody listens on now, and that was not given to anybody before."""
    for _ in range(200):
        port = 10_000 + int.from_bytes(os.urandom(2), "big") % 20_000
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((address, port))
                _given_ports.add(port)
                return port
    raise NotReady(f"no free port on {address}")


def loopback_address() -> str:
    """An address of 127.0.0.0/8 that hardly anybody else uses (Linux listens on all of them)."""
    one, two = os.urandom(2)
    return f"127.{20 + one % 200}.{two}.1"


_alive: weakref.WeakSet[Process] = weakref.WeakSet()


class Process:
    """One server process. Its output goes to a file."""

    def __init__(
        self, name: str, words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.words = list(words)
        self.folder = folder
        self.environment = dict(os.environ) | dict(environment or {})
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Raises NotReady when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise NotReady(f"{self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it; `wait` says when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.words,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _alive.add(self)

    def wait(self, address: str, port: int, seconds: float) -> None:
        """Until somebody listens there. Raises NotReady."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
                return
            self.check(deadline, seconds)
            time.sleep(0.1)

    def check(self, deadline: float, seconds: float) -> None:
        """Raises NotReady when it has ended, or the time (monotonic) is over."""
        if not self.running:
            raise NotReady(f"{self.name} has ended:\n{self.end_of_log()}")
        if time.monotonic() > deadline:
            raise NotReady(f"{self.name} was not ready in {seconds:.0f} s:\n{self.end_of_log()}")

    def end_of_log(self, lines: int = 20) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])
        return ""

    def pause(self) -> None:
        """SIGSTOP: it neither answers nor closes anything, from when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True
        deadline = time.monotonic() + 5
        while not _stopped(self.pid) and time.monotonic() < deadline:
            time.sleep(0.005)  # each thread sees the signal by itself, and one may still answer

    def resume(self) -> None:
        if self._paused and self.running:
            os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._paused = False

    def stop(self, seconds: float = 15.0) -> None:
        """SIGTERM, and SIGKILL when it has not ended in time."""
        self.resume()
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()


class Killable:
    """Something that is one `Process`."""

    process: Process

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def stop(self) -> None:
        self.process.stop()


class KillableGroup(Killable):
    """The same with processes that it has begun: all of them die, or stand still, together."""

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.kill()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self.process.pause()

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.process.resume()

    def stop(self) -> None:
        self.resume()
        self.process.stop()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, NotReady):
            os.killpg(self.process.pid, number)


def _stopped(pid: int) -> bool:
    """Whether every thread of *pid* stands still."""
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(task.read_text().rpartition(")")[2].split()[0])
        except FileNotFoundError:
            pass  # a thread that has ended
    return all(state in "TtZX" for state in states)


@atexit.register
def _end_all() -> None:
    """Whatever happened, nothing stays behind."""
    for process in list(_alive):
        with contextlib.suppress(ProcessLookupError, NotReady):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
