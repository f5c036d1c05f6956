"""Which processes of this machine are members: a card for each, in a file that its process keeps locked.

The kernel frees a lock when its holder ends, however it ends, so a card that can be locked was left by a process that
was killed, and whoever finds it removes it. Names of cards are random and never used again, and a card gets its name
only once it is locked: it is held or stale, never about to be taken, so that nobody can remove one that is good.

Everything here is done in the caller's thread: looking at a card is a few system calls on a small local file, ten
microseconds, and there are as many cards as the machine has workers.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import MsgspecError, Struct, json

from twisted_mail.storage.interfaces import Member, Unavailable

__all__ = ["Present", "Roster"]

VERSION: Final = 1
"""Of cards and of what members say to each other; a card of another version is not looked at."""
CARD: Final = ".card"
NEW: Final = ".new"
"""A card that is being made."""
SOCKET: Final = ".sock"
MAKING_SECONDS: Final = 60.0
"""After so long nobody is still about to lock a new card: its process died while it made it."""
_MAX_CARD: Final = 65_536


class _Card(Struct, frozen=True):
    version: int
    node: str
    roles: list[str]
    datacenter: str


@dataclass(frozen=True, slots=True)
class Present:
    """A member that is alive, and which of the sockets is its."""

    token: str
    """Names its card and its socket."""
    member: Member
    since: int
    """Nanoseconds since 1970."""


class Roster:
    """The folder of cards and sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: dict[str, int] = {}
        """Tokens of this object's cards, and their locks."""
        self._seen: dict[str, Present | None] = {}
        """Cards that were read before: what is in one never changes. None: not of this version."""

    def socket(self, token: str) -> Path:
        """Where the member of *token* listens."""
        return self._folder / (token + SOCKET)

    def prepare(self) -> str:
        """Make and lock a card that nobody looks at yet; returns its token. Raises: OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = os.urandom(8).hex()
        lock = os.open(self._folder / (token + NEW), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._own[token] = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.remove(token)
            raise
        return token

    def show(self, token: str, member: Member) -> None:
        """Let the others see the card, now that the member listens. Raises: OSError."""
        os.write(self._own[token], json.encode(_Card(VERSION, member.node, sorted(member.roles), member.datacenter)))
        os.rename(self._folder / (token + NEW), self._folder / (token + CARD))

    def hide(self, token: str) -> None:
        """Nobody shall find the member any more."""
        with suppress(OSError):  # the lock goes with its owner in any case
            (self._folder / (token + CARD)).unlink()

    def remove(self, token: str) -> None:
        """Remove all that a member of this process had here."""
        self._sweep(token)
        lock = self._own.pop(token, None)
        if lock is not None:
            os.close(lock)

    def present(self) -> list[Present]:
        """Who is alive, by node name; removes what the dead have left. Raises: Unavailable.

        Of two processes that go by one name it is the later one.
        """
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be listed: {error.strerror}") from error
        seen: dict[str, Present | None] = {}
        for name in names:
            token, suffix = os.path.splitext(name)
            if suffix == CARD and self._look(token):
                seen[token] = self._seen[token]
            elif suffix == NEW and token not in self._own:
                self._sweep_unfinished(token)
        self._seen = seen
        nodes: dict[str, Present] = {}
        for each in sorted(filter(None, seen.values()), key=lambda each: (each.since, each.token)):
            nodes[each.member.node] = each
        return [nodes[node] for node in sorted(nodes)]

    def _look(self, token: str) -> bool:
        """Whether the card is held; reads it into `_seen` if it was not read before."""
        try:
            card = os.open(self._folder / (token + CARD), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # it has just been removed
        try:
            # the owner's own look fails like everybody's: a lock belongs to the opened file, not to the process
            if not _held(card):
                self._sweep(token)
                return False
            if token not in self._seen:
                self._seen[token] = _read(token, card)
            return True
        finally:
            os.close(card)

    def _sweep_unfinished(self, token: str) -> None:
        with suppress(OSError):
            card = os.open(self._folder / (token + NEW), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if time.time() - os.fstat(card).st_mtime > MAKING_SECONDS and not _held(card):
                    self._sweep(token)
            finally:
                os.close(card)

    def _sweep(self, token: str) -> None:
        # the card last: without it nobody would come back for the socket
        for suffix in (SOCKET, NEW, CARD):
            with suppress(OSError):
                (self._folder / (token + suffix)).unlink()


def _held(card: int) -> bool:
    """Whether some process has the card locked."""
    try:
        # shared, so that two who look at the same moment do not take each other for the holder
        fcntl.flock(card, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(token: str, card: int) -> Present | None:
    try:
        content = json.decode(os.read(card, _MAX_CARD), type=_Card)
    except MsgspecError:
        return None
    if content.version != VERSION:
        return None
    return Present(token, Member(content.node, frozenset(content.roles), content.datacenter), os.fstat(card).st_mtime_ns)
