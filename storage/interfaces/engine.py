"""What an engine is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twisted_mail.storage.interfaces.blobs import Blobs, References
from twisted_mail.storage.interfaces.directory import Directory
from twisted_mail.storage.interfaces.lists import Lists
from twisted_mail.storage.interfaces.log import AccountLog
from twisted_mail.storage.interfaces.messages import Messages
from twisted_mail.storage.interfaces.queue import Queue
from twisted_mail.storage.interfaces.small import Allowances, Bus, Cache, Leases, Members, Records, SearchShards

__all__ = ["Checked", "Engine", "EngineContext"]


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine is built with."""

    reactor: Any
    """Provides IReactorThreads and IReactorTime; Any, since zope interfaces cannot be intersected in a type."""
    data: Path
    """The data folder, for engines that keep files."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The engine's own settings beside those in its URL."""


class Checked(Protocol):
    """An optional ability of an `Engine`: it compares its tables and settings with what this version wants."""

    async def check(self) -> Sequence[str]:
        """What is otherwise than it should be, in words for operators; changes nothing. Raises: StorageError."""


class Engine(Protocol):
    """A set of stores behind one URL. Each property is None where the engine does not have that store."""

    @property
    def account_log(self) -> AccountLog | None: ...
    @property
    def messages(self) -> Messages | None: ...
    @property
    def lists(self) -> Lists | None: ...
    @property
    def blobs(self) -> Blobs | None: ...
    @property
    def references(self) -> References | None: ...
    @property
    def directory(self) -> Directory | None: ...
    @property
    def queue(self) -> Queue | None: ...
    @property
    def bus(self) -> Bus | None: ...
    @property
    def cache(self) -> Cache | None: ...
    @property
    def leases(self) -> Leases | None: ...
    @property
    def allowances(self) -> Allowances | None: ...
    @property
    def records(self) -> Records | None: ...
    @property
    def members(self) -> Members | None: ...
    @property
    def search(self) -> SearchShards | None: ...

    async def start(self) -> None:
        """Open it: create what is missing, bring the schema up to date. Raises: StorageError with a text for operators."""

    async def stop(self) -> None:
        """Write what is in flight, and close."""

    def health(self) -> str | None:
        """None while the store answers; else what is the matter, in words for operators. Never blocks."""
