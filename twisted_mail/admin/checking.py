"""Comparing what an account says of itself with what it is made from: the log, the rows, the blobs, the lists."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from pyroaring import BitMap

from twisted_mail.account.apply import apply
from twisted_mail.account.buckets import buckets_of
from twisted_mail.account.checkpoint import HEAD, changed_chunks, column_chunks, decode_columns, decode_head
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import Entry, EntryError, SettingChanged, decode_entry, encode_entry
from twisted_mail.account.errors import InvalidMailboxName
from twisted_mail.account.lists import MessageLists, read_page
from twisted_mail.account.manifests import refs_of, runs_of
from twisted_mail.account.messages import OCTET_COLUMNS
from twisted_mail.account.state import DAY_SECONDS, AccountState, check_mailbox_name
from twisted_mail.admin.opening import Store
from twisted_mail.mime import MessageParser
from twisted_mail.storage.interfaces import Checkpoint, Corrupt, ListRow, NewEntry, NotFound, Trimmed
from twisted_mail.values import AccountId, BlobRef, EntryId, MessageKey, ModSeq

__all__ = ["AccountCheck", "Finding", "worst"]

_ENTRIES: Final = 4096
_ROWS: Final = 200
_COLUMNS: Final = ("uids", "modseqs", "sizes", "received", "zones", "saved", "sent", "buckets")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    code: str
    severity: Literal["error", "warning"]
    text: str
    repairable: bool = False
    """Whether what is wrong is derived, so that `--repair` makes it anew."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class AccountCheck:
    """One check of one account, as it stands at the moment; run it while nobody changes the account, or run it again."""

    store: Store
    account: AccountId
    deep: bool = False
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def _found(self, code: str, text: str, *, repairable: bool = False, warning: bool = False) -> None:
        self.findings.append(Finding(code, "warning" if warning else "error", text, repairable))

    async def run(self) -> AccountState | None:
        """Look at everything; the state that the log gives when it is replayed, if there is one."""
        # the checkpoint first: the head that is read after it is not below it, whoever writes meanwhile
        kept, head = await self._from_checkpoint()
        self.facts["head"] = int(head)
        whole = await self._from_nothing(head)
        if kept is not None and whole is not None:
            self._compare(kept, whole)
        state = whole or kept
        if state is None:
            self._found("unreadable", "neither the log nor a checkpoint gives a state")
            return None
        self.facts |= {"mailboxes": len(state.mailboxes), "messages": state.messages, "octets": state.size}
        if "INBOX" not in state.by_name:
            self._found("no-inbox", "there is no INBOX", warning=not state.modseq)
        self._sums(state)
        await self._rows(state)
        await self._lists(state)
        return whole

    # --- two ways to the state

    async def _from_nothing(self, head: ModSeq) -> AccountState | None:
        """The state from the log alone; None if its beginning has been trimmed, or it cannot be read."""
        state = AccountState()
        try:
            await self._replay(state, head)
        except Trimmed:
            self.facts["replayed"] = "from the checkpoint: the log's beginning is past its retention"
            return None
        except (EntryError, ValueError, KeyError) as error:
            self._found("log", f"entry {int(state.modseq) + 1} cannot be applied: {error}")
            return None
        self.facts["replayed"] = "whole"
        return state

    async def _from_checkpoint(self) -> tuple[AccountState | None, ModSeq]:
        """The state from the newest checkpoint and what follows it, if there is one, and the head of the log."""
        log = self.store.backend.account_log
        checkpoint = await log.load_checkpoint(self.account, None)
        head = await log.head(self.account)
        self.facts["checkpoint"] = int(checkpoint.modseq) if checkpoint is not None else 0
        return (await self._decoded(checkpoint, head) if checkpoint is not None else None), head

    async def _decoded(self, checkpoint: Checkpoint, head: ModSeq) -> AccountState | None:
        try:
            state, _ = decode_head(checkpoint.chunks[HEAD])
            if state.modseq != checkpoint.modseq:
                self._found("checkpoint", f"the checkpoint of {int(checkpoint.modseq)} says that it is of {int(state.modseq)}",
                            repairable=True)  # fmt: skip
            for mailbox in state.mailboxes.values():
                names = column_chunks(checkpoint.manifest, mailbox.id)
                chunks = {name: checkpoint.chunks[name] for name in names}
                mailbox.columns = decode_columns(mailbox.id, chunks, int(checkpoint.modseq))
            await self._replay(state, head)
            return state
        except Trimmed:
            self._found("trimmed", "the log has been trimmed above the checkpoint")
        except (Corrupt, ValueError, KeyError) as error:
            self._found("checkpoint", f"the checkpoint cannot be used: {error}", repairable=True)
        return None

    async def _replay(self, state: AccountState, head: ModSeq) -> None:
        log = self.store.backend.account_log
        while state.modseq < head:
            entries = await log.read(self.account, state.modseq, _ENTRIES)
            if not entries:
                raise ValueError(f"the log ends before its head {int(head)}")
            for entry in entries:
                if entry.modseq <= head:
                    apply(state, entry.modseq, decode_entry(entry.data))

    def _compare(self, kept: AccountState, whole: AccountState) -> None:
        """A checkpoint with the entries behind it must give what the whole log gives."""

        def differs(what: str, has: object, should: object) -> None:
            self._found("checkpoint-differs", f"{what}: the checkpoint gives {has}, the log {should}", repairable=True)

        for name in ("messages", "size", "uid_validity", "bucket", "bucket_bytes", "settings", "subscriptions"):
            if (has := getattr(kept, name)) != (should := getattr(whole, name)):
                differs(name, has, should)
        if set(kept.mailboxes) != set(whole.mailboxes):
            differs("mailboxes", sorted(m.name for m in kept.mailboxes.values()), sorted(whole.by_name))
        for id in kept.mailboxes.keys() & whole.mailboxes.keys():
            mine, other = kept.mailboxes[id], whole.mailboxes[id]
            for name in ("name", "uid_validity", "uid_next", "messages", "unseen", "deleted", "size",
                         "special_use", "highest_modseq"):  # fmt: skip
                if (has := getattr(mine, name)) != (should := getattr(other, name)):
                    differs(f"{other.name}: {name}", has, should)
            if mine.columns is not None and other.columns is not None:
                difference = _difference(mine.columns, other.columns)
                if difference:
                    differs(f"{other.name}: {difference}", "something else", "this")

    # --- what the state says of itself

    def _sums(self, state: AccountState) -> None:
        messages = size = 0
        validities: dict[int, str] = {}
        for mailbox in state.mailboxes.values():
            columns = mailbox.columns or Columns()
            live = columns.live
            seen, deleted = columns.with_flag("\\Seen"), columns.with_flag("\\Deleted")
            for name, has, should in (
                ("messages", mailbox.messages, len(live)),
                ("unseen", mailbox.unseen, len(live - seen)),
                ("deleted", mailbox.deleted, len(live & deleted)),
                ("size", mailbox.size, sum(columns.sizes[slot] for slot in live)),
            ):
                if has != should:
                    self._found("sum", f"{mailbox.name}: {name} is {has}, and {should} by its messages")
            uids = columns.uids
            if any(low >= high for low, high in zip(uids, uids[1:])):
                self._found("uids", f"{mailbox.name}: UIDs do not ascend")
            if uids and uids[-1] >= mailbox.uid_next:
                self._found("uids", f"{mailbox.name}: UIDNEXT {mailbox.uid_next} is not above UID {uids[-1]}")
            if any(columns.modseqs[slot] > state.modseq for slot in live):
                self._found("modseq", f"{mailbox.name}: a message's mod-sequence is above the account's")
            if mailbox.uid_validity in validities:
                other = validities[mailbox.uid_validity]
                self._found("uidvalidity", f"{mailbox.name} and {other} share UIDVALIDITY {mailbox.uid_validity}")
            if mailbox.uid_validity > state.uid_validity:
                self._found("uidvalidity", f"{mailbox.name}: UIDVALIDITY is above the account's last one")
            validities[mailbox.uid_validity] = mailbox.name
            try:
                check_mailbox_name(mailbox.name)
            except InvalidMailboxName as error:
                self._found("name", f"{mailbox.name!r}: {error}", warning=True)
            messages += mailbox.messages
            size += mailbox.size
        if (state.messages, state.size) != (messages, size):
            self._found("sum", f"the account counts {state.messages} messages of {state.size} octets, its mailboxes "
                               f"{messages} of {size}")  # fmt: skip

    # --- rows and octets

    async def _rows(self, state: AccountState) -> None:
        wanted: dict[MessageKey, tuple[str, int, int]] = {}
        for mailbox in state.mailboxes.values():
            if mailbox.columns is not None:
                for uid, slot in mailbox.columns.iterate():
                    wanted[mailbox.columns.key(slot)] = (mailbox.name, uid, mailbox.columns.sizes[slot])
        keys = sorted(wanted)
        checked = 0
        for start in range(0, len(keys), _ROWS):
            part = keys[start : start + _ROWS]
            at = 0
            async for batch in self.store.accounts.store.rows(self.account, part, (*OCTET_COLUMNS, "envelope")):
                for cells in batch:
                    mailbox_name, uid, size = wanted[part[at]]
                    place = f"{mailbox_name} UID {uid}"
                    if cells is None:
                        self._found("row", f"{place}: the message's row is gone")
                    else:
                        await self._octets(place, size, cells)
                    at += 1
                    checked += 1
        self.facts["rows"] = checked
        unused = 0
        async for some in self.store.backend.messages.iterate(self.account):
            unused += sum(key not in wanted for key in some)
        self.facts["rows_unused"] = unused

    async def _octets(self, place: str, size: int, cells: tuple[bytes, ...]) -> None:
        header, inline, manifest, envelope = cells
        try:
            runs = runs_of(manifest)
        except Corrupt as error:
            self._found("row", f"{place}: {error}")
            return
        if sum(run.length for run in runs) != size:
            self._found("size", f"{place}: {sum(run.length for run in runs)} octets are stored, {size} are recorded")
        for run in runs:
            here = {"header": len(header), "inline": len(inline)}.get(run.place)
            if here is not None and run.start + run.length > here:
                self._found("row", f"{place}: octets of the {run.place} cell are missing")
        if not self.deep:
            for ref in refs_of(manifest):
                # the last octet: a blob that is there and as long as it should be
                await self._blob(place, ref, max(ref.size - 1, 0))
        if self.deep:
            await self._deeply(place, size, (header, inline, manifest), envelope)

    async def _blob(self, place: str, ref: BlobRef, start: int) -> None:
        try:
            got = 0
            async for chunk in self.store.backend.blobs.open(ref, start, ref.size):
                got += len(chunk)
            if got != ref.size - start:
                self._found("blob", f"{place}: the blob {ref.hash} is too short")
        except (NotFound, Corrupt) as error:
            self._found("blob", f"{place}: {error}")

    async def _deeply(self, place: str, size: int, cells: Sequence[bytes], envelope: bytes) -> None:
        """Read all octets, parse them again, compare what the row has rendered; a blob against its own name."""
        parser, got = MessageParser(), 0
        try:
            async for chunk in self.store.accounts.store.assemble(cells):
                parser.feed(chunk)
                got += len(chunk)
            for ref in refs_of(cells[2]):
                digest = hashlib.sha256()
                async for chunk in self.store.backend.blobs.open(ref):
                    digest.update(chunk)
                if digest.hexdigest() != ref.hash:
                    self._found("blob", f"{place}: the blob {ref.hash} has other octets than its name says")
        except (NotFound, Corrupt) as error:
            self._found("blob", f"{place}: {error}")
            return
        if got != size:
            self._found("size", f"{place}: {got} octets come back, {size} are recorded")
        if parser.close().envelope != envelope:
            self._found("rendered", f"{place}: the stored ENVELOPE is not what its octets give", warning=True)

    # --- lists

    async def _lists(self, state: AccountState) -> None:
        """The read and unread lists, where they have been made at all, up to the number they have reached."""
        lists = self.store.backend.lists
        buckets = buckets_of(state)
        reached = await lists.reached(self.account, buckets.marker)
        self.facts["lists_reached"] = int(reached)
        if reached != state.modseq:
            return  # behind, as derived data may be, or ahead of what is checked here
        for mailbox in state.mailboxes.values():
            columns = mailbox.columns or Columns()
            seen = columns.with_flag("\\Seen")
            for name, slots in (("read", columns.live & seen), ("unread", columns.live - seen)):
                rows: list[ListRow] = []
                before: tuple[int, int] | None = None
                while True:
                    page = await read_page(
                        lists, self.account, buckets, "read" if name == "read" else "unread", mailbox.id, before, 1000
                    )
                    rows += page
                    if len(page) < 1000:
                        break
                    before = (page[-1].received, page[-1].uid)
                has = {(row.received, row.uid) for row in rows}
                should = {(columns.received[slot] * 1000, columns.uids[slot]) for slot in slots}
                if has != should:
                    self._found(
                        "list",
                        f"{mailbox.name}: the list of {name} messages has {len(has - should)} lines too many and "
                        f"lacks {len(should - has)}",
                        repairable=True,
                    )

    # --- repair

    async def repair(self, whole: AccountState | None) -> list[str]:
        """Make anew what is derived: the checkpoint from the log, the lists from the account. Says what was done."""
        done: list[str] = []
        codes = {finding.code for finding in self.findings if finding.repairable}
        if codes & {"checkpoint", "checkpoint-differs"}:
            if whole is None:
                return done
            await self._new_checkpoint(whole)
            self.store.accounts.forget(self.account)
            done.append("checkpoint")
        if "list" in codes:
            account = await self.store.accounts.open(self.account)
            try:
                await MessageLists(self.store.backend.lists).rebuild(account)
            finally:
                self.store.accounts.release(account)
            done.append("lists")
        if not codes:
            account = await self.store.accounts.open(self.account)
            try:
                checkpoint = getattr(account, "checkpoint", None)
                if checkpoint is not None:
                    await checkpoint()
                    done.append("checkpoint")
            finally:
                self.store.accounts.release(account)
        return done

    async def _new_checkpoint(self, state: AccountState) -> None:
        """Save *state*, which the whole log gave, as a checkpoint of which every chunk is new.

        A checkpoint must be of a later state than the one that it replaces, so an entry that says when goes first.
        """
        log = self.store.backend.account_log
        now = int(time.time() * 1000)
        entry = Entry(now, "repair", (SettingChanged("repaired", str(now // 1000)),))
        modseq = await log.append(self.account, state.modseq, [NewEntry(EntryId.new(), encode_entry(entry))])
        apply(state, modseq, entry)
        previous = await log.load_checkpoint(self.account, ())
        changed, kept = changed_chunks(
            state, 0, {}, ((int(modseq), now),), now // (DAY_SECONDS * 1000)
        )
        await log.save_checkpoint(
            self.account, previous.modseq if previous is not None else ModSeq(0), modseq, changed, kept
        )


def _difference(mine: Columns, other: Columns) -> str:
    """The name of the first column that differs, over the live messages; empty if none does."""
    slots, others = list(mine.live), list(other.live)
    if len(slots) != len(others):
        return f"{len(others)} messages"
    for name in _COLUMNS:
        a, b = getattr(mine, name), getattr(other, name)
        if [a[slot] for slot in slots] != [b[slot] for slot in others]:
            return name
    if [mine.message_id(slot) for slot in slots] != [other.message_id(slot) for slot in others]:
        return "message ids"
    for flag in {*mine.flags, *other.flags}:
        if mine.uids_of(mine.flags.get(flag, BitMap()) & mine.live) != other.uids_of(
            other.flags.get(flag, BitMap()) & other.live
        ):
            return f"the flag {flag}"
    return ""


def worst(findings: Sequence[Finding]) -> str:
    """``error``, ``warning`` or ``ok``."""
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else "ok"
