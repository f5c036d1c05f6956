"""The plan of an address: how it grows, when it goes back, and what a jumping clock does to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.relay.reputation import Counts
from twisted_mail.relay.tables import Wrong
from twisted_mail.relay.warm_up import (
    DEFAULT_CURVE,
    Curve,
    PlannedAddress,
    PlannedDay,
    Progress,
    Threshold,
    WarmUpSettings,
    begin,
    judge,
    part_of_day,
    project,
    roll,
)

S = WarmUpSettings()
D = DEFAULT_CURVE


def used(progress: Progress, today: int, n: int | None = None) -> Progress:
    """Rolled, when all of the allowance (or *n*) was used."""
    return roll(progress, today, D.allowance(progress.step) or 0 if n is None else n, S, D)


def after(days: int, day: int = 100) -> Progress:
    progress = begin(day)
    for each in range(days):
        progress = used(progress, day + each + 1)
    return progress


def test_the_default_takes_six_weeks_from_50_to_50_000_and_never_doubles() -> None:
    assert (len(D), D.allowances[0], D.allowances[-1]) == (42, 50, 50_000)
    pairs = list(zip(D.allowances, D.allowances[1:]))
    assert all(1.1 < b / a < 1.25 for a, b in pairs)
    assert D.allowance(42) is None
    assert after(41).step == 41 and D.allowance(after(41).step) == 50_000
    assert D.allowance(after(42).step) is None and after(60).step == 42


def test_curves() -> None:
    assert Curve.growing(10, 1000, 3).allowances == (10, 100, 1000)
    assert Curve.growing(10, 1000, 1).allowances == (1000,)
    for bad in ((), (5, 0)):
        with pytest.raises(ValueError):
            Curve(bad)


def test_a_day_counts_if_half_of_it_was_used() -> None:
    at = after(10)
    assert used(at, 111, ((D.allowance(10) or 0) + 1) // 2).step == 11
    rested = used(at, 111, 0)
    assert rested.step == 11, "a day of rest"
    assert roll(rested, 112, 0, S, D).step == 12, "a weekend"
    assert roll(roll(rested, 112, 0, S, D), 113, 0, S, D).step == 12, "a third day does not count"


def test_days_on_which_nobody_looked_are_days_of_rest() -> None:
    assert used(after(10), 111 + 2).step == 13
    assert used(after(10), 111 + 20).step == 13


def test_a_plan_that_has_sent_nothing_does_not_move() -> None:
    assert roll(begin(100), 101, 0, S, D).step == 0
    assert roll(begin(100), 110, 24, S, D).step == 0
    assert roll(begin(100), 101, 25, S, D).step == 1


def test_after_thirty_days_without_mail_it_begins_anew() -> None:
    assert roll(after(20), 120 + 29, 0, S, D).step > 0
    assert roll(after(20), 120 + 30, 0, S, D).step == 0
    little = after(20)
    for day in range(121, 221):
        little = used(little, day, 10)
    assert little.step == 22, "little mail is mail"


def test_a_clock_that_jumps_wins_nothing() -> None:
    at = after(10)
    for days in (2, 5, 40, 4000):
        ahead = used(at, at.day + days)
        assert ahead.step <= at.step + 3
        back = roll(ahead, at.day, 0, S, D)
        assert (back.step_on(at.day), back.day if days > 1 else at.day) == (at.step, at.day)
    # over and over
    progress = at
    for _ in range(20):
        progress = roll(roll(progress, at.day + 30, 10**6, S, D), at.day, 10**6, S, D)
    assert progress.step_on(at.day) == at.step
    # a neighbour is ahead over midnight: yesterday keeps yesterday's step
    tomorrow = used(at, at.day + 1)
    assert roll(tomorrow, at.day, 0, S, D) is tomorrow
    assert tomorrow.step_on(at.day) == at.step and tomorrow.step_on(at.day + 1) == at.step + 1


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 60_000)), max_size=60))
def test_whatever_the_clock_does_a_step_is_won_by_a_day(moves: list[tuple[int, int]]) -> None:
    progress, day, furthest = begin(1000), 1000, 1000
    for by, sent in moves:
        day += by
        progress = roll(progress, day, sent, S, D)
        furthest = max(furthest, day)
        assert 0 <= progress.step_on(day) <= len(D)
        assert progress.step_on(day) <= max(furthest - 1000 + sum(-b for b, _ in moves if b < 0), 0)
        assert abs(progress.day - day) <= 1


def test_a_halt_lasts_its_days_and_the_plan_goes_on_further_back() -> None:
    at = after(20)
    judged = judge(at, {120: Counts(delivered=1000, complained=3)}, 120, "google", S, 5.0)
    assert judged.halted(120) and judged.halted(122) and not judged.halted(123)
    assert "3 complaints of 1000 messages to google in 3 days: 0.3 %, the limit is 0.3 %" in judged.why
    assert "halted for 3 days, then 7 days back" in judged.why and judged.why_at == 5.0
    on = roll(roll(roll(judged, 121, 0, S, D), 122, 0, S, D), 123, 0, S, D)
    assert on.step == 13 and not on.halted_until
    assert roll(judged, 130, 0, S, D).step == 13, "nobody looked meanwhile"
    again = judge(on, {120: Counts(delivered=1000, complained=3), 123: Counts(delivered=100)}, 123, "google", S, 0)
    assert again is on, "it does not pay twice"
    assert used(on, 124).step == 14


def test_it_steps_back_before_it_halts() -> None:
    at = after(20)
    back = judge(at, {119: Counts(600), 120: Counts(delivered=1000, complained=2)}, 120, "google", S, 0)
    assert back.step == 17 and not back.halted_until and "2 complaints of 1600" in back.why and "3 days back" in back.why
    assert judge(back, {119: Counts(600), 120: Counts(delivered=1000, complained=3)}, 120, "google", S, 0) is back
    worse = judge(back, {119: Counts(600), 120: Counts(delivered=1000, complained=9)}, 120, "google", S, 0)
    assert worse.halted(120) and worse.step == 10


@pytest.mark.parametrize(
    ("counts", "step", "halted"),
    [
        (Counts(1000, 0, 0, 0), 20, False),
        (Counts(1000, 0, 0, 1), 20, False),  # one complaint is no rate
        (Counts(10_000, 0, 0, 9), 20, False),
        (Counts(10_000, 0, 0, 10), 17, False),
        (Counts(10_000, 0, 0, 30), 13, True),
        (Counts(951, 0, 49, 0), 20, False),
        (Counts(950, 0, 50, 0), 17, False),
        (Counts(900, 0, 100, 0), 13, True),
        (Counts(1000, 111, 0, 0), 20, False),
        (Counts(1000, 112, 0, 0), 17, False),
        (Counts(700, 300, 0, 0), 13, True),
        (Counts(4, 0, 4, 0), 20, False),  # too few to say anything
        (Counts(0, 0, 0, 5), 20, False),  # of mail of another week
    ],
)
def test_rates(counts: Counts, step: int, halted: bool) -> None:
    judged = judge(after(20), {119: counts, 117: Counts(0, 999, 999, 999)}, 120, "x", S, 0)
    assert (judged.step, judged.halted(120)) == (step, halted)


def test_a_plan_that_is_done_is_limited_again_when_it_is_stepped_back() -> None:
    judged = judge(after(50), {150: Counts(1000, 0, 60, 0)}, 150, "x", S, 0)
    assert judged.step == 39 and D.allowance(judged.step) is not None


def test_the_day_is_let_out_by_the_hour() -> None:
    assert [part_of_day(50, hour, 12) for hour in (0, 5, 11, 12, 23)] == [5, 25, 50, 50, 50]
    assert part_of_day(50, 0, 1) == 50


def test_what_a_plan_would_do() -> None:
    cold, warm = PlannedAddress(D), PlannedAddress(None)
    days = project([cold], 100, 42, settings=S)
    assert (days[0].leaves, days[0].waits) == (50, 50)
    assert days[-1].waits == 0 and sum(day.leaves for day in days) == 4200
    assert project([warm, cold], 100, 3, settings=S)[0] == PlannedDay(1, None, 100, 100, 0)
    assert [day.leaves for day in project([cold], 200, 5, settings=S, once=True)] == [50, 59, 70, 21, 0]
    assert project([replace(cold, daily=30)] * 2, 1000, 1, settings=S)[0].leaves == 60
    assert project([replace(warm, daily=30)] * 2, 100, 2, settings=S)[1].waits == 80
    later = project([replace(cold, begins=2, step=1)], 60, 4, settings=S)
    assert [day.leaves for day in later] == [0, 0, 59, 70]
    assert project([], 10, 1, settings=S)[0] == PlannedDay(1, 0, 10, 0, 10)


def test_settings_are_read_and_mistakes_named() -> None:
    assert WarmUpSettings.read({}) == S
    read = WarmUpSettings.read(
        {"first": 10, "last": 1000, "days": 3, "hours": 1, "complaints": {"halt": 0.002, "least": 9},
         "providers": {"google": {"curve": [1, 2, 3]}, "yahoo": {"days": 5}}}
    )  # fmt: skip
    assert read.curve.allowances == (10, 100, 1000) and read.hours == 1
    assert read.complaints == Threshold(0.001, 0.002, 9)
    assert read.curve_of("google").allowances == (1, 2, 3) and len(read.curve_of("yahoo")) == 5
    assert read.curve_of("apple") is read.curve
    with pytest.raises(Wrong) as caught:
        WarmUpSettings.read(
            {"first": 10, "last": 5, "hours": 25, "rest_days": -1, "bounces": {"back": 5, "what": 1},
             "providers": {"google": {"curve": [1, 0]}, "yahoo": {"curve": [1], "days": 4}}, "other": 1}
        )  # fmt: skip
    assert {key.removeprefix("relay.warm_up.") for key, _ in caught.value.problems} == {
        "last", "hours", "rest_days", "bounces.back", "bounces.what", "providers.google.curve", "providers.yahoo.curve", "other",
    }  # fmt: skip


def test_a_shorter_curve_does_not_lose_its_place() -> None:
    short = Curve.growing(10, 100, 5)
    assert short.allowance(replace(begin(1), step=30).step) is None
