"""Each message that waits is told a time of its own."""

from __future__ import annotations

from twisted_mail.relay.lines import LONGEST, Lane, Lines
from twisted_mail.relay.warm_up import DAY, Curve

KEY = ("marketing", "google")
DAYS = 100
AT = DAYS * DAY + 600.0


def test_places_follow_the_plan() -> None:
    lines, lane = Lines(), Lane(DAYS, Curve((24, 48)), 0, 12)
    told = [lines.seconds(KEY, [lane], 1, AT) for _ in range(22)]
    assert told == sorted(told) and told[0] == 3000.0
    assert [int((600 + each) // 3600) for each in told] == [hour for hour in range(1, 12) for _ in range(2)]
    tomorrow = lines.seconds(KEY, [lane], 1, AT)
    assert tomorrow == DAY - 600.0


def test_lines_are_apart_and_several_lanes_have_more_room() -> None:
    lines, lane = Lines(), Lane(DAYS, Curve((12,)), 0, 12)
    assert lines.seconds(KEY, [lane], 1, AT) == lines.seconds(("marketing", "yahoo"), [lane], 1, AT) == 3000.0
    assert [int((600 + lines.seconds(("x", "y"), [lane, lane], 1, AT)) // 3600) for _ in range(4)] == [1, 1, 2, 2]


def test_whose_place_is_far_away_is_asked_again_within_a_day_at_spread_times() -> None:
    lines, lane = Lines(), Lane(DAYS, Curve((1, 1)), 0, 1)
    first = lines.seconds(KEY, [lane], 1, AT)
    assert first == DAY - 600.0
    told = [lines.seconds(KEY, [lane], 1, AT) for _ in range(1000)]
    assert all(LONGEST / 2 <= each <= LONGEST for each in told)
    tenths = [int((each / LONGEST - 0.5) * 20) for each in told]
    assert all(80 < tenths.count(tenth) < 120 for tenth in range(10))


def test_a_warm_address_has_room_again_tomorrow() -> None:
    lines, lane = Lines(), Lane(DAYS, None, daily=2)
    told = [lines.seconds(KEY, [lane], 1, AT) for _ in range(3)]
    assert told[0] == DAY - 600.0 and told[1] < DAY + 3000 and told[2] <= LONGEST


def test_a_plan_that_ends_has_plenty_and_a_halt_has_none() -> None:
    lines = Lines()
    ending = Lane(DAYS, Curve((1,)), 0, 1)
    assert [lines.seconds(KEY, [ending], 1, AT) < DAY + 3600 for _ in range(100)] == [True] * 100
    halted = Lane(DAYS, Curve((1200,)), 0, 12, from_=DAYS * DAY + 5 * 3600.0)
    assert lines.seconds(("a", "b"), [halted], 1, AT) == 5 * 3600.0 - 600.0


def test_many_copies_at_once_get_an_hour_of_their_own() -> None:
    lines, lane = Lines(), Lane(DAYS, Curve((24,)), 0, 12)
    assert lines.seconds(KEY, [lane], 50, AT) == 3000.0
    assert lines.seconds(KEY, [lane], 1, AT) == 6600.0


def test_a_clock_that_goes_back_begins_the_line_anew() -> None:
    lines, lane = Lines(), Lane(DAYS, Curve((24,)), 0, 12)
    lines.seconds(KEY, [lane], 1, AT + 40 * DAY)
    assert lines.seconds(KEY, [lane], 1, AT) == 3000.0
    assert lines.seconds(KEY, [lane], 1, AT + DAY) <= LONGEST
