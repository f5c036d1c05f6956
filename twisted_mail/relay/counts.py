"""What a process has counted of the mail that leaves, for its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from twisted_mail.relay.values import Result

__all__ = ["RelayCounts"]

DESTINATIONS: Final = 200
"""Those that are counted by name; all further ones together are ``other``."""


@dataclass(slots=True)
class RelayCounts:
    """All since the process began, but `in_flight`."""

    in_flight: int = 0
    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    suppressed: int = 0
    put_off: int = 0
    held: int = 0
    by_destination: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Recipients by (destination, result)."""
    by_pool: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Recipients by (pool, result)."""
    _named: set[str] = field(default_factory=set)

    def heard(self, destination: str, pool: str, result: Result) -> None:
        """One recipient, one verdict."""
        if destination not in self._named:
            if len(self._named) >= DESTINATIONS:
                destination = "other"
            else:
                self._named.add(destination)
        self.by_destination[destination, result.value] += 1
        self.by_pool[pool, result.value] += 1
