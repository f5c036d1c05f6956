"""One open account: loads its state, commits intents in groups, settles unknown outcomes, makes checkpoints.

The rules are the architecture's: an intent is run on the newest state; while an append is in flight others queue up
and go out together, each under its own modseq; after a conflict the tail is read and applied and the intents run
again; an unknown outcome stays unknown until the slots have been read.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_mail.account.apply import Applied, apply
from twisted_mail.account.checkpoint import decode_delivered, delivered_chunks
from twisted_mail.account.checkpointing import CheckpointedAccount
from twisted_mail.account.entries import Entry, decode_entry, encode_entry
from twisted_mail.account.errors import AccountUnavailable, LimitReached, OutcomeUnknown, Refused
from twisted_mail.account.forwarding import AlreadyStands
from twisted_mail.account.homes import NotHome
from twisted_mail.account.intents import Intent, Plan, Scope
from twisted_mail.account.rows import octets_of
from twisted_mail.account.sending import Sender
from twisted_mail.account.waiting import Waiting
from twisted_mail.storage.interfaces import (
    Conflict,
    MessageRow,
    NewEntry,
    StorageError,
    Trimmed,
    Unavailable,
)
from twisted_mail.storage.interfaces import Refused as StoreRefused
from twisted_mail.values import AccountId, EntryId, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService, Notice

__all__ = ["MAX_GROUP", "OpenAccount"]

R = TypeVar("R")
MAX_GROUP = 512
"""Entries in one append."""
MAX_GROUP_BYTES = 16 * 1024 * 1024
"""Octets of rows in one append, if it is not a single intent's: it may have to go to another process in one piece."""
ENTRY_OVERHEAD = 64
"""Octets that count for an entry besides its data, against the log's `max_append_bytes`."""
MAX_WAITING = 20_000
"""Intents that may queue for one account."""


class OpenAccount(CheckpointedAccount):
    """Implements `services.Account`."""

    _log = Logger()

    def __init__(self, service: AccountService, account: AccountId) -> None:
        super().__init__(service, account)
        self._sender = Sender(self, service.forwarding, service.clock)
        self._queue: deque[Waiting] = deque()
        self._running = False
        self._known_deliveries: tuple[ModSeq, set[bytes]] | None = None
        self._quiet: list[Deferred[None]] = []
        self._moved = 0.0
        """When the queue last moved, by the service's clock."""

    @property
    def busy(self) -> bool:
        """Whether something is in flight or watched."""
        return self._running or self._refreshing or bool(self._queue or self._watchers or self._sender.under_way)

    def _wanted(self) -> bool:
        return bool(self._queue)

    def others_append(self) -> None:
        self._sender.others_append()

    # --- committing

    async def commit(self, intent: Intent[R]) -> R:
        """Run *intent* on the newest state and make its entry durable; see `services.Account`.

        The entry is written by this node, or by another one (`sending`): where the account is not at home here, or
        where it had better go out in company.
        """
        result: R = await self.naming(intent.new_rows(), self._commit(Waiting(intent, self._rows_of(intent))))
        return result

    async def commit_here(self, intent: Intent[R], since: ModSeq, id: bytes) -> R:
        """The same for an *intent* that another node forwarded: no entry up to *since* bears its *id*.

        Raises NotHome and AlreadyStands too.
        """
        result: R = await self._commit(Waiting(intent, self._rows_of(intent), here=True, since=since, id=id))
        return result

    def _rows_of(self, intent: Intent[R]) -> list[MessageRow]:
        return [row for id in intent.new_rows() if (row := self._unwritten.pop(id, None))]

    async def _commit(self, waiting: Waiting) -> Any:
        if self._closed:
            raise AccountUnavailable("the account has been closed")
        if len(self._queue) + self._sender.under_way >= MAX_WAITING:
            raise AccountUnavailable("too many changes of this account are waiting")
        settings, clock = self._service.settings, self._service.clock
        late = clock.seconds() + settings.commit_seconds
        waiting.timer = clock.callLater(
            min(settings.propose_seconds, settings.commit_seconds), self._waited, waiting, late
        )
        home = self.elsewhere()
        if home is not None and not waiting.here:
            self._sender.home(waiting, home)
        elif self._sender.wants(waiting):
            self._sender.to_owner(waiting)
        else:
            self.enqueue(waiting)
        return await waiting.done

    def enqueue(self, waiting: Waiting) -> None:
        """Have *waiting* committed by this node; nothing if nobody waits for it any more."""
        if waiting.done.called:
            return
        self._queue.append(waiting)
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    async def write_rows(self, waiting: Waiting) -> None:
        """Write the rows that were to go with its entry: another node will write that. Raises StorageError."""
        if waiting.rows:
            await self._service.store.put(self._id, waiting.rows)
            waiting.rows = []

    def _waited(self, waiting: Waiting, late: float) -> None:
        """*waiting* has waited: until *late* as long as the store takes changes; else only while it is proposed.

        The queue of an account may be long, and move.  Where it does not, who stands in it is sent away soon.
        """
        settings, now = self._service.settings, self._service.clock.seconds()
        stands = now - self._moved >= settings.propose_seconds and not waiting.proposed
        if now >= late or stands:
            self._too_late(waiting)
        else:
            again = min(1.0, late - now)
            waiting.timer = self._service.clock.callLater(again, self._waited, waiting, late)

    def _too_late(self, waiting: Waiting) -> None:
        if waiting.proposed:
            waiting.fail(OutcomeUnknown("the change could not be confirmed in time"))
        else:
            if waiting in self._queue:
                self._queue.remove(waiting)
            waiting.fail(AccountUnavailable("the store did not answer in time; nothing was changed"))

    def _broken(self, failure: Any) -> None:
        """A defect of ours, or what only a look at the store can mend: nobody may wait for ever."""
        self._log.failure("committing to account {id} failed", failure, id=self._id)
        self._running = False
        while self._queue:
            self._queue.popleft().fail(AccountUnavailable("internal error"))
        self.now_quiet()

    async def _run(self) -> None:
        attempt = 0
        while self._queue:
            await self._lock.acquire()
            before = self._state.modseq
            group: list[Waiting] = []
            try:
                group = self._take_group()
                again = await self._commit_group(group)
                self._moved = self._service.clock.seconds()
            except StorageError as error:
                for waiting in group:
                    if waiting.proposed:
                        waiting.fail(OutcomeUnknown("the change could not be confirmed"))
                    else:
                        waiting.fail(AccountUnavailable("the store does not answer; nothing was changed"))
                self._log.warn("account {id}: {why}", id=self._id, why=error)
                again = []
            except BaseException as error:
                for waiting in group:
                    waiting.fail(error if isinstance(error, Exception) else CancelledError())
                raise
            finally:
                self._lock.release()
            self._queue.extendleft(waiting for waiting in reversed(again) if not waiting.done.called)
            if attempt and again:  # they have lost twice: against company they would lose again
                self._send_all()
            if self._state.modseq != before:
                self._notify()
            attempt = attempt + 1 if again else 0
            if attempt > 1:
                await self.sleep(min(0.005 * 2**attempt, 1.0) * (0.5 + random.random()))
            await self._checkpoint_if_due()
        self._running = False
        self.now_quiet()

    def _send_all(self) -> None:
        """Send what is in the queue, and has not been sent, to the owner."""
        queued, self._queue = self._queue, deque()
        for waiting in queued:
            if self._sender.wants(waiting):
                self._sender.to_owner(waiting)
            else:
                self._queue.append(waiting)

    def _take_group(self) -> list[Waiting]:
        """The longest prefix of the queue whose scopes do not meet; empty where all have given up waiting."""
        group: list[Waiting] = []
        scopes: list[Scope] = []
        octets = 0
        ids: set[bytes] = set()
        most = 1 if self._just_came else MAX_GROUP
        while self._queue and len(group) < most and self._queue[0].id not in ids:
            scope = self._queue[0].intent.scope()
            octets += sum(map(octets_of, self._queue[0].rows))
            if any(scope.meets(other) for other in scopes) or (group and octets > MAX_GROUP_BYTES):
                break
            scopes.append(scope)
            group.append(self._queue.popleft())
            if group[-1].id:
                ids.add(group[-1].id)  # of two attempts of one intent the second must see the first
        return group

    async def _commit_group(self, group: list[Waiting]) -> list[Waiting]:
        """Run, append, apply, answer. Returns those that must run again on a newer state."""
        if self.elsewhere() is not None:
            await self._catch_up()  # it may have come here meanwhile
            home = self.elsewhere()
            if home is not None:
                for waiting in group:
                    if waiting.here:
                        waiting.fail(NotHome(home))
                    elif not waiting.done.called:
                        self._sender.home(waiting, home)
                return []
        if self._sender.known > self._state.modseq:
            await self._catch_up()  # what was sent to the owner has moved the account
        await self._prepare(group)
        if self.elsewhere() is not None:
            return group  # it was seen to move away while columns were loaded: nothing may follow that entry from here
        for waiting in group:
            if waiting.id:
                await self._look_for(waiting)
        proposals: list[Waiting] = []
        settled: list[tuple[Waiting, Refused | None]] = []
        for waiting in group:
            if waiting.done.called:
                continue
            refusal: Refused | None = None
            try:
                waiting.plan = waiting.intent.run(self._state)
            except Refused as refused:
                waiting.plan, refusal = Plan(), refused
            except Exception as error:  # a defect: of the one intent, and the others have nothing to do with it
                self._log.failure("{cause} could not be run", cause=waiting.intent.cause)
                waiting.fail(error)
                continue
            again = refusal is not None or waiting.intent.again() is None
            waiting.closes = not waiting.plan.changes and waiting.unsettled and again and not waiting.here
            waiting.verdict = refusal
            if waiting.plan.changes or waiting.closes:
                proposals.append(waiting)
            else:
                settled.append((waiting, refusal))
        if settled and not proposals and await self._service.log.head(self._id) != self._state.modseq:
            # a refusal, or that nothing is to be done, must not come from a state that others have left behind
            await self._catch_up()
            return group
        entries, encoded = self._encoded(proposals)
        left = proposals[len(entries) :]
        if entries and await self._append(proposals[: len(entries)], entries, encoded):
            return [w for w in group if not w.done.called]
        self._queue.extendleft(reversed(left))
        for waiting, refusal in settled:
            if refusal is not None:
                waiting.fail(refusal)
            else:
                waiting.succeed(waiting.intent.result(self._state, waiting.plan, None))
        return []

    async def _look_for(self, waiting: Waiting) -> None:
        """Settle *waiting*, which has been sent from node to node, if its entry stands. Raises StorageError."""
        if waiting.done.called or waiting.since is None:
            return
        found = self._known.number(waiting.id)
        try:
            if found is None and waiting.since < self._known.since:
                for logged in await self._service.log.read(self._id, waiting.since):
                    if decode_entry(logged.data).intent == waiting.id and logged.modseq <= self._state.modseq:
                        found = logged.modseq
        except Trimmed:
            waiting.fail(OutcomeUnknown("whether an earlier attempt has been carried out cannot be told any more"))
        if found is None:
            return
        if waiting.here:
            waiting.fail(AlreadyStands(found))
        elif waiting.intent.again() is not None:
            waiting.succeed(waiting.intent.result(self._state, Plan(), None))
        else:  # the state was read anew beyond it
            waiting.fail(OutcomeUnknown("the change stands, but what came of it cannot be told"))

    async def _prepare(self, group: Sequence[Waiting]) -> None:
        """Load what the intents of *group* need before they run."""
        state = None
        while state is not self._state:  # loading columns may find that the state must be read anew
            state = self._state
            for waiting in group:
                for id in waiting.intent.columns():
                    mailbox = self._state.mailboxes.get(id)
                    if mailbox is not None and mailbox.columns is None:
                        await self._load_columns(mailbox)
        for waiting in group:
            intent: Intent[Any] = waiting.intent
            if waiting.since is not None and waiting.since < self._base:
                # a checkpoint came between: an earlier attempt of it may be below that
                intent = waiting.intent.again() or waiting.intent
            delivery = intent.asks_for_delivery()
            if delivery is not None and delivery not in self._state.delivered:
                if delivery in await self._older_deliveries():
                    self._state.delivered[delivery] = (0, 0)  # found in a checkpoint: no change, and not written again

    async def _older_deliveries(self) -> set[bytes]:
        if self._known_deliveries is None or self._known_deliveries[0] != self._base:
            names = delivered_chunks(self._manifest)
            checkpoint = await self._service.log.load_checkpoint(self._id, names) if names else None
            found: set[bytes] = set()
            if checkpoint is not None:
                if checkpoint.modseq != self._base:
                    self._know(checkpoint)
                    return await self._older_deliveries()
                for data in checkpoint.chunks.values():
                    found |= decode_delivered(data)
            self._known_deliveries = (self._base, found)
        return self._known_deliveries[1]

    def _encoded(self, proposals: list[Waiting]) -> tuple[list[Entry], list[NewEntry]]:
        """The entries of the first of *proposals*, of as many as the log takes in one append.

        One that the log does not take even by itself is taken out, and refused.
        """
        now = int(self._service.wall() * 1000)
        room, most = self._service.max_append_bytes, self._service.max_entry_bytes
        entries: list[Entry] = []
        encoded: list[NewEntry] = []
        for waiting in list(proposals):
            cause = "closed" if waiting.closes else waiting.intent.cause
            entry = Entry(now, cause, waiting.plan.changes, waiting.plan.delivery, waiting.id)
            data = encode_entry(entry)
            if most is not None and len(data) + ENTRY_OVERHEAD > most:
                proposals.remove(waiting)
                waiting.fail(LimitReached("more than the store takes in one change"))
                continue
            if room is not None:
                room -= len(data) + ENTRY_OVERHEAD
                if room < 0 and entries:
                    break
            entries.append(entry)
            encoded.append(NewEntry(EntryId.new(), data))
        return entries, encoded

    async def _append(self, proposals: list[Waiting], entries: list[Entry], encoded: list[NewEntry]) -> bool:
        """Propose the plans; True when they must run again. Applies and answers those that came to stand."""
        expected = self._state.modseq
        for waiting in proposals:
            waiting.proposed = True
        try:
            rows = [row for waiting in proposals for row in waiting.rows]
            if rows and self._service.appends_rows is not None:
                await self._service.appends_rows.append_with_rows(self._id, expected, encoded, rows)
            else:
                await self._service.log.append(self._id, expected, encoded)
        except Conflict:
            self._sender.met_conflict()
            # ours may have come to stand by a retry inside the store: the ids in the tail say so
            if await self._patiently(lambda: self._tail_holds(encoded, expected)):
                self._answer(proposals, entries, encoded, expected)
                return False
            for waiting in proposals:
                waiting.proposed = False
            return True
        except StoreRefused:
            for waiting in proposals:
                waiting.fail(AccountUnavailable("the store does not answer; nothing was changed"))
            return False
        except Unavailable:
            try:
                stands = await self._settle(expected, encoded)
            except Trimmed:
                for waiting in proposals:
                    waiting.fail(OutcomeUnknown("the change could not be confirmed"))
                await self._patiently(self._reload)
                return False
            if not stands:
                for waiting in proposals:
                    waiting.proposed = False
                await self._patiently(self._catch_up)
                return True
        if self._just_came and not await self._patiently(lambda: self._confirm(expected, encoded)):
            for waiting in proposals:
                waiting.proposed = False
            await self._patiently(self._catch_up)
            return True
        self._answer(proposals, entries, encoded, expected)
        return False

    def _answer(
        self, proposals: list[Waiting], entries: list[Entry], encoded: list[NewEntry], expected: ModSeq
    ) -> None:
        """Our entries stand right above *expected*: apply them, and answer those who wait for them."""
        if self._state.modseq != expected:
            raise RuntimeError("the state moved while an append was in flight")
        self._tail_entries += len(entries)
        self._tail_bytes += sum(len(new.data) for new in encoded)
        for waiting, entry in zip(proposals, entries, strict=True):
            applied: Applied | None = apply(self._state, ModSeq(self._state.modseq + 1), entry)
            if entry.intent:
                self._known.add(entry.intent, self._state.modseq)
            if waiting.closes:
                applied, waiting.unsettled = None, False
            elif self._service.notice is not None:
                self._let_notice(self._service.notice, waiting, entry)
            try:
                if waiting.verdict is not None:
                    waiting.fail(waiting.verdict)
                else:
                    waiting.succeed(waiting.intent.result(self._state, waiting.plan, applied))
            except Exception as error:
                waiting.fail(error)
                self._log.failure("the result of {cause} failed", cause=waiting.intent.cause)
        self._service.bus.publish(self._id, self._state.modseq)

    def _let_notice(self, notice: Notice, waiting: Waiting, entry: Entry) -> None:
        try:
            notice(self._id, self._state, waiting.intent, entry)
        except Exception:
            self._log.failure("{cause} could not be noticed", cause=waiting.intent.cause)

    async def _confirm(self, expected: ModSeq, encoded: list[NewEntry]) -> bool:
        """The first append of a new home, which is of one entry: whether it stands, although it was said to.

        The head beneath was written by the other data centre's clocks. Were ours behind them, the new head would be
        taken for the older one, and the next append, another node's perhaps, would come into the same place. So the
        same entry is written again until the clocks have gone past each other and the head shows some entry there;
        from then on that one stands. Raises Unavailable.
        """
        if await self._service.log.head(self._id) >= expected + len(encoded):
            return await self._service.log.settle(self._id, expected, [entry.id for entry in encoded])
        with suppress(Conflict):  # some entry has come to be seen meanwhile
            await self._service.log.append(self._id, expected, encoded)
        raise Unavailable("the head does not show what was appended")

    async def _tail_holds(self, encoded: list[NewEntry], expected: ModSeq) -> bool:
        """After a conflict: whether our entries stand right above *expected* after all. Reads and applies the rest."""
        log = self._service.log
        try:
            first = await log.read(self._id, expected, len(encoded))
        except Trimmed:
            await self._reload()
            return False
        if [entry.id for entry in first] == [entry.id for entry in encoded]:
            return True
        await self._catch_up()
        return False

    async def _settle(self, expected: ModSeq, encoded: list[NewEntry]) -> bool:
        """Ask until it is known whether the append happened; without limit (rule 7)."""
        ids = [entry.id for entry in encoded]
        settled: bool = await self._patiently(lambda: self._service.log.settle(self._id, expected, ids))
        return settled

    async def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Repeat *ask* (a coroutine function, whose answer varies, hence Any) until the store answers."""
        wait = 0.01
        try:
            while True:
                try:
                    return await ask()
                except Unavailable:
                    self._unsettled = True
                    await self.sleep(wait * (0.5 + random.random()))
                    wait = min(wait * 2, 2.0)
        finally:
            self._unsettled = False

    # --- the end

    async def quiet(self) -> None:
        """Until nothing is in flight."""
        while self._running or self._sender.under_way:
            waiting: Deferred[None] = Deferred()
            self._quiet.append(waiting)
            await waiting

    def now_quiet(self) -> None:
        """Something is not in flight any more."""
        quiet, self._quiet = self._quiet, []
        for waiting in quiet:
            waiting.callback(None)

    def close(self) -> None:
        """Nobody has it open any more."""
        self._closed = True
        if self._watchers:
            self._watchers.clear()
            self._stop_watching()
