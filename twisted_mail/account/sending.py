"""The asking end of forwarding, for one account: what is sent to another node, and what becomes of its answers.

Two ways, with different endings. What was sent to the account's *owner* in this data centre may always be committed here
instead: as it is if it was never sent, and looked for first if the outcome is unknown; where nothing is to be done then, an
empty entry with its id forestalls the other attempt. What was sent *home*, to another data centre, is never committed here: until
it was sent, the store is `AccountUnavailable`; what was sent and not answered is sent again, and ends in `OutcomeUnknown`
if nobody answers in time.

Whoever asked reads its own writes: before a session has its answer this node has read up to the entry. (A delivery's is not
waited for; nobody looks for it here.)
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.forwarding import (
    CONTENTION_SECONDS,
    Answer,
    Done,
    Elsewhere,
    Forwarding,
    NotDone,
    NotUnderstood,
    Standing,
    TooLarge,
    TurnedDown,
    decode_result,
    refusal_of,
)
from twisted_mail.account.intents import Plan
from twisted_mail.account.waiting import Waiting
from twisted_mail.storage.interfaces import Refused as StoreRefused
from twisted_mail.storage.interfaces import StorageError, Unavailable
from twisted_mail.values import ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.committer import OpenAccount

__all__ = ["UNSENT_SECONDS", "Sender"]

UNSENT_SECONDS: Final = 4.0
"""After so long without a node of the home that takes it, an intent ends in `AccountUnavailable`."""


class Sender:
    """Sends the intents of one account to other nodes."""

    _log = Logger()

    def __init__(self, account: OpenAccount, forwarding: Forwarding | None, clock: Any) -> None:
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self._account = account
        self._forwarding = forwarding
        self._clock = clock
        self._contended_until = 0.0
        self._shunned_until = 0.0
        self.known = ModSeq(0)
        """How far the account stands at least, as other nodes have said."""
        self.under_way = 0
        """Intents that were sent and not answered yet."""

    # --- to the owner, in this data centre

    def met_conflict(self) -> None:
        """Somebody else appends to this account at the same time."""
        self._contended_until = self._clock.seconds() + CONTENTION_SECONDS

    def others_append(self) -> None:
        """An entry of somebody else's was read: it has not become calm."""
        if self._clock.seconds() < self._contended_until:
            self.met_conflict()

    def wants(self, waiting: Waiting) -> bool:
        """Whether *waiting* had better be committed in company."""
        return (
            self._shunned_until <= self._clock.seconds() < self._contended_until
            and self._forwarding is not None
            and not waiting.here
            and not waiting.unsettled
        )

    def to_owner(self, waiting: Waiting) -> None:
        """Send it to the owner, or commit it here if that does not work out."""
        self._start(waiting, self._to_owner(waiting))

    async def _to_owner(self, waiting: Waiting) -> None:
        forwarding = self._forwarding
        account = self._account
        answer: Answer | None = None
        try:
            if forwarding is not None and await forwarding.owner_elsewhere(account.id):
                await self._make_ready(waiting)
                answer = await self._ask(forwarding, waiting, forwarding.datacenter or None)
        except TooLarge:
            waiting.proposed = False
            account.enqueue(waiting)
            return
        except StoreRefused:
            pass
        match answer:
            case Done():
                self._learn(answer.modseq)
                if waiting.intent.again() is None:
                    waiting.stop_timer()
                    await account.reach(ModSeq(answer.modseq))
                waiting.succeed(decode_result(waiting.intent, answer.result))
                return
            case TurnedDown():
                self._learn(answer.modseq, ours=False)
                waiting.fail(refusal_of(answer))
                return
            case Standing():
                await self._tell(waiting, answer)
                return
            case NotDone(unknown=True):
                waiting.unsettled = True
                waiting.intent = waiting.intent.again() or waiting.intent
        if not isinstance(answer, Elsewhere):
            self._shunned_until = self._clock.seconds() + CONTENTION_SECONDS  # that way leads nowhere for now
        waiting.proposed = False
        account.enqueue(waiting)

    async def _make_ready(self, waiting: Waiting) -> None:
        """What must be here before *waiting* is sent: its rows, and what its outcome is told by when its entry is read."""
        account = self._account
        await account.write_rows(waiting)
        for id in waiting.intent.columns():
            mailbox = account.state.mailboxes.get(id)
            if mailbox is not None and mailbox.columns is None:
                await account.columns(mailbox)
        if not waiting.id:
            waiting.id, waiting.since = os.urandom(16), ModSeq(self._since())
            account.sent[waiting.id] = waiting

            def forget(result: object) -> object:
                account.answered(waiting.id)
                return result

            waiting.done.addBoth(forget)
        waiting.proposed = True

    async def _ask(self, forwarding: Forwarding, waiting: Waiting, datacenter: str | None) -> Answer:
        """Raises StoreRefused: it was not sent."""
        since = self._since() if waiting.since is None else int(waiting.since)
        try:
            return await forwarding.ask(self._account.id, waiting.intent, waiting.id, since, datacenter)
        except StoreRefused:
            raise
        except Unavailable as error:
            return NotDone(unknown=True, text=str(error))

    async def _tell(self, waiting: Waiting, answer: Standing) -> None:
        """An earlier attempt stands: what came of it is seen when its entry is read."""
        waiting.stop_timer()
        await self._account.reach(ModSeq(answer.modseq))
        if waiting.done.called:
            return
        if waiting.intent.again() is not None:
            waiting.succeed(waiting.intent.result(self._account.state, Plan(), None))
        else:
            waiting.fail(OutcomeUnknown("the change stands, but what came of it cannot be told yet"))

    def _since(self) -> int:
        return max(self._account.state.modseq, self.known)

    def _learn(self, modseq: int, *, ours: bool = True) -> None:
        """The account stood at *modseq*; if that is more than our own entries, others still append to it."""
        if modseq > self._since() + self.under_way * ours:
            self.met_conflict()
        self.known = ModSeq(max(modseq, self.known))

    # --- home, to another data centre

    def home(self, waiting: Waiting, home: str) -> None:
        """Send it to a node of *home*."""
        self._start(waiting, self._to_home(waiting, home))

    async def _to_home(self, waiting: Waiting, home: str) -> None:
        account = self._account
        if self._forwarding is None:
            waiting.fail(AccountUnavailable(f"the account is at home in {home}, and no node there is known"))
            return
        await self._make_ready(waiting)
        ends = self._clock.seconds() + UNSENT_SECONDS
        wait = 0.05
        moved = 0
        while not waiting.done.called:
            waiting.proposed = True
            answer = await self._ask_home(waiting, home)
            match answer:
                case Done():
                    waiting.stop_timer()
                    await account.reach(ModSeq(answer.modseq))
                    waiting.succeed(decode_result(waiting.intent, answer.result))
                    return
                case TurnedDown():
                    waiting.stop_timer()
                    await account.reach(ModSeq(answer.modseq))
                    waiting.fail(refusal_of(answer))
                    return
                case Elsewhere() if moved < 3:
                    moved += 1
                    home = answer.home
                    if home == account.here:
                        # it has come to us; what the old home wrote is on its way
                        waiting.proposed = False
                        await account.reach(ModSeq(answer.modseq))
                        if account.elsewhere() is None:
                            account.enqueue(waiting)
                        else:
                            waiting.fail(AccountUnavailable("the account is moving here"))
                        return
                    continue
                case Standing():
                    await self._tell(waiting, answer)
                    return
                case NotDone(unknown=True):
                    waiting.unsettled, waiting.intent = True, waiting.intent.again() or waiting.intent
                case NotUnderstood() | Elsewhere():
                    waiting.fail(AccountUnavailable("the account's home does not take changes from here"))
                    return
                case _:
                    if self._clock.seconds() >= ends:
                        waiting.fail(AccountUnavailable(f"no node of the account's home {home} takes the change"))
                        return
                    waiting.proposed = waiting.unsettled
            await account.sleep(wait * (0.5 + random.random()))
            wait = min(wait * 2, 1.0)

    async def _ask_home(self, waiting: Waiting, home: str) -> Answer:
        if self._forwarding is None:
            raise RuntimeError("there is nobody to ask")
        try:
            return await self._ask(self._forwarding, waiting, home)
        except TooLarge as error:
            return NotUnderstood(str(error))
        except StoreRefused as error:
            return NotDone(unknown=False, text=str(error))

    # --- both

    def _start(self, waiting: Waiting, work: Any) -> None:
        """*work* (a coroutine) settles *waiting*, or puts it into the account's queue."""
        self.under_way += 1

        def failed(failure: Any) -> None:
            if failure.check(StorageError, AccountUnavailable):
                waiting.fail(AccountUnavailable("the message could not be stored"))
                return
            self._log.failure("forwarding {cause} failed", failure, cause=waiting.intent.cause)
            waiting.unsettled = waiting.unsettled or waiting.proposed
            waiting.fail(AccountUnavailable("internal error"))

        def ended(result: object) -> None:
            self.under_way -= 1
            self._account.now_quiet()

        Deferred.fromCoroutine(work).addErrback(failed).addBoth(ended)
