"""The audit: compares what there is in the stores with what names it, in bounded memory; finds what crashes have left.

Sweeping costs in proportion to what was deleted, and trusts its list. This looks at everything: each row of each account
is named by the account's log (or is young), and lies in blobs that are there and that it holds; each reference has its
row; each object has a holder. What is garbage is, if wanted, given to the sweeper: rows go, references go, objects are
listed as lost. What is missing is only told. A message that comes in meanwhile is young, and passed over.

While accounts are copied into the store nothing may be repaired: their rows come before the log that names them, and are
old. So whoever repairs holds the lease that whoever copies holds, and `still` asks for it before each write.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from twisted_mail.account.apply import apply
from twisted_mail.account.checkpoint import HEAD, decode_graves, decode_head, grave_chunks
from twisted_mail.account.entries import decode_entry
from twisted_mail.account.graves import Moved, Pause, named_by
from twisted_mail.account.manifests import refs_of
from twisted_mail.account.messages import MessageStore
from twisted_mail.account.references import holding_message, message_holder
from twisted_mail.account.state import AccountState
from twisted_mail.account.sweeping import is_mark
from twisted_mail.storage.interfaces import AccountLog, Blobs, Corrupt, Messages, NotFound, References, Trimmed
from twisted_mail.values import AccountId, BlobRef, MessageKey, ModSeq

__all__ = ["Audit", "AuditReport", "OtherHolders", "PackedIds"]

YOUNG_SECONDS: Final = 2 * 86_400.0
"""Rows and references younger than this may be on their way."""
EXAMPLES: Final = 100
AUDITOR: Final = "audit"
"""In whose name objects are listed as lost that nobody holds."""
_SEALED: Final = 1 << 18
_REMEMBERED: Final = 10_000
_HOLDERS: Final = 1000
"""Holders of one object that are looked at for one; beyond, a reference is taken to be there."""
_ENTRIES: Final = 4096
_CLOCKS: Final = 600.0
"""Seconds that clocks may disagree."""

Progress = Callable[["AuditReport"], None]


@dataclass(slots=True)
class AuditReport:
    """What was looked at, and what was found."""

    accounts: int = 0
    rows: int = 0
    references: int = 0
    objects: int = 0
    unread_accounts: int = 0
    """Accounts whose log could not be read, or moved on all the time: nothing of theirs was judged."""
    stray_rows: int = 0
    """Rows that nothing names. Removed by a repair."""
    missing_references: int = 0
    """Blobs of a row that the row does not hold. Added by a repair."""
    missing_blobs: int = 0
    """Blobs of a row that are not there, or are damaged: a part of a message is lost."""
    damaged_rows: int = 0
    stray_references: int = 0
    """Held by rows that do not exist. Removed by a repair."""
    stray_objects: int = 0
    """Held by nobody. Listed for the sweeper by a repair."""
    items: int = 0
    """Items of the queue."""
    unproven: int = 0
    """Held for items that do not exist, or bodies of such; perhaps for an item that is about to be. A repair remembers them,
    and one that comes an hour later takes them for garbage."""
    stray_holders: int = 0
    """Items that do not exist and hold an object. Removed by a repair."""
    stray_bodies: int = 0
    """In the queue's own store, of items that do not exist. Removed by a repair."""
    repaired: bool = False
    examples: list[str] = field(default_factory=list)
    """Some of what was found, in words for operators."""

    @property
    def garbage(self) -> int:
        held = self.stray_references + self.stray_holders + self.stray_bodies
        return self.stray_rows + self.stray_objects + held

    @property
    def damage(self) -> int:
        return self.missing_references + self.missing_blobs + self.damaged_rows

    def note(self, text: str) -> None:
        """Remember an example."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)


Drop = Callable[[BlobRef, str], Awaitable[None]]
"""Takes a reference away."""


class OtherHolders(Protocol):
    """Judges those who hold objects and are no message rows, for the audit that comes upon them."""

    async def begin(self, report: AuditReport) -> None:
        """References are about to be looked at."""

    async def look(self, ref: BlobRef, holder: str) -> None:
        """*holder* is no message row."""

    async def finish(self, drop: Drop) -> None:
        """All references have been looked at, and no object yet."""


class PackedIds:
    """A set of ids in 8 octets each: their last 64 bits, which are random. Two ids share them as good as never;
    then something is taken to be named, and stays."""

    def __init__(self) -> None:
        self._sealed: list[array[int]] = []
        self._open: array[int] = array("Q")

    def __len__(self) -> int:
        return len(self._open) + sum(map(len, self._sealed))

    def add(self, ids: Iterable[bytes]) -> None:
        """Put ids of 16 octets in."""
        both: array[int] = array("Q")
        both.frombytes(b"".join(ids))
        self._open.extend(both[1::2])
        if len(self._open) >= _SEALED:
            self._seal()

    def _seal(self) -> None:
        self._sealed.append(array("Q", sorted(self._open)))
        self._open = array("Q")

    def __contains__(self, id: bytes) -> bool:
        if self._open:
            self._seal()
        number = array("Q", id)[1]
        for ids in self._sealed:
            at = bisect_left(ids, number)
            if at < len(ids) and ids[at] == number:
                return True
        return False


class Audit:
    """One audit of a whole store. *accounts* of `run` are all that the directory knows."""

    def __init__(
        self,
        *,
        log: AccountLog,
        messages: Messages,
        blobs: Blobs,
        references: References,
        wall: Callable[[], float],
        pause: Pause,
        repair: bool = False,
        ids_in_memory: int = 4_000_000,
        progress: Progress | None = None,
        others: OtherHolders | None = None,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        # pause lets others at the processor; ids_in_memory: 8 octets each, of the rows of accounts that are compared
        # with the references in one go through these; still raises where nothing may be repaired any more
        self._log = log
        self._messages = messages
        self._blobs = blobs
        self._references = references
        self._store = MessageStore(messages, blobs, references)
        self._wall = wall
        self._pause = pause
        self._repair = repair
        self._ids_in_memory = ids_in_memory
        self._progress = progress
        self._others = others
        self._still = still
        self._sound: OrderedDict[BlobRef, None] = OrderedDict()
        self.report = AuditReport(repaired=repair)

    async def run(
        self, accounts: AsyncIterator[AccountId], known: Callable[[AccountId], Awaitable[bool]]
    ) -> AuditReport:
        """Look at everything. *known* asks the directory whether it has an account. Raises StorageError."""
        if self._others is not None:
            await self._others.begin(self.report)
        slice: dict[AccountId, PackedIds | None] = {}
        octets, first = 0, True
        async for account in accounts:
            slice[account] = ids = await self._account(account)
            self.report.accounts += 1
            octets += 64 + (len(ids) if ids is not None else 0)
            if octets >= self._ids_in_memory:
                await self._references_of(slice, known if first else None)
                slice, octets, first = {}, 0, False
        await self._references_of(slice, known if first else None)
        if self._others is not None:
            await self._others.finish(self._drop)
        await self._objects()
        return self.report

    def _step(self) -> None:
        if self._progress is not None:
            self._progress(self.report)

    def _old(self, id: bytes) -> bool:
        return int.from_bytes(id[:6], "big") / 1000 < self._wall() - YOUNG_SECONDS

    # --- rows

    async def _account(self, account: AccountId) -> PackedIds | None:
        """Look at the rows of *account*; their ids, or None if the account could not be judged."""
        rows = PackedIds()
        named: PackedIds | None = None
        async for keys in self._messages.iterate(account):
            if named is None and (named := await self._named(account)) is None:
                return None
            rows.add(key.id.octets for key in keys)
            await self._rows(account, keys, named)
            self._step()
        return rows

    async def _named(self, account: AccountId) -> PackedIds | None:
        """The messages that the account's log names, in mailboxes or in graves."""
        for _ in range(5):
            try:
                return await self._named_once(account)
            except (Moved, Trimmed):
                continue
            except (Corrupt, KeyError, ValueError) as error:
                self.report.note(f"account {account}: its log cannot be read: {error}")
                break
        self.report.unread_accounts += 1
        return None

    async def _named_once(self, account: AccountId) -> PackedIds:
        checkpoint = await self._log.load_checkpoint(account, (HEAD,))
        state, base = AccountState(), ModSeq(0)
        manifest: dict[str, ModSeq] = {}
        if checkpoint is not None:
            state, _ = decode_head(checkpoint.chunks[HEAD])
            base, manifest = checkpoint.modseq, dict(checkpoint.manifest)
        while entries := await self._log.read(account, state.modseq, _ENTRIES):
            for entry in entries:
                apply(state, entry.modseq, decode_entry(entry.data))
        named = PackedIds()
        for name in grave_chunks(manifest):
            again = await self._log.load_checkpoint(account, (name,))
            if again is None or again.modseq != base:
                raise Moved
            named.add(key.id.octets for key in decode_graves(again.chunks[name]))
        async for ids in named_by(self._log, account, state, base, manifest, self._pause):
            named.add(ids)
        return named

    async def _rows(self, account: AccountId, keys: Sequence[MessageKey], named: PackedIds) -> None:
        report = self.report
        stray: list[MessageKey] = []
        at = 0
        async for batch in self._messages.get_many(account, keys, ("manifest",)):
            for cells in batch:
                key = keys[at]
                at += 1
                report.rows += 1
                if cells is None:
                    continue  # gone meanwhile
                if key.id.octets not in named:
                    if self._old(key.id.octets):
                        stray.append(key)
                        report.note(f"account {account}: row {key.id} is named by nothing")
                    continue
                try:
                    refs = refs_of(cells[0])
                except Corrupt as error:
                    report.damaged_rows += 1
                    report.note(f"account {account}: row {key.id}: {error}")
                    continue
                for ref in refs:
                    await self._blob(account, key, ref)
        report.stray_rows += len(stray)
        if stray and self._repair:
            self._still()
            await self._store.remove(account, stray)

    async def _blob(self, account: AccountId, key: MessageKey, ref: BlobRef) -> None:
        report, holder = self.report, message_holder(account, key.id)
        holders = await self._references.holders(ref, _HOLDERS)
        if holder not in holders and len(holders) < _HOLDERS:
            report.missing_references += 1
            report.note(f"account {account}: row {key.id} does not hold {ref.hash}")
            if self._repair:
                self._still()
                await self._references.add(ref, holder)
        if ref in self._sound:
            return
        try:
            async for _ in self._blobs.open(ref, max(ref.size - 1, 0), ref.size):
                pass
        except (NotFound, Corrupt) as error:
            report.missing_blobs += 1
            report.note(f"account {account}: row {key.id}: {error}")
            return
        self._sound[ref] = None
        if len(self._sound) > _REMEMBERED:
            self._sound.popitem(last=False)

    # --- references

    async def _references_of(
        self, rows: dict[AccountId, PackedIds | None], known: Callable[[AccountId], Awaitable[bool]] | None
    ) -> None:
        """Look at the references that rows of these accounts hold, and, with *known*, at those of nobody's rows."""
        gone: OrderedDict[AccountId, bool] = OrderedDict()
        count = 0
        async for ref, holder in self._references.iterate():
            count += 1
            if count % 1000 == 0:
                self._step()
                await self._pause()
            held_by = holding_message(holder)
            if held_by is None:
                if known is not None and is_mark(holder) and int(holder[2:]) < self._wall() - YOUNG_SECONDS:
                    await self._drop(ref, holder)  # left by a sweeper that another one has overtaken
                elif known is not None and self._others is not None:
                    await self._others.look(ref, holder)
                continue
            account, message = held_by
            if not self._old(message.octets):
                continue
            if account in rows:
                ids = rows[account]
                if ids is None or message.octets in ids:
                    continue
            elif known is None:
                continue
            else:
                if account not in gone:
                    gone[account] = not await known(account) and await self._log.head(account) == 0
                    if gone[account] and self._repair:
                        self._still()
                        async for removed in self._store.erase(account):
                            self.report.stray_rows += removed
                    if len(gone) > _REMEMBERED:
                        gone.popitem(last=False)
                if not gone[account]:
                    continue
            self.report.stray_references += 1
            self.report.note(f"{holder} holds {ref.hash} and does not exist")
            await self._drop(ref, holder)
        self.report.references = count

    async def _drop(self, ref: BlobRef, holder: str) -> None:
        """Take a reference away, and its object off the list of what is lost: the size, which some stores want for
        deleting, is not known here. If nobody holds the object, `_objects` lists it with its size."""
        if self._repair:
            self._still()
            await self._references.remove([ref], holder)
            await self._references.settled(ref, self._wall() + _CLOCKS)

    # --- objects

    async def _objects(self) -> None:
        """Look at every object: somebody holds it, or it is listed (again) for the sweeper."""
        report = self.report
        async for ref in self._blobs.iterate():
            report.objects += 1
            holders = await self._references.holders(ref, 16)
            if not any(not is_mark(holder) for holder in holders):
                report.stray_objects += 1
                report.note(f"the object {ref.hash}, generation {ref.generation}, is held by nobody")
                if self._repair:
                    self._still()
                    await self._references.remove([ref], AUDITOR)
            if report.objects % 100 == 0:
                self._step()
                await self._pause()
        self._step()
