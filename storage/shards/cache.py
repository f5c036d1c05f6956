"""Files of shards on this machine: a folder for each state of a shard that is in use, within a number of octets.

A state's files are those of the state before it, linked, and what was fetched anew; nothing in a folder is ever changed
once the state is opened. What a process that ended has left is used again after its digests were compared, so a crash may
have left anything. Every process has a cache of its own (the first free one below the folder), so nobody removes a file
that another reads.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from twisted_mail.storage.interfaces import StorageError
from twisted_mail.storage.shards.manifest import Manifest, ShardFile, new_token
from twisted_mail.values import AccountId

__all__ = ["FolderCache", "OpenState", "digest_of", "is_whole", "link_files"]

READ: Final = 1_048_576
MOST_CACHES: Final = 1024


class OpenState:
    """A state of a shard whose files lie in `folder`. Removed when it is `doomed` and nobody has it in use."""

    __slots__ = ("account", "doomed", "folder", "manifest", "size", "users")

    def __init__(self, account: AccountId, manifest: Manifest, folder: Path) -> None:
        self.account = account
        self.manifest = manifest
        self.folder = folder
        self.size = manifest.size
        self.users = 0
        self.doomed = False


class FolderCache:
    """One state for each account. Its methods are the reactor's thread's, but for those that say otherwise.

    They remove folders, which takes some milliseconds for the ten or twenty files of a shard.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self.limit = limit
        self.size = 0
        """Octets of all states that are kept; what is in use may be more than `limit`."""
        self._open: OrderedDict[AccountId, OpenState] = OrderedDict()
        self._left: OrderedDict[str, tuple[int, list[Path]]] = OrderedDict()
        """Accounts of which an earlier process has left something: the octets, the folders."""
        self._lock: int | None = None
        self._place = root

    def start(self) -> None:
        """Take the first cache that no other process has, and look at what is in it. Raises: StorageError."""
        try:
            for number in range(MOST_CACHES):
                place = self._root / str(number)
                place.mkdir(parents=True, mode=0o700, exist_ok=True)
                lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(lock)
                    continue
                self._lock, self._place = lock, place
                break
            else:
                raise StorageError(f"all {MOST_CACHES} caches for search shards below {self._root} are in use")
            self._look()
        except OSError as error:
            raise StorageError(f"the cache for search shards cannot be used: {error}") from error

    def stop(self) -> None:
        """The files stay, for the next process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _look(self) -> None:
        found: list[tuple[float, Path, int]] = []
        for outer in self._place.iterdir():
            if outer.is_dir():
                for folder in outer.iterdir():
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    found.append((folder.stat().st_mtime, folder, size))
        for _, folder, size in sorted(found):
            name = folder.name.partition(".")[0]
            before, folders = self._left.pop(name, (0, []))
            self._left[name] = (before + size, [*folders, folder])
            self.size += size
        self._shrink()

    def get(self, account: AccountId) -> OpenState | None:
        """The state that is open, which counts as used now."""
        state = self._open.get(account)
        if state is not None:
            self._open.move_to_end(account)
        return state

    def new_folder(self, account: AccountId) -> Path:
        """An empty folder for a state to come. In any thread."""
        name = str(account)
        folder = self._place / name[:2] / f"{name}.{new_token()}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def remnants(self, account: AccountId) -> list[Path]:
        """Folders of that account that an earlier process has left: whether they are whole is not certain."""
        return self._left.get(str(account), (0, []))[1]

    def settle(self, state: OpenState) -> None:
        """From now on *state* is the account's; the one before goes, and others go if there is no room."""
        self.forget(state.account)
        self._open[state.account] = state
        self.size += state.size
        self._shrink()

    def discard(self, state: OpenState) -> None:
        """Something is wrong with its files: they are not used again."""
        if self._open.get(state.account) is state:
            self.forget(state.account)

    def forget(self, account: AccountId) -> None:
        """Nothing of the account is kept, nor used again."""
        state = self._open.pop(account, None)
        if state is not None:
            self._doom(state)
        self._remove_left(str(account))

    def use(self, state: OpenState) -> OpenState:
        """Its folder stays until `leave`."""
        state.users += 1
        return state

    def leave(self, state: OpenState) -> None:
        state.users -= 1
        if state.doomed and not state.users:
            shutil.rmtree(state.folder, ignore_errors=True)
        self._shrink()

    def _doom(self, state: OpenState) -> None:
        self.size -= state.size
        state.doomed = True
        if not state.users:
            shutil.rmtree(state.folder, ignore_errors=True)

    def _remove_left(self, name: str) -> None:
        size, folders = self._left.pop(name, (0, []))
        self.size -= size
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _shrink(self) -> None:
        """Remove what was not used for longest, as far as there is too much; what was used last stays in any case."""
        while self.size > self.limit and self._left:
            self._remove_left(next(iter(self._left)))
        for state in list(self._open.values())[:-1]:
            if self.size <= self.limit:
                return
            if state.users == 0:
                del self._open[state.account]
                self._doom(state)


def is_whole(path: Path, file: ShardFile, *, certain: bool) -> bool:
    """Whether *path* has the content of *file*; by its size alone where it is *certain* what was written. Blocks."""
    try:
        return path.stat().st_size == file.size and (certain or digest_of(path) == file.digest)
    except FileNotFoundError:
        return False


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Blocks."""
    whole = sha256()
    with path.open("rb") as file:
        while data := file.read(READ):
            whole.update(data)
    return whole.hexdigest()


def link_files(
    folder: Path, files: Sequence[ShardFile], present: OpenState | None, remnants: Sequence[Path]
) -> list[ShardFile]:
    """Link those of *files* that are on this machine into *folder*; returns those that are not. Blocks.

    The files of *present* were compared when they came, but for their sizes; those of *remnants* are compared now.
    """
    known = {(file.name, file.digest) for file in present.manifest.files} if present is not None else set()
    missing = []
    for file in files:
        sources = [(remnant, False) for remnant in remnants]
        if present is not None and (file.name, file.digest) in known:
            sources.insert(0, (present.folder, True))
        for source, certain in sources:
            if is_whole(source / file.name, file, certain=certain):
                try:
                    os.link(source / file.name, folder / file.name)
                    break
                except OSError:
                    continue  # removed just now, or this file system has no links
        else:
            missing.append(file)
    return missing
