"""An intent in an account's queue, and who waits for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from twisted_mail.account.errors import AccountError, NoSuchMailbox, OutcomeUnknown
from twisted_mail.account.intents import Intent, Plan
from twisted_mail.storage.interfaces import MessageRow
from twisted_mail.values import ModSeq

__all__ = ["Waiting"]


class Waiting:
    """An intent in the queue, and who waits for it."""

    __slots__ = (
        "closes",
        "done",
        "here",
        "id",
        "intent",
        "plan",
        "proposed",
        "rows",
        "since",
        "timer",
        "unsettled",
        "verdict",
    )

    def __init__(
        self,
        intent: Intent[Any],
        rows: list[MessageRow],
        *,
        here: bool = False,
        since: ModSeq | None = None,
        id: bytes = b"",
    ) -> None:
        self.intent = intent
        self.id = id
        """Of the intent, once it was sent to another node: an entry that bears it is what became of it, whoever wrote that."""
        self.rows = rows
        """Message rows that are to be written with its entry."""
        self.here = here
        """Another node forwarded it: it must not be forwarded again."""
        self.since = since
        """Where the account stood when it was first sent to another node, if it was: its entry is not below."""
        self.plan = Plan()
        self.proposed = False
        """An attempt to make it stand is under way."""
        self.unsettled = False
        """An attempt was made of which it is not known whether it will come to stand."""
        self.closes = False
        """Its entry is an empty one, after which no other attempt can come to stand."""
        self.verdict: AccountError | None = None
        """How it ends then, if it is refused."""
        self.timer: Any = None
        self.done: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, done: Deferred[Any]) -> None:
        """Whoever waited has gone; an intent that was proposed goes on without it."""
        self.stop_timer()

    def succeed(self, value: Any) -> None:
        self.stop_timer()
        if not self.done.called:
            self.done.callback(value)

    def fail(self, error: BaseException) -> None:
        """*error*, unless it says that nothing was written while an earlier attempt may still come to stand.

        A mailbox that is gone is gone for the other attempt too.
        """
        self.stop_timer()
        if self.unsettled and isinstance(error, AccountError) and not isinstance(error, NoSuchMailbox | OutcomeUnknown):
            error = OutcomeUnknown("the change could not be confirmed")
        if not self.done.called:
            self.done.errback(error)

    def stop_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
