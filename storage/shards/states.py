"""The states of shards in the object store, as one process knows them: looked up, opened, and given up when they are lost.

A shard is derived data. One whose manifest or parts are gone or damaged is replaced by an empty one at modseq 0, by the
same conditional write as any other change, so that everybody learns of it; who came across it hears Unavailable once.
"""

from __future__ import annotations

import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Conflict, Corrupt, NotFound, Unavailable
from twisted_mail.storage.objects import Objects
from twisted_mail.storage.shards.cache import FolderCache, OpenState, link_files
from twisted_mail.storage.shards.indexing import IndexThreads
from twisted_mail.storage.shards.manifest import Dropped, Manifest, decode, encode, folder_of, new_token
from twisted_mail.storage.shards.parts import Parts
from twisted_mail.values import AccountId

__all__ = ["FRESH_SECONDS", "Known", "States"]

FRESH_SECONDS: Final = 5.0
"""For how long a manifest is believed without asking; and the store is not asked again after a failure."""
ATTEMPTS: Final = 4
"""How often a state may be replaced while it is being fetched."""
MOST_KNOWN: Final = 4096


class Known:
    """What this process knows of one shard."""

    __slots__ = ("checked", "looking", "manifest", "opening", "version", "writing")

    def __init__(self) -> None:
        self.manifest = Manifest()
        self.version: str | None = None
        """The manifest's, in the object store; None: there is none."""
        self.checked: float | None = None
        """When that was so, by the reactor's clock; None: never asked."""
        self.looking = DeferredLock()
        self.opening = DeferredLock()
        self.writing = DeferredLock()

    @property
    def busy(self) -> bool:
        return bool(self.looking.locked or self.opening.locked or self.writing.locked)


class States:
    """Has one `Known` for each shard that was asked for lately."""

    _log = Logger()

    def __init__(
        self,
        objects: Objects,
        cache: FolderCache,
        threads: IndexThreads,
        kind: str,
        reactor: Any,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.objects = objects
        self.cache = cache
        self.threads = threads
        self.parts = Parts(objects, threads)
        self.kind = kind
        self._reactor = reactor
        self._wall = wall
        self._all: OrderedDict[AccountId, Known] = OrderedDict()
        self._failed = float("-inf")

    def name_of(self, account: AccountId) -> str:
        """Of the manifest."""
        return folder_of(account, self.kind) + "manifest"

    def known(self, account: AccountId) -> Known:
        known = self._all.get(account)
        if known is None:
            known = self._all[account] = Known()
            if len(self._all) > MOST_KNOWN:
                for old, other in self._all.items():
                    if not other.busy and other is not known:
                        del self._all[old]
                        break
        self._all.move_to_end(account)
        return known

    def take(self, known: Known, manifest: Manifest, version: str | None, asked: float | None = None) -> None:
        """The store has said so, to a question of that time (None: now)."""
        known.manifest, known.version = manifest, version
        known.checked = float(self._reactor.seconds()) if asked is None else asked

    async def look(self, account: AccountId, age: float, *, stale: bool) -> Known:
        """What the shard is now, or was at most *age* seconds ago.

        *stale*: where the store does not answer, what it was when it answered last, if its files are here.
        Raises: Unavailable.
        """
        known, began = self.known(account), float(self._reactor.seconds())
        if known.checked is not None and known.checked >= began - age and age > 0:
            return known
        async with known.looking:
            if known.checked is not None and known.checked > began:
                return known  # somebody else has asked meanwhile
            try:
                if stale and began < self._failed + FRESH_SECONDS:
                    raise Unavailable("the object store has just failed")
                await self._ask(account, known)
            except Unavailable:
                if stale and known.checked is not None and self._is_here(account, known.manifest):
                    return known
                raise
            return known

    def _is_here(self, account: AccountId, manifest: Manifest) -> bool:
        state = self.cache.get(account)
        return not manifest.files or (state is not None and state.manifest.token == manifest.token)

    async def _ask(self, account: AccountId, known: Known) -> None:
        name, asked = self.name_of(account), float(self._reactor.seconds())
        try:
            stored = await self.objects.get(name, known.version)
            if stored is not None:
                self.take(known, decode(stored.data, account, self.kind), stored.version, asked)
            else:
                self.take(known, known.manifest, known.version, asked)
        except NotFound:
            self.take(known, Manifest(), None, asked)
        except Unavailable:
            self._failed = float(self._reactor.seconds())
            raise
        except Corrupt as error:
            self._log.warn("the search shard of {account} is lost: {why}", account=account, why=error)
            await self.objects.delete([name])
            # its parts are not known any more, and are looked for later
            self.take(known, Manifest(litter=self._wall()), None)

    async def open(self, account: AccountId) -> OpenState | None:
        """The state of now, or of `FRESH_SECONDS` ago, with its files here, in use; None where it has no files.

        Raises: Unavailable (also where the shard was lost, and is an empty one now).
        """
        known = await self.look(account, FRESH_SECONDS, stale=True)
        async with known.opening:
            if not known.manifest.files:
                return None
            state = self.cache.get(account)
            if state is None or state.manifest.token != known.manifest.token:
                manifest, _, folder = await self.gather(account)
                if folder is None:
                    return None
                state = OpenState(account, manifest, folder)
                self.cache.settle(state)
            return self.cache.use(state)

    async def gather(self, account: AccountId) -> tuple[Manifest, str | None, Path | None]:
        """The manifest that is known, or a newer one, its version, and a new folder with its files; None without any.

        Raises: Unavailable (also where the shard was lost, and is an empty one now).
        """
        known, failed = self.known(account), ""
        for _ in range(ATTEMPTS):
            # together: others may look while the files are fetched
            manifest, version = known.manifest, known.version
            if not manifest.files:
                return manifest, version, None
            folder = await self.threads.run(self.cache.new_folder, account)
            try:
                await self._fill(account, manifest, folder)
                return manifest, version, folder
            except (NotFound, Corrupt, FileNotFoundError) as error:
                await self.threads.run(remove, folder)
                # its parts may have been deleted because there is a newer state
                await self.look(account, 0.0, stale=False)
                if known.manifest.token == manifest.token and not isinstance(error, FileNotFoundError):
                    if failed == manifest.token or isinstance(error, NotFound):
                        await self.begin_anew(account, manifest, error)
                    failed = manifest.token
            except BaseException:
                remove(folder)
                raise
        raise Unavailable("the search shard changes faster than it can be fetched")

    async def _fill(self, account: AccountId, manifest: Manifest, folder: Path) -> None:
        present = self.cache.get(account)
        if present is not None:
            self.cache.use(present)
        try:
            missing = await self.threads.run(link_files, folder, manifest.files, present, self.cache.remnants(account))
            await self.parts.fetch(missing, folder_of(account, self.kind), folder)
        finally:
            if present is not None:
                self.cache.leave(present)

    async def begin_anew(self, account: AccountId, lost: Manifest, why: Exception) -> None:
        """Put an empty shard in the place of the state *lost*, if it is still there. Always raises Unavailable."""
        known, now = self.known(account), self._wall()
        if known.manifest.token != lost.token:
            raise Unavailable("the search shard is being replaced") from why
        self._log.warn("the search shard of {account} is lost: {why}", account=account, why=why)
        empty = Manifest(
            account=str(account),
            kind=self.kind,
            number=lost.number + 1,
            token=new_token(),
            fence=lost.fence,
            dropped=(*lost.dropped, *(Dropped(part, now) for part in lost.parts)),
            litter=lost.litter,
        )
        self.cache.forget(account)
        try:
            version = await self.objects.swap(self.name_of(account), encode(empty), known.version)
        except Conflict:
            pass  # another has written it, or done the same
        else:
            self.take(known, empty, version)
        raise Unavailable("the search shard was lost, and is to be filled again") from why


def remove(folder: Path) -> None:
    """Blocks for some milliseconds."""
    shutil.rmtree(folder, ignore_errors=True)
