"""Many accounts at once: as many as allowed, and all are let go when the connection is."""

from __future__ import annotations

import warnings
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.delivery.support import House, run
from twisted_mail.queueing.limits import CONCURRENT


class Slow:
    """Every commit waits to be let go."""

    def __init__(self, house: House, count: int) -> None:
        self.waiting: list[Deferred[None]] = []
        self.most = 0
        names = [f"user{number}@example.org" for number in range(count)]
        for name in names:
            house.user(name)
            account = run(house.accounts.open(house.people[name]))
            account.commit = self._slowly(account.commit)  # type: ignore[method-assign]
        self.incoming = run(house.intake.begin(house.envelope(*names)))
        run(self.incoming.write(b"text\r\n"))
        self.results: list[Any] = []
        self.finishing = Deferred.fromCoroutine(self._finish()).addBoth(self.results.append)

    async def _finish(self) -> Any:
        return await self.incoming.finish()

    def _slowly(self, commit: Any) -> Any:
        async def slow(intent: Any) -> Any:
            gate: Deferred[None] = Deferred()
            self.waiting.append(gate)
            self.most = max(self.most, len(self.waiting))
            await gate
            return await commit(intent)

        return slow


def test_so_many_at_once_and_no_more() -> None:
    house = House()
    slow = Slow(house, 3 * CONCURRENT)
    assert len(slow.waiting) == CONCURRENT
    while slow.waiting:
        slow.waiting.pop().callback(None)
    assert slow.most == CONCURRENT
    assert [outcome.refused for outcome in slow.results[0]] == [None] * 3 * CONCURRENT


def test_one_that_is_slow_does_not_hold_the_others_up() -> None:
    house = House()
    slow = Slow(house, 2 * CONCURRENT)
    first = slow.waiting.pop(0)
    while slow.waiting:
        slow.waiting.pop().callback(None)
    delivered = sum(len(house.mailbox(f"user{number}@example.org")) for number in range(2 * CONCURRENT))
    assert delivered == 2 * CONCURRENT - 1
    assert slow.results == []
    first.callback(None)
    assert len(slow.results) == 1


def test_all_are_let_go_when_it_is_cancelled() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that was never awaited
        house = House()
        slow = Slow(house, 2 * CONCURRENT)
        slow.finishing.cancel()
        assert slow.results[0].check(CancelledError)
        assert len(slow.waiting) == CONCURRENT
        assert all(gate.called for gate in slow.waiting)
        assert all(house.mailbox(f"user{number}@example.org") == [] for number in range(2 * CONCURRENT))
