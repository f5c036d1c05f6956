"""What a scenario of `benchmarks.distributed` prints: named figures, their goals where there are any, and costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Cost", "Figure", "measured", "percentile", "times"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the answer."""

    what: str
    value: float
    unit: str
    goal: str = ""
    """What issue 8 wants, in words; empty: nothing."""

    def __str__(self) -> str:
        digits = 0 if self.value >= 1000 else 1 if self.value >= 10 else 3
        wanted = f"   (goal: {self.goal})" if self.goal else ""
        return f"  {self.what:<62}{self.value:>12,.{digits}f} {self.unit}{wanted}"


@dataclass(frozen=True, slots=True)
class Cost:
    """So many operations took so long, and so much CPU of ours and of the stores."""

    operations: int
    seconds: float
    ours: float
    """CPU seconds of our processes."""
    stores: float
    """CPU seconds of Cassandra, NATS and VersityGW."""

    def figures(self, name: str, unit: str = "messages", goal: str = "") -> list[Figure]:
        """Rate, and both CPUs for each operation."""
        each = 1e6 / max(self.operations, 1)
        return [
            Figure(f"{name}: rate", self.operations / self.seconds, f"{unit}/s", goal),
            Figure(f"{name}: our CPU", self.ours * each, "us each"),
            Figure(f"{name}: the stores' CPU", self.stores * each, "us each"),
            Figure(f"{name}: cores busy, ours", self.ours / self.seconds, "cores"),
            Figure(f"{name}: cores busy, stores", self.stores / self.seconds, "cores"),
        ]


def measured(
    operations: int, ours: Callable[[], float], stores: Callable[[], float], work: Callable[[], object]
) -> Cost:
    """Do *work*, which is *operations*; the clocks of both CPUs are read around it."""
    before, theirs, start = ours(), stores(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Cost(operations, seconds, ours() - before, stores() - theirs)


def percentile(values: Iterable[float], part: float) -> float:
    """The value below which *part* (0 to 1) of *values* lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def times(name: str, seconds: Sequence[float], *, goal_p50: str = "", goal_p99: str = "") -> list[Figure]:
    """p50 and p99, in milliseconds."""
    return [
        Figure(f"{name}: p50", percentile(seconds, 0.5) * 1e3, "ms", goal_p50),
        Figure(f"{name}: p99", percentile(seconds, 0.99) * 1e3, "ms", goal_p99),
    ]
