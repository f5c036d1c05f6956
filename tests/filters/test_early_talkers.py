"""Who speaks before the greeting."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.filters.asking import ann, client, now, started
from twisted_mail.filters.early_talkers import EarlyTalkers, points_from
from twisted_mail.filters.stages import AtConnect, AtHelo
from twisted_mail.filters.values import ACCEPTED, Action


def test_who_waits_for_the_greeting_hears_nothing_of_it() -> None:
    assert now(EarlyTalkers(Clock(), points=None).helo(client())) == ACCEPTED


def test_who_does_not_is_refused_or_gets_points() -> None:
    refused = now(EarlyTalkers(Clock(), points=None).helo(client(early=True)))
    assert refused.action is Action.REJECT and refused.answer is not None
    assert (refused.answer.code, refused.answer.enhanced) == (554, "5.5.1")
    marked = now(EarlyTalkers(Clock(), points=2.5).helo(client(early=True)))
    assert (marked.action, marked.score) == (Action.ACCEPT, 2.5)
    assert "before it was greeted" in marked.reason


def test_users_and_trusted_peers_may_talk_as_they_like() -> None:
    stage = EarlyTalkers(Clock(), points=None)
    assert isinstance(stage, AtHelo) and isinstance(stage, AtConnect)
    assert now(stage.helo(client(early=True, trusted=True))) == ACCEPTED
    assert now(stage.helo(client(early=True, identity=ann()))) == ACCEPTED


def test_the_greeting_is_held_back_but_not_from_users_and_trusted_peers() -> None:
    clock = Clock()
    stage = EarlyTalkers(clock, greeting_seconds=2.0)
    waiting = started(stage.connect(client()))
    clock.advance(1.9)
    assert not waiting.called
    clock.advance(0.2)
    assert waiting.result == ACCEPTED
    for patient in (client(trusted=True), client(service="submission")):
        assert now(stage.connect(patient)) == ACCEPTED
    assert now(EarlyTalkers(clock, greeting_seconds=0).connect(client())) == ACCEPTED


def test_points_are_a_number_or_a_refusal() -> None:
    assert points_from(2) == 2.0 and points_from("reject") is None
    for value in (-1, 1001, True, "much", None):
        with pytest.raises(ValueError, match="points"):
            points_from(value)
