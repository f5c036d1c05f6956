"""All stores that the suite works on, put together from one or several engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from twisted_mail.storage.interfaces import (
    AccountLog,
    Allowances,
    Blobs,
    Bus,
    Cache,
    Directory,
    Engine,
    EngineContext,
    Leases,
    Lists,
    Members,
    Messages,
    Queue,
    Records,
    References,
    SearchShards,
)
from twisted_mail.storage.objects import KeepsInObjects, KeepsObjects
from twisted_mail.storage.registry import open_engine

__all__ = ["EMBEDDED", "ROLES", "Backend", "compose", "open_backend"]

ROLES: Final = ("metadata", "blobs", "messaging", "queue", "bus", "cache", "search")
"""What an engine can be chosen for. ``messaging`` is queue, bus, cache and members, unless they are named themselves."""

EMBEDDED: Final[Mapping[str, str]] = {"metadata": "sqlite:", "blobs": "file:"}
"""What is used when nothing is configured: everything in the data folder."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One of each store; `search` is None where no engine has one.

    Search shards are kept beside the blobs where both engines can do that (`storage.objects`).
    """

    account_log: AccountLog
    messages: Messages
    lists: Lists
    blobs: Blobs
    references: References
    directory: Directory
    queue: Queue
    bus: Bus
    cache: Cache
    leases: Leases
    allowances: Allowances
    records: Records
    members: Members
    search: SearchShards | None
    queue_bodies: Blobs | None
    """Where the queue's engine keeps bodies for a while when the blob store is down: bounded; None where it has no such room."""
    engines: tuple[Engine, ...]
    """Those that the stores come from, each once, in the order in which they start."""

    async def start(self) -> None:
        """Start every engine; if one fails, those that were started are stopped again. Raises: StorageError."""
        started: list[Engine] = []
        try:
            for engine in self.engines:
                await engine.start()
                started.append(engine)
        except BaseException:
            for engine in reversed(started):
                await engine.stop()
            raise

    def health(self) -> Mapping[str, str]:
        """Which engines do not answer, by name, with what is the matter; empty when all is well."""
        troubles = {type(engine).__name__.removesuffix("Engine").lower(): engine.health() for engine in self.engines}
        return {name: trouble for name, trouble in troubles.items() if trouble is not None}

    async def stop(self) -> None:
        """Stop every engine, the last one first, even if one fails; then raises the first failure."""
        failure: Exception | None = None
        for engine in reversed(self.engines):
            try:
                await engine.stop()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


def compose(metadata: Engine, **roles: Engine) -> Backend:
    """Put a backend together: *metadata*, and other engines for some of `ROLES`.

    A role that is left out falls to ``messaging`` where that covers it, else to *metadata*.
    Raises: ValueError for an unknown role, or when an engine lacks a store that it was chosen for.
    """
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise ValueError(f"no such storage role: {', '.join(sorted(unknown))}")
    messaging = roles.get("messaging", metadata)

    def missing(store: str) -> ValueError:
        return ValueError(f"the engine chosen for {store.replace('_', ' ')} does not have that store")

    def chosen(role: str, fallback: Engine) -> Engine:
        return roles.get(role, fallback)

    parts = {
        "account_log": metadata.account_log,
        "messages": metadata.messages,
        "lists": metadata.lists,
        "references": metadata.references,
        "directory": metadata.directory,
        "leases": metadata.leases,
        "allowances": metadata.allowances,
        "records": metadata.records,
        "blobs": chosen("blobs", metadata).blobs,
        "queue": chosen("queue", messaging).queue,
        "bus": chosen("bus", messaging).bus,
        "cache": chosen("cache", messaging).cache,
        "members": messaging.members or metadata.members,
    }
    for name, part in parts.items():
        if part is None:
            raise missing(name)
    engines: list[Engine] = []
    for engine in (metadata, *(roles[role] for role in ROLES if role in roles)):
        if not any(engine is other for other in engines):
            engines.append(engine)
    bodies: Blobs | None = getattr(chosen("queue", messaging), "queue_bodies", None)
    searching, keeping = chosen("search", metadata), chosen("blobs", metadata)
    if isinstance(searching, KeepsInObjects) and isinstance(keeping, KeepsObjects):
        searching.keep_in(keeping.objects, parts["leases"])  # type: ignore[arg-type]  # as below
    search = searching.search
    # each part was checked above, which a dictionary of different types cannot say
    return Backend(**parts, search=search, queue_bodies=bodies, engines=tuple(engines))  # type: ignore[arg-type]


def open_backend(urls: Mapping[str, str], context: EngineContext) -> Backend:
    """Open one engine per different URL of *urls* (role to URL) and compose them; nothing is started.

    Without ``metadata`` it is the embedded one; without ``blobs`` they lie with the metadata if its engine has blobs,
    else in files. Raises: what `open_engine` and `compose` raise.
    """
    opened: dict[str, Engine] = {}

    def engine(url: str) -> Engine:
        if url not in opened:
            opened[url] = open_engine(url, context)
        return opened[url]

    metadata = engine(urls.get("metadata", EMBEDDED["metadata"]))
    roles = {role: engine(url) for role, url in urls.items() if role != "metadata"}
    if "blobs" not in roles and metadata.blobs is None:
        roles["blobs"] = engine(EMBEDDED["blobs"])
    return compose(metadata, **roles)
