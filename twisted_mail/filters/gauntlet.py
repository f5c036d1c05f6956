"""Runs the filters: in the operator's order, those that wait side by side, each with a time limit and a breaker.

A `Gauntlet` belongs to the process; `enter` makes a `Passage` for one connection, which is asked at each moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twisted_mail.filters.findings import Breaker, FilterCount, Finding
from twisted_mail.filters.passage import Passage
from twisted_mail.filters.stages import (
    AtConnect,
    AtData,
    AtEnd,
    AtHelo,
    AtMail,
    AtMessage,
    AtRcpt,
    AtStrange,
    AtUnknown,
    Reader,
    Stage,
    Transactions,
    Visits,
)
from twisted_mail.filters.values import Action, Client, FilterDown, Mail, Moment, Verdict, WhenDown
from twisted_mail.queueing.limits import TooSlow, rest_of, within

__all__ = ["Gauntlet", "Post", "Seat"]

_log = Logger()

_QUESTIONS: Final[dict[Moment, tuple[type, str]]] = {
    Moment.CONNECT: (AtConnect, "connect"),
    Moment.HELO: (AtHelo, "helo"),
    Moment.MAIL: (AtMail, "mail"),
    Moment.RCPT: (AtRcpt, "rcpt"),
    Moment.UNKNOWN: (AtUnknown, "unknown"),
    Moment.STRANGE: (AtStrange, "strange"),
    Moment.DATA: (AtData, "data"),
    Moment.MESSAGE: (AtEnd, "end"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A filter in its place, and what an operator says about it."""

    stage: Stage
    seconds: float = 10.0
    """The time limit of one question."""
    message_seconds: float = 60.0
    """The time limit for a whole message, once all of it has come."""
    when_down: WhenDown = WhenDown.ACCEPT_AND_MARK
    strangers_only: bool = False
    """It has nothing to say of what our own servers hand over, not even of messages."""


@dataclass(slots=True, eq=False)
class Seat:
    """A filter at one moment, with all that asking it needs: looked up once, since a message is a dozen questions."""

    post: Post
    moment: Moment
    name: str
    breaker: Breaker
    count: FilterCount
    question: Callable[..., Coroutine[Any, Any, Verdict]] | None
    """Its method for that moment; None: it only reads along."""
    read: Callable[[Mail], Reader] | None
    """At MESSAGE, if it reads along."""


Route = tuple[tuple[Seat, ...], ...]
"""Who is asked, wave by wave."""


def _waves(posts: Sequence[Post]) -> tuple[tuple[Post, ...], ...]:
    """Those that may be asked side by side, one group after the other, each behind what it needs. Raises: ValueError."""
    left = list(posts)
    names = {post.stage.name for post in posts}
    waves = []
    done: set[str] = set()
    while left:
        wave = tuple(post for post in left if (post.stage.needs & names) <= done)
        if not wave:
            raise ValueError("filters need each other: " + ", ".join(sorted(post.stage.name for post in left)))
        waves.append(wave)
        done |= {post.stage.name for post in wave}
        left = [post for post in left if post not in wave]
    return tuple(waves)


def _applies(post: Post, moment: Moment, ours: bool, trusted: bool) -> bool:
    """Whether that filter is asked: of our users' own mail only some are; of trusted networks only about content."""
    if ours and not post.stage.outbound:
        return False
    if trusted:
        return bool(getattr(post.stage, "always", False)) if moment is not Moment.MESSAGE else not post.strangers_only
    return True


class Gauntlet:
    """All filters of a process."""

    def __init__(
        self,
        posts: Sequence[Post],
        clock: Any,
        *,
        cpu: Callable[[], float] = time.perf_counter,
        breaker_seconds: float = Breaker.SECONDS,
    ) -> None:
        """*posts* in the operator's order: of two that refuse the first one's answer is given. *clock*: IReactorTime.
        *breaker_seconds*: how long a filter that has failed often is left alone.

        Raises: ValueError (two filters of one name, or two that need each other).
        """
        names = [post.stage.name for post in posts]
        if len(set(names)) < len(names):
            raise ValueError("two filters of one name: " + ", ".join(sorted({n for n in names if names.count(n) > 1})))
        self.posts = tuple(posts)
        self.clock = clock
        self.now = cpu
        self.order = {name: at for at, name in enumerate(names)}
        self.counts = {name: FilterCount() for name in names}
        self.breakers = {name: Breaker(clock.seconds, breaker_seconds) for name in names}
        # asking a Protocol what a class can do takes 25 µs a time
        self.told_ends = tuple((post, post.stage) for post in posts if isinstance(post.stage, Transactions))
        self.told_closes = tuple((post, post.stage) for post in posts if isinstance(post.stage, Visits))
        waves = {moment: [self._seats(wave, moment) for wave in _waves(self._able(moment))] for moment in Moment}
        self._routes: dict[tuple[bool, bool], dict[Moment, Route]] = {
            (ours, trusted): {
                moment: _kept([[s for s in w if _applies(s.post, moment, ours, trusted)] for w in waves[moment]])
                for moment in Moment
            }
            for ours in (False, True)
            for trusted in (False, True)
        }

    def _able(self, moment: Moment) -> list[Post]:
        kind = _QUESTIONS[moment][0]
        return [
            post
            for post in self.posts
            if isinstance(post.stage, kind) or (moment is Moment.MESSAGE and isinstance(post.stage, AtMessage))
        ]

    def _seats(self, wave: Sequence[Post], moment: Moment) -> list[Seat]:
        method = _QUESTIONS[moment][1]
        return [
            Seat(
                post,
                moment,
                post.stage.name,
                self.breakers[post.stage.name],
                self.counts[post.stage.name],
                getattr(post.stage, method, None),
                getattr(post.stage, "read", None) if moment is Moment.MESSAGE else None,
            )
            for post in wave
        ]

    def enter(self, client: Client) -> Passage:
        """A connection begins."""
        return Passage(self, client)

    def route(self, moment: Moment, client: Client) -> Route:
        """Who is asked about *client* at *moment*."""
        # who connects to a submission listener is taken for a user of ours, and can do nothing before that is shown
        return self._routes[client.identity is not None or client.service == "submission", client.trusted][moment]

    def ask(
        self, seat: Seat, question: Coroutine[Any, Any, Verdict], seconds: float, *, trying: bool = False
    ) -> Finding | Coroutine[Any, Any, Finding]:
        """One answer of one filter, or what is to be awaited for it: most need not wait, and cost no coroutine of ours.

        Never raises but when it is cancelled. *trying*: the breaker was asked already.
        """
        breaker, count = seat.breaker, seat.count
        if breaker.failures and not trying and breaker.open:
            question.close()
            return self.left_alone(seat)
        count.asked += 1
        began = self.now()
        try:
            awaited = question.send(None)
        except StopIteration as end:
            if breaker.failures:
                breaker.answered()
            return self._counted(count, Finding(seat.moment, seat.name, end.value, self.now() - began))
        except Exception as error:
            return self._counted(count, self.failed(seat, error, began))
        return self._answer(seat, rest_of(question, awaited), seconds, began)

    async def _answer(
        self, seat: Seat, question: Coroutine[Any, Any, Verdict], seconds: float, began: float
    ) -> Finding:
        try:
            verdict = await within(self.clock, seconds, question)
            seat.breaker.answered()
            finding = Finding(seat.moment, seat.name, verdict, self.now() - began)
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            finding = self.failed(seat, error, began)
        return self._counted(seat.count, finding)

    @staticmethod
    def _counted(count: FilterCount, finding: Finding) -> Finding:
        count.seconds += finding.seconds
        count.actions[finding.verdict.action] += 1
        return finding

    def left_alone(self, seat: Seat) -> Finding:
        """It has failed so often that nobody asks it."""
        down = _down(seat.post, "not asked: it has not answered several times")
        return self._counted(seat.count, Finding(seat.moment, seat.name, down, 0.0, True))

    def failed(self, seat: Seat, error: Exception, began: float) -> Finding:
        """It has raised *error*; counted as down, not among the answers."""
        seat.breaker.failed()
        seat.count.down += 1
        if isinstance(error, TooSlow):
            why = "it takes too long"
        elif isinstance(error, FilterDown):
            why = "it does not answer"
        else:
            why = "it failed"
            _log.failure("the filter {name} failed", name=seat.name)
        _log.warn("the filter {name} is down: {why} ({error})", name=seat.name, why=why, error=str(error))
        return Finding(seat.moment, seat.name, _down(seat.post, f"no answer: {why}"), self.now() - began, True)


def _down(post: Post, why: str) -> Verdict:
    """What `when_down` makes of a filter without an answer."""
    return Verdict(action=Action.DEFER if post.when_down is WhenDown.DEFER else Action.MARK, reason=why)


def _kept(waves: Sequence[Sequence[Seat]]) -> Route:
    return tuple(tuple(wave) for wave in waves if wave)
