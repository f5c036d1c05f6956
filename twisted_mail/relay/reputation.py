"""What receivers say of an address: counted per address, provider group and day, over all nodes.

Counts are gathered here and written every few seconds, not for every message; a crash loses those few.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.storage.interfaces import Allowances

__all__ = ["Counts", "Signal", "Tally", "signal_of"]

_NO_LIMIT: Final = 2**31 - 1
_ENHANCED: Final = re.compile(r"\d{3}[ -]([245])\.(\d{1,3})\.(\d{1,3})\b")
_GREYLISTED: Final = re.compile(r"gr[ea]y.?list", re.IGNORECASE)
_UNKNOWN_USER: Final = ("1.1", "1.2", "1.6", "1.10", "2.1")


class Signal(enum.Enum):
    """One thing that a receiver said."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    """Throttled, or turned away because of the address's reputation: 421, 4.7.x, 5.7.x. Not greylisting, a full mailbox or
    a server that is ill."""
    BOUNCED = "bounced"
    """No such recipient: what a bad list brings."""
    COMPLAINED = "complained"
    """A report came by a feedback loop (RFC 5965)."""


def signal_of(verdict: Verdict) -> Signal | None:
    """What *verdict* says of the address it was reached from; None: nothing."""
    if verdict.result is Result.DELIVERED:
        return Signal.DELIVERED
    if not verdict.remote or not verdict.source:
        return None
    found = _ENHANCED.match(verdict.reply)
    detail = f"{int(found[2])}.{int(found[3])}" if found else ""
    if verdict.result is Result.TEMPORARY:
        if _GREYLISTED.search(verdict.reply):
            return None
        slowed = detail.startswith("7.") or (verdict.reply.startswith("421") and not detail.startswith(("4.", "3.")))
        return Signal.DEFERRED if slowed else None
    if detail.startswith("7.") or verdict.stage is Stage.GREETING:
        return Signal.DEFERRED
    return Signal.BOUNCED if detail in _UNKNOWN_USER else None


@dataclass(frozen=True, slots=True)
class Counts:
    """Of some days."""

    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    complained: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.delivered + other.delivered,
            self.deferred + other.deferred,
            self.bounced + other.bounced,
            self.complained + other.complained,
        )


def _name(address: str, group: str, signal: Signal) -> str:
    return f"seen/{address}/{group}/{signal.value}"


class Tally:
    """Counts signals."""

    def __init__(self, allowances: Allowances) -> None:
        self._allowances = allowances
        self._pending: Counter[tuple[str, int]] = Counter()
        self._touched: set[tuple[str, str]] = set()

    def add(self, address: str, group: str, signal: Signal, day: int, n: int = 1) -> None:
        """Count *n* for *day* (days since 1970); written at the next `flush`."""
        self._pending[_name(address, group, signal), day] += n
        self._touched.add((address, group))

    @property
    def pending(self) -> int:
        """How many are not written yet."""
        return self._pending.total()

    async def flush(self, each: Callable[[str, str], None] = lambda address, group: None) -> None:
        """Write what is pending; *each* is told of every address and group that was heard of since.

        Raises: StorageError (the rest stays pending).
        """
        while self._pending:
            (name, day), n = next(iter(self._pending.items()))
            del self._pending[name, day]
            try:
                await self._allowances.take(name, day, n, _NO_LIMIT)
            except BaseException:
                self._pending[name, day] += n
                raise
        touched, self._touched = self._touched, set()
        for address, group in touched:
            each(address, group)

    async def counts(self, address: str, group: str, day: int) -> Counts:
        """What was written for *day*, by all nodes. Raises: StorageError."""
        taken = [await self._allowances.taken(_name(address, group, signal), day) for signal in Signal]
        return Counts(*taken)
