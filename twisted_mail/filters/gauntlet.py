"""Runs the filters: in the operator's order, those that wait side by side, each with a time limit and a breaker.

A `Gauntlet` belongs to the process; `enter` makes a `Passage` for one connection, which is asked at each moment. The verdicts
that a filter gave earlier in the same transaction are replaced by its later ones of the same moment, so that a second EHLO
doubles nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.filters.stages import (
    AtConnect,
    AtEnd,
    AtHelo,
    AtMail,
    AtMessage,
    AtRcpt,
    AtUnknown,
    Reader,
    Stage,
    Transactions,
    Visits,
)
from twisted_mail.filters.values import Action, Arrived, Client, FilterDown, Mail, Moment, Verdict, WhenDown
from twisted_mail.queueing.limits import TooSlow, rest_of, side_by_side, within
from twisted_mail.services import Recipient

__all__ = ["Breaker", "FilterCount", "Finding", "Gauntlet", "Passage", "Post", "Reading"]

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


@dataclass(slots=True)
class FilterCount:
    """What one filter did and cost."""

    asked: int = 0
    seconds: float = 0.0
    """Waiting included."""
    down: int = 0
    """Questions without an answer."""
    actions: dict[Action, int] = field(default_factory=lambda: dict.fromkeys(Action, 0))


class Breaker:
    """After some failures in a row nobody waits for a filter any more; now and then one question tries it again."""

    FAILURES: Final = 5
    SECONDS: Final = 30.0

    def __init__(self, now: Callable[[], float], seconds: float = SECONDS) -> None:
        self._now = now
        self._seconds = seconds
        self._failures = 0
        self._open_until = 0.0

    @property
    def tripped(self) -> bool:
        """It has failed so often that only now and then somebody tries it."""
        return self._failures >= self.FAILURES

    @property
    def open(self) -> bool:
        """Do not ask. (Who is told False after a pause is the one that tries.)"""
        if not self.tripped:
            return False
        if self._now() < self._open_until:
            return True
        self._open_until = self._now() + self._seconds
        return False

    def answered(self) -> None:
        """The filter is there."""
        self._failures = 0

    def failed(self) -> None:
        """It is not."""
        self._failures += 1
        if self._failures == self.FAILURES:
            self._open_until = self._now() + self._seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """What one filter said at one moment."""

    moment: Moment
    stage: str
    verdict: Verdict
    seconds: float
    down: bool = False

    @property
    def line(self) -> str:
        """For the trace; empty: nothing worth a line."""
        verdict = self.verdict
        if not verdict.reason and verdict.action is Action.ACCEPT and not verdict.score:
            return ""
        facts = ", ".join(f"{name} {value}" for name, value in verdict.facts.items())
        points = f" ({verdict.score:+.1f} points)" if verdict.score else ""
        what = f" [{verdict.action.name.lower()}]" if verdict.action is not Action.ACCEPT else ""
        text = verdict.reason or "no reason given"
        return f"{self.stage}: {text}{f': {facts}' if facts else ''}{points}{what}, {self.seconds * 1000:.1f} ms"


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
            Moment.MESSAGE: (AtEnd, AtMessage),
        }
        self.waves = {
            moment: _waves([post for post in posts if isinstance(post.stage, kind)])  # type: ignore[arg-type]  # Protocols are classes
            for moment, kind in abilities.items()
        }

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

    async def ask(
        self,
        post: Post,
        moment: Moment,
        question: Coroutine[Any, Any, Verdict],
        seconds: float,
        *,
        trying: bool = False,
    ) -> Finding:
        """One answer of one filter. Never raises but when it is cancelled. *trying*: the breaker was asked already."""
        name = post.stage.name
        breaker, count = self.breakers[name], self.counts[name]
        began = self.now()
        if not trying and breaker.open:
            question.close()
            finding = Finding(moment, name, _down(post, "it has not answered several times"), 0.0, down=True)
        else:
            count.asked += 1
            try:
                try:
                    awaited = question.send(None)
                except StopIteration as end:
                    verdict: Verdict = end.value
                else:
                    verdict = await within(self.clock, seconds, rest_of(question, awaited))
                breaker.answered()
                finding = Finding(moment, name, verdict, self.now() - began)
            except (CancelledError, GeneratorExit):
                raise
            except Exception as error:
                finding = Finding(moment, name, self._failed(post, breaker, error), self.now() - began, down=True)
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

    @property
    def looked_at(self) -> bool:
        """Whether anybody looks at the message, or has said something before it comes."""
        gauntlet = self.gauntlet
        return bool(self._of_client or self._of_mail or self._of_recipients) or any(
            gauntlet.applies(post, self.client, Moment.MESSAGE) for wave in gauntlet.waves[Moment.MESSAGE] for post in wave
        )

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
        for wave in gauntlet.waves[moment]:
            posts = [post for post in wave if gauntlet.applies(post, self.client, moment)]
            found += await side_by_side(
                [gauntlet.ask(post, moment, question(post), post.seconds) for post in posts]
            )
        for finding in found:
            into[moment, finding.stage] = finding
        delay = max((finding.verdict.delay_seconds for finding in found), default=0.0)
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


def worst_of(findings: Sequence[Finding], order: dict[str, int]) -> Finding | None:
    """The one with the highest action, of several the first in *order*; None if all accept."""
    worst: Finding | None = None
    for each in findings:
        action = each.verdict.action
        if action is not Action.ACCEPT and (
            worst is None
            or action > worst.verdict.action
            or (action is worst.verdict.action and order[each.stage] < order[worst.stage])
        ):
            worst = each
    return worst


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
        readers = [name for name in self._readers if name not in self._broken]
        if readers:
            await side_by_side([self._give(name, chunk) for name in readers])

    async def _give(self, name: str, chunk: bytes) -> None:
        post = self._post(name)
        if name not in self._trying:
            if self._gauntlet.breakers[name].open:
                down = _down(post, "it has not answered several times")
                self._broken[name] = Finding(Moment.MESSAGE, name, down, 0.0, True)
                return
            self._trying.add(name)
        began = self._gauntlet.now()
        writing = self._readers[name].write(chunk)
        try:
            try:
                awaited = writing.send(None)
            except StopIteration:
                pass
            else:
                await within(self._gauntlet.clock, post.seconds, rest_of(writing, awaited))
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            verdict = self._gauntlet._failed(post, self._gauntlet.breakers[name], error)
            self._broken[name] = Finding(Moment.MESSAGE, name, verdict, self._gauntlet.now() - began, down=True)
        self._seconds[name] = self._seconds.get(name, 0.0) + self._gauntlet.now() - began

    async def finish(self, message: Arrived, only: frozenset[str] | None = None) -> list[Finding]:
        """What all say (of *only* those, if named) about the whole message, in the operator's order."""
        gauntlet = self._gauntlet
        found: list[Finding] = []
        for wave in gauntlet.waves[Moment.MESSAGE]:
            work: list[Coroutine[Any, Any, Finding]] = []
            for post in wave:
                name = post.stage.name
                if only is not None and name not in only:
                    continue
                if not gauntlet.applies(post, self._passage.client, Moment.MESSAGE):
                    continue
                if name in self._broken:
                    found.append(self._broken[name])
                    continue
                reader = self._readers.pop(name, None)
                if reader is not None:
                    work.append(self._ask(post, reader.finish(message)))
                looking = gauntlet.look_at_whole.get(name)
                if looking is not None:
                    work.append(self._ask(post, looking.end(message)))
            if work:
                found += await side_by_side(work)
        await self.abort()
        return sorted(found, key=lambda each: gauntlet.order[each.stage])

    async def _ask(self, post: Post, question: Coroutine[Any, Any, Verdict]) -> Finding:
        trying = post.stage.name in self._trying
        finding = await self._gauntlet.ask(post, Moment.MESSAGE, question, post.message_seconds, trying=trying)
        earlier = self._seconds.pop(post.stage.name, 0.0)
        if earlier:
            self._gauntlet.counts[post.stage.name].seconds += earlier
            finding = replace(finding, seconds=finding.seconds + earlier)
        return finding

    async def abort(self) -> None:
        """Whoever still reads is told that no more comes. Again is harmless."""
        readers, self._readers = self._readers, {}
        for name, reader in readers.items():
            await self._passage._say(self._post(name), _awaited(reader.abort()))


async def _awaited(words: Awaitable[None]) -> None:
    await words
