"""One open account: loads its state, commits intents in groups, settles unknown outcomes, makes checkpoints.

The rules are the architecture's: an intent is run on the newest state; while an append is in flight others queue up
and go out together, each under its own modseq; after a conflict the tail is read and applied and the intents run
again; an unknown outcome stays unknown until the slots have been read.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.account.apply import Applied, apply, apply_to_columns
from twisted_mail.account.checkpoint import (
    HEAD,
    changed_chunks,
    column_chunks,
    decode_columns,
    decode_delivered,
    decode_head,
    delivered_chunks,
    stale_mailboxes,
    thinned,
)
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import Entry, decode_entry, encode_entry
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown, Refused
from twisted_mail.account.intents import Intent, Scope
from twisted_mail.account.rows import AccountRows, octets_of
from twisted_mail.account.state import DAY_SECONDS, AccountState, Mailbox
from twisted_mail.account.waiting import Waiting
from twisted_mail.storage.interfaces import (
    Checkpoint,
    Conflict,
    NewEntry,
    StorageError,
    Trimmed,
    Unavailable,
)
from twisted_mail.storage.interfaces import Refused as StoreRefused
from twisted_mail.values import AccountId, EntryId, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = ["MAX_GROUP", "OpenAccount"]

R = TypeVar("R")
MAX_GROUP = 512
"""Entries in one append."""
MAX_GROUP_BYTES = 16 * 1024 * 1024
"""Octets of rows in one append, if it is not a single intent's: it may have to go to another process in one piece."""
MAX_WAITING = 20_000
"""Intents that may queue for one account."""


class OpenAccount(AccountRows):
    """Implements `services.Account`."""

    _log = Logger()

    def __init__(self, service: AccountService, account: AccountId) -> None:
        super().__init__(service, account)
        self._lock = DeferredLock()
        self._queue: deque[Waiting] = deque()
        self._running = False
        self._refreshing = False
        self._watchers: list[Callable[[ModSeq], None]] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._base = ModSeq(0)
        self._manifest: dict[str, ModSeq] = {}
        self._history: tuple[tuple[int, int], ...] = ()
        self._tail_entries = 0
        self._tail_bytes = 0
        self._known_deliveries: tuple[ModSeq, set[bytes]] | None = None
        self._quiet: list[Deferred[None]] = []
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is in flight or watched."""
        return self._running or self._refreshing or bool(self._queue or self._watchers)

    # --- loading

    async def load(self) -> None:
        """Read the head chunk of the newest checkpoint, and the tail. Raises StorageError."""
        while True:
            checkpoint = await self._service.log.load_checkpoint(self._id, (HEAD,))
            state = AccountState()
            history: tuple[tuple[int, int], ...] = ()
            if checkpoint is not None:
                state, history = decode_head(checkpoint.chunks[HEAD])
            self._state, self._history = state, history
            self._tail_entries = self._tail_bytes = 0
            self._know(checkpoint)
            try:
                await self._read_tail()
                return
            except Trimmed:
                continue  # a newer checkpoint was made meanwhile

    def _know(self, checkpoint: Checkpoint | None) -> None:
        self._base = ModSeq(checkpoint.modseq if checkpoint else 0)
        self._manifest = dict(checkpoint.manifest) if checkpoint else {}

    async def _read_tail(self) -> list[EntryId]:
        """Apply what is in the log beyond the state; returns the ids of the entries. Raises StorageError."""
        ids: list[EntryId] = []
        while True:
            entries = await self._service.log.read(self._id, self._state.modseq, 4096)
            for entry in entries:
                self._apply(entry.modseq, decode_entry(entry.data), len(entry.data))
                ids.append(entry.id)
            if len(entries) < 4096:
                return ids

    def _apply(self, modseq: ModSeq, entry: Entry, size: int) -> Applied:
        self._tail_entries += 1
        self._tail_bytes += size
        return apply(self._state, modseq, entry)

    async def _reload(self) -> None:
        """The tail that the state lacks has been trimmed away: start anew from the newest checkpoint.

        Views hold columns of the old state; they see that the mailbox's columns are others now.
        """
        await self.load()
        self._notify()

    async def columns(self, mailbox: Mailbox) -> Columns:
        """Load the columns of *mailbox* if they are not. Raises AccountUnavailable."""
        if mailbox.columns is not None:
            return mailbox.columns
        await self._lock.acquire()
        before = self._state.modseq
        try:
            return await self._load_columns(mailbox)
        except StorageError as error:
            raise AccountUnavailable("the mailbox cannot be read") from error
        finally:
            self._lock.release()
            if self._state.modseq != before:
                self._notify()  # a newer checkpoint took the state along, and the notice of that will find it known

    async def _load_columns(self, mailbox: Mailbox) -> Columns:
        """The same, by the holder of the lock."""
        while mailbox.columns is None:
            wanted = column_chunks(self._manifest, mailbox.id)
            checkpoint = await self._service.log.load_checkpoint(self._id, wanted)
            if checkpoint is None:
                columns, reached = Columns(), 0
            else:
                if checkpoint.modseq != self._base:
                    # another node made a checkpoint: its manifest names other chunks
                    self._know(checkpoint)
                    self._tail_entries = max(0, self._state.modseq - self._base)
                    continue
                columns, reached = decode_columns(mailbox.id, checkpoint.chunks, checkpoint.modseq), checkpoint.modseq
            if reached > self._state.modseq:
                try:
                    await self._read_tail()
                except Trimmed:
                    await self._reload()
                    found = self._state.mailboxes.get(mailbox.id)
                    if found is None:
                        return Columns()
                    mailbox = found
                    continue
            for modseq, seconds, first_uid, change in mailbox.backlog:
                if modseq > reached:
                    apply_to_columns(columns, modseq, seconds, first_uid, change)
            mailbox.backlog.clear()
            mailbox.columns = columns
        return mailbox.columns

    # --- following other nodes

    async def refresh(self) -> ModSeq:
        """Read what other nodes have appended and apply it. Raises AccountUnavailable."""
        await self._lock.acquire()
        before = self._state.modseq
        try:
            await self._catch_up()
        except StorageError as error:
            raise AccountUnavailable("the account cannot be read") from error
        finally:
            self._lock.release()
        if self._state.modseq != before:
            self._notify()
        return self._state.modseq

    async def _catch_up(self) -> list[EntryId]:
        if await self._service.log.head(self._id) == self._state.modseq:
            return []
        try:
            return await self._read_tail()
        except Trimmed:
            await self._reload()
            return []

    def refresh_soon(self, modseq: ModSeq | None = None) -> None:
        """A notice came that the account moved to *modseq*, or it is time to look."""
        if self._refreshing or self._closed or (modseq is not None and modseq <= self._state.modseq):
            return
        self._refreshing = True

        def ended(result: object) -> None:
            self._refreshing = False

        Deferred.fromCoroutine(self.refresh()).addErrback(
            lambda failure: self._log.warn("account {id} could not be refreshed: {why}", id=self._id, why=failure.value)
        ).addBoth(ended)

    def watch(self, changed: Callable[[ModSeq], None]) -> Callable[[], None]:
        """Call *changed* after each applied batch of entries."""
        if not self._watchers:
            self._unsubscribe = self._service.bus.subscribe(self._id, self.refresh_soon)
            self._service.watched(self)
        self._watchers.append(changed)

        def end() -> None:
            if changed in self._watchers:
                self._watchers.remove(changed)
                if not self._watchers:
                    self._stop_watching()

        return end

    def _stop_watching(self) -> None:
        self._service.unwatched(self)
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _notify(self) -> None:
        for changed in list(self._watchers):
            try:
                changed(self._state.modseq)
            except Exception:
                self._log.failure("a watcher of account {id} failed", id=self._id)

    # --- committing

    async def commit(self, intent: Intent[R]) -> R:
        """Run *intent* on the newest state and make its entry durable; see `services.Account`."""
        if self._closed:
            raise AccountUnavailable("the account has been closed")
        if len(self._queue) >= MAX_WAITING:
            raise AccountUnavailable("too many changes of this account are waiting")
        waiting = Waiting(intent, [row for id in intent.new_rows() if (row := self._unwritten.pop(id, None))])
        waiting.timer = self._service.clock.callLater(self._service.settings.commit_seconds, self._too_late, waiting)
        self._queue.append(waiting)
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._broken)
        result: R = await waiting.done
        return result

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
        self._now_quiet()

    async def _run(self) -> None:
        attempt = 0
        while self._queue:
            await self._lock.acquire()
            before = self._state.modseq
            group: list[Waiting] = []
            try:
                group = self._take_group()
                again = await self._commit_group(group)
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
            self._queue.extendleft(reversed([w for w in again if not w.done.called]))
            if self._state.modseq != before:
                self._notify()
            attempt = attempt + 1 if again else 0
            if attempt > 1:
                await self._sleep(min(0.005 * 2**attempt, 1.0) * (0.5 + random.random()))
            await self._checkpoint_if_due()
        self._running = False
        self._now_quiet()

    def _take_group(self) -> list[Waiting]:
        """The longest prefix of the queue whose scopes do not meet; empty where all have given up waiting."""
        group: list[Waiting] = []
        scopes: list[Scope] = []
        octets = 0
        while self._queue and len(group) < MAX_GROUP:
            scope = self._queue[0].intent.scope()
            octets += sum(map(octets_of, self._queue[0].rows))
            if any(scope.meets(other) for other in scopes) or (group and octets > MAX_GROUP_BYTES):
                break
            scopes.append(scope)
            group.append(self._queue.popleft())
        return group

    async def _commit_group(self, group: list[Waiting]) -> list[Waiting]:
        """Run, append, apply, answer. Returns those that must run again on a newer state."""
        await self._prepare(group)
        proposals: list[Waiting] = []
        settled: list[tuple[Waiting, Refused | None]] = []
        for waiting in group:
            if waiting.done.called:
                continue
            try:
                waiting.plan = waiting.intent.run(self._state)
            except Refused as refused:
                settled.append((waiting, refused))
                continue
            except Exception as error:  # a defect: of the one intent, and the others have nothing to do with it
                self._log.failure("{cause} could not be run", cause=waiting.intent.cause)
                waiting.fail(error)
                continue
            if waiting.plan.changes:
                proposals.append(waiting)
            else:
                settled.append((waiting, None))
        if settled and not proposals and await self._service.log.head(self._id) != self._state.modseq:
            # a refusal, or that nothing is to be done, must not come from a state that others have left behind
            await self._catch_up()
            return group
        if proposals:
            again = await self._append(proposals)
            if again:
                return [w for w in group if not w.done.called]
        for waiting, refusal in settled:
            if refusal is not None:
                waiting.fail(refusal)
            else:
                waiting.succeed(waiting.intent.result(self._state, waiting.plan, None))
        return []

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
            delivery = waiting.intent.asks_for_delivery()
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

    async def _append(self, proposals: list[Waiting]) -> bool:
        """Propose the plans; True when they must run again. Applies and answers those that came to stand."""
        expected = self._state.modseq
        now = int(self._service.wall() * 1000)
        entries = [Entry(now, w.intent.cause, w.plan.changes, w.plan.delivery) for w in proposals]
        encoded = [NewEntry(EntryId.new(), encode_entry(entry)) for entry in entries]
        for waiting in proposals:
            waiting.proposed = True
        try:
            rows = [row for waiting in proposals for row in waiting.rows]
            if rows and self._service.appends_rows is not None:
                await self._service.appends_rows.append_with_rows(self._id, expected, encoded, rows)
            else:
                await self._service.log.append(self._id, expected, encoded)
        except Conflict:
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
            applied = apply(self._state, ModSeq(self._state.modseq + 1), entry)
            try:
                waiting.succeed(waiting.intent.result(self._state, waiting.plan, applied))
            except Exception as error:
                waiting.fail(error)
                self._log.failure("the result of {cause} failed", cause=waiting.intent.cause)
        self._service.bus.publish(self._id, self._state.modseq)

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
        while True:
            try:
                return await ask()
            except Unavailable:
                await self._sleep(wait * (0.5 + random.random()))
                wait = min(wait * 2, 2.0)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._service.clock, seconds, lambda: None)

    # --- checkpoints

    async def _checkpoint_if_due(self) -> None:
        settings = self._service.settings
        if self._tail_entries < settings.checkpoint_entries and self._tail_bytes < settings.checkpoint_bytes:
            return
        await self._lock.acquire()
        try:
            await self._checkpoint()
        except StorageError as error:
            self._log.warn("account {id}: no checkpoint was made: {why}", id=self._id, why=error)
            self._tail_entries = self._tail_bytes = 0  # not again for each entry; the next one is as good
        finally:
            self._lock.release()

    async def checkpoint(self) -> None:
        """Make a checkpoint now, if anything changed since the last one. Raises StorageError."""
        await self._lock.acquire()
        try:
            if self._state.modseq > self._base:
                await self._checkpoint()
        finally:
            self._lock.release()

    async def _checkpoint(self) -> None:
        log = self._service.log
        while missing := [m for m in stale_mailboxes(self._state, self._base) if m.columns is None]:
            await self._load_columns(missing[0])  # which may find that there is a newer base, or another state
        state = self._state
        now = int(self._service.wall() * 1000)
        modseq = state.modseq
        horizon = now - int(self._service.settings.retention_seconds * 1000)
        history = thinned((*self._history, (int(modseq), now)), horizon)
        today = now // (DAY_SECONDS * 1000)
        changed, kept = changed_chunks(state, self._base, self._manifest, history, today)
        try:
            await log.save_checkpoint(self._id, self._base, modseq, changed, kept)
        except Conflict:
            newest = await log.load_checkpoint(self._id, (HEAD,))
            if newest is not None:
                self._history = decode_head(newest.chunks[HEAD])[1]
            self._know(newest)
        else:
            self._base, self._history = modseq, history
            self._manifest = {**kept, **dict.fromkeys(changed, modseq)}
            state.delivered.clear()
        self._tail_entries = max(0, state.modseq - self._base)
        self._tail_bytes = 0
        await self._trim(horizon)

    async def _trim(self, horizon: int) -> None:
        old = [modseq for modseq, made in self._history if made <= horizon]
        if old:
            await self._service.log.trim(self._id, ModSeq(old[-1]))

    # --- the end

    async def quiet(self) -> None:
        """Until nothing is in flight."""
        if self._running:
            waiting: Deferred[None] = Deferred()
            self._quiet.append(waiting)
            await waiting

    def _now_quiet(self) -> None:
        quiet, self._quiet = self._quiet, []
        for waiting in quiet:
            waiting.callback(None)

    def close(self) -> None:
        """Nobody has it open any more."""
        self._closed = True
        if self._watchers:
            self._watchers.clear()
            self._stop_watching()
