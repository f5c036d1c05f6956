"""What the suite asks of a back end (the architecture's table of interfaces), and nothing about how it is done.

Every awaitable is a coroutine or a Deferred that `Deferred.fromCoroutine` can drive. An operation that returned is
durable, unless said otherwise. An engine translates its driver's errors into those below. Each interface has one
contract suite in `twisted_mail.storage.testing`; passing it is what being an engine means.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol

from twisted_mail.values import (
    AccountId,
    BlobRef,
    DeliveryId,
    EntryId,
    MailboxId,
    MessageId,
    MessageKey,
    ModSeq,
)

# --- errors -------------------------------------------------------------------------------------------------------


class StorageError(Exception):
    """Base of everything an engine may raise; `temporary` means that a later retry can succeed."""

    temporary: ClassVar[bool] = False


class Conflict(StorageError):
    """A compare-and-set found something else than expected. Nothing was written."""


class Unavailable(StorageError):
    """The store does not answer. For an `append`: the outcome is not known and must be settled."""

    temporary: ClassVar[bool] = True


class Refused(Unavailable):
    """The store cannot do it now, and it is certain that nothing was or will be written."""


class Trimmed(StorageError):
    """Entries that were asked for have been trimmed: start from the checkpoint."""


class NotFound(StorageError):
    """What was named does not exist."""


class AlreadyExists(StorageError):
    """What was to be made exists."""


class Corrupt(StorageError):
    """What was read is not what was written."""


# --- the account's log --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry before it has a number; opaque to an engine but for its id."""

    id: EntryId
    data: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry at its place."""

    modseq: ModSeq
    id: EntryId
    data: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A manifest, with those of its chunks that were asked for."""

    modseq: ModSeq
    """The state that this checkpoint is of."""
    manifest: Mapping[str, ModSeq]
    """Each chunk's name, and the number of the checkpoint that wrote it."""
    chunks: Mapping[str, bytes]


class AccountLog(Protocol):
    """One dense log per account, and its checkpoints. `append` is the only operation on mail that needs agreement."""

    async def head(self, account: AccountId) -> ModSeq:
        """The newest number, 0 for an account that has no entry. Linearizable with `append`."""

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """The entries ``after + 1``, … without a gap, at most *limit*. Raises: Trimmed if ``after + 1`` is gone."""

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        """Write *entries* as numbers ``expected + 1``, … if the account still stands at *expected*; returns the new head.

        Durable once this returns; all of them or none. Raises: Conflict (the head has moved; nothing was written),
        Refused (nothing was written), Unavailable (the outcome is not known: call `settle` until it answers).
        """

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        """Whether the append of *ids* on top of *expected* happened. False means that it never will.

        Raises: Unavailable (still not known), Trimmed (the slots are gone).
        """

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        """The newest checkpoint with those of *chunks* that it names (None: all); None if there is none yet."""

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        """Make the checkpoint of state *modseq*: chunks *changed* are written, *kept* are named as they were.

        The pointer moves by compare-and-set from *previous* (0: none yet) to *modseq*, which is greater.
        The newest two manifests stay, and every chunk that one of them names; the rest may be deleted.
        Raises: Conflict (another checkpoint was made; nothing is visible of this one).
        """

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        """Forget the entries up to and including *through*; never above the older kept manifest (that part is ignored)."""

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        """Begin the log of an account that has none at *modseq*, with the checkpoint *chunks* of that state.

        For accounts that come from another store, where the entries up to *modseq* have been trimmed. When it fails
        midway nothing is visible, and it may be repeated. Raises: Conflict (the account has a log already).
        """

    async def erase(self, account: AccountId) -> None:
        """Forget the account: its entries, checkpoints and head (the user was deleted)."""


class DegradedReads(Protocol):
    """An optional ability of an `AccountLog` whose copies lie on several machines: what any one copy says.

    For reads while no quorum answers, which must say so to whoever gets them: what comes back was the truth once, a
    prefix of the log without a gap, but newer entries may exist. It is never older than what it says: the state made of
    it can be brought up to date by reading on from its modseq. Raises: Unavailable (no copy answers, or this is off).
    """

    async def load_checkpoint_stale(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        """As `AccountLog.load_checkpoint`."""

    async def read_stale(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        """As `AccountLog.read`; ends at the first gap."""


class BoundedAppends(Protocol):
    """An optional ability of an `AccountLog`: it says how much one append may hold."""

    @property
    def max_append_bytes(self) -> int:
        """Octets of entries' data, and 64 for each entry. `append` raises Refused above it."""

    @property
    def max_entry_bytes(self) -> int:
        """The same for an append of a single entry, which cannot be made smaller; not below the other."""


# --- message rows -------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    "header",  # the raw header block with its blank line
    "common_header",  # only the fields that clients ask for in bulk, raw
    "envelope",  # IMAP ENVELOPE, rendered
    "structure",  # IMAP BODYSTRUCTURE, rendered
    "body",  # IMAP BODY, rendered
    "preview",  # UTF-8
    "search_header",  # decoded and folded, for SEARCH
    "search_text",  # decoded and folded, for SEARCH
    "layout",  # the part tree with offsets, encoded
    "manifest",  # how the octets are put together from inline and blobs, encoded
    "inline",  # the octets that lie in the row
    "facts",  # what later rooms need, encoded (ids for threads, sender, subject)
)


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One immutable message of one account. Cells are opaque; a column that is left out reads as empty octets."""

    key: MessageKey
    cells: Mapping[str, bytes]


class Messages(Protocol):
    """Immutable rows, keyed by account, bucket and message id."""

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        """Write rows; putting the same key again with the same cells is harmless."""

    def get_many(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        """The cells of *columns* for each of *keys*, in the order of *keys*, in batches; None where there is no row.

        Keys that lie together are read as one range, and only the columns named are touched.
        """

    async def delete_many(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        """Forget rows; those that do not exist are no error."""

    def iterate(self, account: AccountId) -> AsyncIterator[Sequence[MessageKey]]:
        """Every key of *account*, ascending, in batches (checks, sweeps)."""


class AppendsRows(Protocol):
    """An optional ability of an `AccountLog`: entries and the message rows they name are written as one."""

    @property
    def messages(self) -> Messages:
        """The store that the rows go into."""

    async def append_with_rows(
        self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry], rows: Sequence[MessageRow]
    ) -> ModSeq:
        """As `AccountLog.append`; where nothing of it was written, no row was either."""


# --- derived lists ------------------------------------------------------------------------------------------------

ListName = Literal["read", "unread"]


@dataclass(frozen=True, slots=True)
class ListRow:
    """A line of a message list (the tables ``read_emails`` and ``unread_emails``)."""

    folder: MailboxId
    received: int
    """Milliseconds since 1970."""
    uid: int
    message: MessageKey
    sender: str
    subject: str
    preview: str
    flags: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class ListPut:
    """A row enters a list, or replaces the row of the same folder, received and uid."""

    name: ListName
    bucket: int
    row: ListRow


@dataclass(frozen=True, slots=True)
class ListDelete:
    """A row leaves a list."""

    name: ListName
    bucket: int
    folder: MailboxId
    received: int
    uid: int


class Lists(Protocol):
    """The denormalised lists of read and of unread messages, newest first. Derived: may always be rebuilt."""

    async def page(
        self,
        account: AccountId,
        name: ListName,
        bucket: int,
        folder: MailboxId,
        before: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ListRow]:
        """At most *limit* rows of *folder* by descending (received, uid), those strictly below *before*."""

    async def apply(self, account: AccountId, changes: Sequence[ListPut | ListDelete], modseq: ModSeq) -> None:
        """Carry out the net difference of the entry *modseq*.

        Of two changes to one row (list, bucket, folder, received, uid) the one with the higher modseq stands, in
        whatever order they come and however often; at one modseq a delete wins. `reached` stays: the difference may
        come in several parts, and whoever is cut off between them must not be taken for done.
        """

    async def reached(self, account: AccountId, bucket: int) -> ModSeq:
        """The highest modseq that *bucket* was marked to have reached; 0 if none."""

    async def mark_reached(self, account: AccountId, bucket: int, modseq: ModSeq) -> None:
        """Everything up to *modseq* is in *bucket* (entries without a difference move it too)."""

    async def drop(self, account: AccountId, bucket: int) -> None:
        """Forget a bucket whole, its `reached` too."""


# --- blobs --------------------------------------------------------------------------------------------------------


ChooseGeneration = Callable[[BlobRef], Awaitable[int]]
"""Given the reference of generation 0, says under which generation to store (`References` knows which are condemned)."""


class BlobWriter(Protocol):
    """Takes the octets of one blob; never holds it whole."""

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        """Durable and readable once this returns; content that was there already is kept once.

        *generation* is asked when the content is known and before it gets its name (None: it is 0).
        """

    async def abort(self) -> None:
        """Nothing stays. May be called at any time, also after `finish` (then it does nothing)."""


class Blobs(Protocol):
    """Content-addressed octets (SHA-256)."""

    def writer(self) -> BlobWriter: ...

    def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` in chunks of at most 64 KiB. Raises: NotFound, Corrupt, Unavailable."""

    async def delete(self, ref: BlobRef) -> None:
        """Forget it; no error if it is gone."""

    def iterate(self) -> AsyncIterator[BlobRef]:
        """Every blob, in no promised order."""


class References(Protocol):
    """Who needs which blob, and which blobs are on their way out. Sizes play no part: a blob is its hash and generation.

    Who needs a blob first adds a reference and *then* asks whether that generation is condemned; if it is, the next one
    is taken. Who sweeps condemns a blob without references, waits past every deadline, looks for references again and
    only then deletes. Both orders are durable and linear, so one of the two always sees the other.
    """

    async def add(self, ref: BlobRef, holder: str) -> None:
        """*holder* (at most 128 ASCII characters, e.g. a message row or a queue item) needs *ref*. Again is harmless."""

    async def remove(self, refs: Sequence[BlobRef], holder: str) -> None:
        """*holder* needs them no more; each is listed among the `lost`. One that was not there is listed all the same."""

    async def holders(self, ref: BlobRef, limit: int = 1) -> Sequence[str]:
        """At most *limit* of those who need *ref*, in no promised order."""

    async def condemned(self, hash: str) -> int:
        """The lowest generation of that content that is not condemned (0 if none is)."""

    async def condemn(self, ref: BlobRef) -> None:
        """Nobody new may use this generation, nor an earlier one; for ever (at least 90 days)."""

    def lost(self, until: float) -> AsyncIterator[BlobRef]:
        """What was listed as having lost a reference up to *until* (seconds since 1970), oldest first; each once or oftener.

        Costs in proportion to what is listed."""

    async def settled(self, ref: BlobRef, until: float) -> None:
        """Take *ref* off the list, as far as it was listed up to *until*."""

    def iterate(self) -> AsyncIterator[tuple[BlobRef, str]]:
        """Every reference with its holder (audits); sizes are 0."""


# --- directory ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Domain:
    """A mail domain that is ours. `name` is in lower-case A-labels."""

    name: str
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """A user: mailbox, address and login at once. Addresses are canonical (`values.canonical_address`)."""

    id: AccountId
    address: str
    credentials: tuple[str, ...] = ()
    """Stored credentials as `auth.passwords` writes them."""
    enabled: bool = True
    quota_bytes: int | None = None
    display_name: str = ""
    home: str = ""
    """The home data centre; empty: this one."""
    created: int = 0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Alias:
    """An address that stands for others; ``@domain`` is the catch-all of a domain."""

    address: str
    targets: tuple[str, ...]


class Directory(Protocol):
    """Domains, accounts, aliases, Sieve scripts. An address belongs to one account or one alias, never both."""

    async def add_domain(self, domain: Domain) -> None:
        """Raises: AlreadyExists."""

    async def set_domain(self, domain: Domain) -> None:
        """Replace. Raises: NotFound."""

    async def remove_domain(self, name: str) -> None:
        """Raises: NotFound, Conflict (accounts or aliases are left)."""

    async def domain(self, name: str) -> Domain | None: ...

    async def domains(self) -> Sequence[Domain]:
        """All, by name."""

    async def add_account(self, record: AccountRecord) -> None:
        """Raises: AlreadyExists (the address or the id), NotFound (the domain)."""

    async def set_account(self, record: AccountRecord) -> None:
        """Replace the record of that id. Raises: NotFound, AlreadyExists (the new address is taken)."""

    async def remove_account(self, account: AccountId) -> None:
        """Raises: NotFound. Its scripts go too; aliases that name its address stay."""

    async def account(self, account: AccountId) -> AccountRecord | None: ...

    async def account_by_address(self, address: str) -> AccountRecord | None: ...

    async def accounts(self, domain: str | None = None) -> Sequence[AccountRecord]:
        """All, or those of one domain, by address."""

    async def add_alias(self, alias: Alias) -> None:
        """Raises: AlreadyExists (an alias or an account has the address), NotFound (the domain)."""

    async def set_alias(self, alias: Alias) -> None:
        """Replace. Raises: NotFound."""

    async def remove_alias(self, address: str) -> None:
        """Raises: NotFound."""

    async def alias(self, address: str) -> Alias | None: ...

    async def aliases(self, domain: str | None = None) -> Sequence[Alias]:
        """All, or those of one domain, by address."""

    async def put_script(self, account: AccountId, name: str, script: str) -> None:
        """Write or replace a Sieve script. Raises: NotFound (the account)."""

    async def script(self, account: AccountId, name: str) -> str | None: ...

    async def scripts(self, account: AccountId) -> Mapping[str, bool]:
        """Name of each script, and whether it is the active one."""

    async def activate_script(self, account: AccountId, name: str | None) -> None:
        """Make *name* the active script (None: none). Raises: NotFound."""

    async def remove_script(self, account: AccountId, name: str) -> None:
        """Raises: NotFound, Conflict (it is active; RFC 5804 section 2.10)."""


# --- queue --------------------------------------------------------------------------------------------------------


class ItemState(enum.Enum):
    """Where an item of the queue stands."""

    DUE = "due"
    WAITING = "waiting"
    LEASED = "leased"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class QueueItem:
    """Mail on its way: small; its body is a blob."""

    id: DeliveryId
    use: Literal["inbound", "outbound"]
    envelope: bytes
    """Opaque to an engine, at most 8 KiB."""
    body: BlobRef | None
    domain: str = ""
    """The destination's domain, for filters and limits."""
    sender: str = ""
    attempts: int = 0
    last_reply: str = ""
    created: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class LeasedItem:
    """An item that its holder alone may work on, until `expires` (by the engine's clock)."""

    item: QueueItem
    token: str
    expires: float


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """What `Queue.list` shows; None: any."""

    use: str | None = None
    state: ItemState | None = None
    domain: str | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """An item with its state."""

    item: QueueItem
    state: ItemState
    due: float


class Queue(Protocol):
    """Mail that waits for a worker. Exactly one holder at a time; what is not acknowledged comes back.

    A lease is lost when another took the item, or `hold` or `delete` came between; one that ran out while nobody else
    took the item is still its holder's, who fences itself by its own clock.
    """

    async def put(self, item: QueueItem, *, delay: float = 0.0) -> bool:
        """Put *item*, due in *delay* seconds. False when an item of that id is there already (nothing is changed)."""

    async def lease(self, use: str, limit: int, seconds: float) -> Sequence[LeasedItem]:
        """Take at most *limit* due items, oldest due first, for *seconds*; each with `attempts` counted up by one.

        An item whose lease ran out is due again."""

    async def extend(self, token: str, seconds: float) -> bool:
        """Hold on for *seconds* from now. False: the lease was lost."""

    async def ack(self, token: str) -> bool:
        """Done: the item is gone. False: the lease was lost, and the item belongs to somebody else."""

    async def retry(
        self, token: str, delay: float, last_reply: str, *, envelope: bytes | None = None, attempted: bool = True
    ) -> bool:
        """Give it back, due in *delay* seconds. False: the lease was lost.

        *envelope* replaces the item's own. Not *attempted*: it was put off without being tried, so `attempts` is what it was
        before the lease.
        """

    async def hold(self, item: DeliveryId) -> bool:
        """Take it out of the run until `release`; a lease of it is revoked. False: no such item."""

    async def release(self, item: DeliveryId) -> bool:
        """A held item becomes due now. False: no such item, or not held."""

    async def list(
        self, filter: QueueFilter, after: DeliveryId | None = None, limit: int = 100
    ) -> Sequence[QueueStatus]:
        """Items that match, by id, those after *after*."""

    async def delete(self, item: DeliveryId) -> bool:
        """Forget it whatever its state. False: no such item."""


# --- notifications, cache, agreement on small things --------------------------------------------------------------


class Bus(Protocol):
    """Says that an account has moved. May lose notices: that costs latency, never correctness."""

    def publish(self, account: AccountId, modseq: ModSeq) -> None: ...

    def subscribe(self, account: AccountId, moved: Callable[[ModSeq], None]) -> Callable[[], None]:
        """Call *moved* (in the reactor's thread, never within `subscribe` or `publish`) for notices; returns the end of it."""


class Cache(Protocol):
    """Small values (at most 64 KiB) and counters that may be lost at any time."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Raises: ValueError above 64 KiB."""

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        """Add to a counter, which starts at 0 and lives *ttl* seconds from its first increment; returns the sum."""


class Leases(Protocol):
    """Named exclusive rights that run out; the fencing number of a name only ascends."""

    async def acquire(self, name: str, ttl: float) -> int | None:
        """A fencing number, or None while another holds it."""

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        """False: it was lost."""

    async def release(self, name: str, number: int) -> None:
        """Give it back; a number that is not the holder's changes nothing."""


class Allowances(Protocol):
    """Durable counts over all nodes (warm-up, sending limits), taken in blocks. What a crashed node held is forfeited."""

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        """Take up to *n* of what is left of *limit* for *name* on *day* (days since 1970); returns how many (0..n)."""

    async def taken(self, name: str, day: int) -> int:
        """How many were taken."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value of a space. Raises: ValueError for what no engine takes."""

    key: str
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) > 64 * 1024:
            raise ValueError(f"a record of {len(self.value)} octets")
        if not 0 < len(self.key.encode()) <= 512:
            raise ValueError("the key of a record has 1 to 512 octets")


class Records(Protocol):
    """Small values that last, by space and key: a suppressed address, a policy, one step of a message's way.

    A space is read and kept as one (in CQL: a partition), so one that may have more than some 10,000 keys is cut by its
    owner, who puts a hash into its name. Who writes last wins; what ran out is not seen any more.
    """

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        """Keep *value* for *ttl* seconds (None: for good). Raises: ValueError (a value above 64 KiB, a name above 512 octets)."""

    async def get(self, space: str, key: str) -> bytes | None: ...

    async def delete(self, space: str, key: str) -> None:
        """Nothing happens if there is none."""

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """By key (code points), those after *after*."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node that is alive."""

    node: str
    roles: frozenset[str]
    datacenter: str = ""


class Members(Protocol):
    """Who is alive, who prefers which account, and how to reach them.

    An optimisation within a data centre; between two of them, the only way to change an account that is at home in
    the other.
    """

    async def join(
        self, node: str, roles: frozenset[str], serve: Callable[[AccountId, bytes], Any], datacenter: str = ""
    ) -> None:
        """Become *node*; *serve* answers (an awaitable of octets) what others forward."""

    async def leave(self) -> None: ...

    async def alive(self) -> Sequence[Member]:
        """By node name."""

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        """The node that rendezvous hashing prefers among those alive in *datacenter* (None: anywhere); None if nobody is."""

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        """Have the owner serve *request*.

        Raises: Refused (it was not sent), Unavailable (whether it was carried out is not known).
        """


@dataclass(frozen=True, slots=True)
class SearchDocument:
    """What is indexed of a message."""

    message: MessageId
    fields: Mapping[str, str]
    """``subject``, ``from``, ``to``, ``cc``, ``bcc``, ``body``, ``attachment``."""
    received: int


NOWHERE: Final = ModSeq(0)


class SearchShards(Protocol):
    """One word index per account. Derived: may always be rebuilt, and one that is lost is an empty one at modseq 0.

    Every operation raises Unavailable where it cannot be carried out now: another writes the shard, the store does not
    answer, or the shard was just found to be lost. Who searches then reads the stored text instead.
    """

    async def add(
        self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        """Add messages, or replace them; `reached` is *modseq* then.

        Where it is higher already nothing is done: what was added up to there may have been removed since. An entry's
        messages that come in parts are added under the number before it, and the last ones under its own.
        *after* is what the caller goes on from. Raises: Conflict (the shard has not come so far, since it was lost;
        nothing was written).
        """

    async def remove(
        self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        """Forget messages; those that are not there are no error. *modseq* and *after* as for `add`."""

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        """Messages in which every one of *words* occurs in some of *fields* (none named: any), newest first."""

    async def reached(self, account: AccountId) -> ModSeq:
        """How far the shard has come; 0 where there is none, or where it was lost."""

    async def drop(self, account: AccountId) -> None:
        """Forget the shard (its account was deleted, or it is to be filled anew)."""


# --- engines ------------------------------------------------------------------------------------------------------


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
