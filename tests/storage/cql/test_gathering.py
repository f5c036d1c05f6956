"""Rows that gather: who is alone goes at once, others go together, and each learns what became of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from twisted_mail.storage.cql.gathering import Gathering
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.testing.base import Suite

WIDTH = 2


def outcome(waiting: Deferred[None]) -> object:
    """What it has come to: None, or the type of its error."""
    found: list[Any] = []
    waiting.addBoth(found.append)
    (result,) = found
    return getattr(result, "type", result)


class GatheringTests(Suite, TestCase):
    def setUp(self) -> None:
        self.writes: list[tuple[list[Any], Deferred[None]]] = []
        self.gathering = Gathering(self.write, 100, width=WIDTH)

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        written: Deferred[None] = Deferred()
        self.writes.append(([row[0] for row in rows], written))
        await written

    def add(self, number: int, octets: int = 10, partition: str = "p") -> Deferred[None]:
        return Deferred.fromCoroutine(self.gathering.add(partition, [number], octets))

    def groups(self) -> list[list[int]]:
        return [group for group, _ in self.writes]

    def test_who_is_alone_goes_at_once_and_partitions_do_not_wait_for_each_other(self) -> None:
        self.add(0), self.add(1, partition="q")
        self.assertEqual(self.groups(), [[0], [1]])

    def test_those_who_come_meanwhile_go_together_within_the_limit(self) -> None:
        waiting = [self.add(number, 30) for number in range(WIDTH + 5)]
        self.assertEqual(self.groups(), [[0], [1]])
        self.writes[0][1].callback(None)
        self.assertEqual(self.groups()[2:], [[2, 3, 4]])
        self.assertEqual([each.called for each in waiting], [True, *[False] * 6])
        self.writes[1][1].callback(None)
        self.assertEqual(self.groups()[3:], [[5, 6]])
        for _, written in self.writes[2:]:
            written.callback(None)
        self.assertTrue(all(each.called for each in waiting))
        self.assertEqual(self.gathering._partitions, {})

    def test_a_row_above_the_limit_goes_by_itself(self) -> None:
        for number, octets in enumerate((10, 10, 500, 10)):
            self.add(number, octets)
        self.writes[0][1].callback(None)
        self.writes[1][1].callback(None)
        self.assertEqual(self.groups(), [[0], [1], [2], [3]])

    def test_a_failure_is_that_of_those_who_went_together_and_of_nobody_else(self) -> None:
        waiting = [self.add(number) for number in range(WIDTH + 2)]
        self.writes[0][1].callback(None)
        self.writes[2][1].errback(Unavailable("no answer"))
        for each in waiting[2:]:
            self.assertEqual(outcome(each), Unavailable)
        later = self.add(9)
        self.writes[1][1].callback(None)
        self.writes[3][1].callback(None)
        self.assertEqual((outcome(waiting[1]), outcome(later)), (None, None))

    def test_whoever_has_gone_is_not_written_and_does_not_hold_up_the_others(self) -> None:
        waiting = [self.add(number) for number in range(WIDTH + 2)]
        waiting[2].cancel()
        self.assertEqual(outcome(waiting[2]), CancelledError)
        waiting[0].cancel()  # its row is on its way
        self.assertEqual(outcome(waiting[0]), CancelledError)
        self.writes[0][1].callback(None)
        self.assertEqual(self.groups(), [[0], [1], [3]])
