"""The plans of all addresses, kept where every node sees them.

In the space ``warm-up/<address>`` lies a record for each provider group, written by the nodes as days go by and as
receivers complain, and one, ``!operator``, written by an operator only: so no node can undo a person's halt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import msgspec
from twisted.logger import Logger

from twisted_mail.relay.reputation import Counts, Signal, Tally
from twisted_mail.relay.warm_up import DAY, Curve, Progress, WarmUpSettings, begin, day_of, judge, part_of_day, roll
from twisted_mail.storage.interfaces import Allowances, Records

__all__ = ["REFRESH", "Halt", "Plans", "Standing", "allowance_name"]

REFRESH: Final = 60.0
"""Seconds after which a node looks again what others wrote: a halt is known everywhere within them."""
_OPERATOR: Final = "!operator"
_MOST_GROUPS: Final = 1000


def allowance_name(address: str, group: str) -> str:
    """What the messages of a plan are counted under, in `Allowances`."""
    return f"warm-up/{address}/{group}"


@dataclass(frozen=True, slots=True)
class Halt:
    """An operator's word: nothing leaves by this address."""

    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What an address may send to a provider group now."""

    day: int
    """Days since 1970."""
    limit: int | None
    """Messages in this day up to now, all nodes together; None: no limit, the plan is done or there is none."""
    allowance: int | None
    """Messages in the whole day."""
    more_at: float
    """When there will be more, if this is used up."""
    why: str = ""
    """Why there is nothing at all, for the trace and the operator; empty: there is."""
    step: int = 0


class Plans:
    """Where each address stands, with each provider group."""

    _log = Logger()

    def __init__(self, records: Records, allowances: Allowances, settings: WarmUpSettings | None = None) -> None:
        self._records = records
        self._allowances = allowances
        self.settings = settings if settings is not None else WarmUpSettings()
        self.tally = Tally(allowances)
        self._known: dict[tuple[str, str], tuple[Progress, int, float]] = {}
        """The plan, the day that it was rolled for, and when it was read."""
        self._halts: dict[str, tuple[Halt | None, float]] = {}

    # --- what may be sent

    async def standing(
        self, address: str, group: str, first_day: int | None, now: float, curve: Curve | None = None
    ) -> Standing:
        """What *address* may send to *group* at *now* (seconds since 1970).

        *first_day*: of its plan (days since 1970); None: it is warm, and only an operator halts it. *curve*: its pool's
        own. Raises: StorageError.
        """
        day = day_of(now)
        halt = await self._halt(address, now)
        if halt is not None:
            return Standing(day, 0, 0, now + 3600.0, f"{address} was halted by an operator: {halt.why}")
        if first_day is None:
            return Standing(day, None, None, (day + 1) * DAY)
        if day < first_day:
            return Standing(day, 0, 0, first_day * DAY, f"the warm-up of {address} begins on a later day")
        curve = curve if curve is not None else self.settings.curve_of(group)
        progress = await self._progress(address, group, day, now, curve)
        step = progress.step_on(day)
        if progress.halted(day):
            why = f"{address} is halted for {group}: {progress.why}"
            return Standing(day, 0, 0, progress.halted_until * DAY, why, step)
        allowance = curve.allowance(step)
        if allowance is None:
            return Standing(day, None, None, (day + 1) * DAY, step=step)
        hour = int((now - day * DAY) // 3600)
        hours = self.settings.hours
        limit = part_of_day(allowance, hour, hours)
        more_at = (day + 1) * DAY
        if limit < allowance:
            later = next(h for h in range(hour + 1, 24) if part_of_day(allowance, h, hours) > limit)
            more_at = day * DAY + later * 3600.0
        return Standing(day, limit, allowance, more_at, step=step)

    async def _halt(self, address: str, now: float) -> Halt | None:
        known = self._halts.get(address)
        if known is None or not 0 <= now - known[1] < REFRESH:
            value = await self._records.get(_space(address), _OPERATOR)
            known = (msgspec.json.decode(value, type=Halt) if value is not None else None, now)
            self._halts[address] = known
        return known[0]

    async def _progress(self, address: str, group: str, day: int, now: float, curve: Curve) -> Progress:
        known = self._known.get((address, group))
        if known is None or not 0 <= now - known[2] < REFRESH or known[1] != day:
            value = await self._records.get(_space(address), group)
            progress = _decode(value) if value is not None else begin(day)
            used = 0
            if progress.day < day:
                used = await self._allowances.taken(allowance_name(address, group), progress.day)
            rolled = roll(progress, day, used, self.settings, curve)
            if value is None or rolled != progress:
                await self._write(address, group, rolled)
            known = (rolled, day, now)
            self._known[address, group] = known
        return known[0]

    async def _write(self, address: str, group: str, progress: Progress) -> None:
        await self._records.put(_space(address), group, msgspec.json.encode(asdict(progress)))

    # --- what receivers say

    def heard(self, address: str, group: str, signal: Signal, now: float, n: int = 1) -> None:
        """Count something a receiver said; written and looked at in the next `review`."""
        self.tally.add(address, group, signal, day_of(now), n)

    async def review(self, now: float, warming: Mapping[str, int | None]) -> list[str]:
        """Write what was counted, and halt or step back the plans that it speaks against; what was done, in sentences.

        To be called every few seconds. *warming*: the first day of each address's plan (None: it has none and is not
        judged). Raises: StorageError; what is not written stays for the next time.
        """
        touched: list[tuple[str, str]] = []
        await self.tally.flush(lambda address, group: touched.append((address, group)))
        day = day_of(now)
        done = []
        for address, group in touched:
            first_day = warming.get(address)
            if first_day is None or day < first_day:
                continue
            value = await self._records.get(_space(address), group)
            if value is None:
                continue
            progress = _decode(value)
            days = range(day - self.settings.window_days + 1, day + 1)
            counts = {each: await self.tally.counts(address, group, each) for each in days}
            judged = judge(progress, counts, day, group, self.settings, now)
            if judged is not progress:
                await self._write(address, group, judged)
                self._known[address, group] = (judged, day, now)
                self._log.warn("warm-up of {address}: {why}", address=address, why=judged.why)
                done.append(f"{address}: {judged.why}")
        return done

    # --- what operators see and do

    async def state(self, address: str) -> tuple[Halt | None, Mapping[str, Progress]]:
        """As it is written: an operator's halt, and the plan for each provider group. Raises: StorageError."""
        halt, found = None, {}
        for record in await self._records.list(_space(address), limit=_MOST_GROUPS):
            if record.key == _OPERATOR:
                halt = msgspec.json.decode(record.value, type=Halt)
            else:
                found[record.key] = _decode(record.value)
        return halt, found

    async def taken(self, address: str, group: str, day: int) -> int:
        """Messages that nodes took of the allowance of *day*. Raises: StorageError."""
        return await self._allowances.taken(allowance_name(address, group), day)

    async def counts(self, address: str, group: str, day: int) -> Counts:
        """What receivers said on *day*. Raises: StorageError."""
        return await self.tally.counts(address, group, day)

    async def halt(self, address: str, why: str, now: float) -> None:
        """Let nothing leave by *address* until `resume`. Raises: StorageError."""
        await self._records.put(_space(address), _OPERATOR, msgspec.json.encode(Halt(why, now)))
        self._halts.pop(address, None)

    async def resume(self, address: str) -> None:
        """End an operator's halt, and those that receivers caused; plans go on where they stand. Raises: StorageError."""
        _, found = await self.state(address)
        for group, progress in found.items():
            if progress.halted_until:
                await self._write(address, group, replace(progress, halted_until=0))
                self._known.pop((address, group), None)
        await self._records.delete(_space(address), _OPERATOR)
        self._halts.pop(address, None)

    async def step(self, address: str, days: int, now: float, group: str | None = None) -> Mapping[str, Progress]:
        """Move the plans of *address* (*group*: only this one) by *days*, backwards if negative; what became of them.

        Raises: StorageError.
        """
        _, found = await self.state(address)
        moved = {}
        for name, progress in found.items():
            if group is not None and name != group:
                continue
            step = min(max(progress.step + days, 0), len(self.settings.curve_of(name)))
            way = "back" if days < 0 else "on"
            why = f"{abs(days)} days {way} by an operator"
            moved[name] = replace(progress, step=step, before=min(step, progress.before), why=why, why_at=now)
            await self._write(address, name, moved[name])
            self._known.pop((address, name), None)
        return moved

    def forget(self, now: float) -> None:
        """Drop from memory what has not been looked at for a day."""
        old = [key for key, (_, _, read) in self._known.items() if not math.fabs(now - read) < DAY]
        for key in old:
            del self._known[key]


def _space(address: str) -> str:
    return f"warm-up/{address}"


def _decode(value: bytes) -> Progress:
    return msgspec.json.decode(value, type=Progress)
