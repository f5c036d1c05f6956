"""The scenarios of `benchmarks.scenarios` over both forms of the store, and deliveries without any protocol."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.figures import Cost, Figure
from benchmarks.scenarios import SCENARIOS, Measured, Scenario, fill
from benchmarks.servers import Ours, Server
from benchmarks.stores import Distributed, exact_cpu_seconds

__all__ = ["beside"]

COUNTS = {"SELECT": 300, "login": 100, "memory per idle connection": 100}
GOALS = {"delivery": "3 times", "APPEND": "3 times", "header sync": "2 times", "flags": "2 times", "bodies": "2 times"}


class _Embedded(Ours):
    """Whose CPU time is read as exactly as that of the other."""

    def cpu_seconds(self) -> float:
        return exact_cpu_seconds(self.pid)


def _middle(scenario: Scenario, server: Server, messages: int, repeat: int) -> Measured:
    count = COUNTS.get(scenario.name, messages if scenario.filled else min(messages, 500))
    runs = [scenario.run(server, count) for _ in range(repeat)]
    middle = statistics.median_low(run.cpu_seconds for run in runs)
    return next(run for run in runs if run.cpu_seconds == middle)


def beside(server: Distributed, scale: float, only: str = "") -> list[Figure]:
    """Our CPU for each operation here, over that of the embedded form."""
    messages = max(int(2000 * scale), 100)
    figures = [] if only else _alone(server, scale)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        embedded = _Embedded(Path(folder) / "embedded")
        embedded.start()
        try:
            for each in (embedded, server):
                fill(each, messages)
            for scenario in SCENARIOS:
                if only.lower() in scenario.name.lower():
                    there, here = (_middle(scenario, each, messages, 3) for each in (embedded, server))
                    figures += _compared(scenario, there, here)
        finally:
            embedded.stop()
    return figures


def _alone(server: Distributed, scale: float) -> list[Figure]:
    """Deliveries inside one process: the two forms without clients or protocols."""
    count = max(int(2000 * scale), 200)
    figures = []
    for width in (1, 16):
        here = Cost(**server.inside("deliveries", accounts=1, count=count, width=width)["whole"])
        there = Cost(**server.inside("deliveries", accounts=1, count=count, width=width, storage={})["whole"])
        name = f"delivery inside one process, {width} at a time"
        figures += [
            Figure(f"{name}: our CPU, distributed", here.ours / count * 1e6, "us"),
            Figure(f"{name}: our CPU, embedded", there.ours / count * 1e6, "us"),
            Figure(f"{name}: ratio", here.ours / there.ours, "times", "3 times"),
        ]
    return figures


def _compared(scenario: Scenario, there: Measured, here: Measured) -> list[Figure]:
    if here.bytes_each:
        return [
            Figure(f"{scenario.name}, distributed", here.bytes_each / 1024, "KiB"),
            Figure(f"{scenario.name}, embedded", there.bytes_each / 1024, "KiB"),
        ]
    ours, theirs = (m.cpu_seconds / m.operations * 1e6 for m in (here, there))
    figures = [
        Figure(f"{scenario.name}: rate, distributed", here.operations / here.seconds, f"{scenario.unit}/s"),
        Figure(f"{scenario.name}: rate, embedded", there.operations / there.seconds, f"{scenario.unit}/s"),
        Figure(f"{scenario.name}: our CPU, distributed", ours, "us"),
        Figure(f"{scenario.name}: our CPU, embedded", theirs, "us"),
    ]
    if theirs:
        goal = next((goal for name, goal in GOALS.items() if name in scenario.name), "")
        figures.append(Figure(f"{scenario.name}: ratio of our CPU", ours / theirs, "times", goal))
    return figures
