"""An object store that goes wrong on demand: a proxy in a process of its own, before the real one.

``python -m tests.faults.spoiled PORT STORE_PORT SEED``. SIGUSR1: from now on two of three requests go wrong (500, 503, slowly,
cut off, damaged, done but not answered …); SIGUSR2: all is well again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from tests.services.processes import Process, free_port
from tests.services.s3_proxy import Fault, S3Proxy
from tests.services.versity import VersityGateway

__all__ = ["SpoiledStore"]


class SpoiledStore:
    """A victim: `pause` lets it go wrong, `resume` mends it."""

    def __init__(self, store: VersityGateway, folder: Path, seed: int) -> None:
        self._store = store
        self.port = free_port()
        words = [sys.executable, "-m", "tests.faults.spoiled", str(self.port), str(store.port), str(seed)]
        root = Path(__file__).parents[2]
        self.process = Process("spoiled", words, folder, {"PYTHONPATH": str(root)})

    def url(self, bucket: str) -> str:
        """As the store's own, through the proxy."""
        return self._store.url(bucket).replace(f":{self._store.port}/", f":{self.port}/")

    def start(self) -> None:
        """Raises NotReady."""
        if not self.process.running:
            self.process.start()
        self.process.wait("127.0.0.1", self.port, 30)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGUSR1)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGUSR2)


def _main(port: int, store: int, seed: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    turning: Any = reactor
    chance = random.Random(seed)
    wrong = [fault for fault in Fault if fault is not Fault.NONE]
    proxy = S3Proxy(turning, "127.0.0.1", store)
    proxy.port = port
    bad = False

    def choose(method: str, path: str) -> Fault:
        return chance.choice(wrong) if bad and chance.random() < 2 / 3 else Fault.NONE

    def turn(number: int, frame: object) -> None:
        nonlocal bad
        bad = number == signal.SIGUSR1

    proxy.choose = choose
    signal.signal(signal.SIGUSR1, turn)
    signal.signal(signal.SIGUSR2, turn)
    turning.callWhenRunning(lambda: Deferred.fromCoroutine(proxy.start()))
    turning.run()


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:4]))
