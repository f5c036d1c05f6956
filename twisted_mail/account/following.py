"""The part of an open account that reads: its state from the newest checkpoint and the log, and what others append."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.account.apply import Applied, apply, apply_to_columns
from twisted_mail.account.checkpoint import HEAD, column_chunks, decode_columns, decode_head
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import Entry, SettingChanged, decode_entry
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import HOME_SETTING, Plan
from twisted_mail.account.known import KnownIntents
from twisted_mail.account.rows import AccountRows
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.account.waiting import Waiting
from twisted_mail.storage.interfaces import Checkpoint, LogEntry, StorageError, Trimmed, Unavailable
from twisted_mail.values import AccountId, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = ["FOLLOW_SECONDS", "FollowedAccount"]

FOLLOW_SECONDS: Final = 5.0
"""How long an answer waits until this node sees what another one has written for it."""
READ_SECONDS: Final = 4.0
"""How long a reader waits for a writer."""

MAX_UNREAD: Final = 512
"""Ids of intents answered from elsewhere that are remembered until their entries are read."""

LoadCheckpoint = Callable[[AccountId, Collection[str]], Awaitable[Checkpoint | None]]
ReadLog = Callable[[AccountId, ModSeq, int], Awaitable[Sequence[LogEntry]]]


class FollowedAccount(AccountRows):
    """An account whose state is loaded and kept up with the log; whoever writes to it holds the lock."""

    _log = Logger()

    def __init__(self, service: AccountService, account: AccountId) -> None:
        super().__init__(service, account)
        self._lock = DeferredLock()
        self._refreshing = False
        self._watchers: list[Callable[[ModSeq], None]] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._base = ModSeq(0)
        self._manifest: dict[str, ModSeq] = {}
        self._history: tuple[tuple[int, int], ...] = ()
        self._tail_entries = 0
        self._tail_bytes = 0
        self._closed = False
        self._known = KnownIntents()
        self.sent: dict[bytes, Waiting] = {}
        """Intents of this node that were sent to others and are not answered, by id: their entries may come to be read."""
        self._unread: dict[bytes, None] = {}
        """Ids of those that were answered before their entries were read."""
        self._recorded_home = ""
        self._came_home = 0
        """The newest entry seen that moved the account."""
        self._unsettled = False
        """The holder of the lock waits for the store to say what became of an append."""
        self.stale = False
        """The store did not answer when it was asked last: there may be newer entries than the state has."""

    # --- its home

    @property
    def here(self) -> str:
        """This node's data centre; empty where there is only one."""
        return self._service.datacenter

    @property
    def home(self) -> str:
        """The data centre whose nodes append: as the log says, before that as the directory says; empty: any."""
        return self._state.settings.get(HOME_SETTING, "") or self._recorded_home

    def elsewhere(self) -> str | None:
        """The account's home, if that is another data centre than this node's."""
        home = self.home
        return home if self.here and home and home != self.here else None

    @property
    def _just_came(self) -> bool:
        """Whether the newest entry is the one that moved the account: the next was not agreed upon with those below."""
        return bool(self._came_home) and self._state.modseq == self._came_home

    def recorded(self, home: str) -> None:
        """The directory says where the account is at home; good until its log says so."""
        self._recorded_home = home

    # --- loading

    async def load(self) -> None:
        """Read the head chunk of the newest checkpoint, and the tail. Raises StorageError.

        Where the store has no quorum, as far as any copy of it goes, if that is no less than this node has shown.
        """
        before = self._state, self._history, self._base, self._manifest
        try:
            await self._load(self._service.log.load_checkpoint, self._service.log.read)
            self.stale = False
        except Unavailable as error:
            degraded = self._service.degraded
            if degraded is None:
                raise
            try:
                await self._load(degraded.load_checkpoint_stale, degraded.read_stale)
                if self._state.modseq < max(self._service.shown(self._id), before[0].modseq):
                    raise Unavailable("what can be read is older than what was shown already") from error
            except StorageError:
                self._state, self._history, self._base, self._manifest = before
                raise
            self.stale = True

    async def _load(self, load_checkpoint: LoadCheckpoint, read: ReadLog) -> None:
        while True:
            checkpoint = await load_checkpoint(self._id, (HEAD,))
            state = AccountState()
            history: tuple[tuple[int, int], ...] = ()
            if checkpoint is not None:
                state, history = decode_head(checkpoint.chunks[HEAD])
            self._state, self._history = state, history
            self._tail_entries = self._tail_bytes = 0
            self._know(checkpoint)
            self._known.begin(state.modseq)
            try:
                await self._read_tail(read)
                return
            except Trimmed:
                continue  # a newer checkpoint was made meanwhile

    def _know(self, checkpoint: Checkpoint | None) -> None:
        self._base = ModSeq(checkpoint.modseq if checkpoint else 0)
        self._manifest = dict(checkpoint.manifest) if checkpoint else {}

    async def _read_tail(self, read: ReadLog | None = None) -> None:
        """Apply what is in the log beyond the state. Raises StorageError."""
        while True:
            entries = await (read or self._service.log.read)(self._id, self._state.modseq, 4096)
            for entry in entries:
                if entry.modseq != self._state.modseq + 1:
                    # another data centre's entries arrive in any order
                    raise Unavailable(f"entry {self._state.modseq + 1} has not arrived yet")
                if self._just_came and await self._service.log.head(self._id) < entry.modseq:
                    return  # see `OpenAccount._confirm`: another may yet take its place
                self._read_entry(entry.modseq, decode_entry(entry.data), len(entry.data))
            if len(entries) < 4096:
                return

    def _read_entry(self, modseq: ModSeq, entry: Entry, size: int) -> None:
        """Apply what another node has written; for one of this node's intents, perhaps, whose outcome that is."""
        waiting = self.sent.get(entry.intent) if entry.intent else None
        if waiting is None:
            self._apply(modseq, entry, size)
            if entry.intent in self._unread:
                del self._unread[entry.intent]
            else:
                self.others_append()
            return
        plan = Plan()
        with suppress(Exception):  # refused on account of what went with it in one append; or columns that are not loaded
            plan = waiting.intent.run(self._state)
        applied = self._apply(modseq, entry, size)
        try:
            waiting.succeed(waiting.intent.result(self._state, plan, applied))
        except Exception:
            waiting.fail(OutcomeUnknown("the change stands, but what came of it cannot be told"))

    def answered(self, id: bytes) -> None:
        """An intent that was sent is no longer waited for; its entry may be read later."""
        self.sent.pop(id, None)
        if self._known.number(id) is None:
            self._unread[id] = None
            if len(self._unread) > MAX_UNREAD:
                del self._unread[next(iter(self._unread))]

    def others_append(self) -> None:
        """An entry was read that this node has nothing to do with."""

    def _apply(self, modseq: ModSeq, entry: Entry, size: int) -> Applied:
        self._tail_entries += 1
        self._tail_bytes += size
        if any(isinstance(change, SettingChanged) and change.name == HOME_SETTING for change in entry.changes):
            self._came_home = int(modseq)
        if entry.intent:
            self._known.add(entry.intent, modseq)
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
        await self._lock_to_read()
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
            checkpoint = await self._load_chunks(wanted)
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

    async def _load_chunks(self, wanted: Collection[str]) -> Checkpoint | None:
        """Those of the newest checkpoint; where the store has no quorum, of the one that the state is based upon."""
        try:
            return await self._service.log.load_checkpoint(self._id, wanted)
        except Unavailable:
            degraded = self._service.degraded
            if degraded is None:
                raise
            checkpoint = await degraded.load_checkpoint_stale(self._id, wanted)
            if (checkpoint.modseq if checkpoint is not None else 0) != self._base:
                raise  # another copy, which is behind (or before) what was shown
            return checkpoint

    # --- following other nodes

    async def refresh(self, until: ModSeq | None = None) -> ModSeq:
        """Read what other nodes have appended and apply it; nothing if *until*, which is known to stand, is applied.

        Raises AccountUnavailable: the state may lack newer entries; it has those that could be read.
        """
        await self._lock_to_read()
        before = self._state.modseq
        try:
            await self._catch_up(until)
            self.stale = False
        except StorageError as error:
            self.stale = True
            if self._service.degraded is not None:
                with suppress(StorageError):
                    await self._read_tail(self._service.degraded.read_stale)
            raise AccountUnavailable("the account cannot be read") from error
        finally:
            self._lock.release()
            if self._state.modseq != before:
                self._notify()
        return self._state.modseq

    async def _lock_to_read(self) -> None:
        """Take the lock. Raises AccountUnavailable: who holds it waits for a store that does not answer.

        A reader may not wait without end for what a writer must wait for without end.
        """
        if self._unsettled:
            self.stale = True
            raise AccountUnavailable("a change of the account is not settled yet")
        waiting: Deferred[Any] = self._lock.acquire()
        if waiting.called:
            await waiting
            return
        waiting.addTimeout(READ_SECONDS, self._service.clock)
        try:
            await waiting
        except TimedOut as error:
            self.stale = True
            raise AccountUnavailable("the account is busy with a store that does not answer") from error

    async def reach(self, modseq: ModSeq) -> None:
        """Read on until *modseq* is applied, for at most `FOLLOW_SECONDS`: it is known to stand, if not seen here yet."""
        clock = self._service.clock
        ends = clock.seconds() + FOLLOW_SECONDS
        wait = 0.005
        while self._state.modseq < modseq:
            with suppress(AccountUnavailable):
                await self.refresh(modseq)
            if self._state.modseq >= modseq or clock.seconds() >= ends:
                return
            await self.sleep(wait)
            wait = min(wait * 2, 0.25)

    def sleep(self, seconds: float) -> Deferred[None]:
        """On the service's clock."""
        return deferLater(self._service.clock, seconds, lambda: None)

    async def _catch_up(self, until: ModSeq | None = None) -> None:
        """Read on; where *until* is given, which is known to stand, only if the state is not there."""
        state = self._state.modseq
        if state >= until if until is not None else await self._service.log.head(self._id) == state:
            return
        try:
            await self._read_tail()
        except Trimmed:
            await self._reload()

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
