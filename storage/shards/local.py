"""Search shards in folders of this machine: one account, one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.storage.interfaces import NOWHERE, Conflict, Corrupt, SearchDocument, Unavailable
from twisted_mail.storage.shards.indexing import IndexThreads, WordIndex, words_of
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["LocalShards"]

REACHED: Final = "reached"
FILLED: Final = "filled"
EMPTY: Final = "empty"


class LocalShards:
    """Implements `SearchShards`. `reached` is written after the index: a crash between them means adding again.

    An index that cannot be read is thrown away: who asks hears Unavailable once, and finds an empty one at modseq 0.
    Writers of one shard must not meet: an index has a lock of its own, and who finds it taken hears Unavailable.
    """

    _log = Logger()

    def __init__(self, index: WordIndex, folder: Path, reactor: Any) -> None:
        self._index = index
        self._folder = folder
        # one thread: an index that is being changed is not read
        self._threads = IndexThreads(reactor, 1, "search")

    async def start(self) -> None:
        """Begin to take work."""
        self._threads.start()

    async def stop(self) -> None:
        """Wait for what runs, and end the thread."""
        self._threads.stop()

    async def add(
        self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        await self._run(account, self._change, account, documents, (), int(modseq), int(after))

    async def remove(
        self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        await self._run(account, self._change, account, (), messages, int(modseq), int(after))

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        if limit < 1:
            return []
        found: list[MessageId] = await self._run(account, self._query, account, words_of(words), fields, limit)
        return found

    async def reached(self, account: AccountId) -> ModSeq:
        number: int = await self._run(account, self._reached, account)
        return ModSeq(number)

    async def drop(self, account: AccountId) -> None:
        await self._run(account, self._remove, account)

    async def _run(self, account: AccountId, call: Any, *arguments: Any) -> Any:
        try:
            try:
                return await self._threads.run(call, *arguments)
            except FileNotFoundError:
                # another process has perhaps replaced a file between two looks
                return await self._threads.run(call, *arguments)
        except (Corrupt, FileNotFoundError) as error:
            self._log.warn("the search shard of {account} is made anew: {why}", account=account, why=error)
            await self._threads.run(self._remove, account)
            raise Unavailable("the search shard was damaged, and is to be filled again") from error

    # --- in the thread

    def _place(self, account: AccountId) -> Path:
        name = str(account)
        return self._folder / self._index.kind / name[:2] / name

    def _remove(self, account: AccountId) -> None:
        place = self._place(account)
        # first: from here on nobody takes the shard for one that has come so far
        (place / REACHED).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)

    def _change(
        self,
        account: AccountId,
        documents: Sequence[SearchDocument],
        removed: Sequence[MessageId],
        modseq: int,
        after: int,
    ) -> None:
        place = self._place(account)
        present, filled = self._state(place)
        if present < after:
            raise Conflict(f"the search shard has reached {present}, and not {after}")
        if modseq < present:
            return
        there = self._index.exists(place)
        if filled and not there:
            raise Corrupt("the index is gone")
        if documents or (removed and there):
            if not there and place.exists():
                shutil.rmtree(place)  # what a crash left of a shard that was being made
            place.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._index.change(place, documents, removed)
            there = True
        if modseq > present or there != filled:
            place.mkdir(parents=True, mode=0o700, exist_ok=True)
            fresh = place / f"{REACHED}.new"
            fresh.write_text(f"{modseq} {FILLED if there else EMPTY}")
            os.replace(fresh, place / REACHED)

    def _query(self, account: AccountId, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
        place = self._place(account)
        if self._index.exists(place):
            return self._index.query(place, words, fields, limit)
        if self._state(place)[1]:
            raise Corrupt("the index is gone")
        return []

    def _reached(self, account: AccountId) -> int:
        return self._state(self._place(account))[0]

    def _state(self, place: Path) -> tuple[int, bool]:
        """What the shard has reached, and whether there was an index then."""
        try:
            number, _, there = (place / REACHED).read_text().partition(" ")
            return int(number), there == FILLED
        except (FileNotFoundError, ValueError):
            return 0, False
