"""Who speaks before the greeting."""

from __future__ import annotations

from tests.filters.asking import ann, client, now
from twisted_mail.filters.early_talkers import EarlyTalkers
from twisted_mail.filters.stages import AtHelo
from twisted_mail.filters.values import ACCEPTED, Action


def test_who_waits_for_the_greeting_hears_nothing_of_it() -> None:
    assert now(EarlyTalkers(points=None).helo(client())) == ACCEPTED


def test_who_does_not_is_refused_or_gets_points() -> None:
    refused = now(EarlyTalkers(points=None).helo(client(early=True)))
    assert refused.action is Action.REJECT and refused.answer is not None
    assert (refused.answer.code, refused.answer.enhanced) == (554, "5.5.1")
    marked = now(EarlyTalkers(points=2.5).helo(client(early=True)))
    assert (marked.action, marked.score) == (Action.ACCEPT, 2.5)
    assert "before it was greeted" in marked.reason


def test_users_and_trusted_peers_may_talk_as_they_like() -> None:
    stage = EarlyTalkers(points=None)
    assert isinstance(stage, AtHelo)
    assert now(stage.helo(client(early=True, trusted=True))) == ACCEPTED
    assert now(stage.helo(client(early=True, identity=ann()))) == ACCEPTED
