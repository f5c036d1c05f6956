"""Homes: what two data centres do to one log without the rule, and that nothing of it is left with the rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred

from tests.account.centres import CentreNode, World
from tests.account.house import House, now
from tests.account.test_intents import add, message
from tests.account.test_machine import ACCOUNT
from twisted_mail.account.entries import SettingChanged, decode_entry
from twisted_mail.account.errors import AccountUnavailable, CannotChange, OutcomeUnknown, Refused
from twisted_mail.account.homes import HOME_SETTING, ClaimHome, MoveHome, NotHome, recorded_home
from twisted_mail.account.intents import AddMessages, Intent, SetSetting
from twisted_mail.account.moving import Moved, move_home
from twisted_mail.account.service import AccountService
from twisted_mail.storage.interfaces import AccountRecord, Domain
from twisted_mail.values import AccountId, DeliveryId


def ask(world: World, node: CentreNode, intent: Intent[Any]) -> list[Any]:
    """Commit it, and let time pass until it ends."""
    assert node.account is not None
    ended: list[Any] = []
    Deferred.fromCoroutine(node.account.commit(intent)).addBoth(ended.append)
    for _ in range(300):
        if ended:
            break
        world.clock.advance(0.1)
    return ended


def delivery(node: CentreNode) -> AddMessages:
    assert node.account is not None
    inbox = node.account.state.inbox.id
    return AddMessages(mailbox=inbox, messages=(message(),), delivery=DeliveryId.new().octets)


def two_centres(skew: int = 0, *, rule: bool = True) -> tuple[World, CentreNode, CentreNode]:
    world = World(skew, rule=rule)
    one, two = world.node("one", "dc1"), world.node("two", "dc2")
    one.open()
    world.replicate_all()
    two.open()
    assert one.account is not None and two.account is not None
    return world, one, two


def failure(ended: list[Any]) -> BaseException:
    error: BaseException = ended[0].value
    return error


# --- the trouble, and the rule


def run_both(world: World, one: CentreNode, two: CentreNode, rounds: int = 60) -> tuple[int, int]:
    """Both centres deliver, replication lags behind by some rounds: (acknowledged, lost)."""
    acknowledged: list[bytes] = []
    for at in range(rounds):
        for node in (one, two):
            intent = delivery(node)
            ended = ask(world, node, intent)
            if not isinstance(getattr(ended[0], "value", None), BaseException):
                acknowledged.append(intent.delivery)
        if at % 5 == 4:
            world.replicate_all()
    world.replicate_all()
    there = world.deliveries("dc1")
    assert there == world.deliveries("dc2")
    assert len(set(there)) == len(there)
    return len(acknowledged), len(set(acknowledged) - set(there))


def test_without_the_rule_two_data_centres_lose_what_they_have_acknowledged() -> None:
    acknowledged, lost = run_both(*two_centres(rule=False))
    assert lost >= 20, f"{lost} of {acknowledged} were lost: the model does not show the trouble"


def test_with_the_rule_nothing_is_lost() -> None:
    assert run_both(*two_centres()) == (120, 0)


def test_the_first_entry_says_where_the_home_is_and_where_there_is_one_centre_it_does_not() -> None:
    world, _one, two = two_centres()
    entry = decode_entry(world.centres["dc1"].log()[0].data)
    assert SettingChanged(HOME_SETTING, "dc1") in entry.changes
    assert two.account is not None
    assert (two.account.home, two.account.elsewhere()) == ("dc1", "dc1")
    house = House()
    assert HOME_SETTING not in house.open().state.settings


def test_who_forwards_sees_what_it_wrote_before_it_answers() -> None:
    world, _, two = two_centres()
    assert two.account is not None
    done: list[Any] = []
    Deferred.fromCoroutine(two.account.commit(delivery(two))).addCallback(done.append)
    assert not done, "it stands, and has not arrived here yet"
    world.clock.advance(0.3)
    world.replicate_all()
    world.clock.advance(0.3)
    assert two.account.state.modseq == done[0].modseq
    assert two.account.state.inbox.messages == 1
    Deferred.fromCoroutine(two.account.commit(delivery(two))).addCallback(done.append)
    for _ in range(60):
        world.clock.advance(0.1)
    assert len(done) == 2, "what stands is told even if it does not arrive"


def test_a_gap_in_what_has_arrived_is_waited_for() -> None:
    world, one, two = two_centres()
    for _ in range(3):
        ask(world, one, delivery(one))
    assert two.account is not None
    world.replicate("dc1", 2)
    with pytest.raises(AccountUnavailable):
        now(two.account.refresh())
    assert two.account.state.inbox.messages == 0
    world.replicate_all()
    now(two.account.refresh())
    assert two.account.state.inbox.messages == 3


def test_a_node_outside_the_home_makes_no_checkpoint() -> None:
    world, _, two = two_centres()
    assert two.account is not None
    with pytest.raises(NotHome):
        now(two.account.checkpoint())
    assert world.centres["dc2"].pointer == 0


# --- when nobody answers


@pytest.mark.parametrize(
    ("fate", "error"), [("refused", AccountUnavailable), ("lost", OutcomeUnknown), ("hidden", OutcomeUnknown)]
)
@pytest.mark.parametrize("repeatable", [True, False])
def test_what_no_node_of_the_home_answers(fate: str, error: type[Exception], repeatable: bool) -> None:
    world, one, two = two_centres()
    world.network.fate = lambda sender, receiver: fate
    intent: Intent[Any] = delivery(two) if repeatable else SetSetting(name="a", value="b")
    assert type(failure(ask(world, two, intent))) is error
    assert one.account is not None
    sent = fate == "hidden"
    assert one.account.state.inbox.messages == (sent and repeatable)
    assert ("a" in one.account.state.settings) == (sent and not repeatable)
    assert len(world.network.sent) == 0 if fate == "refused" else world.network.sent


def test_what_is_not_sent_is_refused_within_five_seconds() -> None:
    world, _, two = two_centres()
    world.network.joined.pop("one")
    started = world.clock.seconds()
    assert type(failure(ask(world, two, delivery(two)))) is AccountUnavailable
    assert world.clock.seconds() - started <= 5.1


def test_a_delivery_whose_answers_are_lost_is_tried_again_and_is_there_once() -> None:
    world, one, two = two_centres()
    fates = iter(["hidden", "lost", "late", "refused", "hidden"])
    world.network.fate = lambda sender, receiver: next(fates, "ok")
    intent = delivery(two)
    ended = ask(world, two, intent)
    assert not isinstance(getattr(ended[0], "value", None), BaseException)
    now(world.network.arrive())
    assert one.account is not None
    assert world.deliveries("dc1") == [intent.delivery]


def test_a_home_that_does_not_understand_is_no_reason_to_append_here() -> None:
    world, _, two = two_centres()
    world.network.rewrite = lambda request: b"\x63" + request[1:]
    assert type(failure(ask(world, two, delivery(two)))) is AccountUnavailable
    assert world.deliveries("dc1") == []


# --- moving


def test_after_the_move_the_old_home_forwards_and_the_new_one_appends() -> None:
    world, one, two = two_centres()
    ask(world, two, MoveHome(to="dc2"))  # asked for anywhere, it is the old home's last entry
    assert one.account is not None and two.account is not None
    assert one.account.elsewhere() == "dc2"
    stale = ask(world, one, delivery(one))
    assert isinstance(failure(stale), AccountUnavailable), "the new home has not seen it yet"
    world.replicate_all()
    ended = ask(world, one, delivery(one))
    assert ended[0].uids == range(1, 2)
    assert (len(world.centres["dc2"].outgoing), len(world.centres["dc1"].outgoing)) == (1, 0)
    assert ask(world, two, delivery(two))[0].uids == range(2, 3)
    world.replicate_all()
    assert len(world.deliveries("dc1")) == 2
    ask(world, one, MoveHome(to="dc1"))
    world.replicate_all()
    assert ask(world, one, delivery(one))[0].uids == range(3, 4)


def test_the_new_home_waits_for_every_entry_below_the_move() -> None:
    world, one, two = two_centres()
    ask(world, one, delivery(one))
    ask(world, one, MoveHome(to="dc2"))
    world.replicate("dc1", 1)  # the move has come, and the message before it has not
    assert isinstance(failure(ask(world, two, delivery(two))), AccountUnavailable)
    fresh = world.node("three", "dc2")
    fresh.open()
    assert fresh.account is None
    world.replicate_all()
    assert ask(world, two, delivery(two))[0].uids == range(2, 3)


def test_nothing_follows_the_move_in_one_append() -> None:
    world = World()
    setup = world.node("one", "dc1")
    setup.open()
    node = world.node("by hand", "dc1", by_hand=True)
    node.open()
    while node.account is None:
        node.log.steps[0].go()
    ended: list[Any] = []
    for intent in (delivery(node), delivery(node), MoveHome(to="dc2"), delivery(node), delivery(node)):
        Deferred.fromCoroutine(node.account.commit(intent)).addBoth(ended.append)
    while node.log.steps:
        node.log.steps[0].go()
    for _ in range(100):
        world.clock.advance(0.1)
    causes = [decode_entry(each.data).cause for each in world.centres["dc1"].log()]
    assert causes == ["initialise", "add", "add", "move-home"]
    assert [type(getattr(end, "value", None)) for end in ended[3:]] == [AccountUnavailable] * 2


@pytest.mark.parametrize("skew", [-2000, 0, 2000])
def test_clocks_that_disagree_lose_nothing_at_a_move(skew: int) -> None:
    world, one, two = two_centres(skew)
    ask(world, one, delivery(one))
    ask(world, one, MoveHome(to="dc2"))
    world.replicate_all()
    assert two.account is not None
    now(two.account.refresh())
    assert ask(world, two, delivery(two))[0].uids == range(2, 3)
    assert ask(world, two, delivery(two))[0].uids == range(3, 4)
    world.replicate_all()
    assert len(world.deliveries("dc1")) == len(world.deliveries("dc2")) == 3


def test_a_move_is_finished_when_the_new_home_has_the_log_and_the_directory_says_so() -> None:
    world, one, two = two_centres()
    directory = House().engine.directory
    now(directory.add_domain(Domain("example.org")))
    now(directory.add_account(AccountRecord(ACCOUNT, "ann@example.org", home="dc1")))
    ended: list[Any] = []

    def recorded() -> str:
        record = now(directory.account(ACCOUNT))
        assert record is not None
        return record.home

    for node in (one, two, one):  # given again, from anywhere, it goes on where it was
        ended.clear()
        Deferred.fromCoroutine(move_home(node.service, directory, ACCOUNT, "dc2")).addBoth(ended.append)
        for _ in range(100):
            world.clock.advance(0.5)
        if node is one and recorded() == "dc1":
            assert ended == [Moved("dc1", "dc2", False)], "the new home has not seen it"
            world.replicate_all()
        else:
            assert ended == [Moved("dc2", "dc2", True)]
    assert recorded() == "dc2"


def test_the_home_is_not_set_like_other_settings() -> None:
    account = House().open()
    with pytest.raises(CannotChange):
        now(account.commit(SetSetting(name=HOME_SETTING, value="dc9")))


# --- before there is a log, and logs without a home


class Registered(House):
    """A house whose directory knows the account."""

    def __init__(self, home: str) -> None:
        super().__init__()
        now(self.engine.directory.add_domain(Domain("example.org")))
        self.record = AccountRecord(AccountId.new(), "ann@example.org", home=home)
        now(self.engine.directory.add_account(self.record))

    def at(self, datacenter: str) -> AccountService:
        return self.node(datacenter=datacenter, directory=self.engine.directory)

    def recorded(self) -> str:
        record = now(self.engine.directory.account(self.record.id))
        assert record is not None
        return record.home


def test_the_first_entry_is_written_in_the_home_that_the_directory_names() -> None:
    house = Registered("dc2")
    opening: list[Any] = []
    Deferred.fromCoroutine(house.at("dc1").open(house.record.id)).addBoth(opening.append)
    house.clock.advance(5)
    assert isinstance(failure(opening), AccountUnavailable)
    assert now(house.engine.account_log.head(house.record.id)) == 0
    assert now(house.at("dc2").open(house.record.id)).home == "dc2"


def test_an_account_without_a_home_is_claimed_by_who_opens_it_first() -> None:
    house = Registered("")
    assert now(house.at("dc1").open(house.record.id)).home == "dc1"
    assert house.recorded() == "dc1"
    assert now(house.at("dc2").open(house.record.id)).elsewhere() == "dc1"


def test_a_log_that_names_no_home_gets_one() -> None:
    house = Registered("")
    add(house.open(house.record.id), message())
    account = now(house.at("dc1").open(house.record.id))
    assert account.state.settings[HOME_SETTING] == "dc1"
    now(account.commit(ClaimHome(home="dc2")))
    assert account.home == "dc1", "it is claimed once"


def test_the_logs_word_counts_more_than_the_directorys() -> None:
    house = Registered("dc1")
    now(house.at("dc1").open(house.record.id))
    now(house.engine.directory.set_account(replace(house.record, home="dc2")))
    assert now(house.at("dc2").open(house.record.id)).home == "dc1"


def test_a_directory_that_can_decide_between_two_claims_does() -> None:
    house = Registered("")

    class Deciding:
        async def account(self, account: AccountId) -> AccountRecord:
            return house.record

        async def claim_home(self, account: AccountId, home: str) -> str:
            return "dc7"

    directory: Any = Deciding()
    assert now(recorded_home(directory, house.record.id, "dc1")) == "dc7"
    assert now(recorded_home(None, house.record.id, "dc1")) == "dc1"


# --- at random


class HomesMachine(RuleBasedStateMachine):
    """Two nodes in each of two centres, replication in any order, moves, unknown outcomes, lost answers."""

    @initialize(skew=st.sampled_from([0, 0, -3000, 3000]))
    def start(self, skew: int) -> None:
        self.world = World(skew)
        self.asked: list[tuple[bytes, list[Any]]] = []
        setup = self.world.node("setup", "dc1")
        setup.open()
        self.world.network.joined.clear()
        self.world.replicate_all()
        self.nodes = [self.world.node(f"{dc}-{n}", dc, by_hand=True) for dc in ("dc1", "dc2") for n in (1, 2)]
        for node in self.nodes:
            node.open()
            self.drive(node)

    def drive(self, node: CentreNode, count: int = 40) -> None:
        for _ in range(count):
            if not node.log.steps:
                break
            node.log.steps[0].go()

    @rule(which=st.integers(0, 3), through=st.booleans())
    def deliver(self, which: int, through: bool) -> None:
        node = self.nodes[which]
        if node.account is None:
            node.open()
            return
        intent = delivery(node)
        ended: list[Any] = []
        Deferred.fromCoroutine(node.account.commit(intent)).addBoth(ended.append)
        self.asked.append((intent.delivery, ended))
        if through:
            for each in self.nodes:
                self.drive(each)

    @rule(which=st.integers(0, 3), to=st.sampled_from(["dc1", "dc2"]), through=st.booleans())
    def move(self, which: int, to: str, through: bool) -> None:
        node = self.nodes[which]
        if node.account is not None:
            Deferred.fromCoroutine(node.account.commit(MoveHome(to=to))).addErrback(
                lambda failure: failure.trap(AccountUnavailable, OutcomeUnknown)
            )
            if through:
                for each in self.nodes:
                    self.drive(each)

    @rule(
        which=st.integers(0, 3),
        pick=st.integers(0, 5),
        outcome=st.sampled_from(["ok", "ok", "ok", "refused", "lost", "hidden", "late", "mistaken"]),
    )
    def step(self, which: int, pick: int, outcome: str) -> None:
        steps = self.nodes[which].log.steps
        if steps:
            steps[pick % len(steps)].go(outcome)

    @rule(which=st.integers(0, 3))
    def run(self, which: int) -> None:
        self.drive(self.nodes[which])

    @rule(source=st.sampled_from(["dc1", "dc2"]), pick=st.integers(0, 5), everything=st.booleans())
    def replicate(self, source: str, pick: int, everything: bool) -> None:
        while self.world.replicate(source, pick) and everything:
            pass

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 21.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(fate=st.sampled_from(["ok", "ok", "ok", "refused", "lost", "hidden", "late"]))
    def weather(self, fate: str) -> None:
        self.world.network.fate = lambda sender, receiver: fate

    @rule()
    def late_requests_arrive(self) -> None:
        Deferred.fromCoroutine(self.world.network.arrive())

    @invariant()
    def ends_are_truthful(self) -> None:
        for _, ended in getattr(self, "asked", ()):
            error = getattr(ended[0], "value", None) if ended else None
            assert not isinstance(error, BaseException) or isinstance(
                error, Refused | AccountUnavailable | OutcomeUnknown
            ), ended[0].getTraceback()

    def teardown(self) -> None:
        if not hasattr(self, "asked"):
            return
        self.world.network.fate = lambda sender, receiver: "ok"
        for _ in range(100):
            Deferred.fromCoroutine(self.world.network.arrive())
            for node in self.nodes:
                for step in list(node.log.steps):
                    step.go()
            self.world.replicate_all()
            self.world.clock.advance(1.5)
        self.ends_are_truthful()
        one, two = self.world.centres.values()
        assert [each.id for each in one.log()] == [each.id for each in two.log()]
        there = self.world.deliveries("dc1")
        assert len(set(there)) == len(there), "no delivery is there twice"
        for id, ended in self.asked:
            assert ended, "everybody gets an answer"
            error = getattr(ended[0], "value", None)
            if not isinstance(error, BaseException):
                assert id in there, "what was acknowledged is there"
            elif not isinstance(error, OutcomeUnknown):
                assert id not in there, "what was refused is not"
        homes = [node.account for node in self.nodes if node.account is not None]
        for account in homes:
            assert account.state.modseq <= one.head


TestHomesMachine = HomesMachine.TestCase
TestHomesMachine.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
