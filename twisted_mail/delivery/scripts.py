"""The active Sieve script of an account, compiled: looked up once in a while, and compiled once for each text.

A delivery to an account that has no script costs a look into a table. What is remembered of an account is good until its
scripts change (`script_news`), and for `keep_seconds` at most: a notice may be lost.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.delivery.script_news import tag_of
from twisted_mail.sieve.message import Message
from twisted_mail.sieve.values import Include, Outcome, RunEnvironment, RunLimits, SieveError
from twisted_mail.storage.interfaces import Directory, StorageError
from twisted_mail.values import AccountId, ModSeq

__all__ = ["ActiveScript", "ActiveScripts", "Compile", "Script"]

STALE_SECONDS: Final = 3600.0
"""How long what is known of an account is good enough while the directory does not answer."""
_INCLUDES: Final = re.compile(r"\binclude\b", re.IGNORECASE)
QUICK_CHARACTERS: Final = 16_384
"""A script of so many is compiled at once, in some 20 ms."""
MAX_INCLUDED: Final = 64
"""Scripts of one account that may be included."""
MAX_INCLUDED_CHARACTERS: Final = 1 << 20
"""Of all these together."""


class Script(Protocol):
    """A compiled script (`twisted_mail.sieve`)."""

    @property
    def needs_body(self) -> bool:
        """Whether it looks at more than the header."""

    def uses(self, capability: str) -> bool: ...

    def run(self, message: Message, environment: RunEnvironment, limits: RunLimits, /) -> Outcome: ...


class Compile(Protocol):
    def __call__(self, text: str, *, include: Include | None = None) -> Script:
        """Raises: SieveError."""


@dataclass(frozen=True, slots=True)
class ActiveScript:
    """What sorts the mail of an account."""

    name: str
    version: str
    """Names the text, and those that it may include: another text has another version."""
    script: Script | None
    error: SieveError | None = None
    """It cannot be compiled (any more)."""


@dataclass(frozen=True, slots=True)
class _Known:
    at: float
    name: str = ""
    """Empty: there is no active script."""
    version: str = ""


class ActiveScripts:
    """Finds the active scripts of accounts."""

    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        clock: IReactorTime,
        compile: Compile,
        *,
        common: Mapping[str, str] | None = None,
        keep_seconds: float = 60.0,
        accounts: int = 20_000,
        compiled: int = 2_000_000,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
    ) -> None:
        """*common*: scripts that everybody may include as ``:global`` (RFC 6609), by name. At most so many *accounts* are
        remembered, and scripts whose texts have so many characters together (*compiled*; each takes some 30 octets).
        *in_thread*: where long scripts are compiled (10,000 lines take a second)."""
        self._directory = directory
        self._clock = clock
        self._compile = compile
        self._common = dict(common or {})
        self._keep_seconds = keep_seconds
        self._accounts: OrderedDict[AccountId, _Known] = OrderedDict()
        self._tags: dict[ModSeq, AccountId] = {}
        """The same accounts, by what stands for them in a notice."""
        self._changes = 0
        """Notices so far: what was looked up while one came is not remembered."""
        self._compiled: OrderedDict[str, Script | SieveError] = OrderedDict()
        self._sizes: dict[str, int] = {}
        """Characters of each text that is compiled."""
        self._making: dict[str, list[Deferred[None]]] = {}
        """Who waits for versions that are being compiled."""
        self._in_thread = in_thread
        self._most_accounts = accounts
        self._most_compiled = compiled

    def forget(self, account: AccountId) -> None:
        """Its scripts have changed."""
        self.forget_tagged(tag_of(account))

    def forget_tagged(self, tag: ModSeq) -> None:
        """The scripts of the account with that tag have changed."""
        self._changes += 1
        account = self._tags.pop(tag, None)
        if account is not None:
            self._accounts.pop(account, None)

    async def active(self, account: AccountId) -> ActiveScript | None:
        """The script that is to sort mail for *account*; None: there is none. Raises: StorageError."""
        known = self._accounts.get(account)
        now = self._clock.seconds()
        if known is not None and now - known.at < self._keep_seconds:
            found = self._remembered(known)
            if found is not None or not known.name:
                return found
        try:
            return await self._look(account, now)
        except StorageError:
            # rather by the script of a while ago than not at all
            if known is not None and now - known.at < STALE_SECONDS:
                found = self._remembered(known)
                if found is not None or not known.name:
                    return found
            raise

    def _remembered(self, known: _Known) -> ActiveScript | None:
        compiled = self._compiled.get(known.version) if known.name else None
        if compiled is None:
            return None
        self._compiled.move_to_end(known.version)
        return _active(known, compiled)

    async def _look(self, account: AccountId, now: float) -> ActiveScript | None:
        changes = self._changes
        scripts = await self._directory.scripts(account)
        name = next((name for name, active in scripts.items() if active), "")
        text = await self._directory.script(account, name) if name else None
        if text is None:
            self._remember(account, _Known(now), changes)
            return None
        others = await self._included(account, name, scripts) if _INCLUDES.search(text) else {}
        known = _Known(now, name, _version(text, others))
        self._remember(account, known, changes)
        compiled = await self._of_version(known.version, text, others)
        self._compiled[known.version] = compiled
        self._compiled.move_to_end(known.version)
        self._sizes[known.version] = len(text) + sum(map(len, others.values()))
        while len(self._compiled) > 1 and sum(self._sizes.values()) > self._most_compiled:
            self._sizes.pop(self._compiled.popitem(last=False)[0], None)
        return _active(known, compiled)

    async def _of_version(self, version: str, text: str, others: Mapping[str, str]) -> Script | SieveError:
        """Compiled once, however many deliveries want it at the same time."""
        while version in self._making:
            waiting: Deferred[None] = Deferred()
            self._making[version].append(waiting)
            await waiting
        found = self._compiled.get(version)
        if found is not None:
            return found
        size = len(text) + sum(map(len, others.values()))
        if self._in_thread is None or size <= QUICK_CHARACTERS:
            return self._made(text, others)
        made: list[Script | SieveError] = []
        self._making[version] = []
        try:
            await self._in_thread(lambda: made.append(self._made(text, others)))
            self._compiled[version] = made[0]
        finally:
            for waiting in self._making.pop(version):
                if not waiting.called:  # who waited may have given up
                    waiting.callback(None)
        return made[0]

    async def _included(self, account: AccountId, name: str, scripts: Mapping[str, bool]) -> dict[str, str]:
        """All others of the account: what of them is included is known only when they are compiled."""
        found: dict[str, str] = {}
        room = MAX_INCLUDED_CHARACTERS
        for other in sorted(scripts)[:MAX_INCLUDED]:
            text = await self._directory.script(account, other) if other != name else None
            if text is not None and len(text) <= room:
                room -= len(text)
                found[other] = text
        return found

    def _made(self, text: str, others: Mapping[str, str]) -> Script | SieveError:
        def include(location: str, name: str) -> str | None:
            return self._common.get(name) if location == "global" else others.get(name)

        try:
            return self._compile(text, include=include)
        except SieveError as error:
            return error
        except Exception as error:
            self._log.failure("a script could not be compiled")
            return SieveError(f"it cannot be compiled ({type(error).__name__})")

    def _remember(self, account: AccountId, known: _Known, changes: int) -> None:
        if changes != self._changes:
            return  # it may be what there was before
        self._accounts[account] = known
        self._accounts.move_to_end(account)
        self._tags[tag_of(account)] = account
        while len(self._accounts) > self._most_accounts:
            other, _ = self._accounts.popitem(last=False)
            self._tags.pop(tag_of(other), None)


def _active(known: _Known, compiled: Script | SieveError) -> ActiveScript:
    if isinstance(compiled, SieveError):
        return ActiveScript(known.name, known.version, None, compiled)
    return ActiveScript(known.name, known.version, compiled)


def _version(text: str, others: Mapping[str, str]) -> str:
    digest = blake2b(digest_size=9, person=b"script")
    for piece in (text, *(part for name in sorted(others) for part in (name, others[name]))):
        octets = piece.encode("utf-8", "surrogatepass")
        digest.update(len(octets).to_bytes(8, "big") + octets)
    return digest.hexdigest()
