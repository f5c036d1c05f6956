"""The gauntlet: whom it asks, in which order, how long it waits, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from twisted_mail.filters.findings import Breaker, Finding, worst_of
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.passage import Passage
from twisted_mail.filters.values import Action, Arrived, Client, FilterDown, Mail, Moment, Verdict, WhenDown
from twisted_mail.services import Identity, Recipient
from twisted_mail.values import AccountId

T = TypeVar("T")
JUNK = Verdict(action=Action.JUNK, reason="it is junk")
ANN = Recipient("ann@example.org", (AccountId(bytes(16)),))


class Filter:
    """Says what it is told to, at each moment that it has an answer for; a Deferred is waited for, an error raised."""

    def __init__(self, name: str, *, needs: str = "", outbound: bool = False, log: list[str] | None = None) -> None:
        self.name = name
        self.needs = frozenset(needs.split())
        self.outbound = outbound
        self.log = log if log is not None else []
        self.says: Any = Verdict()
        self.cancelled = 0

    async def _answer(self, moment: str) -> Verdict:
        self.log.append(f"{self.name} {moment}")
        says = self.says
        if isinstance(says, Deferred):
            try:
                says = await says
            except CancelledError:
                self.cancelled += 1
                raise
        if isinstance(says, Exception):
            raise says
        assert isinstance(says, Verdict)
        return says


class Early(Filter):
    async def connect(self, client: Client) -> Verdict:
        return await self._answer("connect")

    async def helo(self, client: Client) -> Verdict:
        return await self._answer("helo")

    async def mail(self, mail: Mail) -> Verdict:
        return await self._answer("mail")

    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        return await self._answer("rcpt")

    async def ended(self, mail: Mail) -> None:
        self.log.append(f"{self.name} ended")

    async def closed(self, client: Client) -> None:
        self.log.append(f"{self.name} closed")


class AtTheEnd(Filter):
    notes: object = None
    """What it notes at the mail."""

    async def end(self, message: Arrived) -> Verdict:
        if self.notes is not None:
            message.mail.note(self.notes)
        return await self._answer("end")


class ReadsAlong(Filter):
    """Counts octets."""

    octets = b""
    aborted = 0
    writing: Any = None

    def read(self, mail: Mail) -> ReadsAlong:
        return self

    async def write(self, chunk: bytes) -> None:
        if isinstance(self.writing, Exception):
            raise self.writing
        if self.writing is not None:
            await self.writing
        self.octets += chunk

    async def finish(self, message: Arrived) -> Verdict:
        return await self._answer("finish")

    async def abort(self) -> None:
        self.aborted += 1


def start(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)


def now(work: Coroutine[Any, Any, T]) -> T:
    """The result of what need not wait."""
    results: list[T] = []
    running = start(work)
    running.addCallback(results.append)
    assert results, running.result if running.called else "it waits"
    return results[0]


def through(*filters: Filter, clock: Clock | None = None, **more: Any) -> Passage:
    posts = [Post(stage=each, **more) for each in filters]
    return Gauntlet(posts, clock or Clock()).enter(Client("192.0.2.7"))


def in_mail(passage: Passage) -> Passage:
    now(passage.begin(Mail(passage.client, "a@b.example")))
    return passage


def ask_whole(passage: Passage, *chunks: bytes) -> list[Finding]:
    reading = passage.read()
    for chunk in chunks:
        now(reading.write(chunk))
    return now(reading.finish(None))  # type: ignore[arg-type]  # these filters do not look at it


def test_all_moments_in_order_and_the_end_of_everything_is_told() -> None:
    log: list[str] = []
    passage = through(Early("a", log=log), AtTheEnd("b", log=log))
    assert now(passage.connect()) is None
    assert now(passage.helo()) is None
    in_mail(passage)
    assert now(passage.recipient(ANN)) is None
    ask_whole(passage)
    now(passage.end())
    now(passage.close())
    assert log == ["a connect", "a helo", "a mail", "a rcpt", "b end", "a ended", "a closed"]


def test_of_several_the_highest_counts_and_of_two_equal_ones_the_operators_first() -> None:
    first, second, third = AtTheEnd("first"), AtTheEnd("second"), AtTheEnd("third")
    first.says = JUNK
    second.says = Verdict(action=Action.REJECT, reason="second")
    third.says = Verdict(action=Action.REJECT, reason="third")
    passage = in_mail(through(first, third, second))
    found = ask_whole(passage)
    worst = worst_of(found, passage.gauntlet.order)
    assert worst is not None and worst.verdict.reason == "third"
    assert [each.stage for each in found] == ["first", "third", "second"]


def test_those_that_wait_are_asked_side_by_side_and_those_that_need_others_after_them() -> None:
    log: list[str] = []
    spf, dkim, dmarc = AtTheEnd("spf", log=log), AtTheEnd("dkim", log=log), AtTheEnd("dmarc", needs="spf dkim", log=log)
    spf.says, dkim.says = Deferred(), Deferred()
    passage = in_mail(through(dmarc, spf, dkim))
    answer = start(passage.read().finish(None))  # type: ignore[arg-type]
    assert log == ["spf end", "dkim end"], "both are asked, before either has answered"
    dkim.says.callback(Verdict())
    assert log == ["spf end", "dkim end"]
    spf.says.callback(Verdict())
    assert log == ["spf end", "dkim end", "dmarc end"]
    assert answer.called


def test_what_is_needed_but_not_configured_is_not_waited_for() -> None:
    passage = in_mail(through(AtTheEnd("dmarc", needs="spf")))
    assert [each.stage for each in ask_whole(passage)] == ["dmarc"]


def test_filters_that_need_each_other_and_two_of_one_name_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="need each other: a, b"):
        through(AtTheEnd("a", needs="b"), AtTheEnd("b", needs="a"))
    with pytest.raises(ValueError, match="two filters of one name: a"):
        through(AtTheEnd("a"), AtTheEnd("a"))


@pytest.mark.parametrize(
    ("policy", "action"),
    [(WhenDown.ACCEPT_AND_MARK, Action.MARK), (WhenDown.DEFER, Action.DEFER), (WhenDown.QUEUE, Action.MARK)],
)
def test_one_that_takes_too_long_is_cancelled_and_its_policy_is_kept(policy: WhenDown, action: Action) -> None:
    clock = Clock()
    slow, other = AtTheEnd("slow"), AtTheEnd("other")
    slow.says, other.says = Deferred(), JUNK
    passage = in_mail(through(slow, other, clock=clock, when_down=policy, message_seconds=60))
    answer = start(passage.read().finish(None))  # type: ignore[arg-type]
    clock.advance(59)
    assert not answer.called
    clock.advance(1)
    found: list[Any] = []
    answer.addCallback(found.append)
    assert [(each.stage, each.verdict.action, each.down) for each in found[0]] == [
        ("slow", action, True),
        ("other", Action.JUNK, False),
    ]
    assert slow.cancelled == 1
    assert "takes too long" in found[0][0].line


@pytest.mark.parametrize("error", [FilterDown("refused"), KeyError("a bug")])
def test_one_that_fails_costs_no_mail(error: Exception) -> None:
    broken = AtTheEnd("broken")
    broken.says = error
    passage = in_mail(through(broken))
    (finding,) = ask_whole(passage)
    assert finding.down and finding.verdict.action is Action.MARK
    assert passage.gauntlet.counts["broken"].down == 1


def test_after_five_failures_nobody_waits_for_it_until_one_try_finds_it_well() -> None:
    clock = Clock()
    broken = AtTheEnd("broken")
    broken.says = FilterDown("gone")
    gauntlet = Gauntlet([Post(stage=broken)], clock)
    for _ in range(8):
        ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))))
    assert len(broken.log) == 5
    broken.says = JUNK
    clock.advance(Breaker.SECONDS)
    (finding,) = ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))))
    assert finding.verdict is JUNK
    ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))))
    assert len(broken.log) == 7


def test_one_that_reads_along_is_tried_with_a_whole_message() -> None:
    clock = Clock()
    broken = ReadsAlong("broken")
    broken.writing = FilterDown("gone")
    gauntlet = Gauntlet([Post(stage=broken)], clock)
    for _ in range(6):
        ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))), b"one ", b"two")
    broken.writing, broken.says = None, JUNK
    clock.advance(Breaker.SECONDS)
    for _ in range(2):
        (finding,) = ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))), b"one ", b"two")
        assert finding.verdict is JUNK and not finding.down
    assert broken.octets == b"one two" * 2


def test_while_it_is_tried_others_do_not_wait() -> None:
    clock = Clock()
    breaker = Breaker(clock.seconds)
    for _ in range(5):
        breaker.failed()
    clock.advance(Breaker.SECONDS)
    assert [breaker.open, breaker.open] == [False, True]


def test_a_second_ehlo_takes_the_place_of_the_first_and_a_new_transaction_of_the_old_one() -> None:
    early = Early("early")
    early.says = Verdict(score=2.0, reason="odd")
    passage = through(early)
    now(passage.helo())
    now(passage.helo())
    in_mail(passage)
    now(passage.recipient(ANN))
    in_mail(passage)
    assert [(each.moment, each.verdict.score) for each in passage.findings()] == [(Moment.HELO, 2.0), (Moment.MAIL, 2.0)]


def test_a_recipient_who_is_refused_leaves_nothing_behind() -> None:
    early = Early("early")
    passage = in_mail(through(early))
    early.says = Verdict(action=Action.DEFER)
    finding = now(passage.recipient(ANN))
    assert finding is not None and finding.verdict.action is Action.DEFER
    assert passage.mail is not None and passage.mail.recipients == []
    early.says = Verdict(action=Action.MARK, reason="well")
    now(passage.recipient(ANN))
    assert passage.mail.recipients == [ANN]
    assert [each.moment for each in passage.findings()] == [Moment.MAIL, Moment.RCPT]


def test_mail_of_our_own_users_is_shown_to_those_that_want_it() -> None:
    virus, spam = AtTheEnd("virus", outbound=True), AtTheEnd("spam")
    passage = through(virus, spam)
    passage.client.identity = Identity(AccountId(bytes(16)), "ann@example.org")
    in_mail(passage)
    assert [each.stage for each in ask_whole(passage)] == ["virus"]


def test_strangers_filters_are_not_asked_about_a_user_who_has_not_logged_in_yet() -> None:
    log: list[str] = []
    passage = through(Early("manners", log=log), Early("limits", outbound=True, log=log))
    passage.client.service = "submission"
    now(passage.connect())
    assert log == ["limits connect"]


def test_of_trusted_networks_only_content_is_looked_at_but_by_those_that_always_are_asked() -> None:
    log: list[str] = []
    manners, milter, content = Early("manners", log=log), Early("milter", log=log), AtTheEnd("content", log=log)
    milter.always = True  # type: ignore[attr-defined]
    passage = through(manners, milter, content)
    passage.client.trusted = True
    now(passage.connect())
    in_mail(passage)
    ask_whole(passage)
    assert log == ["milter connect", "milter mail", "content end"]


def test_an_answer_is_held_back_as_long_as_a_filter_wants_it_but_not_for_ever() -> None:
    clock = Clock()
    early = Early("early")
    early.says = Verdict(delay_seconds=3600)
    answer = start(through(early, clock=clock).connect())
    clock.advance(29)
    assert not answer.called
    clock.advance(1)
    assert answer.called


def test_a_message_is_read_along_and_whoever_fails_is_given_no_more() -> None:
    well, broken = ReadsAlong("well"), ReadsAlong("broken")
    broken.writing = FilterDown("it died")
    found = ask_whole(in_mail(through(broken, well)), b"one ", b"two")
    assert well.octets == b"one two" and broken.octets == b""
    assert [(each.stage, each.down) for each in found] == [("broken", True), ("well", False)]
    assert broken.aborted == 1 and well.aborted == 0


def test_a_reader_that_does_not_take_octets_in_time_does_not_hold_up_the_message() -> None:
    clock = Clock()
    stuck = ReadsAlong("stuck")
    stuck.writing = Deferred()
    passage = in_mail(through(stuck, clock=clock, seconds=10))
    reading = passage.read()
    writing = start(reading.write(b"x"))
    clock.advance(10)
    assert writing.called
    (finding,) = now(reading.finish(None))  # type: ignore[arg-type]
    assert finding.down


def test_a_message_that_does_not_come_to_its_end_is_told_to_who_reads() -> None:
    reader = ReadsAlong("reader")
    reading = in_mail(through(reader)).read()
    now(reading.write(b"x"))
    now(reading.abort())
    now(reading.abort())
    assert reader.aborted == 1


def test_a_connection_that_goes_away_takes_its_questions_with_it() -> None:
    one, two = AtTheEnd("one"), AtTheEnd("two")
    one.says, two.says = Deferred(), Deferred()
    answer = start(in_mail(through(one, two)).read().finish(None))  # type: ignore[arg-type]
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    answer.cancel()
    assert (one.cancelled, two.cancelled) == (1, 1)


def test_only_those_that_are_named_are_asked_again() -> None:
    one, two = AtTheEnd("one"), ReadsAlong("two")
    reading = in_mail(through(one, two)).read()
    found = now(reading.finish(None, frozenset({"one"})))  # type: ignore[arg-type]
    assert [each.stage for each in found] == ["one"]
    assert two.aborted == 1


def test_what_each_costs_is_counted() -> None:
    ticks = iter(range(100))
    cpu: Callable[[], float] = lambda: next(ticks) / 1000  # noqa: E731
    says = AtTheEnd("says")
    says.says = JUNK
    gauntlet = Gauntlet([Post(stage=says)], Clock(), cpu=cpu)
    (finding,) = ask_whole(in_mail(gauntlet.enter(Client("192.0.2.7"))))
    assert finding.seconds == pytest.approx(0.001)
    assert finding.line == "says: it is junk [junk], 1.0 ms"
    count = gauntlet.counts["says"]
    assert (count.asked, count.down, count.actions[Action.JUNK]) == (1, 0, 1)
    assert count.seconds == pytest.approx(0.001)
