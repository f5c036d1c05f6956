"""Search shards in an object store, opened by any node through its local cache.

Who writes holds a lease, whose number (it only ascends) stands in the manifest; what decides is the conditional write of
the manifest, which one of two wins whatever their leases and clocks say. The other's parts are garbage and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.storage.interfaces import (
    NOWHERE,
    Conflict,
    Corrupt,
    Leases,
    NotFound,
    SearchDocument,
    StorageError,
    Unavailable,
)
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards.cache import FolderCache, OpenState, is_whole
from twisted_mail.storage.shards.indexing import IndexThreads, WordIndex, words_of
from twisted_mail.storage.shards.manifest import (
    Dropped,
    Manifest,
    ShardFile,
    decode,
    encode,
    folder_of,
    new_token,
)
from twisted_mail.storage.shards.states import States, remove
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["GRACE_SECONDS", "LEASE_SECONDS", "SharedShards"]

LEASE_SECONDS: Final = 120.0
GRACE_SECONDS: Final = 3600.0
"""How long a part stays that no manifest names any more: longer than anybody takes to fetch a state he has looked up, and
than clocks of nodes differ."""
ATTEMPTS: Final = 3
NO_VERSION: Final = '"00000000000000000000000000000000"'
"""No object has it."""

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to be done to a shard."""

    documents: Sequence[SearchDocument]
    removed: Sequence[MessageId]
    modseq: int
    after: int

    def touches(self, before: Manifest) -> bool:
        """Whether the index becomes another."""
        return self.modseq >= before.reached and bool(self.documents or (self.removed and before.files))

    def moves(self, before: Manifest) -> bool:
        """Whether there is anything to be written."""
        return self.modseq > before.reached or self.touches(before)


class SharedShards:
    """Implements `SearchShards`. What another node wrote is found by `reached` at once, by `query` within seconds."""

    _log = Logger()

    def __init__(
        self,
        index: WordIndex,
        objects: Objects,
        leases: Leases,
        cache: FolderCache,
        reactor: Any,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # reactor provides IReactorFromThreads and IReactorTime; Any, as Twisted's module object is untyped
        self._index = index
        self._objects = objects
        self._leases = leases
        self._cache = cache
        self._reactor = reactor
        self._wall = wall
        self._reading = IndexThreads(reactor, 2, "search")
        self._writing = IndexThreads(reactor, 1, "indexing")
        self._states = States(objects, cache, self._reading, index.kind, reactor, wall)
        self._conditions: bool | None = None
        """Whether the object store carries out conditions; None: not tried yet."""

    async def start(self) -> None:
        """Open the cache. Raises: StorageError."""
        self._reading.start()
        self._writing.start()
        await self._reading.run(self._cache.start)

    async def stop(self) -> None:
        """Wait for what runs in threads; the cache stays for the next process."""
        self._reading.stop()
        self._writing.stop()
        self._cache.stop()

    # --- SearchShards

    async def add(
        self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        await self._write(account, _Change(documents, (), int(modseq), int(after)))

    async def remove(
        self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        await self._write(account, _Change((), messages, int(modseq), int(after)))

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        if limit < 1:
            return []
        wanted = words_of(words)
        for last in (False, True):
            state = await self._states.open(account)
            if state is None:
                return []
            try:
                return await self._reading.run(self._search, state, wanted, fields, limit)
            except (Corrupt, FileNotFoundError) as error:
                # once it may be the cache, whose files are fetched and compared anew
                self._cache.discard(state)
                if last and isinstance(error, Corrupt):
                    await self._states.begin_anew(account, state.manifest, error)
            finally:
                self._cache.leave(state)
        raise Unavailable("the search shard's files vanish from the cache")

    async def reached(self, account: AccountId) -> ModSeq:
        known = await self._states.look(account, 0.0, stale=True)
        return ModSeq(known.manifest.reached)

    async def drop(self, account: AccountId) -> None:
        known = self._states.known(account)
        async with known.writing:
            number = await self._lease(account)
            try:
                await self._objects.delete([self._states.name_of(account)])
                prefix = folder_of(account, self._index.kind)
                await self._objects.delete([name async for name, _ in self._objects.list(prefix)])
            finally:
                await self._release(account, number)
            self._states.take(known, Manifest(), None)
            self._cache.forget(account)

    # --- reading, in a thread

    def _search(self, state: OpenState, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
        for file in state.manifest.files:
            if not is_whole(state.folder / file.name, file, certain=True):
                raise Corrupt(f"the cached file {file.name} is not as long as it was")
        return self._index.query(state.folder, words, fields, limit)

    # --- writing

    def _lease_name(self, account: AccountId) -> str:
        return f"search/{self._index.kind}/{account}"

    async def _lease(self, account: AccountId) -> int:
        number = await self._leases.acquire(self._lease_name(account), LEASE_SECONDS)
        if number is None:
            raise Unavailable("another node writes this search shard")
        return number

    async def _release(self, account: AccountId, number: int) -> None:
        try:
            await self._leases.release(self._lease_name(account), number)
        except StorageError as error:
            self._log.info("a lease of a search shard runs out by itself: {why}", why=error)

    async def _write(self, account: AccountId, change: _Change) -> None:
        """Raises: Conflict (see `SearchShards.add`), Unavailable."""
        await self._try_conditions()
        async with self._states.known(account).writing:
            until = self._reactor.seconds() + LEASE_SECONDS / 2
            number = await self._lease(account)
            try:
                for _ in range(ATTEMPTS):
                    if await self._attempt(account, change, number, until):
                        return
            finally:
                await self._release(account, number)
        raise Unavailable("others change the search shard again and again")

    async def _try_conditions(self) -> None:
        """Once in a process: a store that ignores conditions would let writers lose each other's work. Raises: Unavailable."""
        if self._conditions is None:
            name = f"search/{self._index.kind}/no-shard"
            try:
                await self._objects.swap(name, b"this must not be written", NO_VERSION)
                await self._objects.delete([name])
                self._conditions = False
                self._log.error("search shards are not written: the object store ignores the condition of a put")
            except Conflict:
                self._conditions = True
        if not self._conditions:
            raise Unavailable("the object store ignores the condition of a put (If-Match), so shards are not written")

    async def _attempt(self, account: AccountId, change: _Change, number: int, until: float) -> bool:
        """Carry out *change* on what is there now. False: somebody else was faster, and nothing was written."""
        known = await self._states.look(account, 0.0, stale=False)
        before, version = known.manifest, known.version
        folder: Path | None = None
        if change.touches(before):
            before, version, folder = await self._states.gather(account)
        sent: list[str] = []
        try:
            if before.reached < change.after:
                raise Conflict(f"the search shard has reached {before.reached}, and not {change.after}")
            if before.fence > number:
                raise Unavailable("the search shard's lease was lost")
            if not change.moves(before):
                return True
            now, token = self._wall(), new_token()
            files: Sequence[ShardFile] = before.files
            if change.touches(before):
                if folder is None:
                    folder = await self._reading.run(self._cache.new_folder, account)
                files = await self._apply(account, before, folder, change, token, sent)
            kept = {piece.part for file in files for piece in file.pieces}
            after = Manifest(
                account=str(account),
                kind=self._index.kind,
                number=before.number + 1,
                token=token,
                fence=number,
                reached=change.modseq,
                files=tuple(files),
                dropped=(
                    *await self._delete_old(account, before, now),
                    *(Dropped(part, now) for part in before.parts if part not in kept),
                ),
                litter=await self._sweep(account, before, number, kept, now),
            )
            if self._reactor.seconds() >= until and not await self._renew(account, number):
                raise Unavailable("the search shard's lease was lost")
            try:
                version = await self._swap(account, after, version)
            except Conflict:
                await self._objects.delete([folder_of(account, self._index.kind) + part for part in sent])
                return False
            self._states.take(known, after, version)
            if folder is not None:
                self._cache.settle(OpenState(account, after, folder))
                folder = None
            return True
        finally:
            if folder is not None:
                remove(folder)

    async def _renew(self, account: AccountId, number: int) -> bool:
        return await self._leases.renew(self._lease_name(account), number, LEASE_SECONDS)

    async def _apply(
        self,
        account: AccountId,
        before: Manifest,
        folder: Path,
        change: _Change,
        token: str,
        sent: list[str],
    ) -> list[ShardFile]:
        """Change the index in *folder*, and store what is new of it; all its files then."""
        present = {file.name: file for file in before.files}
        try:
            stamps = await self._reading.run(_stamps, folder, list(present))
            await self._writing.run(self._index.change, folder, change.documents, change.removed)
            names = await self._reading.run(self._index.files, folder)
            changed = await self._reading.run(_stamps, folder, names)
        except (Corrupt, FileNotFoundError) as error:
            await self._states.begin_anew(account, before, error)
            raise
        fresh = [name for name in names if changed[name] != stamps.get(name)]
        prefix = folder_of(account, self._index.kind)
        made = await self._states.parts.send(folder, fresh, token, prefix, sent)
        return [*(present[name] for name in names if name not in fresh), *made]

    async def _swap(self, account: AccountId, after: Manifest, version: str | None) -> str:
        """The manifest's new version. Raises: Conflict (another's was written), Unavailable (not known)."""
        name = self._states.name_of(account)
        try:
            return await self._objects.swap(name, encode(after), version)
        except Conflict:
            # perhaps it is ours, and the answer was lost
            try:
                stored = await self._objects.get(name)
                if stored is not None and decode(stored.data, account, self._index.kind).token == after.token:
                    return stored.version
            except (NotFound, Corrupt):
                pass
            raise

    async def _delete_old(self, account: AccountId, before: Manifest, now: float) -> list[Dropped]:
        """Delete the parts that were dropped long ago; those that are left."""
        due = [dropped for dropped in before.dropped if dropped.since < now - GRACE_SECONDS]
        if not due:
            return list(before.dropped)
        prefix = folder_of(account, self._index.kind)
        try:
            await self._objects.delete([prefix + dropped.part for dropped in due])
        except Unavailable:
            return list(before.dropped)
        return [dropped for dropped in before.dropped if dropped not in due]

    async def _sweep(self, account: AccountId, before: Manifest, number: int, kept: set[str], now: float) -> float:
        """Look for what writers without a manifest have left, when they must have ended; the new `Manifest.litter`.

        The numbers of leases are dense (nearly): one that no manifest has belonged to such a writer.
        """
        litter = before.litter
        if litter and litter < now - GRACE_SECONDS:
            prefix = folder_of(account, self._index.kind)
            named = {prefix + part for part in (*kept, *before.parts, *(each.part for each in before.dropped))}
            named.add(self._states.name_of(account))
            try:
                found = [
                    name
                    async for name, changed in self._objects.list(prefix)
                    if name not in named and changed < now - GRACE_SECONDS
                ]
                await self._objects.delete(found)
                litter = 0.0
            except Unavailable:
                pass
        return litter or (now if number > before.fence + 1 else 0.0)


def _stamps(folder: Path, names: Sequence[str]) -> dict[str, _Stamp]:
    """What tells a file that was left alone from one that was written. Blocks."""
    found = {}
    for name in names:
        status = (folder / name).stat()
        found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found
