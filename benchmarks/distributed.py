"""``python -m benchmarks.distributed [SCENARIO …]``: size and speed over Cassandra, S3 and NATS, one run.

Everything runs on this machine (`tests.services`): three nodes of Cassandra and of NATS, VersityGW, our nodes and the
clients share its cores, so a rate says what this machine does; the CPU of our processes and that of the stores are read apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.beside import beside
from benchmarks.crowd import contend, hot, idle, import_beside, many
from benchmarks.figures import Figure
from benchmarks.large import changes, drain, million
from benchmarks.mix import mix
from benchmarks.stores import ALL, Distributed, Stores

__all__ = ["SCENARIOS"]

SCENARIOS: Final[Mapping[str, Callable[[Distributed, float], list[Figure]]]] = {
    "hot": hot,
    "many": many,
    "idle": idle,
    "contend": contend,
    "import": import_beside,
    "mix": mix,
    "million": million,
    "drain": drain,
    "changes": changes,
    "beside": beside,
}
_TWO: Final = {"one": ALL, "two": ALL}
_LAYOUTS: Final = {"idle": _TWO, "contend": _TWO}
"""Scenarios that take more than one mail node."""


class Servers:
    """The mail nodes for one scenario after the other: made when a scenario takes others than the one before."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self._stores, self._folder = stores, folder
        self._server: Distributed | None = None
        self._layout: Mapping[str, Sequence[str]] | None = None
        self._made = 0

    def for_(self, name: str) -> Distributed:
        """Started, on tables that only scenarios with the same nodes have used."""
        layout = _LAYOUTS.get(name)
        if self._server is None or layout is not self._layout:
            self.stop()
            self._made += 1
            folder = self._folder / str(self._made)
            self._server = Distributed(folder, self._stores, layout, keyspace=f"bench{self._made}")
            self._layout = layout
            self._server.start()
        return self._server

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()


def run(server: Distributed, name: str, scale: float, only: str) -> list[Figure]:
    """One scenario."""
    return beside(server, scale, only) if name == "beside" else SCENARIOS[name](server, scale)


def main() -> None:
    """Parse the arguments, start the stores, run what is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3, help="nodes of Cassandra and of NATS")
    parser.add_argument("--scale", type=float, default=1.0, help="sizes are multiplied by this")
    parser.add_argument("--only", default="", help="of `beside`: the scenarios whose names contain this")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    unknown = set(wanted.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    found: dict[str, list[dict[str, object]]] = {}
    failed = False
    start = time.monotonic()
    stores = Stores.started(wanted.nodes)
    folder = tempfile.TemporaryDirectory(prefix="bench-")
    servers = Servers(stores, Path(folder.name))
    try:
        print(f"{wanted.nodes} nodes, {os.cpu_count()} cores, started in {time.monotonic() - start:.0f} s", file=sys.stderr)
        for name in wanted.scenarios or SCENARIOS:
            try:
                server = servers.for_(name)
                start = time.monotonic()
                figures = run(server, name, wanted.scale, wanted.only)
            except Exception:
                traceback.print_exc()
                failed = True
                continue
            found[name] = [asdict(figure) for figure in figures]
            if not wanted.json:
                load = os.getloadavg()[0]
                print(f"{name} ({time.monotonic() - start:.0f} s; load {load:.1f})", *figures, sep="\n", flush=True)
    finally:
        servers.stop()
        stores.stop()
        folder.cleanup()
    if wanted.json:
        print(json.dumps(found, indent=1))
    sys.exit(failed)


if __name__ == "__main__":
    main()
