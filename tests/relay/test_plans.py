"""Plans are kept where every node sees them, over restarts; what receivers say changes them; operators have the last word."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.relay.kept import AT_ONCE, DAY, FIRST, Stores
from twisted_mail.relay.plans import REFRESH, Plans, allowance_name
from twisted_mail.relay.reputation import Signal
from twisted_mail.relay.warm_up import DEFAULT_CURVE, WarmUpSettings

A, G = "192.0.2.20", "google"


class PlansTests(TestCase):
    def setUp(self) -> None:
        self.stores = Stores()
        self.plans = self.stores.plans()

    async def use(self, plans: Plans, day: int, hour: float = 0.0) -> int:
        """All of the allowance of the day is sent; how much that was."""
        standing = await plans.standing(A, G, FIRST, (FIRST + day) * DAY + hour * 3600)
        assert standing.limit is not None
        return await self.stores.allowances.take(allowance_name(A, G), FIRST + day, standing.limit, standing.limit)

    async def test_six_weeks_over_restarts(self) -> None:
        sent = []
        for day in range(42):
            sent.append(await self.use(self.stores.plans(), day))
        self.assertEqual(tuple(sent), DEFAULT_CURVE.allowances)
        done = await self.plans.standing(A, G, FIRST, (FIRST + 42) * DAY)
        self.assertEqual((done.limit, done.why), (None, ""))

    async def test_nodes_agree(self) -> None:
        one, other = self.stores.plans(), self.stores.plans()
        for day in range(5):
            await self.use(one, day)
            at = (FIRST + day) * DAY + 60.0
            self.assertEqual(await one.standing(A, G, FIRST, at), await other.standing(A, G, FIRST, at))

    async def test_before_its_first_day_an_address_sends_nothing(self) -> None:
        standing = await self.plans.standing(A, G, FIRST, FIRST * DAY - 10.0)
        self.assertEqual((standing.limit, standing.more_at), (0, FIRST * DAY))
        self.assertIn("begins on a later day", standing.why)

    async def test_an_address_without_a_plan_is_warm(self) -> None:
        self.assertIsNone((await self.plans.standing(A, G, None, 0.0)).limit)

    async def test_a_day_is_let_out_by_the_hour_and_says_when_there_is_more(self) -> None:
        plans = self.stores.plans(WarmUpSettings(hours=12))
        standing = await plans.standing(A, G, FIRST, FIRST * DAY + 90.0)
        self.assertEqual((standing.limit, standing.allowance, standing.more_at), (5, 50, FIRST * DAY + 3600.0))
        standing = await plans.standing(A, G, FIRST, FIRST * DAY + 11.5 * 3600)
        self.assertEqual((standing.limit, standing.more_at), (50, (FIRST + 1) * DAY))

    async def test_complaints_halt_it_on_every_node_within_a_minute_and_it_says_why(self) -> None:
        other = self.stores.plans()
        await self.use(self.plans, 0)
        at = FIRST * DAY + 100.0
        await other.standing(A, G, FIRST, at)
        self.plans.heard(A, G, Signal.DELIVERED, at, 50)
        self.plans.heard(A, G, Signal.COMPLAINED, at, 2)
        self.assertEqual(await other.review(at, {A: FIRST}), [], "nothing was heard there")
        [what] = await self.plans.review(at, {A: FIRST})
        self.assertIn("2 complaints of 50 messages to google", what)
        self.flushLoggedErrors()
        halted = await self.plans.standing(A, G, FIRST, at)
        self.assertEqual((halted.limit, halted.more_at), (0, (FIRST + 3) * DAY))
        self.assertEqual(halted, await other.standing(A, G, FIRST, at + REFRESH) and halted)
        seen = await other.standing(A, G, FIRST, at + REFRESH)
        self.assertEqual((seen.limit, seen.why), (0, halted.why))
        elsewhere = await other.standing(A, "yahoo", FIRST, at)
        self.assertEqual(elsewhere.limit, 50, "another provider said nothing")
        self.assertEqual(await self.plans.review(at + 1, {A: FIRST}), [])
        on = await other.standing(A, G, FIRST, (FIRST + 3) * DAY)
        self.assertEqual((on.limit, on.why), (50, ""))

    async def test_a_warm_address_is_counted_and_not_judged(self) -> None:
        self.plans.heard(A, G, Signal.COMPLAINED, 0.0, 50)
        self.assertEqual(await self.plans.review(0.0, {A: None}), [])
        self.assertEqual((await self.plans.counts(A, G, 0)).complained, 50)

    async def test_an_operator_halts_and_no_node_undoes_it(self) -> None:
        for day in range(3):
            await self.use(self.plans, day)
        at = (FIRST + 2) * DAY + 10.0
        await self.plans.halt(A, "listed somewhere", at)
        for days in (0, 1, 9):
            standing = await self.plans.standing(A, G, FIRST, at + days * DAY)
            self.assertEqual(standing.limit, 0)
            self.assertIn("listed somewhere", standing.why)
        warm = await self.plans.standing(A, G, None, at)
        self.assertEqual(warm.limit, 0)
        halt, _ = await self.stores.plans().state(A)
        self.assertEqual(halt and halt.why, "listed somewhere")
        await self.plans.resume(A)
        self.assertEqual((await self.plans.standing(A, G, FIRST, at)).limit, 70)

    async def test_an_operator_ends_a_halt_that_receivers_caused(self) -> None:
        await self.use(self.plans, 0)
        self.plans.heard(A, G, Signal.DELIVERED, FIRST * DAY, 50)
        self.plans.heard(A, G, Signal.BOUNCED, FIRST * DAY, 20)
        await self.plans.review(FIRST * DAY, {A: FIRST})
        self.assertEqual((await self.plans.standing(A, G, FIRST, FIRST * DAY)).limit, 0)
        await self.plans.resume(A)
        self.assertEqual((await self.plans.standing(A, G, FIRST, FIRST * DAY)).limit, 50)

    async def test_an_operator_moves_a_plan(self) -> None:
        for day in range(10):
            await self.use(self.plans, day)
        at = (FIRST + 9) * DAY
        moved = await self.plans.step(A, -4, at)
        self.assertEqual((moved[G].step, moved[G].why), (5, "4 days back by an operator"))
        self.assertEqual((await self.plans.standing(A, G, FIRST, at)).allowance, DEFAULT_CURVE.allowances[5])
        self.assertEqual((await self.plans.step(A, 100, at, G))[G].step, 42)
        self.assertEqual(await self.plans.step(A, -1, at, "yahoo"), {})

    async def test_memory_is_bounded_by_what_is_used(self) -> None:
        await self.plans.standing(A, G, FIRST, FIRST * DAY)
        self.plans.forget(FIRST * DAY + 10)
        self.assertEqual(len(self.plans._known), 1)
        self.plans.forget((FIRST + 2) * DAY)
        self.assertEqual(len(self.plans._known), 0)

    async def test_a_node_whose_clock_is_ahead_takes_nothing_from_the_others(self) -> None:
        ahead = self.stores.plans()
        sent = []
        for day in range(8):
            sent.append(await self.use(self.plans, day))
            await ahead.standing(A, G, FIRST, (FIRST + day + 20) * DAY)
            await self.plans.standing(A, G, FIRST, (FIRST + day) * DAY + REFRESH)
        self.assertEqual(tuple(sent), DEFAULT_CURVE.allowances[:8])

    def test_the_settings_are_the_ones_given(self) -> None:
        self.assertIs(self.plans.settings, AT_ONCE)
