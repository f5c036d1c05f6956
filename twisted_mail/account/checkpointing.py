"""The part of an open account that makes checkpoints, and removes what no kept one and no kept entry names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from twisted_mail.account.checkpoint import HEAD, changed_chunks, decode_head, thinned, to_be_loaded
from twisted_mail.account.following import FollowedAccount
from twisted_mail.account.graves import BATCH, Moved, dead_of, ripe_chunks
from twisted_mail.account.homes import NotHome
from twisted_mail.account.state import DAY_SECONDS
from twisted_mail.storage.interfaces import Conflict, StorageError
from twisted_mail.values import AccountId, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = ["CheckpointedAccount"]

BUSY_TIMES: Final = 8
"""While changes wait, a checkpoint is put off until the tail is so many times as long as it would be made for. Appends stand
still while it is made: an account that takes a thousand messages a second would make four in each."""


class CheckpointedAccount(FollowedAccount):
    """Whoever writes to it holds the lock."""

    _log = Logger()

    def __init__(self, service: AccountService, account: AccountId) -> None:
        super().__init__(service, account)
        self._swept: set[str] = set()
        """Chunks of graves whose rows are gone; the next checkpoint leaves them out."""

    def _wanted(self) -> bool:
        """Whether somebody waits for the account to take changes."""
        raise NotImplementedError

    async def _checkpoint_if_due(self) -> None:
        settings = self._service.settings
        parts = max(self._tail_entries / settings.checkpoint_entries, self._tail_bytes / settings.checkpoint_bytes)
        if parts < (BUSY_TIMES if self._wanted() else 1):
            return
        if self.elsewhere() is not None:
            return  # its pointer is moved by compare-and-set too, which agrees in the home only
        await self._lock.acquire()
        try:
            await self._checkpoint()
        except StorageError as error:
            self._log.warn("account {id}: no checkpoint was made: {why}", id=self._id, why=error)
            self._tail_entries = self._tail_bytes = 0  # not again for each entry; the next one is as good
        finally:
            self._lock.release()

    async def checkpoint(self) -> None:
        """Make a checkpoint now, if anything changed since the last one. Raises StorageError, NotHome."""
        home = self.elsewhere()
        if home is not None:
            raise NotHome(home)
        await self._lock.acquire()
        try:
            if self._state.modseq > self._base:
                await self._checkpoint()
        finally:
            self._lock.release()

    async def _checkpoint(self) -> None:
        log = self._service.log
        while missing := to_be_loaded(self._state, self._base):
            await self._load_columns(missing[0])  # which may find that there is a newer base, or another state
        state = self._state
        now = int(self._service.wall() * 1000)
        modseq = state.modseq
        horizon = now - int(self._service.settings.retention_seconds * 1000)
        history = thinned((*self._history, (int(modseq), now)), horizon)
        today = now // (DAY_SECONDS * 1000)
        changed, kept = changed_chunks(state, self._base, self._manifest, history, today, self._swept)
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
            state.forget_left(modseq)
            self._swept &= self._manifest.keys()
        self._tail_entries = max(0, state.modseq - self._base)
        self._tail_bytes = 0
        await self._trim(horizon)

    async def _trim(self, horizon: int) -> None:
        old = [modseq for modseq, made in self._history if made <= horizon]
        if old:
            await self._service.log.trim(self._id, ModSeq(old[-1]))
            if ripe_chunks(self._manifest, old[-1], self._swept):
                self._service.sweep_soon(self)

    async def sweep(self) -> int:
        """Remove the rows of messages that left so long ago that nothing can name them any more; says how many.

        Raises StorageError; who begins anew does what is left.
        """
        removed = 0
        while self.elsewhere() is None and not self._closed:
            await self._lock.acquire()
            try:
                horizon = int((self._service.wall() - self._service.settings.retention_seconds) * 1000)
                old = [modseq for modseq, made in self._history if made <= horizon]
                chunks = ripe_chunks(self._manifest, old[-1] if old else 0, self._swept)
                if not chunks or self._state.modseq < self._base:
                    break
                keys = await dead_of(
                    chunks,
                    log=self._service.log,
                    account=self._id,
                    state=self._state,
                    base=self._base,
                    manifest=self._manifest,
                    pause=lambda: self.sleep(0),
                )
            except Moved:
                break  # another node makes checkpoints, and sweeps
            finally:
                self._lock.release()
            for at in range(0, len(keys), BATCH):
                if self._closed:
                    return removed  # the rest another time
                removed += len(keys[at : at + BATCH])
                await self._service.store.remove(self._id, keys[at : at + BATCH])
            self._swept.update(chunks)
        return removed
