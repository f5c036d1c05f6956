"""Milters in a row, as Postfix and sendmail have them: each sees the message as those before it have changed it.

Who cannot change a message (by what it has negotiated) keeps nobody waiting: the next one is shown the message while it
comes. Behind one that may, a milter is shown the whole message when that one has said what it changes. Other filters see the
message as it came, whatever milters do.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred

from twisted_mail.filters.rewriting import Rewritten
from twisted_mail.filters.values import Action, Arrived, Changes, Mail, Verdict

__all__ = ["Link", "MilterChain"]


class Link:
    """One milter's part in one message."""

    def __init__(self, before: tuple[Link, ...], may_change: Callable[[], bool]) -> None:
        self._before = before
        self._may_change = may_change
        self._begun = False
        self._settled = False
        self._waiting: list[Deferred[None]] = []
        self._changes: Changes | None = None
        self.refused = False
        """It wants the message refused: nobody need look at it any more."""

    @property
    def free(self) -> bool:
        """Whether the message can be shown while it comes: none before this one changes it."""
        return not any(each._may_change() for each in self._before)

    def begin(self) -> None:
        """The whole message is here, and this milter is asked. Whoever is not asked by then is out of the row: gauntlets ask in
        order."""
        self._begun = True

    def end(self, verdict: Verdict | None) -> None:
        """It has answered; None: it has not, and will not."""
        if verdict is not None:
            self.refused = verdict.action >= Action.DEFER
            self._changes = None if self.refused else verdict.changes
        self._settled = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def seen(self, message: Arrived) -> Arrived | None:
        """*message* as those before have left it, when they have; None: one of them wants it refused."""
        changes: list[Changes] = []
        for each in self._before:
            if each._begun:
                await each._end()
            if each.refused:
                return None
            if each._changes is not None:
                changes.append(each._changes)
        if not any(each.inserted or each.added or each.changed or each.body is not None for each in changes):
            return message
        return Rewritten(message, changes)

    async def _end(self) -> None:
        if not self._settled:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)


class MilterChain:
    """The row of all milters of a process, in the order in which they are asked."""

    def __init__(self) -> None:
        self._links: WeakKeyDictionary[Mail, tuple[Link, ...]] = WeakKeyDictionary()

    def join(self, mail: Mail, may_change: Callable[[], bool]) -> Link:
        """The next milter is to see the message of *mail*. *may_change*: whether it may change that, as far as is known."""
        before = self._links.get(mail, ())
        link = Link(before, may_change)
        self._links[mail] = (*before, link)
        return link

    def forget(self, mail: Mail) -> None:
        """The transaction is over."""
        self._links.pop(mail, None)
