"""What an account has taught counts when its mail is delivered."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tests.delivery.sorting_house import ANN as ANNS_ADDRESS
from tests.delivery.sorting_house import BOB as BOBS_ADDRESS
from tests.delivery.sorting_house import SortingHouse, SortingNode
from tests.filters.asking import DownRecords, now
from tests.filters.test_bayes import letter
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.learned import Learned
from twisted_mail.filters.bayes import Bayes, BayesSettings
from twisted_mail.filters.values import Action
from twisted_mail.mime import MessageParser, Part
from twisted_mail.storage.memory import MemoryRecords
from twisted_mail.values import AccountId

ANN, JOE = AccountId.new(), AccountId.new()


class Prepared:
    """Implements `PreparedMessage`."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.read = 0
        parser = MessageParser()
        parser.feed(octets)
        self.root: Part = parser.close().root
        self.size = len(octets)
        self.header = octets[: self.root.body]

    async def octets(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        self.read += 1
        yield self._octets[start:end]


@pytest.fixture(scope="module")
def learned() -> Learned:
    bayes, rng = Bayes(MemoryRecords(Clock()), Clock().seconds, BayesSettings(least=20)), random.Random(5)
    for _ in range(25):
        for spam in (True, False):
            now(bayes.learn(letter(rng, spam), spam=spam, user=str(ANN)))
    return Learned(bayes, 5.0)


SPAM, HAM = Prepared(letter(random.Random(99), True)), Prepared(letter(random.Random(99), False))


def test_with_what_is_suspicious_already_it_makes_junk(learned: Learned) -> None:
    judged = now(learned.weigh(ANN, Judgement(score=2.5, trace=("before",)), SPAM))
    assert judged.action is Action.JUNK and judged.by_score and judged.score > 5.0
    assert judged.percent is not None and judged.percent >= 50
    assert judged.trace[0] == "before" and "it looks like spam (+3." in judged.trace[1]


def test_alone_it_does_not(learned: Learned) -> None:
    judged = now(learned.weigh(ANN, Judgement(action=Action.MARK), SPAM))
    assert judged.action is Action.MARK and not judged.by_score and 3.0 < judged.score <= 3.5


def test_it_saves_what_is_wanted(learned: Learned) -> None:
    judged = now(learned.weigh(ANN, Judgement(action=Action.JUNK, by_score=True, score=5.5), HAM))
    assert judged.action is Action.ACCEPT and judged.score < 5.0
    assert "wanted mail" in judged.trace[-1]


def test_what_a_filter_calls_junk_stays_it_and_mail_of_users_is_not_looked_at(learned: Learned) -> None:
    for judgement in (
        Judgement(action=Action.JUNK, score=1.0),
        Judgement(login="joe@example.org"),
        Judgement(action=Action.QUARANTINE),
    ):
        assert now(learned.weigh(ANN, judgement, HAM)) == judgement


def test_an_account_that_taught_nothing_costs_no_look_at_the_message(learned: Learned) -> None:
    message = Prepared(letter(random.Random(1), True))
    assert now(learned.weigh(JOE, Judgement(score=1.0), message)) == Judgement(score=1.0)
    assert message.read == 0


def test_a_store_that_does_not_answer_holds_nothing_up() -> None:
    learned = Learned(Bayes(DownRecords(), Clock().seconds), 5.0)
    assert now(learned.weigh(ANN, Judgement(score=1.0), SPAM)) == Judgement(score=1.0)


def test_the_same_message_is_junk_for_who_taught_it_and_not_for_another(tmp_path: Path) -> None:
    house = SortingHouse(tmp_path)
    node = SortingNode(house)
    bayes, rng = Bayes(house.engine.records, house.clock.seconds, BayesSettings(least=20)), random.Random(5)
    for _ in range(25):
        for spam in (True, False):
            now(bayes.learn(letter(rng, spam), spam=spam, user=str(house.people[ANNS_ADDRESS])))
    assert node.placer._sorter is not None
    node.placer._sorter._learned = Learned(bayes, 5.0)
    message = letter(random.Random(99), True)
    for address, where in ((ANNS_ADDRESS, "Junk"), (BOBS_ADDRESS, "INBOX")):
        assert house.judged(node, address, message, Judgement(score=3.0)).refused is None
        assert house.boxes(node, address) == {where: 1}
        if where == "Junk":
            assert any("by what you moved into Junk" in line for line in node.story)
