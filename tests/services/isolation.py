"""A network of its own for a process: a Linux namespace whose only ways out are pairs of virtual interfaces, each of which
can be cut.

What listens on the machine's loopback addresses is reached through these ways under the very same addresses, and a
connection over them is an ordinary one between two hosts: when a way is cut nothing is refused and nothing closed, it
only becomes silent. Nothing else can be reached. Needs root, or at least the right to make namespaces.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["CannotIsolate", "Isolation", "Way", "why_not"]

_PREFIX: Final = "mailnet"
"""Of the names of namespaces: ``mailnet-<pid of who made it>-<number>``."""
_NETWORK: Final = "198.18"
"""Of addresses that are set aside for such tests (RFC 2544)."""
CLIENTS: Final = "clients"
"""The way on which the inside is reached; it is never cut."""


class CannotIsolate(Exception):
    """There are no namespaces here; the text says why, in one line."""


def _ip(*words: str) -> str:
    """What ``ip`` says. Raises CannotIsolate."""
    program = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    if program is None:
        raise CannotIsolate("there is no `ip` (package iproute2)")
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CannotIsolate(f"ip {' '.join(words)}: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout


class Way:
    """One pair of interfaces. Something that a test may hurt: killed or paused it is cut, started or resumed mended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.whole = True

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        _ip("link", "set", self.device, "down")
        self.whole = False

    def mend(self) -> None:
        _ip("link", "set", self.device, "up")
        self.whole = True

    kill = pause = cut
    start = resume = mend


class Isolation:
    """One namespace. *ways*: by name, the networks (``127.9.1.0/24``) that are reached on each.

    `address` is where clients find what listens inside, `around` what stands before a command line that is to run there.
    """

    def __init__(self, ways: Mapping[str, Sequence[str]]) -> None:
        number = next(n for n in range(10_000) if f"{_PREFIX}-{os.getpid()}-{n}" not in _open)
        self.name = f"{_PREFIX}-{os.getpid()}-{number}"
        self._networks = {**ways, CLIENTS: ()}
        self._inner: list[str] = []
        self.ways: dict[str, Way] = {}
        self.address = ""
        self.around: tuple[str, ...] = ("ip", "netns", "exec", self.name)

    def open(self) -> None:
        """Make it. Raises CannotIsolate."""
        _forget_dead()
        _ip("netns", "add", self.name)
        _open[self.name] = self
        try:
            for number, (name, networks) in enumerate(self._networks.items()):
                self._make(f"mn{os.urandom(3).hex()}{number}", name, networks)
        except BaseException:
            self.close()
            raise

    def _make(self, device: str, name: str, networks: Sequence[str]) -> None:
        ours, theirs = _free_pair()
        inner = f"{device}i"
        _ip("link", "add", device, "type", "veth", "peer", "name", inner, "netns", self.name)
        way = self.ways[name] = Way(device)
        _ip("address", "add", f"{ours}/30", "dev", device)
        _ip("-n", self.name, "address", "add", f"{theirs}/30", "dev", inner)
        # packets to and from 127.0.0.0/8 are let through on these interfaces, and only on these
        _set(Path(f"/proc/sys/net/ipv4/conf/{device}"))
        script = f"cd /proc/sys/net/ipv4/conf/{inner} && echo 1 >route_localnet && echo 0 >rp_filter"
        _ip("netns", "exec", self.name, "/bin/sh", "-c", script)
        way.mend()
        _ip("-n", self.name, "link", "set", inner, "up")
        for network in networks:
            _ip("-n", self.name, "route", "add", network, "via", ours, "src", theirs)
        if name == CLIENTS:
            self.address = theirs

    def close(self) -> None:
        """Everything goes, whatever state it is in; what still runs inside sits there without a network."""
        for way in self.ways.values():
            _quietly("link", "del", way.device)
        _quietly("netns", "del", self.name)
        self.ways.clear()
        _open.pop(self.name, None)


_open: dict[str, Isolation] = {}


def _set(folder: Path) -> None:
    try:
        (folder / "route_localnet").write_text("1")
        (folder / "rp_filter").write_text("0")
    except OSError as error:
        raise CannotIsolate(f"{folder}: {error.strerror}") from None


def _quietly(*words: str) -> None:
    try:
        _ip(*words)
    except CannotIsolate:
        pass  # it is gone already


def _free_pair() -> tuple[str, str]:
    """Two addresses of a /30 that nobody on this machine has."""
    taken = set(re.findall(r"\binet ([\d.]+)/", _ip("-4", "address", "show")))
    while True:
        third, fourth = os.urandom(2)
        first = f"{_NETWORK}.{third}.{fourth & ~3}"
        ours, theirs = (f"{_NETWORK}.{third}.{(fourth & ~3) + n}" for n in (1, 2))
        if not taken & {ours, theirs, first}:
            return ours, theirs


def _names() -> Iterable[str]:
    return (line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(f"{_PREFIX}-"))


def _forget_dead() -> None:
    """What runs that were killed have left: with a namespace its interfaces go, once nothing runs in it any more."""
    for name in _names():
        pid = name.split("-")[1]
        if not Path(f"/proc/{pid}").exists():
            _quietly("netns", "del", name)


def why_not() -> str | None:
    """Why a process cannot be given a network of its own here, in one line; None: it can."""
    trial = Isolation({"way": ("127.1.2.3/32",)})
    try:
        trial.open()
    except (CannotIsolate, OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces: {error}"
    trial.close()
    return None


@atexit.register
def _close_all() -> None:
    """Whatever happened, nothing stays behind."""
    for isolation in list(_open.values()):
        isolation.close()
