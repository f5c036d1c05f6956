"""What it means to be a storage engine: one suite of tests per interface, to be mixed into a trial TestCase.

``docs/how-to/write-a-storage-engine.md`` shows how. `faults` has stores that fail on demand.
"""

from __future__ import annotations

from twisted_mail.storage.testing.blobs import BlobsContract
from twisted_mail.storage.testing.directory import DirectoryContract
from twisted_mail.storage.testing.log import AccountLogContract
from twisted_mail.storage.testing.messages import ListsContract, MessagesContract
from twisted_mail.storage.testing.objects import ObjectsContract
from twisted_mail.storage.testing.queue import QueueContract
from twisted_mail.storage.testing.references import ReferencesContract
from twisted_mail.storage.testing.small import (
    AllowancesContract,
    BusContract,
    CacheContract,
    LeasesContract,
    MembersContract,
    RecordsContract,
    SearchShardsContract,
)

__all__ = [
    "AccountLogContract",
    "AllowancesContract",
    "BlobsContract",
    "BusContract",
    "CacheContract",
    "DirectoryContract",
    "LeasesContract",
    "ListsContract",
    "MembersContract",
    "MessagesContract",
    "ObjectsContract",
    "QueueContract",
    "RecordsContract",
    "ReferencesContract",
    "SearchShardsContract",
]
