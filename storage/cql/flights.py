"""What is under way on the process's own loop: how long it is waited for, and when another node is asked too.

The driver has a timer for each request; here one look, a few times a second, does for all.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ["Flights"]

LOOK_SECONDS: Final = 0.1


class Flights:
    """The driver's futures that were not answered yet. Everything happens in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._flights: dict[Any, list[float]] = {}
        """By future: when it is given up, and when the next nodes are asked."""
        self._looking: asyncio.TimerHandle | None = None

    def add(self, future: Any, seconds: float, second: tuple[float, int] | None) -> None:
        """*future* is given up after *seconds*. *second*: after how many of these another node is asked too, and how often."""
        now = self._loop.time()
        delay, times = second or (0.0, 0)
        self._flights[future] = [now + seconds, *(now + delay * (at + 1) for at in range(times))]
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    def landed(self, future: Any) -> None:
        self._flights.pop(future, None)

    def _look(self) -> None:
        self._looking = None
        now = self._loop.time()
        for future, times in list(self._flights.items()):
            if now >= times[0]:
                del self._flights[future]
                future._on_timeout()  # what the driver's own timer would call
            elif len(times) > 1 and now >= times[1]:
                del times[1]
                future.send_request(error_no_hosts=False)
        if self._flights:
            self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
