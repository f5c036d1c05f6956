"""One connection on its way through the filters, and one message of it.

The verdicts that a filter gave earlier in the same transaction are replaced by its later ones of the same moment, so that a
second EHLO doubles nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.filters.findings import Finding, worst_of
from twisted_mail.filters.stages import Reader
from twisted_mail.filters.values import Action, Arrived, Client, FilterDown, Mail, Moment
from twisted_mail.queueing.limits import TooSlow, rest_of, side_by_side, within
from twisted_mail.services import Recipient

if TYPE_CHECKING:
    from twisted_mail.filters.gauntlet import Gauntlet, Post, Seat

__all__ = ["Passage", "Reading"]

_log = Logger()

LONGEST_DELAY: Final = 30.0
"""Seconds that an answer is held back at most."""
CLOSING_SECONDS: Final = 5.0
"""That a filter has to say goodbye."""

_Found = dict[tuple[Moment, str], Finding]
_Asked = Finding | Coroutine[Any, Any, Finding]


class Passage:
    """One connection on its way through."""

    def __init__(self, gauntlet: Gauntlet, client: Client) -> None:
        self.gauntlet = gauntlet
        self.client = client
        self.mail: Mail | None = None
        self._of_client: _Found = {}
        self._of_mail: _Found = {}
        self._of_recipients: dict[str, list[Finding]] = {}

    # --- moments

    async def connect(self) -> Finding | None:
        """The finding that counts most, if it is more than ACCEPT."""
        return await self._at(Moment.CONNECT, self._of_client, self.client)

    async def helo(self) -> Finding | None:
        """After `client.helo` was set."""
        return await self._at(Moment.HELO, self._of_client, self.client)

    async def begin(self, mail: Mail) -> Finding | None:
        """MAIL: a transaction begins."""
        await self.end()
        self.mail = mail
        return await self._at(Moment.MAIL, self._of_mail, mail)

    async def recipient(self, recipient: Recipient) -> Finding | None:
        """RCPT; what is said counts for that recipient only. Accepted, it is among `mail.recipients`."""
        mail = self._current()
        found: _Found = {}
        worst = await self._at(Moment.RCPT, found, mail, recipient)
        if worst is None or worst.verdict.action < Action.DEFER:
            mail.recipients.append(recipient)
            if found:
                self._of_recipients[recipient.address] = list(found.values())
        return worst

    async def unknown(self, address: str) -> Finding | None:
        """RCPT for somebody who is not here."""
        return await self._at(Moment.UNKNOWN, {}, self.client, address)

    async def strange(self, line: str) -> Finding | None:
        """A command that is none."""
        return await self._at(Moment.STRANGE, {}, self.client, line)

    async def data(self) -> Finding | None:
        """DATA: all recipients are known."""
        return await self._at(Moment.DATA, self._of_mail, self._current())

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
        if mail is not None:
            self._of_mail = {}
            self._of_recipients = {}
            for post, stage in self.gauntlet.told_ends:
                await self.say(post, stage.ended(mail))

    async def close(self) -> None:
        """The connection is gone."""
        await self.end()
        for post, stage in self.gauntlet.told_closes:
            await self.say(post, stage.closed(self.client))

    async def say(self, post: Post, words: Coroutine[Any, Any, None]) -> None:
        """What is for a filter to know, and has no answer."""
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

    async def _at(self, moment: Moment, into: _Found, *told: Any) -> Finding | None:
        """Ask all that have something to say at *moment*; *told*: what the method for it takes."""
        gauntlet = self.gauntlet
        found: list[Finding] = []
        for wave in gauntlet.route(moment, self.client):
            asked = [
                gauntlet.ask(seat, seat.question(*told), seat.post.seconds) for seat in wave if seat.question is not None
            ]
            await _gathered(asked, found)
        delay = 0.0
        for finding in found:
            into[moment, finding.stage] = finding
            if finding.verdict.delay_seconds > delay:
                delay = finding.verdict.delay_seconds
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
        return sorted(every, key=lambda each: (each.moment, order[each.stage]))


async def _gathered(asked: Sequence[_Asked], into: list[Finding]) -> None:
    """All answers, those that have to be waited for side by side."""
    waiting = []
    for each in asked:
        if isinstance(each, Finding):
            into.append(each)
        else:
            waiting.append(each)
    if waiting:
        into += await side_by_side(waiting)


@dataclass(slots=True, eq=False)
class _Along:
    """A filter that reads along."""

    seat: Seat
    reader: Reader
    trying: bool = False
    """It was given something: who tries whether a filter is back tries it with the whole message."""
    broken: Finding | None = None
    """It has failed, and is given no more."""
    over: bool = False
    """It was asked what it says."""
    seconds: float = 0.0
    """While the octets came."""


class Reading:
    """One message, shown to those that read along while it comes, then to all that look at it whole."""

    def __init__(self, passage: Passage, mail: Mail) -> None:
        self._passage = passage
        self._gauntlet = passage.gauntlet
        self._route = passage.gauntlet.route(Moment.MESSAGE, passage.client)
        self._along = {
            seat.name: _Along(seat, seat.read(mail)) for wave in self._route for seat in wave if seat.read is not None
        }

    async def write(self, chunk: bytes) -> None:
        """The next octets, to all readers side by side; one that fails is given no more."""
        waiting = []
        for along in self._along.values():
            if along.broken is None:
                giving = self._give(along, chunk)
                if giving is not None:
                    waiting.append(giving)
        if waiting:
            await side_by_side(waiting)

    def _give(self, along: _Along, chunk: bytes) -> Coroutine[Any, Any, None] | None:
        """What is to be awaited until it has taken *chunk*, if it does not do so at once."""
        gauntlet = self._gauntlet
        if not along.trying:
            if along.seat.breaker.open:
                along.broken = gauntlet.left_alone(along.seat)
                return None
            along.trying = True
        began = gauntlet.now()
        writing = along.reader.write(chunk)
        try:
            awaited = writing.send(None)
        except StopIteration:
            along.seconds += gauntlet.now() - began
            return None
        except Exception as error:
            along.broken = gauntlet.failed(along.seat, error, began)
            return None
        return self._given(along, rest_of(writing, awaited), began)

    async def _given(self, along: _Along, writing: Coroutine[Any, Any, None], began: float) -> None:
        gauntlet = self._gauntlet
        try:
            await within(gauntlet.clock, along.seat.post.seconds, writing)
        except (CancelledError, GeneratorExit):
            raise
        except Exception as error:
            along.broken = gauntlet.failed(along.seat, error, began)
        else:
            along.seconds += gauntlet.now() - began

    async def finish(self, message: Arrived, only: frozenset[str] | None = None) -> list[Finding]:
        """What all say (of *only* those, if named) about the whole message, in the operator's order."""
        gauntlet = self._gauntlet
        found: list[Finding] = []
        for wave in self._route:
            asked: list[_Asked] = []
            for seat in wave:
                if only is not None and seat.name not in only:
                    continue
                along = self._along.get(seat.name)
                if along is not None:
                    if along.broken is not None:
                        found.append(along.broken)
                        continue
                    along.over = True
                    asked.append(self._ask(seat, along.reader.finish(message), along.trying))
                if seat.question is not None:
                    asked.append(self._ask(seat, seat.question(message), along is not None and along.trying))
            await _gathered(asked, found)
        await self.abort()
        order = gauntlet.order
        for finding in found:
            along = self._along.get(finding.stage)
            if along is not None and along.seconds:
                along.seat.count.seconds += along.seconds
                finding.seconds += along.seconds
                along.seconds = 0.0
        found.sort(key=lambda each: order[each.stage])
        return found

    def _ask(self, seat: Seat, question: Coroutine[Any, Any, Any], trying: bool) -> _Asked:
        return self._gauntlet.ask(seat, question, seat.post.message_seconds, trying=trying)

    async def abort(self) -> None:
        """Whoever still reads is told that no more comes. Again is harmless."""
        for along in self._along.values():
            if not along.over:
                along.over = True
                await self._passage.say(along.seat.post, _awaited(along.reader.abort()))


async def _awaited(words: Awaitable[None]) -> None:
    await words
