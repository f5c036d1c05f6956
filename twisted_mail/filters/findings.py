"""What filters said, what each has cost, and whether it is worth asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from twisted_mail.filters.values import Action, Moment, Verdict

__all__ = ["Breaker", "FilterCount", "Finding", "worst_of"]


@dataclass(slots=True)
class FilterCount:
    """What one filter did and cost."""

    asked: int = 0
    seconds: float = 0.0
    """Waiting included."""
    down: int = 0
    """Questions without an answer."""
    actions: dict[Action, int] = field(default_factory=lambda: dict.fromkeys(Action, 0))


class Breaker:
    """After some failures in a row nobody waits for a filter any more; now and then one question tries it again."""

    FAILURES: Final = 5
    SECONDS: Final = 30.0

    def __init__(self, now: Callable[[], float], seconds: float = SECONDS) -> None:
        self._now = now
        self._seconds = seconds
        self.failures = 0
        """In a row."""
        self._open_until = 0.0

    @property
    def tripped(self) -> bool:
        """It has failed so often that only now and then somebody tries it."""
        return self.failures >= self.FAILURES

    @property
    def open(self) -> bool:
        """Do not ask. (Who is told False after a pause is the one that tries.)"""
        if not self.tripped:
            return False
        if self._now() < self._open_until:
            return True
        self._open_until = self._now() + self._seconds
        return False

    def answered(self) -> None:
        """The filter is there."""
        self.failures = 0

    def failed(self) -> None:
        """It is not."""
        self.failures += 1
        if self.failures == self.FAILURES:
            self._open_until = self._now() + self._seconds


class Finding(msgspec.Struct):
    """What one filter said at one moment."""

    moment: Moment
    stage: str
    verdict: Verdict
    seconds: float
    down: bool = False

    @property
    def says(self) -> bool:
        """Whether there is more to it than that nobody minds."""
        verdict = self.verdict
        return bool(
            verdict.action or verdict.score or verdict.reason or verdict.results or verdict.fields or verdict.changes
        )

    @property
    def line(self) -> str:
        """For the trace; empty: nothing worth a line."""
        verdict = self.verdict
        if not verdict.reason and verdict.action is Action.ACCEPT and not verdict.score:
            return ""
        facts = ", ".join(f"{name} {value}" for name, value in verdict.facts.items())
        points = f" ({verdict.score:+.1f} points)" if verdict.score else ""
        what = f" [{verdict.action.name.lower()}]" if verdict.action is not Action.ACCEPT else ""
        text = verdict.reason or "no reason given"
        return f"{self.stage}: {text}{f': {facts}' if facts else ''}{points}{what}, {self.seconds * 1000:.1f} ms"


def worst_of(findings: Sequence[Finding], order: dict[str, int]) -> Finding | None:
    """The one with the highest action, of several the first in *order*; None if all accept."""
    worst: Finding | None = None
    for each in findings:
        action = each.verdict.action
        if action is not Action.ACCEPT and (
            worst is None
            or action > worst.verdict.action
            or (action is worst.verdict.action and order[each.stage] < order[worst.stage])
        ):
            worst = each
    return worst
