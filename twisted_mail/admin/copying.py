"""An account's way from one store to another, by the position in its log.

What the log names is copied first (message rows, blobs), then the log itself, entry by entry under the same numbers and
ids: so the copy can be broken off and gone on with, and can follow an account that is in use. It ends when it has caught
up. What the source has trimmed comes as the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from msgspec import structs
from twisted.internet.task import deferLater

from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import EntryError, MessagesAdded, decode_entry
from twisted_mail.account.manifests import encode_runs, runs_of
from twisted_mail.account.references import claim, message_holder
from twisted_mail.account.state import Mailbox
from twisted_mail.admin.opening import Store
from twisted_mail.services import Account
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import (
    COLUMNS,
    Conflict,
    Corrupt,
    LogEntry,
    MessageRow,
    NewEntry,
    NotFound,
    Trimmed,
    Unavailable,
)
from twisted_mail.values import AccountId, BlobRef, MessageId, MessageKey, ModSeq

__all__ = ["AccountCopy", "CopyReport", "Different", "compare", "copy_blob"]

ROWS = 32
"""Message rows that are read, and then written, at a time."""
ENTRIES = 256
"""Log entries of one append, if they have no more octets than `ENTRY_BYTES`."""
ENTRY_BYTES = 512 * 1024


class Different(Exception):
    """The target has something else than the source at the same place; the text says what and where."""


@dataclass(slots=True)
class CopyReport:
    """What one run did for one account."""

    rows: int = 0
    octets: int = 0
    """Of the messages in these rows."""
    entries: int = 0
    position: int = 0
    """The number in the log up to which the target has everything."""
    checkpoint: bool = False
    """The log in the target begins with a checkpoint, since the source had trimmed what was before."""


class AccountCopy:
    """Copies one account. *advanced* is told the octets of messages that were copied; *still* is asked before each write
    and raises where the copy may not go on."""

    def __init__(
        self,
        source: Backend,
        target: Backend,
        account: AccountId,
        reactor: Any,
        advanced: Callable[[int], None],
        still: Callable[[], None] = lambda: None,
    ) -> None:
        # the reactor provides IReactorTime; Any, as everywhere in this room
        self._source = source
        self._target = target
        self._account = account
        self._reactor = reactor
        self._advanced = advanced
        self._still = still
        self.report = CopyReport()

    async def run(self) -> CopyReport:
        """Copy until the target stands where the source stands. Raises StorageError, Different."""
        while True:
            head = await self._target.account_log.head(self._account)
            try:
                if head == 0:
                    head = await self._begin()
                else:
                    await self._same_past(head)
                await self._follow(head)
                return self.report
            except Trimmed:
                # The source has forgotten entries that the target lacks: the copy begins anew; rows are there already.
                await self._target.account_log.erase(self._account)

    async def _begin(self) -> ModSeq:
        """Every row that there is (those within the retention window too); then the log is followed from its first entry,
        or, where that has been trimmed, from the newest checkpoint."""
        checkpoint = await self._source.account_log.load_checkpoint(self._account, None)
        async for keys in self._source.messages.iterate(self._account):
            await self._rows(keys)
        try:
            await self._source.account_log.read(self._account, ModSeq(0), 1)
            return ModSeq(0)
        except Trimmed:
            if checkpoint is None:
                raise Corrupt("the log does not begin at 1, and there is no checkpoint") from None
        self._still()
        await self._target.account_log.start_at(self._account, checkpoint.modseq, checkpoint.chunks)
        self.report.checkpoint = True
        return checkpoint.modseq

    async def _same_past(self, head: ModSeq) -> None:
        """The newest entry of the target must be the source's own. Raises Different, Trimmed."""
        try:
            theirs = await self._target.account_log.read(self._account, ModSeq(head - 1), 1)
            ours = await self._source.account_log.read(self._account, ModSeq(head - 1), 1)
        except Trimmed:
            return  # it began with a checkpoint here, or the source has moved on: `_follow` will see
        if not ours or [entry.id for entry in ours] != [entry.id for entry in theirs]:
            raise Different(
                f"the target's log has its own entry {head}: the account was changed there, or comes from elsewhere"
            )

    async def _follow(self, head: ModSeq) -> None:
        while True:
            entries = await self._source.account_log.read(self._account, head, ENTRIES)
            if not entries:
                self.report.position = int(head)
                return
            entries = _some(entries)
            await self._rows(_named(entries))
            head = await self._append(head, entries)
            self.report.entries += len(entries)

    async def _append(self, head: ModSeq, entries: Sequence[LogEntry]) -> ModSeq:
        log = self._target.account_log
        new = [NewEntry(entry.id, entry.data) for entry in entries]
        ids = [entry.id for entry in entries]
        self._still()
        try:
            return await log.append(self._account, head, new)
        except Conflict:
            stands = await self._patiently(head, ids)
            if not stands:
                raise Different(f"somebody else has written entry {head + 1} in the target") from None
        except Unavailable:
            if not await self._patiently(head, ids):
                return head  # it never will; `_follow` proposes it again
        return ModSeq(head + len(entries))

    async def _patiently(self, head: ModSeq, ids: Sequence[Any]) -> bool:
        """Whether the entries stand; asked until the store answers."""
        while True:
            try:
                return await self._target.account_log.settle(self._account, head, ids)
            except Unavailable:
                await deferLater(self._reactor, 0.5, lambda: None)

    # --- rows

    async def _rows(self, keys: Sequence[MessageKey]) -> None:
        for start in range(0, len(keys), ROWS):
            part = keys[start : start + ROWS]
            present: list[bool] = []
            async for batch in self._target.messages.get_many(self._account, part, ("manifest",)):
                present += [cells is not None for cells in batch]
            missing = [key for key, there in zip(part, present, strict=True) if not there]
            if missing:
                await self._copy_rows(missing)

    async def _copy_rows(self, keys: Sequence[MessageKey]) -> None:
        at = 0
        async for batch in self._source.messages.get_many(self._account, keys, COLUMNS):
            rows = []
            for cells in batch:
                key = keys[at]
                at += 1
                if cells is None:
                    continue  # swept; if the state names it all the same, the comparison will say so
                named = dict(zip(COLUMNS, cells, strict=True))
                named["manifest"], octets = await self._with_blobs(key, named["manifest"])
                rows.append(MessageRow(key, named))
                self.report.rows += 1
                self.report.octets += octets
                self._advanced(octets)
            if rows:
                self._still()
                await self._target.messages.put(self._account, rows)


    async def _with_blobs(self, key: MessageKey, manifest: bytes) -> tuple[bytes, int]:
        """Copy the blobs that *manifest* names; it again, as the target names them, and the message's octets."""
        runs = runs_of(manifest)
        holder = message_holder(self._account, key.id)
        copies: dict[BlobRef, BlobRef] = {}
        for run in runs:
            ref = run.ref
            if ref is not None and ref not in copies:
                copies[ref] = await copy_blob(self._source, self._target, ref, holder)
        theirs = [
            structs.replace(run, generation=copies[ref].generation) if (ref := run.ref) is not None else run
            for run in runs
        ]
        return (encode_runs(theirs) if copies else manifest), sum(run.length for run in runs)


async def copy_blob(source: Backend, target: Backend, ref: BlobRef, holder: str) -> BlobRef:
    """The same content in *target*, held by *holder*: its reference first, then the octets, if they are not there already.

    Raises NotFound, Corrupt, StorageError.
    """
    references, blobs = target.references, target.blobs
    wanted = BlobRef(ref.hash, ref.size, await claim(references, ref, holder))
    try:
        async for _ in blobs.open(wanted, max(0, ref.size - 1)):
            pass
        return wanted
    except NotFound:
        pass
    writer = blobs.writer()
    try:
        async for chunk in source.blobs.open(ref):
            await writer.write(chunk)
        return await writer.finish(lambda stored: claim(references, stored, holder))
    except BaseException:
        await writer.abort()
        raise


def _some(entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
    """As many from the front as go into one append."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if size > ENTRY_BYTES and count:
            return entries[:count]
    return entries


def _named(entries: Sequence[LogEntry]) -> list[MessageKey]:
    """The rows that *entries* add. Raises EntryError for what this version cannot read."""
    keys = []
    for entry in entries:
        try:
            changes = decode_entry(entry.data).changes
        except EntryError as error:
            raise EntryError(f"entry {entry.modseq}: {error}") from error
        for change in changes:
            if isinstance(change, MessagesAdded):
                keys += [MessageKey(message.bucket, MessageId(message.message)) for message in change.messages]
    return keys


# --- afterwards


async def compare(source: Store, target: Store, one: Account, other: Account, advanced: Callable[[int], None]) -> int:
    """Compare *one* (in *source*) with *other* (in *target*), mailbox by mailbox and octet for octet.

    Returns the number of messages. Raises Different; NotFound, Corrupt where octets are missing.
    """
    if one.state.modseq != other.state.modseq:
        raise Different(f"the source stands at {one.state.modseq}, the target at {other.state.modseq}")
    names = [{name: mailbox.id for name, mailbox in each.state.by_name.items()} for each in (one, other)]
    if names[0] != names[1]:
        raise Different("the mailboxes are not the same")
    if one.state.settings != other.state.settings or one.state.subscriptions != other.state.subscriptions:
        raise Different("settings or subscriptions are not the same")
    messages = 0
    for mailbox in one.state.in_order():
        twin = other.state.mailboxes[mailbox.id]
        keys = _same_columns(mailbox, await one.columns(mailbox), twin, await other.columns(twin))
        readings = (one.reading(keys), other.reading(keys))
        for key in keys:
            digests = []
            for reading in readings:
                digest, size = sha256(), 0
                try:
                    async for chunk in reading.octets(key):
                        digest.update(chunk)
                        size += len(chunk)
                except NotFound as error:
                    raise NotFound(f"{mailbox.name}, message {key.id}: {error}") from error
                digests.append((digest.digest(), size))
            if digests[0] != digests[1]:
                raise Different(f"{mailbox.name}, message {key.id}: its octets are not the same")
            messages += 1
            advanced(digests[0][1])
    return messages


def _same_columns(mailbox: Mailbox, mine: Columns, twin: Mailbox, theirs: Columns) -> list[MessageKey]:
    """The keys of a mailbox's messages, once everything that the log says of them is found to be the same."""

    def facts(box: Mailbox, columns: Columns) -> list[Any]:
        # numbers, sets of flags and keys, in a tuple for each message, hence Any
        return [
            (box.uid_validity, box.uid_next, box.special_use, int(box.highest_modseq)),
            *(
                (
                    uid,
                    columns.key(slot),
                    columns.modseqs[slot],
                    columns.sizes[slot],
                    columns.received[slot],
                    sorted(columns.flags_of(slot)),
                )
                for uid, slot in columns.iterate()
            ),
        ]

    if facts(mailbox, mine) != facts(twin, theirs):
        raise Different(f"{mailbox.name}: its messages are not the same")
    return [mine.key(slot) for _, slot in mine.iterate()]
