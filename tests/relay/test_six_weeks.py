"""Six weeks with a clock that is set and a receiver that follows a script: the plan is kept to the message."""

from __future__ import annotations

from collections import Counter

from benchmarks.warm_up import ADDRESS, Mood, Receiver, bulk, simulate, svg
from twisted_mail.relay.warm_up import Curve, WarmUpSettings

CURVE = Curve.growing(20, 400, 42)
HOURS = WarmUpSettings(hours=12)


def test_the_plan_is_kept_to_the_message_over_nodes_that_die() -> None:
    receiver = Receiver()
    days = simulate(bulk(CURVE), WarmUpSettings(hours=1), receiver, crashes={(20, 0): 1, (41, 0): 2})
    for day, allowance in zip(days, CURVE.allowances):
        assert day.allowance == allowance
        assert day.sent.total() + day.forfeited == allowance
        assert receiver.received[ADDRESS, day.number] == day.sent.total()
    died = [day.number for day in days if day.forfeited]
    assert died == [20, 41] and all(day.forfeited <= day.allowance / 16 for day in days)
    assert all(set(day.sent) <= {ADDRESS} for day in days)


def test_when_the_six_weeks_are_over_it_is_warm() -> None:
    days = simulate(bulk(Curve.growing(2, 60, 42)), HOURS, Receiver(), days=43, campaign=5_000)
    assert days[41].waiting > 0 and days[42].waiting == 0
    assert days[42].sent.total() > 60


def test_what_is_over_the_plan_leaves_by_a_warm_address_of_the_same_pools_at_once() -> None:
    receiver = Receiver()
    days = simulate(bulk(CURVE, "192.0.2.22"), HOURS, receiver, days=2, campaign=300)
    assert days[0].sent == Counter({"192.0.2.22": 300 - days[0].sent[ADDRESS], ADDRESS: days[0].sent[ADDRESS]})
    assert 0 < days[0].sent[ADDRESS] <= CURVE.allowances[0] and days[0].waiting == 0


def test_a_campaign_waits_and_goes_on_from_day_to_day() -> None:
    days = simulate(bulk(CURVE), HOURS, Receiver(), days=42, campaign=500)
    sent = [day.sent.total() for day in days]
    assert sum(sent) == 500 and sent[:5] == list(CURVE.allowances[:5])
    assert [day.waiting for day in days][:2] == [480, 480 - CURVE.allowances[1]]


def test_a_receiver_that_defers_and_readers_who_complain_hold_the_plan_back() -> None:
    receiver = Receiver({13: Mood(deferred=2), 24: Mood(complained=20), 25: Mood(complained=20)})
    days = simulate(bulk(CURVE), HOURS, receiver, days=34)
    by = {day.number: day for day in days}
    assert by[13].allowance == CURVE.allowances[12]
    [back] = by[13].events[:1]
    assert "deferrals and blocks" in back and back.endswith("3 days back")
    assert by[14].allowance < by[13].allowance and by[14].sent.total() == by[14].allowance
    halting = next(day for day in days if any("halted for 3 days" in event for event in day.events))
    assert halting.number in (24, 25) and "complaints" in halting.events[-1]
    for number in (1, 2):
        assert by[halting.number + number].sent.total() == 0
    on = by[halting.number + 3]
    assert 0 < on.allowance < halting.allowance / 1.5 and on.sent.total() == on.allowance
    assert by[34].allowance > on.allowance, "and it grows again"
    for day in days:
        assert day.sent.total() <= CURVE.allowances[day.number - 1]


def test_the_plot_shows_every_day() -> None:
    days = simulate(bulk(Curve((5, 6, 7))), HOURS, Receiver(), days=4, campaign=30)
    drawn = svg([("a", days)])
    assert drawn.count("<title>day") == 4 and "7 sent, 7 allowed" in drawn and drawn.startswith("<svg")
