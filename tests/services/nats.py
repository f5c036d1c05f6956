"""nats-server with JetStream: one node, or three that agree."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.services import fetch
from tests.services.processes import Killable, NotReady, Process, free_port

__all__ = ["Nats", "NatsNode"]

START_SECONDS = 60.0


class NatsNode(Killable):
    """One nats-server process. ``sync_interval: always``: what it acknowledges is on the disk."""

    def __init__(self, folder: Path, name: str, cluster: tuple[int, list[int]] | None) -> None:
        self.port, self.monitor = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"server_name: {name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor}",
            f'jetstream {{ store_dir: "{folder / "jetstream"}", sync_interval: always }}',
        ]
        if cluster is not None:
            own, all_ports = cluster
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in all_ports)
            lines.append(f"cluster {{ name: tests, listen: 127.0.0.1:{own}, routes: [{routes}] }}")
        configuration = folder / "nats.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self.process = Process(name, [str(fetch.go_program("nats-server")), "-c", str(configuration)], folder)

    def start(self, *, wait: bool = True) -> None:
        """Raises NotReady."""
        self.process.start()
        if wait:
            self.ready()

    def ready(self) -> None:
        """Until it takes clients and JetStream answers (in a cluster: has a leader). Raises NotReady."""
        self.process.wait("127.0.0.1", self.port, START_SECONDS)
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            self.process.check(deadline, START_SECONDS)
            time.sleep(0.05)

    def _healthy(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            answer: Any = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/healthz", timeout=2))
            return bool(answer.get("status") == "ok")
        return False


class Nats:
    """One node, or a cluster of three."""

    def __init__(self, folder: Path, *, nodes: int = 1) -> None:
        self.folder = folder
        ports = [free_port() for _ in range(nodes)] if nodes > 1 else []
        if len(set(ports)) != len(ports):
            raise NotReady("two free ports were the same; try again")
        self.nodes = [
            NatsNode(folder / f"nats{number}", f"nats{number}", (ports[number - 1], ports) if ports else None)
            for number in range(1, nodes + 1)
        ]

    def start(self) -> None:
        """Raises NotReady."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.ready()

    def url(self, **options: str) -> str:
        """For ``storage.messaging``."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"nats://{hosts}" + (f"?{query}" if query else "")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
