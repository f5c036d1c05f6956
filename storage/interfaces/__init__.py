"""What the suite asks of a back end (the architecture's table of interfaces), and nothing about how it is done.

Every awaitable is a coroutine or a Deferred that `Deferred.fromCoroutine` can drive. An operation that returned is
durable, unless said otherwise. An engine translates its driver's errors into those below. Each interface has one
contract suite in `twisted_mail.storage.testing`; passing it is what being an engine means.
"""

from __future__ import annotations

from twisted_mail.storage.interfaces.blobs import (
    Blobs,
    BlobWriter,
    CarriesItems,
    ChooseGeneration,
    PrefersSmall,
    References,
)
from twisted_mail.storage.interfaces.directory import AccountRecord, Alias, Directory, Domain
from twisted_mail.storage.interfaces.engine import Checked, Engine, EngineContext
from twisted_mail.storage.interfaces.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    NotFound,
    Refused,
    StorageError,
    Trimmed,
    Unavailable,
)
from twisted_mail.storage.interfaces.lists import ListDelete, ListName, ListPut, ListRow, Lists
from twisted_mail.storage.interfaces.log import (
    AccountLog,
    BoundedAppends,
    Checkpoint,
    DegradedReads,
    LogEntry,
    NewEntry,
)
from twisted_mail.storage.interfaces.messages import COLUMNS, AppendsRows, MessageRow, Messages
from twisted_mail.storage.interfaces.queue import (
    USES,
    ItemState,
    LeasedItem,
    Queue,
    QueueFilter,
    QueueItem,
    QueueStatus,
    Use,
)
from twisted_mail.storage.interfaces.small import (
    NOWHERE,
    Allowances,
    Bus,
    Cache,
    Leases,
    Member,
    Members,
    PutsMany,
    Record,
    Records,
    SearchDocument,
    SearchShards,
)

__all__ = [
    "AccountLog",
    "AccountRecord",
    "Alias",
    "Allowances",
    "AlreadyExists",
    "AppendsRows",
    "BlobWriter",
    "Blobs",
    "BoundedAppends",
    "Bus",
    "COLUMNS",
    "Cache",
    "CarriesItems",
    "Checked",
    "Checkpoint",
    "ChooseGeneration",
    "Conflict",
    "Corrupt",
    "DegradedReads",
    "Directory",
    "Domain",
    "Engine",
    "EngineContext",
    "ItemState",
    "LeasedItem",
    "Leases",
    "ListDelete",
    "ListName",
    "ListPut",
    "ListRow",
    "Lists",
    "LogEntry",
    "Member",
    "Members",
    "MessageRow",
    "Messages",
    "NOWHERE",
    "NewEntry",
    "NotFound",
    "Queue",
    "PrefersSmall",
    "PutsMany",
    "QueueFilter",
    "QueueItem",
    "QueueStatus",
    "Record",
    "Records",
    "References",
    "Refused",
    "SearchDocument",
    "SearchShards",
    "StorageError",
    "Trimmed",
    "USES",
    "Unavailable",
    "Use",
]
