"""Warm-up: how much an address may send to a group of mailbox providers on a day, and how that grows. Pure.

The default follows what large receivers and senders publish (docs/explanation/sending-and-reputation.md has the links):

- Google: start low, grow slowly, no bursts; doubling at once may be rate limited; send less when mail is deferred until
  that ends. The spam rate stays below 0.1 % and never reaches 0.3 %; Yahoo asks the same.
- Amazon SES: two weeks at least, six with many providers; its own plan takes 45 days to 50,000 a day. It reviews a sender
  at 5 % of bounces or 0.1 % of complaints, and stops it at 10 % or 0.5 %.
- Twilio SendGrid: the first day has 50 messages; an address that rested for 30 days is warmed up again; what is over the
  plan leaves by addresses that are warm.

A plan is a curve: a number of messages for each day. It moves on by one step for each UTC day on which at least half of the
allowance was used; a few days of rest in a row (a weekend) count too. So a plan that is used takes six weeks, and one
that is not, or a clock that jumps, does not end in a burst from an address that nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from twisted_mail.relay.reputation import Counts
from twisted_mail.relay.tables import Table, Wrong

__all__ = [
    "DAY",
    "DEFAULT_CURVE",
    "Curve",
    "PlannedAddress",
    "PlannedDay",
    "Progress",
    "Threshold",
    "WarmUpSettings",
    "begin",
    "day_of",
    "judge",
    "part_of_day",
    "project",
    "roll",
]

DAY: Final = 86_400.0


def day_of(now: float) -> int:
    """Days since 1970, UTC."""
    return int(now // DAY)


@dataclass(frozen=True, slots=True)
class Curve:
    """What each step of a plan allows in a day; behind the last one the address is warm."""

    allowances: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.allowances or min(self.allowances) < 1:
            raise ValueError("a curve has a number of messages, at least 1, for each of its days")

    @classmethod
    def growing(cls, first: int, last: int, days: int) -> Curve:
        """From *first* to *last* within *days*, by the same factor every day."""
        if days == 1:
            return cls((last,))
        factor = (last / first) ** (1 / (days - 1))
        return cls(tuple(round(first * factor**day) for day in range(days)))

    def __len__(self) -> int:
        return len(self.allowances)

    def allowance(self, step: int) -> int | None:
        """Messages in the day of *step* (the first is 0); None: no limit, the plan is done."""
        return self.allowances[max(step, 0)] if step < len(self.allowances) else None


DEFAULT_CURVE: Final = Curve.growing(50, 50_000, 42)
"""To each provider group: 50 messages on the first day, 50,000 on the last of six weeks, 18 % more each day."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """When a signal makes a plan go back, or halt. Rates are events by messages (0.05: 5 %)."""

    back: float
    halt: float
    least: int
    """Fewer events than this say nothing."""


@dataclass(frozen=True, slots=True)
class WarmUpSettings:
    """How plans go."""

    curve: Curve = DEFAULT_CURVE
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Other curves, by provider group."""
    hours: int = 12
    """Hours of the UTC day over which a day's allowance is let out, an equal part each; 1: all of it at midnight."""
    rest_days: int = 2
    """Days in a row with less than half of the allowance used that still count as days of the plan."""
    forget_days: int = 30
    """After so many days in a row without any mail the plan begins anew (nobody remembers a silent address for longer)."""
    window_days: int = 3
    """Rates are counted over so many days, today included."""
    back_steps: int = 3
    """How far a plan is stepped back."""
    halt_days: int = 3
    """How long nothing is sent after a halt."""
    halt_steps: int = 7
    """How far back the plan goes on after a halt."""
    complaints: Threshold = Threshold(back=0.001, halt=0.003, least=2)
    """Google's and Yahoo's limits."""
    bounces: Threshold = Threshold(back=0.05, halt=0.10, least=5)
    """Amazon SES's limits."""
    deferrals: Threshold = Threshold(back=0.10, halt=0.30, least=10)
    """Ours: receivers ask to send less while they defer, and name no rate."""

    def curve_of(self, group: str) -> Curve:
        return self.curves.get(group, self.curve)

    @classmethod
    def read(cls, tables: object) -> WarmUpSettings:
        """The settings of ``[relay.warm_up]``. Raises: Wrong."""
        problems: list[tuple[str, str]] = []
        table = Table(tables, "relay.warm_up", problems)
        default = cls()
        curve = _read_curve(table, default.curve)
        below = table.table("providers")
        curves = {name: _read_curve(below.table(name), curve, end=True) for name in below.names()}
        numbers = {
            name: table.whole(name, getattr(default, name), low)
            for name, low in (
                ("hours", 1), ("rest_days", 0), ("forget_days", 1), ("window_days", 1),
                ("back_steps", 1), ("halt_days", 1), ("halt_steps", 0),
            )
        }  # fmt: skip
        if (numbers["hours"] or 1) > 24:
            table.wrong("hours", "a day has 24")
        thresholds = {
            name: _read_threshold(table.table(name), getattr(default, name))
            for name in ("complaints", "bounces", "deferrals")
        }
        table.end()
        if problems:
            raise Wrong(problems)
        return cls(curve=curve, curves=curves, **numbers, **thresholds)  # type: ignore[arg-type]  # by name, as read above


def _read_curve(table: Table, default: Curve, *, end: bool = False) -> Curve:
    listed = table.wholes("curve")
    first, last = table.whole("first", None, 1), table.whole("last", None, 1)
    days = table.whole("days", None, 1)
    if end:
        table.end()
    if listed and (first or last or days):
        table.wrong("curve", "goes without first, last and days")
    if listed:
        if min(listed) < 1:
            table.wrong("curve", "each day has at least one message")
            return default
        return Curve(listed)
    first, last = first or default.allowances[0], last or default.allowances[-1]
    if last < first:
        table.wrong("last", f"is below what the first day has, {first}")
        return default
    days = days or len(default)
    return default if (first, last, days) == _ends(default) else Curve.growing(first, last, days)


def _ends(curve: Curve) -> tuple[int, int, int]:
    return curve.allowances[0], curve.allowances[-1], len(curve)


def _read_threshold(table: Table, default: Threshold) -> Threshold:
    rates = {}
    for name in ("back", "halt"):
        value = table.number(name, getattr(default, name))
        if not 0 < value <= 1:
            table.wrong(name, "is a rate: 0.05 stands for 5 %")
        rates[name] = value
    least = table.whole("least", default.least, 1)
    table.end()
    return Threshold(rates["back"], rates["halt"], default.least if least is None else least)


# --- where a plan stands


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the plan of one address stands with one provider group."""

    day: int
    """The UTC day (since 1970) that it is written for."""
    step: int = 0
    before: int = 0
    """The step of the day before, for a node whose clock is a little behind."""
    unused: int = 1_000_000
    """Days in a row, before `day`, on which less than half of the allowance was used; at first: always."""
    silent: int = 0
    """Days in a row, before `day`, on which nothing was sent."""
    halted_until: int = 0
    """The first day on which it sends again; 0: it is not halted."""
    back_day: int = 0
    """When it was last stepped back by what receivers said."""
    halt_day: int = 0
    """The last day of its last halt because of what receivers said."""
    why: str = ""
    """What last made it halt or go back, for people."""
    why_at: float = 0.0

    def halted(self, day: int) -> bool:
        return day < self.halted_until

    def step_on(self, day: int) -> int:
        """The step that counts on *day*: today's, or yesterday's where the clock is behind."""
        return self.before if day < self.day else self.step


def begin(day: int) -> Progress:
    """A plan that has sent nothing yet."""
    return Progress(day)


def roll(progress: Progress, today: int, used: int, settings: WarmUpSettings, curve: Curve) -> Progress:
    """The plan on the day *today*; *used*: how many messages of `progress.day` were taken, over all nodes.

    Nodes roll the same plan by themselves: the same input gives the same. A record of the day after is left alone (a
    neighbour's clock is a little ahead); one from further in the future is taken back, without a step won.
    """
    if today in (progress.day, progress.day - 1):
        return progress
    if today < progress.day:
        return replace(progress, day=today, step=progress.before, halted_until=_sooner(progress, today, settings))
    if progress.halted_until:
        over = today >= progress.halted_until
        return replace(
            progress,
            day=today,
            before=progress.step,
            halted_until=0 if over else progress.halted_until,
            unused=0,
            silent=0,
        )
    allowance = curve.allowance(progress.step)
    if allowance is None:
        return replace(progress, day=today, before=progress.step, unused=0)
    if used * 2 >= allowance:
        steps, unused = 1, 0
    else:
        unused = progress.unused + 1
        steps = 1 if unused <= settings.rest_days else 0
    between = today - progress.day - 1  # days on which no node rolled the plan: nothing was sent
    steps += min(between, max(settings.rest_days - unused, 0))
    silent = between + (0 if used else progress.silent + 1)
    if silent >= settings.forget_days:
        return replace(progress, day=today, step=0, before=progress.step, unused=1_000_000, silent=silent)
    step = min(progress.step + steps, len(curve))
    return replace(progress, day=today, step=step, before=progress.step, unused=unused + between, silent=silent)


def _sooner(progress: Progress, today: int, settings: WarmUpSettings) -> int:
    """A halt that was counted from a day in the future ends no later than one that begins today."""
    return min(progress.halted_until, today + settings.halt_days) if progress.halted_until else 0


def judge(
    progress: Progress,
    counts: Mapping[int, Counts],
    today: int,
    group: str,
    settings: WarmUpSettings,
    now: float,
) -> Progress:
    """The plan after a look at what receivers said, by day; the same value if there is no reason to change it.

    What it was already stepped back or halted for does not count again.
    """
    if progress.halted(today):
        return progress
    first = today - settings.window_days + 1
    for halting in (True, False):
        since = max(first, (progress.halt_day if halting else max(progress.back_day, progress.halt_day)) + 1)
        total = Counts()
        for day, of_day in counts.items():
            if since <= day <= today:
                total += of_day
        why = _reason(total, group, settings, today - since + 1, halting)
        if not why:
            continue
        if halting:
            resumes = today + settings.halt_days
            step = max(progress.step_on(today) - settings.halt_steps, 0)
            why += f"; halted for {settings.halt_days} days, then {settings.halt_steps} days back"
            progress = replace(progress, halted_until=resumes, halt_day=resumes - 1)
        else:
            step = max(progress.step_on(today) - settings.back_steps, 0)
            why += f"; {settings.back_steps} days back"
            progress = replace(progress, back_day=today)
        return replace(progress, day=today, step=step, before=min(step, progress.before), why=why, why_at=now)
    return progress


def _reason(total: Counts, group: str, settings: WarmUpSettings, days: int, halting: bool) -> str:
    attempts = total.delivered + total.deferred + total.bounced
    for what, events, of, threshold in (
        ("complaints", total.complained, total.delivered, settings.complaints),
        ("unknown recipients", total.bounced, total.delivered + total.bounced, settings.bounces),
        ("deferrals and blocks", total.deferred, attempts, settings.deferrals),
    ):
        limit = threshold.halt if halting else threshold.back
        if of and events >= threshold.least and events >= limit * of:
            rate = events / of
            span = "today" if days == 1 else f"in {days} days"
            return (
                f"{events} {what} of {of} messages to {group} {span}: {_percent(rate)}, the limit is {_percent(limit)}"
            )
    return ""


def _percent(rate: float) -> str:
    return f"{rate * 100:.2f}".rstrip("0").rstrip(".") + " %"


def part_of_day(allowance: int, hour: int, hours: int) -> int:
    """What of a day's *allowance* is let out up to the end of *hour* (0..23), over *hours*."""
    return math.ceil(allowance * min(hour + 1, hours) / hours)


# --- what a plan would do


@dataclass(frozen=True, slots=True)
class PlannedDay:
    """A day of a plan that is thought through."""

    day: int
    """From 1 on."""
    allowance: int | None
    """What all addresses may send; None: there is no limit."""
    arrives: int
    leaves: int
    waits: int
    """What is left over for the next day."""


@dataclass(frozen=True, slots=True)
class PlannedAddress:
    """An address as `project` thinks of it."""

    curve: Curve | None
    """None: it is warm."""
    step: int = 0
    daily: int | None = None
    """What it may send in a day by its pool."""
    begins: int = 0
    """Days until its plan begins, or goes on after a halt."""


def project(
    addresses: Sequence[PlannedAddress], volume: int, days: int, *, settings: WarmUpSettings, once: bool = False
) -> list[PlannedDay]:
    """What becomes of *volume* messages a day to one provider group (*once*: on the first day only), without trouble.

    Those that are being warmed up go first, as in `pools`.
    """
    addresses = sorted(addresses, key=lambda each: each.curve is None)
    plans = [replace(begin(0), step=each.step, before=each.step, unused=0) for each in addresses]
    waits = 0
    found = []
    for day in range(days):
        arrives = volume if day == 0 or not once else 0
        left = waits + arrives
        total: int | None = 0
        for at, each in enumerate(addresses):
            allowance = None if each.curve is None else each.curve.allowance(plans[at].step)
            if day < each.begins:
                allowance = 0
            elif each.daily is not None:
                allowance = each.daily if allowance is None else min(allowance, each.daily)
            sent = left if allowance is None else min(left, allowance)
            left -= sent
            total = None if total is None or allowance is None else total + allowance
            if each.curve is not None and day >= each.begins:
                plans[at] = roll(replace(plans[at], day=day), day + 1, sent, settings, each.curve)
        found.append(PlannedDay(day + 1, total, arrives, waits + arrives - left, left))
        waits = left
    return found
