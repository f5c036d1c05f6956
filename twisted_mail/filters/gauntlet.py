"""Runs the filters: in the operator's order, those that wait side by side, each with a time limit and a breaker.

A `Gauntlet` belongs to the process; `enter` makes a `Passage` for one connection, which is asked at each moment. The verdicts
that a filter gave earlier in the same transaction are replaced by its later ones of the same moment, so that a second EHLO
doubles nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.filters.findings import Breaker, FilterCount, Finding, worst_of
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
from twisted_mail.filters.values import Action, Arrived, Client, FilterDown, Mail, Moment, Verdict, WhenDown
from twisted_mail.queueing.limits import TooSlow, rest_of, side_by_side, within
from twisted_mail.services import Recipient

__all__ = ["Gauntlet", "Passage", "Post", "Reading"]

T = TypeVar("T")

_log = Logger()

LONGEST_DELAY: Final = 30.0
"""Seconds that an answer is held back at most."""
_MOMENTS: Final = {moment: at for at, moment in enumerate(Moment)}
CLOSING_SECONDS: Final = 5.0
"""That a filter has to say goodbye."""


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
        abilities = {
            Moment.CONNECT: AtConnect,
            Moment.HELO: AtHelo,
            Moment.MAIL: AtMail,
            Moment.RCPT: AtRcpt,
            Moment.UNKNOWN: AtUnknown,
            Moment.STRANGE: AtStrange,
            Moment.DATA: AtData,
            Moment.MESSAGE: (AtEnd, AtMessage),
        }
        self.waves = {
            moment: _waves([post for post in posts if isinstance(post.stage, kind)])  # type: ignore[arg-type]  # Protocols are classes
            for moment, kind in abilities.items()
        }

        self._routes: dict[tuple[str, bool, bool], tuple[tuple[Post, ...], ...]] = {}
        # asking a Protocol what a class can do takes 25 µs a time
        self.told_ends = tuple((post, post.stage) for post in posts if isinstance(post.stage, Transactions))
        self.told_closes = tuple((post, post.stage) for post in posts if isinstance(post.stage, Visits))
        self.read_along = tuple((post, post.stage) for post in posts if isinstance(post.stage, AtMessage))
        self.look_at_whole = {post.stage.name: post.stage for post in posts if isinstance(post.stage, AtEnd)}

    def enter(self, client: Client) -> Passage:
        """A connection begins."""
        return Passage(self, client)

    def applies(self, post: Post, client: Client, moment: Moment) -> bool:
        """Whether that filter is asked: of our users' own mail only some are; of trusted networks only about content."""
        # who connects to a submission listener is taken for a user of ours, and can do nothing before that is shown
        if (client.outbound or client.service == "submission") and not post.stage.outbound:
            return False
        if client.trusted:
            return bool(getattr(post.stage, "always", False)) if moment is not Moment.MESSAGE else not post.strangers_only
        return True

    def route(self, moment: Moment, client: Client) -> tuple[tuple[Post, ...], ...]:
        """Who is asked about *client* at *moment*, wave by wave."""
        key = (moment.value, client.outbound or client.service == "submission", client.trusted)
        route = self._routes.get(key)
        if route is None:
            applying = (tuple(p for p in wave if self.applies(p, client, moment)) for wave in self.waves[moment])
            route = self._routes[key] = tuple(wave for wave in applying if wave)
        return route

    def ask(
        self,
        post: Post,
        moment: Moment,
        question: Coroutine[Any, Any, Verdict],
        seconds: float,
        *,
        trying: bool = False,
    ) -> Finding | Coroutine[Any, Any, Finding]:
        """One answer of one filter, or what is to be awaited for it: most need not wait, and cost no coroutine of ours.

        Never raises but when it is cancelled. *trying*: the breaker was asked already.
        """
        name = post.stage.name
        breaker, count = self.breakers[name], self.counts[name]
        began = self.now()
        if not trying and breaker.open:
            question.close()
            down = Finding(moment, name, _down(post, "it has not answered several times"), 0.0, True)
            return self._counted(count, down)
        count.asked += 1
        try:
            awaited = question.send(None)
        except StopIteration as end:
            breaker.answered()
            return self._counted(count, Finding(moment, name, end.value, self.now() - began))
        except Exception as error:
            failed = Finding(moment, name, self._failed(post, breaker, error), self.now() - began, True)
            return self._counted(count, failed)
        return self._answer(post, moment, rest_of(question, awaited), seconds, began)

    async def _answer(
        self, post: Post, moment: Moment, question: Coroutine[Any, Any, Verdict], seconds: float, began: float
    ) -> Finding:
        name = post.stage.name
        breaker = self.breakers[name]
        try:
            verdict = await within(self.clock, seconds, question)
            breaker.answered()
            finding = Finding(moment, name, verdict, self.now() - began)
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            finding = Finding(moment, name, self._failed(post, breaker, error), self.now() - began, True)
        return self._counted(self.counts[name], finding)

    @staticmethod
    def _counted(count: FilterCount, finding: Finding) -> Finding:
        count.seconds += finding.seconds
        count.actions[finding.verdict.action] += 1
        return finding

    def _failed(self, post: Post, breaker: Breaker, error: Exception) -> Verdict:
        name = post.stage.name
        breaker.failed()
        self.counts[name].down += 1
        if isinstance(error, TooSlow):
            why = "it takes too long"
        elif isinstance(error, FilterDown):
            why = "it does not answer"
        else:
            why = "it failed"
            _log.failure("the filter {name} failed", name=name)
        _log.warn("the filter {name} is down: {why} ({error})", name=name, why=why, error=str(error))
        return _down(post, why)


def _down(post: Post, why: str) -> Verdict:
    """What `when_down` makes of a filter without an answer."""
    action = Action.DEFER if post.when_down is WhenDown.DEFER else Action.MARK
    return Verdict(action=action, reason=f"not asked: {why}" if why.startswith("it has") else f"no answer: {why}")


class Passage:
    """One connection on its way through."""

    def __init__(self, gauntlet: Gauntlet, client: Client) -> None:
        self.gauntlet = gauntlet
        self.client = client
        self.mail: Mail | None = None
        self._of_client: dict[tuple[Moment, str], Finding] = {}
        self._of_mail: dict[tuple[Moment, str], Finding] = {}
        self._of_recipients: dict[str, list[Finding]] = {}

    # --- moments

    async def connect(self) -> Finding | None:
        """The finding that counts most, if it is more than ACCEPT."""
        return await self._at(Moment.CONNECT, lambda post: post.stage.connect(self.client), self._of_client)

    async def helo(self) -> Finding | None:
        """After `client.helo` was set."""
        return await self._at(Moment.HELO, lambda post: post.stage.helo(self.client), self._of_client)

    async def begin(self, mail: Mail) -> Finding | None:
        """MAIL: a transaction begins."""
        await self.end()
        self.mail = mail
        return await self._at(Moment.MAIL, lambda post: post.stage.mail(mail), self._of_mail)

    async def recipient(self, recipient: Recipient) -> Finding | None:
        """RCPT; what is said counts for that recipient only. Accepted, it is among `mail.recipients`."""
        mail = self._current()
        found: dict[tuple[Moment, str], Finding] = {}
        worst = await self._at(Moment.RCPT, lambda post: post.stage.rcpt(mail, recipient), found)
        if worst is None or worst.verdict.action < Action.DEFER:
            mail.recipients.append(recipient)
            if found:
                self._of_recipients[recipient.address] = list(found.values())
        return worst

    async def unknown(self, address: str) -> Finding | None:
        """RCPT for somebody who is not here."""
        found: dict[tuple[Moment, str], Finding] = {}
        return await self._at(Moment.UNKNOWN, lambda post: post.stage.unknown(self.client, address), found)

    async def strange(self, line: str) -> Finding | None:
        """A command that is none."""
        found: dict[tuple[Moment, str], Finding] = {}
        return await self._at(Moment.STRANGE, lambda post: post.stage.strange(self.client, line), found)

    async def data(self) -> Finding | None:
        """DATA: all recipients are known."""
        mail = self._current()
        return await self._at(Moment.DATA, lambda post: post.stage.data(mail), self._of_mail)

    @property
    def looked_at(self) -> bool:
        """Whether anybody looks at the message, or has said something before it comes."""
        return bool(self.gauntlet.route(Moment.MESSAGE, self.client)) or any(each.says for each in self.findings())

    def read(self) -> Reading:
        """DATA: the message comes."""
        return Reading(self, self._current())

    async def end(self) -> None:
        """The transaction is over. Again is harmless."""
        mail, self.mail = self.mail, None
        self._of_mail = {}
        self._of_recipients = {}
        if mail is not None:
            for post, stage in self.gauntlet.told_ends:
                await self._say(post, stage.ended(mail))

    async def close(self) -> None:
        """The connection is gone."""
        await self.end()
        for post, stage in self.gauntlet.told_closes:
            await self._say(post, stage.closed(self.client))

    async def _say(self, post: Post, words: Coroutine[Any, Any, None]) -> None:
        try:
            await within(self.gauntlet.clock, CLOSING_SECONDS, words)
        except (FilterDown, TooSlow):
            pass  # it does not listen any more
        except Exception:
            _log.failure("the filter {name} failed", name=post.stage.name)

    def _current(self) -> Mail:
        if self.mail is None:
            raise RuntimeError("no transaction has begun")
        return self.mail

    async def _at(
        self,
        moment: Moment,
        question: Callable[[Any], Coroutine[Any, Any, Verdict]],
        into: dict[tuple[Moment, str], Finding],
    ) -> Finding | None:
        gauntlet = self.gauntlet
        found: list[Finding] = []
        for wave in gauntlet.route(moment, self.client):
            await _gathered(
                [gauntlet.ask(post, moment, question(post), post.seconds) for post in wave], found
            )
        delay = 0.0
        for finding in found:
            into[moment, finding.stage] = finding
            delay = max(delay, finding.verdict.delay_seconds)
        if delay > 0:
            await deferLater(gauntlet.clock, min(delay, LONGEST_DELAY), lambda: None)
        return worst_of(found, gauntlet.order)

    # --- what came of it

    def findings(self) -> list[Finding]:
        """Of the connection and the transaction so far, by moment, then in the operator's order."""
        order = self.gauntlet.order
        every = [*self._of_client.values(), *self._of_mail.values()]
        for found in self._of_recipients.values():
            every += found
        return sorted(every, key=lambda each: (_MOMENTS[each.moment], order[each.stage]))


async def _gathered(asked: Sequence[Finding | Coroutine[Any, Any, Finding]], into: list[Finding]) -> None:
    """All answers, those that have to be waited for side by side."""
    waiting = []
    for each in asked:
        if isinstance(each, Finding):
            into.append(each)
        else:
            waiting.append(each)
    if waiting:
        into += await side_by_side(waiting)


class Reading:
    """One message, shown to those that read along while it comes, then to all that look at it whole."""

    def __init__(self, passage: Passage, mail: Mail) -> None:
        self._passage = passage
        self._gauntlet = passage.gauntlet
        self._mail = mail
        self._readers: dict[str, Reader] = {}
        self._broken: dict[str, Finding] = {}
        self._trying: set[str] = set()
        """Who was given something: who tries whether a filter is back tries it with the whole message."""
        self._seconds: dict[str, float] = {}
        for post, stage in self._gauntlet.read_along:
            if self._gauntlet.applies(post, passage.client, Moment.MESSAGE):
                self._readers[post.stage.name] = stage.read(mail)

    def _post(self, name: str) -> Post:
        return self._gauntlet.posts[self._gauntlet.order[name]]

    async def write(self, chunk: bytes) -> None:
        """The next octets, to all readers side by side; one that fails is given no more."""
        waiting = []
        for name in self._readers:
            if name not in self._broken:
                giving = self._give(name, chunk)
                if giving is not None:
                    waiting.append(giving)
        if waiting:
            await side_by_side(waiting)

    def _give(self, name: str, chunk: bytes) -> Coroutine[Any, Any, None] | None:
        """What is to be awaited until it has taken *chunk*, if it does not do so at once."""
        gauntlet = self._gauntlet
        if name not in self._trying:
            if gauntlet.breakers[name].open:
                down = _down(self._post(name), "it has not answered several times")
                self._broken[name] = Finding(Moment.MESSAGE, name, down, 0.0, True)
                return None
            self._trying.add(name)
        began = gauntlet.now()
        writing = self._readers[name].write(chunk)
        try:
            awaited = writing.send(None)
        except StopIteration:
            self._seconds[name] = self._seconds.get(name, 0.0) + gauntlet.now() - began
            return None
        except Exception as error:
            self._fail(name, error, began)
            return None
        return self._given(name, rest_of(writing, awaited), began)

    async def _given(self, name: str, writing: Coroutine[Any, Any, None], began: float) -> None:
        try:
            await within(self._gauntlet.clock, self._post(name).seconds, writing)
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            self._fail(name, error, began)
        else:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._gauntlet.now() - began

    def _fail(self, name: str, error: Exception, began: float) -> None:
        gauntlet = self._gauntlet
        verdict = gauntlet._failed(self._post(name), gauntlet.breakers[name], error)
        self._broken[name] = Finding(Moment.MESSAGE, name, verdict, gauntlet.now() - began, True)

    async def finish(self, message: Arrived, only: frozenset[str] | None = None) -> list[Finding]:
        """What all say (of *only* those, if named) about the whole message, in the operator's order."""
        gauntlet = self._gauntlet
        found: list[Finding] = []
        for wave in gauntlet.route(Moment.MESSAGE, self._passage.client):
            asked: list[Finding | Coroutine[Any, Any, Finding]] = []
            for post in wave:
                name = post.stage.name
                if only is not None and name not in only:
                    continue
                if name in self._broken:
                    found.append(self._broken[name])
                    continue
                reader = self._readers.pop(name, None)
                if reader is not None:
                    asked.append(self._ask(post, reader.finish(message)))
                looking = gauntlet.look_at_whole.get(name)
                if looking is not None:
                    asked.append(self._ask(post, looking.end(message)))
            await _gathered(asked, found)
        await self.abort()
        for finding in found:
            earlier = self._seconds.pop(finding.stage, 0.0)  # while the octets came
            gauntlet.counts[finding.stage].seconds += earlier
            finding.seconds += earlier
        found.sort(key=lambda each: gauntlet.order[each.stage])
        return found

    def _ask(self, post: Post, question: Coroutine[Any, Any, Verdict]) -> Finding | Coroutine[Any, Any, Finding]:
        trying = post.stage.name in self._trying
        return self._gauntlet.ask(post, Moment.MESSAGE, question, post.message_seconds, trying=trying)

    async def abort(self) -> None:
        """Whoever still reads is told that no more comes. Again is harmless."""
        readers, self._readers = self._readers, {}
        for name, reader in readers.items():
            await self._passage._say(self._post(name), _awaited(reader.abort()))


async def _awaited(words: Awaitable[None]) -> None:
    await words
