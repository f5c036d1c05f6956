"""What is done to servers while clients work: one is killed or paused, or cut off from others, left so for a while, and
brought back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from tests.faults.records import Recorder

__all__ = ["ONLY", "Fault", "Victim", "at_random", "carry_out", "in_turn"]


ONLY: Final[Mapping[str, str]] = {
    "network": "cut",
    "network to Cassandra": "cut",
    "answers of Cassandra": "spoil",
    "answers of S3": "spoil",
}
"""The one thing that is done to victims of these kinds, by their `pause`."""


class Victim(Protocol):
    """A server that a test may hurt."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    """Of server: a key of the victims."""
    number: int
    action: str
    """``kill``, ``pause``; or what `ONLY` has for the kind."""
    seconds: float
    """Until it is brought back."""

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.number} for {self.seconds:.1f} s"


def _actions(kind: str) -> Sequence[str]:
    return (ONLY[kind],) if kind in ONLY else ("kill", "pause")


def _one(chance: random.Random, victims: Mapping[str, Sequence[Victim]], kind: str, action: str) -> Fault:
    most = 4.0 if action == "kill" else 8.0
    return Fault(kind, chance.randrange(len(victims[kind])), action, chance.uniform(1.0, most))


def in_turn(victims: Mapping[str, Sequence[Victim]], seed: int) -> Iterator[Fault]:
    """One of each kind is killed and one is paused (or what else there is for the kind), in an order by *seed*."""
    chance = random.Random(seed)
    wanted = [(kind, action) for kind in victims for action in _actions(kind)]
    chance.shuffle(wanted)
    for kind, action in wanted:
        yield _one(chance, victims, kind, action)


def at_random(victims: Mapping[str, Sequence[Victim]], seed: int) -> Iterator[Fault]:
    """For ever."""
    chance = random.Random(seed)
    while True:
        kind = chance.choice(list(victims))
        yield _one(chance, victims, kind, chance.choice(_actions(kind)))


async def carry_out(
    faults: Iterator[Fault],
    victims: Mapping[str, Sequence[Victim]],
    recorder: Recorder,
    *,
    seconds: float,
    between: float = 2.0,
    settled: Callable[[str], None] | None = None,
) -> int:
    """One fault after the other for *seconds*, then all is well again; returns how many there were.

    *between*: seconds of peace after each. *settled*: called (in a thread) with the kind that was brought back; it waits
    until the others of its kind know.
    """
    loop = asyncio.get_running_loop()
    end, count = loop.time() + seconds, 0
    for fault in faults:
        await asyncio.sleep(between)
        if loop.time() > end:
            break
        async with hurt(fault, victims[fault.kind][fault.number], recorder):
            await asyncio.sleep(fault.seconds)
        if settled is not None:
            await asyncio.to_thread(settled, fault.kind)
            recorder.note("the others know")
        count += 1
    return count


@asynccontextmanager
async def hurt(fault: Fault, victim: Victim, recorder: Recorder) -> AsyncIterator[None]:
    """Hurt it; at the end it is brought back, whatever happened."""
    recorder.note(str(fault))
    if fault.action != "kill":
        victim.pause()
        try:
            yield
        finally:
            victim.resume()
    else:
        victim.kill()
        try:
            yield
        finally:
            await asyncio.to_thread(victim.start)
    recorder.note(f"{fault.kind} {fault.number} is back")
