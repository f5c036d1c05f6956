"""When mail that is over an allowance is to come back: each message once, to a place of its own.

Were all of a campaign to come back when the next hour's allowance is let out, a few would leave and the rest be put off again,
hour after hour, in the way of everybody else. So each gets a place in the hour that will have room for it, behind those
that wait already. Places are this node's own; what another node promised too comes back to the end of the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.relay.warm_up import DAY, Curve, part_of_day

__all__ = ["LONGEST", "Lane", "Lines"]

LONGEST: Final = DAY
"""Seconds: whose place is further away is asked again in half of this up to this, spread evenly."""
_HOUR: Final = 3600.0
_PLENTY: Final = 1_000_000
_STEP: Final = 0.618_033_988_75
"""Multiples of it spread evenly over 0..1, however many there are."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One address, as far as it is known what it may send in the hours to come."""

    day: int
    """Today, days since 1970."""
    curve: Curve | None
    """Of its plan; None: it is warm, and used up what its pool lets it send in a day."""
    step: int = 0
    hours: int = 1
    daily: int | None = None
    from_: float = 0.0
    """Nothing before that: it is halted, or its plan begins then."""

    def room(self, start: float) -> int:
        """Messages that the hour beginning at *start* lets out."""
        if start < self.from_:
            return 0
        day, hour = int(start // DAY), int(start % DAY // _HOUR)
        if self.curve is None:
            return 0 if day == self.day or hour else self.daily or _PLENTY
        allowance = self.curve.allowance(self.step + day - self.day)
        if allowance is None:
            return self.daily or _PLENTY
        until = part_of_day(allowance, hour, self.hours)
        room = until - (part_of_day(allowance, hour - 1, self.hours) if hour else 0)
        return room if self.daily is None else min(room, self.daily)


@dataclass(slots=True)
class _Line:
    start: float = 0.0
    """Of the hour in which there are places now."""
    used: int = 0
    beyond: int = 0
    """Messages whose place is too far away."""


class Lines:
    """One line for each kind of mail and provider group."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}

    def seconds(self, key: tuple[str, str], lanes: Sequence[Lane], n: int, now: float) -> float:
        """Seconds until there will be room for *n* messages, behind all that were told a time before."""
        line = self._lines.setdefault(key, _Line())
        first = (now // _HOUR + 1) * _HOUR
        if line.start < first or line.start > first + 2 * LONGEST:  # it has come, or the clock went back
            line.start, line.used, line.beyond = first, 0, 0
        while line.start - now <= LONGEST:
            room = sum(lane.room(line.start) for lane in lanes)
            if room and (line.used + n <= room or not line.used):
                place = min(line.used / room, 1.0)
                line.used += n
                return line.start - now + place * _HOUR * 0.9
            line.start += _HOUR
            line.used = 0
        line.beyond += 1
        return LONGEST * (0.5 + 0.5 * (line.beyond * _STEP % 1.0))
