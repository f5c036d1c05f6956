"""When a message is tried again, when its sender hears that it takes longer, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Schedule", "next_delay"]

GREYLISTED: Final = ("4.7.1", "4.7.0", "4.2.0", "greylist", "graylist", "try again", "try later")
"""What servers say that want to see the same message again, soon but not at once (RFC 6647 section 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """An operator's wishes, seconds each."""

    retry: tuple[float, ...] = (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0)
    """After the first attempt, the second, …; the last again and again."""
    warn: float = 4 * 3600.0
    """0: never."""
    expire: float = 5 * 86_400.0
    """RFC 5321 section 4.5.4.1: at least four or five days."""
    jitter: float = 0.2
    """So much of a delay, more or less."""


def next_delay(
    schedule: Schedule,
    attempts: int,
    reply: str,
    left: float,
    random: Callable[[], float],
    deadlines: Sequence[float] = (),
) -> float:
    """Seconds until the next attempt after *attempts* (at least 1), of which the last heard *reply*.

    A greylisting server is asked again a little after its five minutes (RFC 6647), whatever the schedule's first step is, if
    that is longer. Never behind *left*, the seconds until it expires, nor behind one of *deadlines*: so there is always one
    last attempt at the end. *random* gives 0 up to 1.
    """
    delay = schedule.retry[min(attempts, len(schedule.retry)) - 1]
    if attempts <= 2 and any(word in reply.lower() for word in GREYLISTED):
        delay = min(delay, 330.0)
    delay *= 1 - schedule.jitter + 2 * schedule.jitter * random()
    for deadline in (left, *deadlines):
        if deadline > 0:
            delay = min(delay, deadline)
    return max(delay, 1.0)
