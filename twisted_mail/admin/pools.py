"""``mailctl pool``: the addresses that mail leaves from, how they are being warmed up, and what a plan would do."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.relay.plans import Halt
from twisted_mail.relay.pools import Pool, Pools
from twisted_mail.relay.reputation import Counts
from twisted_mail.relay.streams import NORMAL, Stream
from twisted_mail.relay.warm_up import Curve, PlannedAddress, Progress, day_of, project
from twisted_mail.tap.relaying import leaving_of

__all__ = ["pool"]

BARS: Final = "▁▂▃▄▅▆▇█"
NARROW: Final = 60
"""Characters that a drawn plan has at most."""
COLUMNS: Final = (
    "pool", "address", "provider", "plan", "allowance", "sent", "delivered", "deferred", "bounced", "complained", "why",
)  # fmt: skip


@click.group(cls=Group)
def pool() -> None:
    """Addresses that mail leaves from, and their warm-up.

    Pools, streams and plans are configured ([relay.pools], [relay.streams], [relay.warm_up]); here is how they stand.
    Days are UTC.
    """


def _pools(store: Store) -> Pools:
    return leaving_of(store.configuration).over(store.backend.records, store.backend.allowances)


def _address(pools: Pools, text: str) -> str:
    """An address of a pool, as the pool writes it. Raises Problem."""
    wanted = text.strip().lower()
    if pools.pool_of(wanted) is None:
        known = ", ".join(pools.warming())
        raise Problem(Status.NOT_FOUND, "not-found", f"no pool has the address {text}; there are: {known}")
    return wanted


def _date(day: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


# --- how they stand


def _plan_text(of: Pool, halt: Halt | None, progress: Progress | None, curve: Curve, today: int) -> str:
    if halt is not None:
        return "halted by an operator"
    if of.warm_up is None:
        return "warm"
    if today < of.warm_up:
        return f"begins {_date(of.warm_up)}"
    if progress is None:
        return f"day 1 of {len(curve)}"
    if progress.halted(today):
        return f"halted until {_date(progress.halted_until)}"
    step = progress.step_on(today)
    return "done" if step >= len(curve) else f"day {step + 1} of {len(curve)}"


async def _facts(pools: Pools, of: Pool, address: str, days: int, now: float) -> list[dict[str, Any]]:
    """A row for each provider that has a plan, or was heard of today; one row if there is none."""
    plans, today = pools.plans, day_of(now)
    halt, found = await plans.state(address)
    rows = []
    for group in dict.fromkeys((*pools.providers.names, *found)):
        progress = found.get(group)
        counts = await plans.counts(address, group, today)
        if progress is None and counts == Counts():
            continue
        curve = of.curve or plans.settings.curve_of(group)
        standing = await plans.standing(address, group, of.warm_up, now, of.curve)
        progress = (await plans.state(address))[1].get(group)  # looking may have begun the day
        sent = [await plans.taken(address, group, today - back) for back in range(days - 1, -1, -1)]
        rows.append({
            "pool": of.name,
            "address": address,
            "provider": group,
            "plan": _plan_text(of, halt, progress, curve, today),
            "allowance": standing.allowance,
            "sent": sent[-1] if of.warm_up is not None else counts.delivered + counts.deferred + counts.bounced,
            "delivered": counts.delivered,
            "deferred": counts.deferred,
            "bounced": counts.bounced,
            "complained": counts.complained,
            "why": (halt.why if halt is not None else progress.why if progress is not None else "") or None,
            "step": standing.step if of.warm_up is not None else None,
            "history": sent,
            "curve": list(curve.allowances) if of.warm_up is not None else None,
        })  # fmt: skip
    if not rows:
        empty: dict[str, Any] = dict.fromkeys(COLUMNS)
        curve = of.curve or plans.settings.curve
        plan = _plan_text(of, halt, None, curve, today)
        rows.append({**empty, "pool": of.name, "address": address, "plan": plan, "why": halt.why if halt else None})
    return rows


@pool.command("status")
@click.argument("name", required=False, metavar="[POOL]")
@click.option("--days", default=14, type=click.IntRange(1, 60), help="Of how many days the mail sent is shown (14).")
@on_store()
async def status(store: Store, name: str | None, days: int) -> None:
    """Every address with what it sent today, what it may send, and what receivers said; plans as a picture.

    `sent` is what nodes took of the day's allowance: what a crashed node had ahead is in it.
    """
    pools = _pools(store)
    wanted = [each for each in pools.all() if name is None or each.name == name]
    if not wanted:
        raise Problem(Status.NOT_FOUND, "not-found", f"no pool {name}")
    now = time.time()
    rows = [row for of in wanted for each in of.addresses for row in await _facts(pools, of, each.name, days, now)]
    out = the_invocation().out
    out.rows(rows, COLUMNS)
    if out.terminal:
        for row in rows:
            if row.get("curve") is not None:
                Console().print(_picture(row))


def _bars(numbers: Sequence[int]) -> str:
    """One character for each number, from the lowest to the highest by tenfolds: plans grow a thousandfold. 0: a blank."""
    scale = [math.log10(n) for n in numbers if n > 0]
    low, span = min(scale, default=0.0), max(scale, default=0.0) - min(scale, default=0.0)
    return "".join(" " if n < 1 else BARS[round((math.log10(n) - low) / span * 7) if span else 7] for n in numbers)


def _picture(row: Mapping[str, Any]) -> Text:
    """A plan's curve with today marked, how much of today is used, and the days before."""
    curve, step = row["curve"], row["step"]
    shown = [curve[at * len(curve) // min(len(curve), NARROW)] for at in range(min(len(curve), NARROW))]
    here = min(step * len(shown) // len(curve), len(shown))
    bars = _bars(shown)
    text = Text(f"\n{row['address']} to {row['provider']}\n  plan   ")
    text.append(bars[:here], "green").append(bars[here : here + 1], "bold yellow").append(bars[here + 1 :], "dim")
    text.append(f"  {curve[0]:,} to {curve[-1]:,} in {len(curve)} days\n  sent   ")
    text.append(_bars(row["history"]), "cyan").append(f"  the last {len(row['history'])} days")
    allowance = row["allowance"]
    if allowance:
        used = min(row["sent"] / allowance, 1.0)
        full = round(used * 30)
        text.append("\n  today  ").append("█" * full, "green").append("░" * (30 - full), "dim")
        text.append(f"  {row['sent']:,} of {allowance:,}")
    if row["why"]:
        text.append(f"\n  {row['why']}", "yellow")
    return text


# --- what a plan would do


def _stream(pools: Pools, name: str | None) -> Stream:
    """The stream that is meant: *name*, or the one whose pools are being warmed up. Raises Problem."""
    if name is not None:
        found = pools.streams.named(name)
        if found is None:
            known = ", ".join(each.name for each in pools.streams.all())
            raise Problem(Status.NOT_FOUND, "not-found", f"no stream {name}; there are: {known}")
        return found
    warming = {of.name for of in pools.all() if of.warm_up is not None}
    streams = [each for each in pools.streams.all() if warming & set(each.pools)]
    if len(streams) > 1:
        names = ", ".join(each.name for each in streams)
        raise Problem(Status.USAGE, "usage", f"several streams leave by addresses with a plan: name one of {names} by --stream")
    normal = pools.streams.named(NORMAL)
    assert normal is not None
    return streams[0] if streams else normal


async def _planned(pools: Pools, stream: Stream, group: str, now: float) -> list[PlannedAddress]:
    found = []
    today = day_of(now)
    for of in pools.all():
        if of.name not in stream.pools:
            continue
        for each in of.addresses:
            halt, plans = await pools.plans.state(each.name)
            if halt is not None:
                continue
            if of.warm_up is None:
                found.append(PlannedAddress(None, daily=of.daily))
                continue
            progress = plans.get(group, Progress(today))
            begins = max(of.warm_up - today, progress.halted_until - today, 0)
            curve = of.curve or pools.plans.settings.curve_of(group)
            found.append(PlannedAddress(curve, progress.step, of.daily, begins))
    return found


@pool.command("plan")
@click.argument("volume", type=click.IntRange(1, 10**9))
@click.option("--days", default=42, type=click.IntRange(1, 366), help="How far ahead (42).")
@click.option("--once", is_flag=True, help="VOLUME is sent once, on the first day, not every day.")
@click.option("--stream", "stream_name", help="By which stream; default: the one whose addresses have a plan.")
@click.option("--provider", default="google", help="To which provider group (google).")
@on_store()
async def plan(store: Store, volume: int, days: int, once: bool, stream_name: str | None, provider: str) -> None:
    """What would become of VOLUME messages a day to one provider, from where the plans stand now: what leaves on which
    day, and what waits for the next.

    Without complaints, bounces and deferrals; addresses that an operator halted do not take part.
    """
    pools = _pools(store)
    if provider not in pools.providers.names:
        known = ", ".join(pools.providers.names)
        raise Problem(Status.NOT_FOUND, "not-found", f"no provider group {provider}; there are: {known}")
    stream = _stream(pools, stream_name)
    addresses = await _planned(pools, stream, provider, time.time())
    found = project(addresses, volume, days, settings=pools.plans.settings, once=once)
    out = the_invocation().out
    today = day_of(time.time())
    rows = [
        {
            "day": each.day,
            "date": _date(today + each.day - 1),
            "allowance": each.allowance,
            "arrives": each.arrives,
            "leaves": each.leaves,
            "waits": each.waits,
        }
        for each in found
    ]
    last = max((each.day for each in found if each.waits), default=0)
    done = last + 1 if last < days else None
    if out.as_json:
        facts = {"stream": stream.name, "provider": provider, "volume": volume, "once": once, "nothing_waits_from": done}
        out.one({**facts, "days": rows})
        return
    out.rows(rows)
    if done is None:
        out.note(f"after {days} days {found[-1].waits:,} messages wait")
    elif done == 1:
        out.note(f"all of it leaves at once, by the stream {stream.name}")
    else:
        out.note(f"from day {done} on nothing waits for the next day")


# --- what operators do


@pool.command("halt")
@click.argument("address")
@click.option("--why", default="no reason given", help="For the trace of the mail that waits.")
@on_store()
async def halt(store: Store, address: str, why: str) -> None:
    """Let nothing leave by ADDRESS until `resume`; all nodes know within a minute.

    Its mail leaves by other addresses of the same stream's pools, or waits.
    """
    pools = _pools(store)
    wanted = _address(pools, address)
    await pools.plans.halt(wanted, why[:500], time.time())
    the_invocation().out.done(f"{wanted} is halted", address=wanted, halted=True)


@pool.command("resume")
@click.argument("address")
@on_store()
async def resume(store: Store, address: str) -> None:
    """Let mail leave by ADDRESS again, whether an operator halted it or what receivers said; its plans go on where they are."""
    pools = _pools(store)
    wanted = _address(pools, address)
    await pools.plans.resume(wanted)
    the_invocation().out.done(f"{wanted} is not halted", address=wanted, halted=False)


@pool.command("step-back")
@click.argument("address")
@click.option("--days", default=7, type=click.IntRange(1, 366), help="By how many days (7).")
@click.option("--provider", help="Only the plan for this provider group.")
@on_store()
async def step_back(store: Store, address: str, days: int, provider: str | None) -> None:
    """Put the plans of ADDRESS back, e.g. after trouble elsewhere; they grow again from there."""
    pools = _pools(store)
    wanted = _address(pools, address)
    moved = await pools.plans.step(wanted, -days, time.time(), provider)
    if not moved:
        raise Problem(Status.NOT_FOUND, "not-found", f"{wanted} has no plan" + (f" for {provider}" if provider else ""))
    steps = {group: progress.step + 1 for group, progress in moved.items()}
    text = ", ".join(f"{group}: day {day}" for group, day in steps.items())
    the_invocation().out.done(f"{wanted} is put back ({text})", address=wanted, days=steps)
