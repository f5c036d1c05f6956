"""An intent in an account's queue, and who waits for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from twisted_mail.account.intents import Intent, Plan
from twisted_mail.storage.interfaces import MessageRow

__all__ = ["Waiting"]


class Waiting:
    """An intent in the queue, and who waits for it."""

    __slots__ = ("done", "intent", "plan", "proposed", "rows", "timer")

    def __init__(self, intent: Intent[Any], rows: list[MessageRow]) -> None:
        self.intent = intent
        self.rows = rows
        """Message rows that are to be written with its entry."""
        self.plan = Plan()
        self.proposed = False
        self.timer: Any = None
        self.done: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, done: Deferred[Any]) -> None:
        """Whoever waited has gone; an intent that was proposed goes on without it."""
        self._stop_timer()

    def succeed(self, value: Any) -> None:
        self._stop_timer()
        if not self.done.called:
            self.done.callback(value)

    def fail(self, error: BaseException) -> None:
        self._stop_timer()
        if not self.done.called:
            self.done.errback(error)

    def _stop_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
