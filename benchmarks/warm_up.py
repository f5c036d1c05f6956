"""Six weeks of warm-up in some seconds: nodes that share one store, a clock that is set, a receiver that follows a script.

    python -m benchmarks.warm_up [--svg docs/explanation/warm-up.svg]

Nothing is sent. The real choice of addresses, plans and blocks run over stores in memory; the receiver counts what comes
from each address on each day, and defers, refuses and complains as its script says.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.plans import Plans, allowance_name
from twisted_mail.relay.pools import Departure, Grant, Pool, PoolAddress, Pools
from twisted_mail.relay.reputation import Signal, signal_of
from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.relay.warm_up import DAY, DEFAULT_CURVE, Curve, WarmUpSettings
from twisted_mail.storage.memory import MemoryAllowances, MemoryRecords

T = TypeVar("T")

FIRST: Final = 20_788
"""2026-12-01."""
ADDRESS: Final = "192.0.2.20"
DESTINATION: Final = "google.com"


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    done: list[T] = []
    failed: list[BaseException] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(done.append, lambda failure: failed.append(failure.value))
    if failed:
        raise failed[0]
    return done[0]


@dataclass(frozen=True, slots=True)
class Mood:
    """How a receiver takes mail on a day: one message in so many is …; 0: none."""

    deferred: int = 0
    refused: int = 0
    complained: int = 0


class Receiver:
    """A provider with a script: its mood by day of the plan, from 1 on."""

    def __init__(self, script: Mapping[int, Mood] | None = None) -> None:
        self._script = dict(script or {})
        self.received: Counter[tuple[str, int]] = Counter()
        """Attempts by (address, day of the plan)."""

    def answer(self, address: str, day: int) -> tuple[Verdict, bool]:
        """The answer to the next message, and whether its reader will complain."""
        self.received[address, day] += 1
        number, mood = self.received[address, day], self._script.get(day, Mood())
        if mood.deferred and number % mood.deferred == 0:
            return Verdict(Result.TEMPORARY, "421 4.7.28 unusual rate of mail", Stage.MAIL, source=address), False
        if mood.refused and number % mood.refused == 0:
            return Verdict(Result.PERMANENT, "550 5.1.1 no such user", Stage.RCPT, source=address), False
        return (
            Verdict(Result.DELIVERED, "250 2.0.0 OK", Stage.END, source=address),
            bool(mood.complained) and number % mood.complained == 0,
        )


@dataclass(slots=True)
class Day:
    """What happened on one day of the plan."""

    number: int
    allowance: int = 0
    """Of the first address, in the morning; 0: halted, or behind its plan's end."""
    sent: Counter[str] = field(default_factory=Counter)
    """Attempts by address."""
    forfeited: int = 0
    """What a node held when it died."""
    waiting: int = 0
    events: list[str] = field(default_factory=list)


class Nodes:
    """Several nodes with one store."""

    def __init__(self, pools: Sequence[Pool], settings: WarmUpSettings, count: int = 3) -> None:
        self._pools, self._settings = pools, settings
        self._allowances = MemoryAllowances()
        self._records = MemoryRecords(Clock())
        self._streams = Streams(
            [
                Stream(
                    "marketing", tuple(pool.name for pool in pools if pool.name != "main"), Match(precedence=("bulk",))
                ),
                Stream(NORMAL, ("main",)),
            ]
        )
        self.nodes = [self._start() for _ in range(count)]

    def _start(self) -> tuple[Pools, Blocks]:
        blocks = Blocks(self._allowances)
        plans = Plans(self._records, self._allowances, self._settings)
        return Pools(self._pools, self._streams, plans, blocks), blocks

    def crash(self, node: int, day: int) -> int:
        """The node is gone, and another is in its place; how many messages it had ahead. 0: it had none, and lives."""
        held = self.nodes[node][1].held(allowance_name(ADDRESS, "google"), day)
        if held:
            self.nodes[node] = self._start()
        return held


def simulate(
    pools: Sequence[Pool],
    settings: WarmUpSettings,
    receiver: Receiver,
    *,
    days: int = 42,
    campaign: int = 10**9,
    crashes: Mapping[tuple[int, int], int] | None = None,
    nodes: int = 3,
) -> list[Day]:
    """*campaign* messages are queued on the first day, all to one provider.

    *crashes*: (day of the plan, hour) to the node that dies then. Nodes take turns, message by message.
    """
    cluster = Nodes(pools, settings, nodes)
    waiting = campaign
    found: list[Day] = []
    for number in range(1, days + 1):
        found.append(day := Day(number))
        start = (FIRST + number - 1) * DAY
        plans = cluster.nodes[0][0].plans
        pool = next(pool for pool in pools if pool.warm_up is not None)
        standing = now(plans.standing(ADDRESS, "google", pool.warm_up, start, pool.curve))
        day.allowance = standing.allowance or 0
        for hour in range(24):
            at = start + hour * 3600.0
            asking = list(range(nodes))
            while asking and waiting:
                for node in list(asking):
                    if not waiting:
                        break
                    grant = now(cluster.nodes[node][0].source("marketing", Departure(DESTINATION), at))
                    if not isinstance(grant, Grant):
                        asking.remove(node)
                        continue
                    address = grant.source.address or ""
                    day.sent[address] += 1
                    verdict, complains = receiver.answer(address, number)
                    plans = cluster.nodes[node][0].plans
                    signal = signal_of(verdict)
                    if signal is not None:
                        plans.heard(address, grant.group, signal, at)
                    if complains:
                        plans.heard(address, grant.group, Signal.COMPLAINED, at)
                    if verdict.result is not Result.TEMPORARY:
                        waiting -= 1
                dying = (crashes or {}).get((number, hour))
                if dying is not None and not day.forfeited:
                    day.forfeited = cluster.crash(dying, FIRST + number - 1)
                    if day.forfeited:
                        day.events.append(f"node {dying} died with {day.forfeited} messages ahead")
            for node in range(nodes):
                one = cluster.nodes[node][0]
                day.events += now(one.plans.review(at + 3599.0, one.warming()))
        day.waiting = waiting
    return found


def bulk(curve: Curve | None = None, *more: str) -> list[Pool]:
    """The pools of the simulations: one address for normal mail, one that is warmed up, and *more* warm ones."""
    pools = [
        Pool("main", (PoolAddress("192.0.2.10", "mx1.example.org"),)),
        Pool("bulk", (PoolAddress(ADDRESS, "news1.example.org"),), warm_up=FIRST, curve=curve),
    ]
    if more:
        pools.append(Pool("bulk-warm", tuple(PoolAddress(each, "news2.example.org") for each in more)))
    return pools


TROUBLE: Final = {
    13: Mood(deferred=3),
    24: Mood(complained=60),
}
"""On the 13th day a third of the mail is deferred; on the 24th one reader of 60 complains."""


# --- the picture


WIDTH, PANEL, LEFT, TOP, GAP = 900, 250, 70, 54, 74


def svg(panels: Sequence[tuple[str, Sequence[Day]]]) -> str:
    """Days from left to right, messages upwards (each line ten times the one below): the allowance, and what was sent."""
    height = TOP + len(panels) * (PANEL + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<g fill="#222222"><rect x="70" y="16" width="12" height="12" fill="#7fb2e5"/><text x="88" y="26">sent</text>'
        '<rect x="140" y="20" width="16" height="3" fill="#c0392b"/><text x="162" y="26">allowance of the day</text>'
        '<circle cx="310" cy="22" r="4" fill="#e67e22"/><text x="320" y="26">a node dies, or receivers complain</text></g>',
    ]
    for at, (title, days) in enumerate(panels):
        out += _panel(title, days, TOP + at * (PANEL + GAP))
    return "\n".join([*out, "</svg>", ""])


def _panel(title: str, days: Sequence[Day], top: int) -> list[str]:
    bottom, decades = top + PANEL, 5
    step = (WIDTH - LEFT - 20) / len(days)

    def y(n: int) -> float:
        return bottom - (math.log10(n) / decades * PANEL if n > 1 else 0)

    out = [f'<text x="{LEFT}" y="{top - 6}" font-size="14" fill="#222222">{title}</text>']
    for decade in range(decades + 1):
        at = y(10**decade)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555555">{10**decade:,}</text>')
    line = []
    for at, day in enumerate(days):
        x = LEFT + at * step
        sent = day.sent.total()
        if sent:
            out.append(
                f'<rect x="{x + 1:.1f}" y="{y(sent):.1f}" width="{step - 2:.1f}" height="{bottom - y(sent):.1f}" fill="#7fb2e5">'
                f"<title>day {day.number}: {sent:,} sent, {day.allowance:,} allowed</title></rect>"
            )
        if day.allowance:
            line.append(f"M{x:.1f} {y(day.allowance):.1f}H{x + step:.1f}")
        if day.events:
            why = "; ".join(day.events).replace("&", "&amp;").replace("<", "&lt;")
            at_y = y(max(sent, 1)) - 10
            out.append(f'<circle cx="{x + step / 2:.1f}" cy="{at_y:.1f}" r="4" fill="#e67e22"><title>{why}</title></circle>')
        if day.number % 7 == 1:
            out.append(f'<text x="{x + 1:.1f}" y="{bottom + 16}" fill="#555555">day {day.number}</text>')
    out.append(f'<path d="{"".join(line)}" stroke="#c0392b" stroke-width="2" fill="none"/>')
    return out


def main() -> None:
    """Run both stories, print what happened, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="where to draw it")
    arguments = parser.parse_args()
    settings = WarmUpSettings(hours=12)
    smooth = simulate(bulk(), settings, Receiver(), crashes={(20, 3): 1, (30, 5): 2})
    kept = all(day.sent.total() + day.forfeited == day.allowance for day in smooth)
    print(
        f"six weeks: {sum(day.sent.total() for day in smooth):,} of {sum(DEFAULT_CURVE.allowances):,} messages, kept: {kept}"
    )
    rough = simulate(bulk(), settings, Receiver(TROUBLE))
    for title, days in (("smooth", smooth), ("rough", rough)):
        for day in days:
            events = "; ".join(day.events)
            print(f"{title}\t{day.number}\t{day.allowance}\t{day.sent.total()}\t{day.forfeited}\t{events}")
    if arguments.svg is not None:
        titles = (
            "Three nodes, two of which die once",
            "The same with a receiver that defers on day 13 and complains on day 24",
        )
        arguments.svg.write_text(svg(list(zip(titles, (smooth, rough)))), "utf-8")


if __name__ == "__main__":
    main()
