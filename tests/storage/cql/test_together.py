"""Requests side by side: results in order, the first error when all have ended, cancelled together."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.account.house import now
from twisted_mail.storage.cql.together import all_of
from twisted_mail.storage.interfaces import Refused, Unavailable


async def _of(waiting: Deferred[int]) -> int:
    return await waiting


def test_results_come_in_the_order_of_the_operations() -> None:
    requests: list[Deferred[int]] = [Deferred(), Deferred()]
    done: list[Any] = []
    Deferred.fromCoroutine(all_of(map(_of, requests))).addBoth(done.append)
    requests[1].callback(2)
    assert done == []
    requests[0].callback(1)
    assert done == [[1, 2]]
    assert now(all_of([])) == []


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    requests: list[Deferred[int]] = [Deferred(), Deferred(), Deferred()]
    done: list[Any] = []
    Deferred.fromCoroutine(all_of(map(_of, requests))).addBoth(done.append)
    requests[2].errback(Unavailable("later in order"))
    requests[1].errback(Refused("no"))
    assert done == []
    requests[0].callback(1)
    with pytest.raises(Refused):
        done[0].raiseException()


def test_who_is_cancelled_cancels_all_of_them() -> None:
    requests: list[Deferred[int]] = [Deferred(), Deferred()]
    ends: list[Any] = []

    def heard(failure: Failure) -> Failure:
        ends.append(failure.type)
        return failure

    for request in requests:
        request.addErrback(heard)
    waiting = Deferred.fromCoroutine(all_of(map(_of, requests)))
    waiting.cancel()
    assert ends == [CancelledError, CancelledError]
    with pytest.raises(CancelledError):
        now(_result(waiting))


async def _result(waiting: Deferred[Any]) -> Any:
    return await waiting
