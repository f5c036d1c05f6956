"""Which buckets of the read and unread lists are live, for which period of time: a setting of the account.

A period begins at a pair of a received time and a UID, so that even messages of one date can be split. Numbers of buckets
are given by the log and never twice. A bucket that is being made is named before anything is written to it, and one
that was replaced stays for an hour, for nodes that have not heard of it; so what a process that died leaves behind is
known, and goes.

Which of two nodes that renew at once comes first is decided by the log too: a switch is done only on top of the
assignment that its maker saw. Every assignment has a marker of its own, the bucket whose `reached` counts for all of its
buckets: who still works with an older assignment marks what nobody asks for any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Final

from msgspec import json

from twisted_mail.account.apply import Applied
from twisted_mail.account.entries import SettingChanged
from twisted_mail.account.intents import TREE, Intent, Plan, Scope
from twisted_mail.account.state import AccountState

__all__ = [
    "BUCKETS_SETTING",
    "LOWEST",
    "Buckets",
    "Period",
    "ReserveBuckets",
    "SwitchBuckets",
    "TidyBuckets",
    "buckets_of",
    "every_bucket",
]

BUCKETS_SETTING: Final = "lists.buckets"

Place = tuple[int, int]
"""Received time in milliseconds, and UID: the order of a list."""

LOWEST: Final[Place] = (-(2**63), 0)

Dated = tuple[int, int]
"""A bucket, and since when (seconds since 1970)."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (included) to the next one's."""

    start: Place
    bucket: int
    made: int
    """The modseq whose state was in the bucket when it became live."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """The assignment of buckets to periods."""

    periods: tuple[Period, ...] = (Period(LOWEST, 0, 0),)
    """Ascending; the first begins at `LOWEST`, the last has no end."""
    marker: int = 0
    """The bucket whose `reached` says how far all of them have come."""
    making: tuple[Dated, ...] = ()
    """Numbers that were given out and are not live yet."""
    garbage: tuple[Dated, ...] = ()
    """Buckets that nobody needs any more."""
    next: int = 1
    """The lowest number that was never given out."""

    def at(self, place: Place) -> int:
        """The index of the period that *place* lies in."""
        return bisect_right(self.periods, place, key=_start) - 1

    def end(self, index: int) -> Place | None:
        """Where the period ends (not included); None: nowhere."""
        return self.periods[index + 1].start if index + 1 < len(self.periods) else None

    def encode(self) -> str:
        periods = [(*period.start, period.bucket, period.made) for period in self.periods]
        return json.encode((self.next, self.marker, periods, self.making, self.garbage)).decode()


def _start(period: Period) -> Place:
    return period.start


_Encoded = tuple[
    int, int, tuple[tuple[int, int, int, int], ...], tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]
]


@lru_cache(maxsize=1024)
def _decode(text: str) -> Buckets:
    number, marker, periods, making, garbage = json.decode(text, type=_Encoded)
    return Buckets(
        tuple(Period((received, uid), bucket, made) for received, uid, bucket, made in periods),
        marker,
        making,
        garbage,
        number,
    )


def buckets_of(state: AccountState) -> Buckets:
    """The assignment as *state* has it; an account whose lists were never split or renewed has bucket 0."""
    text = state.settings.get(BUCKETS_SETTING)
    return Buckets() if text is None else _decode(text)


def every_bucket(state: AccountState) -> Sequence[int]:
    """All that may hold anything: the live ones, those being made, and those that are to go."""
    buckets = buckets_of(state)
    live = (period.bucket for period in buckets.periods)
    return sorted({buckets.marker, *live, *(n for n, _ in buckets.making), *(n for n, _ in buckets.garbage)})


def _plan(buckets: Buckets, note: object = None) -> Plan:
    return Plan((SettingChanged(BUCKETS_SETTING, buckets.encode()),), note)


_SCOPE: Final = Scope(frozenset((b"setting:" + BUCKETS_SETTING.encode(),)), frozenset((TREE,)))


class ReserveBuckets(Intent[tuple[int, ...]], frozen=True, kw_only=True, tag="reserve-buckets"):
    """Give out *count* new numbers."""

    cause: ClassVar[str] = "lists"
    count: int
    now: int
    """Seconds since 1970."""

    def scope(self) -> Scope:
        return _SCOPE

    def run(self, state: AccountState) -> Plan:
        buckets = buckets_of(state)
        numbers = tuple(range(buckets.next, buckets.next + self.count))
        making = (*buckets.making, *((number, self.now) for number in numbers))
        return _plan(replace(buckets, making=making, next=buckets.next + self.count), numbers)

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> tuple[int, ...]:
        numbers: tuple[int, ...] = plan.note
        return numbers


class SwitchBuckets(Intent[bool], frozen=True, kw_only=True, tag="switch-buckets"):
    """Make the assignment *periods* (received, UID, bucket, made) with *marker*; False if another has come in between."""

    cause: ClassVar[str] = "lists"
    seen: int
    """The marker of the assignment that this one is made from."""
    periods: tuple[tuple[int, int, int, int], ...]
    marker: int
    now: int

    def scope(self) -> Scope:
        return _SCOPE

    def run(self, state: AccountState) -> Plan:
        buckets = buckets_of(state)
        old = {period.bucket for period in buckets.periods}
        live = {bucket for _, _, bucket, _ in self.periods}
        known = {number for number, _ in buckets.making}
        if buckets.marker != self.seen or not live - old <= known:
            return Plan(note=False)  # others were faster, or took what was being made for left behind
        changed = replace(
            buckets,
            periods=tuple(Period((received, uid), bucket, made) for received, uid, bucket, made in self.periods),
            marker=self.marker,
            making=tuple(dated for dated in buckets.making if dated[0] not in live),
            garbage=(*buckets.garbage, *((number, self.now) for number in sorted(old - live))),
        )
        return _plan(changed, True)

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> bool:
        return bool(plan.note)


class TidyBuckets(Intent[None], frozen=True, kw_only=True, tag="tidy-buckets"):
    """Give up *retired*, which were being made; forget *dropped*, whose partitions are gone."""

    cause: ClassVar[str] = "lists"
    retired: tuple[int, ...]
    dropped: tuple[int, ...]
    now: int

    def scope(self) -> Scope:
        return _SCOPE

    def run(self, state: AccountState) -> Plan:
        buckets = buckets_of(state)
        retired = [number for number, _ in buckets.making if number in self.retired]
        changed = replace(
            buckets,
            making=tuple(dated for dated in buckets.making if dated[0] not in self.retired),
            garbage=(
                *(dated for dated in buckets.garbage if dated[0] not in self.dropped),
                *((number, self.now) for number in retired),
            ),
        )
        return Plan() if changed == buckets else _plan(changed)

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None
