"""Everything but blobs in one SQLite file: the embedded engine.

One process writes, others hand it their writes over a UNIX socket (`election`); every process reads the file itself.
Options (in the URL's query or in the context): ``readers`` (threads, 4), ``patience`` (seconds that a write waits for
the process that writes, and a request that is forwarded for its answer, 5), ``max_bytes`` (how large the file may become).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted_mail.storage.interfaces import Engine, EngineContext, StorageError
from twisted_mail.storage.memory.small import MemoryBus, MemoryCache
from twisted_mail.storage.sqlite.bodies import SQLiteBodies
from twisted_mail.storage.sqlite.directory import SQLiteDirectory
from twisted_mail.storage.sqlite.election import FILE, Place, Writers
from twisted_mail.storage.sqlite.lists import SQLiteLists
from twisted_mail.storage.sqlite.log import SQLiteAccountLog
from twisted_mail.storage.sqlite.members import SharedMembers
from twisted_mail.storage.sqlite.messages import SQLiteMessages
from twisted_mail.storage.sqlite.queue import SQLiteQueue
from twisted_mail.storage.sqlite.records import SQLiteRecords
from twisted_mail.storage.sqlite.references import SQLiteReferences
from twisted_mail.storage.sqlite.roster import Roster
from twisted_mail.storage.sqlite.small import SharedBus, SharedCache, SQLiteAllowances, SQLiteLeases
from twisted_mail.storage.sqlite.threads import ReaderPool

__all__ = ["SQLiteEngine", "engine"]

OPTIONS = {"readers", "patience", "max_bytes"}


class SQLiteEngine:
    """Has every store but blobs and search. Implements `Engine`."""

    blobs = None
    search = None

    def __init__(
        self,
        database: Path,
        context: EngineContext,
        *,
        readers: int = 4,
        patience: float = 5.0,
        max_bytes: int | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        reactor = context.reactor
        self._database = database
        local_bus, local_cache = MemoryBus(reactor), MemoryCache(reactor)
        place = Place(database)
        self.writers = Writers(
            place, reactor, local_bus, local_cache, wall=wall, patience=patience, max_bytes=max_bytes
        )
        self._readers = ReaderPool(database, reactor, readers)
        self.messages = SQLiteMessages(self.writers, self._readers)
        self.account_log = SQLiteAccountLog(self.writers, self._readers, self.messages)
        self.lists = SQLiteLists(self.writers, self._readers)
        self.directory = SQLiteDirectory(self.writers, self._readers)
        self.references = SQLiteReferences(self.writers, self._readers)
        self.queue = SQLiteQueue(self.writers, self._readers)
        self.queue_bodies = SQLiteBodies(self.writers, self._readers)
        self.leases = SQLiteLeases(self.writers)
        self.allowances = SQLiteAllowances(self.writers, self._readers)
        self.records = SQLiteRecords(self.writers, self._readers)
        self.bus = SharedBus(local_bus, self.writers.tell_others)
        self.cache = SharedCache(local_cache, self.writers.count)
        self.members = SharedMembers(Roster(place.members), reactor, patience=patience)

    async def start(self) -> None:
        try:
            self._database.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the folder {self._database.parent} cannot be made: {error.strerror}") from error
        await self.writers.start()
        self._readers.start()
        self.members.start()

    async def stop(self) -> None:
        try:
            await self.members.stop()
        finally:
            # readers first: the last connection to close empties the write-ahead log, and that should be the writer's
            self._readers.stop()
            await self.writers.stop()

    def health(self) -> str | None:
        """A local file; its failures come with the operation that has them."""
        return None


def engine(url: str, context: EngineContext) -> Engine:
    """The engine of ``sqlite:`` (in the data folder), ``sqlite:///absolute/file`` and ``sqlite:relative/file``.

    Raises: ValueError for anything else in the URL.
    """
    parts = urlsplit(url if ":" in url else f"{url}:")
    if parts.netloc or parts.fragment:
        raise ValueError(f"{url!r}: a file is written sqlite:///path/of/the/file")
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    unknown = set(options) - OPTIONS
    if unknown:
        raise ValueError(f"{url!r}: no such option: {', '.join(sorted(unknown))}")
    options = {**context.options, **options}  # those of the context may be meant for other engines too
    path = unquote(parts.path)
    database = context.data / (path if path.strip("/") else FILE)
    try:
        readers = int(options.get("readers", "4"))
        patience = float(options.get("patience", "5"))
        max_bytes = int(options["max_bytes"]) if "max_bytes" in options else None
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from error
    if not 1 <= readers <= 64:
        raise ValueError(f"{url!r}: readers must be 1 to 64")
    return SQLiteEngine(database, context, readers=readers, patience=patience, max_bytes=max_bytes)
