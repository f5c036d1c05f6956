"""Mail nodes: `twistd mail` processes with roles of their own over one store, as on machines of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.services.processes import Killable, NotReady, Process, free_port

__all__ = ["HERE", "LISTENERS", "MailCluster", "MailNode", "Place", "Storage"]

LISTENERS: Final = ("smtp", "submission", "lmtp", "imap", "imaps", "pop3")
START_SECONDS: Final = 240.0
"""The first node makes the tables, some twenty, a second or more each on a busy machine."""
_SCRIPTS: Final = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Storage:
    """The three lines of configuration; empty ones are left out."""

    metadata: str = ""
    blobs: str = ""
    messaging: str = ""

    def text(self) -> str:
        lines = [f'{name} = "{url}"' for name in ("metadata", "blobs", "messaging") if (url := getattr(self, name))]
        return "\n".join(["[storage]", *lines]) + "\n" if lines else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node runs: its listeners' address, and what stands before its command line (``ip netns exec …``)."""

    address: str = "127.0.0.1"
    around: Sequence[str] = ()


HERE: Final = Place()


class MailNode(Killable):
    """One `twistd mail` in a folder of its own, and so with a data folder of its own."""

    def __init__(
        self,
        folder: Path,
        name: str,
        roles: Sequence[str],
        storage: Storage,
        *,
        extra: str = "",
        ports: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        place: Place = HERE,
    ) -> None:
        self.name, self.roles = name, tuple(roles)
        self.address = place.address
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        listeners = [each for each in LISTENERS if each.rstrip("s") in roles or each in roles]
        self.ports = {each: free_port() for each in (*listeners, "metrics")} | dict(ports or {})
        self.config = folder / "mail.toml"
        listen = "\n".join(f'{each} = ["tcp:{port}:interface={place.address}"]' for each, port in self.ports.items())
        self.config.write_text(
            f'hostname = "{name}.demo.example"\ndata = "data"\nnode = "{name}"\n'
            f"roles = [{', '.join(f'{chr(34)}{role}{chr(34)}' for role in roles)}]\n"
            f"[listen]\n{listen}\n{storage.text()}{extra}"
        )
        words = [*place.around, str(_SCRIPTS / "twistd"), "-n", "--pidfile=", "mail", "--config", str(self.config)]
        self.process = Process(name, words, folder, environment)

    def start(self, *, wait: bool = True) -> None:
        """Raises NotReady."""
        self.process.start()
        if wait:
            self.ready()

    def ready(self) -> None:
        """Until its probe says that it serves (200). Raises NotReady."""
        deadline = time.monotonic() + START_SECONDS
        while not self.probe().startswith(b"HTTP/1.1 200"):
            self.process.check(deadline, START_SECONDS)
            time.sleep(0.05)

    def probe(self) -> bytes:
        """What ``/readyz`` answers; empty when nobody does."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.address, self.ports["metrics"]), 2) as connection,
        ):
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer
        return b""

    def stop(self) -> None:
        self.process.stop(40.0)


class MailCluster:
    """Several nodes over one store. *nodes*: name to roles."""

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        nodes: Mapping[str, Sequence[str]],
        *,
        extra: str = "",
        ports: Mapping[str, Mapping[str, int]] | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        """*places*: by name, of the nodes that are not to be on this machine's own network."""
        self.folder = folder
        self.storage = storage
        self.nodes = {
            name: MailNode(
                folder / name,
                name,
                roles,
                storage,
                extra=extra,
                ports=(ports or {}).get(name),
                place=(places or {}).get(name, HERE),
            )
            for name, roles in nodes.items()
        }

    def with_role(self, role: str) -> list[MailNode]:
        """The nodes that have *role*."""
        return [node for node in self.nodes.values() if role in node.roles]

    def port(self, listener: str, number: int = 0) -> int:
        """Of the node *number* among those that open *listener*."""
        return [node.ports[listener] for node in self.nodes.values() if listener in node.ports][number]

    def mailctl(self, *words: str, given: str = "") -> str:
        """Run a command with the first node's configuration; what it printed. Raises NotReady with its error."""
        config = next(iter(self.nodes.values())).config
        done = subprocess.run(
            [_SCRIPTS / "mailctl", "--config", config, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ},
        )
        if done.returncode:
            raise NotReady(f"mailctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        """The first one alone (it makes the tables), then the others together. Raises NotReady."""
        first, *others = self.nodes.values()
        first.start()
        for node in others:
            node.start(wait=False)
        for node in others:
            node.ready()

    def stop(self) -> None:
        """In order, all at once."""
        for node in self.nodes.values():
            node.resume()
            if node.process.running:
                os.kill(node.process.pid, 15)
        for node in self.nodes.values():
            node.stop()

    def remove(self) -> None:
        """Stop, and forget every node's folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
