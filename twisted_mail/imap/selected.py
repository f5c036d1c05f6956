"""The view of a selected mailbox: which messages this session has been told of, and what it has not been told yet.

The view is a bitmap of slots (see `account.columns`): message *n* is ``present[n - 1]``. The columns belong to the node
and change under every view between awaits; what changed is told at the times that the RFC allows (RFC 9051 section 7.4.1,
7.5.1): EXPUNGE never during FETCH, STORE and SEARCH. Until then an expunged message keeps its number and can be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pyroaring import BitMap

from twisted_mail.account.columns import SYSTEM_FLAGS, Columns
from twisted_mail.account.state import Mailbox
from twisted_mail.imap import codes, replies
from twisted_mail.imap.enabled import Enabled
from twisted_mail.imap.recent import Recents
from twisted_mail.imap.sequence import NumberSet, Range, SavedResult, SequenceSet
from twisted_mail.imap.syntax import BadSyntax
from twisted_mail.services import Account

__all__ = ["RECENT", "Selected", "batches"]

RECENT = "\\Recent"
FEW_RANGES = 64
"""So many ranges of a set are looked up one by one; of more a bitmap is made first."""

Write = Callable[[bytes], None]


def batches(slots: BitMap, size: int) -> Iterator[BitMap]:
    """*slots* in ascending pieces of *size*: what is answered between two looks at who else waits."""
    if len(slots) <= size:
        if slots:
            yield slots
        return
    listed = slots.to_array()
    for start in range(0, len(listed), size):
        yield BitMap(listed[start : start + size])


class Selected:
    """One session's view of one mailbox."""

    __slots__ = (
        "_flags_seen",
        "_held",
        "_own",
        "_recents",
        "_texts",
        "account",
        "columns",
        "end",
        "gone",
        "mailbox",
        "modseq",
        "present",
        "readonly",
        "recent",
        "saved",
        "told_keywords",
    )

    def __init__(
        self, account: Account, mailbox: Mailbox, columns: Columns, recents: Recents, *, readonly: bool, rev2: bool
    ) -> None:
        self.account = account
        self.mailbox = mailbox
        self.columns = columns
        self.readonly = readonly
        self.present = columns.live.copy()
        """Slots of the messages that have numbers in this session."""
        self.end = len(columns)
        """Slots from here on are news."""
        self.modseq = int(account.state.modseq)
        """Changes up to here have been told."""
        self.saved = BitMap()
        """``$``: slots that the last SEARCH RETURN (SAVE) found (RFC 5182)."""
        self.told_keywords = len(columns.keywords())
        self._flags_seen = len(columns.flags)
        self.gone = False
        """The mailbox has been deleted."""
        self._recents = None if rev2 else recents
        self._held = False  # expunged messages wait for a time when they may be told
        self._own: dict[int, BitMap] = {}
        self._texts: dict[int, str] = {}
        self.recent = BitMap()
        self._see_recent(0)
        columns.views += 1

    def close(self) -> None:
        """The session has left the mailbox."""
        self.columns.views -= 1

    def _see_recent(self, after: int) -> None:
        if self._recents is not None:
            key = (self.account.id, self.mailbox.id)
            see = self._recents.look if self.readonly else self._recents.claim
            self.recent |= see(key, self.columns, after)

    # --- numbers and slots

    def __len__(self) -> int:
        """EXISTS."""
        return len(self.present)

    def resolve(self, numbers: NumberSet, *, uid: bool, strict: bool = True) -> BitMap:
        """The slots that a set of message numbers or UIDs stands for; UIDs that are not there are passed over.

        Raises BadSyntax for a message number above EXISTS, if *strict* (RFC 9051 section 9, seq-number).
        """
        if isinstance(numbers, SavedResult):
            return self.saved & self.present
        if uid:
            return self.slots_of_uids(numbers)
        count = len(self.present)
        if strict and numbers.ranges and numbers.ranges[-1][1] > count:
            raise BadSyntax("there is no message of that number")
        ranges = numbers.within(count)
        if not ranges:
            return BitMap()
        present = self.present
        if ranges == ((1, count),):
            return present.copy()
        if len(ranges) > FEW_RANGES:
            wanted = BitMap()
            for low, high in ranges:
                wanted.add_range(low, high + 1)
            return BitMap([slot for number, slot in enumerate(present, 1) if number in wanted])
        found = BitMap()
        for low, high in ranges:
            if low == high:
                found.add(present[low - 1])
            else:
                found.add_range(present[low - 1], present[high - 1] + 1)
        return found & present

    def slots_of_uids(self, uids: SequenceSet) -> BitMap:
        """The slots in the view of the UIDs in *uids*; ``*`` is the highest UID in the view."""
        if not self.present:
            return BitMap()
        columns, last = self.columns, self.columns.uids[self.present.max()]
        ranges = uids.within(last)
        if len(ranges) > FEW_RANGES:
            wanted = BitMap()
            for low, high in ranges:
                wanted.add_range(low, high + 1)
            return columns.slots_of(wanted, self.present)
        found = BitMap()
        for low, high in ranges:
            slots = columns.slots_between(low, high)
            if slots:
                found.add_range(slots.start, slots.stop)
        return found & self.present

    def numbers_of(self, slots: BitMap) -> Sequence[int]:
        """The message numbers of *slots* of the view, ascending."""
        if not slots:
            return ()
        rank = self.present.rank
        low, high = rank(slots.min()), rank(slots.max())
        if high - low + 1 == len(slots):
            return range(low, high + 1)
        if len(slots) * 4 > high - low:
            # Half of a long stretch: one walk over it costs less than a look-up for each.
            stretch = BitMap(range(slots.min(), slots.max() + 1)) & self.present
            return [number for number, slot in enumerate(stretch, low) if slot in slots]
        return [rank(slot) for slot in slots]

    def names_of(self, slots: BitMap, *, uid: bool) -> Sequence[int]:
        """The UIDs or the message numbers of *slots*, ascending."""
        if not uid:
            return self.numbers_of(slots)
        column = self.columns.uids
        return [column[slot] for slot in slots]

    def dead(self, slots: BitMap) -> BitMap:
        """Those of *slots* that have been expunged, though the session may not know it yet."""
        return slots - self.columns.live

    # --- flags

    def flag_texts(self, slots: BitMap) -> list[str]:
        """The flags of each of *slots* as they stand in parentheses, ascending.

        Each combination of flags is printed once and kept; a message costs a few list operations.
        """
        count = len(slots)
        if not count:
            return []
        first = slots.min()
        span = slots.max() - first + 1
        everywhere = 0
        dense = span <= 4 * count + 64
        combinations: list[int] | dict[int, int]
        combinations = [0] * span if dense else dict.fromkeys([slot - first for slot in slots], 0)
        for bit, bitmap in enumerate((self.recent, *self.columns.flags.values())):
            chosen = bitmap & slots
            if not chosen:
                continue
            mask = 1 << bit
            if len(chosen) == count:
                everywhere |= mask
                continue
            for slot in chosen:
                combinations[slot - first] |= mask
        values = combinations if isinstance(combinations, list) else combinations.values()
        texts = {value: self._text(value | everywhere) for value in set(values)}
        if span == count or not dense:
            return [texts[value] for value in values]
        return [texts[combinations[slot - first]] for slot in slots]

    def _text(self, combination: int) -> str:
        text = self._texts.get(combination)
        if text is None:
            names = [name for bit, name in enumerate((RECENT, *self.columns.flags)) if combination >> bit & 1]
            system = [name for name in SYSTEM_FLAGS.values() if name in names]
            rest = [name for name in names if name not in SYSTEM_FLAGS.values()]
            if len(self._texts) > 10_000:
                self._texts.clear()
            text = self._texts[combination] = " ".join(system + rest)
        return text

    def flag_names(self) -> list[str]:
        """What FLAGS says: system flags and the keywords that were used here (RFC 9051 section 7.3.5)."""
        return [*SYSTEM_FLAGS.values(), *self.columns.keywords()]

    def permanent_flags(self) -> codes.Code:
        """PERMANENTFLAGS: all, and new keywords; none in a mailbox that is read-only."""
        return codes.permanent_flags([] if self.readonly else [*self.flag_names(), "\\*"])

    def tell_flag_names(self, write: Write) -> None:
        """FLAGS and PERMANENTFLAGS again, if there are new keywords: before they are used in a FETCH response."""
        if self._flags_seen == len(self.columns.flags):
            return
        self._flags_seen = len(self.columns.flags)
        keywords = len(self.columns.keywords())
        if self.told_keywords != keywords:
            self.told_keywords = keywords
            write(replies.flags(self.flag_names()))
            write(replies.ok("Flags permitted", self.permanent_flags()).untagged())

    def fetch_flags(self, slots: BitMap, *, uid: bool, modseq: bool, flags: bool = True) -> bytes:
        """FETCH responses with the flags (and what else is asked for) of *slots*, as they are now."""
        columns = self.columns
        lines: list[str] = []
        for number, slot, text in zip(self.numbers_of(slots), slots, self.flag_texts(slots), strict=True):
            items = []
            if uid:
                items.append(f"UID {columns.uids[slot]}")
            if flags:
                items.append(f"FLAGS ({text})")
            if modseq:
                items.append(f"MODSEQ ({columns.modseqs[slot]})")
            lines.append(f"* {number} FETCH ({' '.join(items)})\r\n")
        return "".join(lines).encode("ascii")

    # --- what is new

    def own_change(self, modseq: int, slots: BitMap) -> None:
        """The client has been told of what change *modseq* did to *slots*, or does not want to be."""
        if modseq > self.modseq:
            self._own[modseq] = slots

    @property
    def news(self) -> bool:
        """Whether `announce` might have anything to say."""
        state = self.account.state
        found = state.mailboxes.get(self.mailbox.id)
        return self._held or found is None or found is not self.mailbox or found.highest_modseq > self.modseq

    @property
    def superseded(self) -> bool:
        """The node has read the account anew, so that the slots of this view are not those of the mailbox any more."""
        found = self.account.state.mailboxes.get(self.mailbox.id)
        return found is not None and (found is not self.mailbox or found.columns is not self.columns)

    def announce(self, write: Write, enabled: Enabled, *, expunges: bool) -> None:
        """Tell what has changed since the last time; of messages that are gone only if *expunges*."""
        state = self.account.state
        if self.mailbox.id not in state.mailboxes:
            self.gone = True
            return
        if self.superseded:
            return
        columns = self.columns
        quiet = self.mailbox.highest_modseq <= self.modseq
        if self._held or not quiet:
            dead = self.present - columns.live
            self._held = bool(dead) and not expunges
            if expunges:
                self._tell_expunged(write, enabled, dead)
        if quiet:
            self.modseq = int(state.modseq)
            self._own.clear()
            return
        self.tell_flag_names(write)
        changed = self._changed() & self.present & columns.live
        if len(columns) > self.end:
            added = columns.live & BitMap(range(self.end, len(columns)))
            start, self.end = self.end, len(columns)
            if added:
                self.present |= added
                write(replies.exists(len(self.present)))
                if self._recents is not None:
                    self._see_recent(start)
                    write(replies.recent(len(self.recent)))
        if changed:
            write(self.fetch_flags(changed, uid=enabled.uids, modseq=enabled.condstore))
        self.modseq = int(state.modseq)
        self._own.clear()

    def _changed(self) -> BitMap:
        """Slots of which flags changed since `modseq`, without what the client knows."""
        columns = self.columns
        moves = columns.moves_since(self.modseq)
        if moves is None:
            # What the client did itself is told again, since others may have changed the same messages before.
            modseqs, known = columns.modseqs, self.modseq
            return BitMap([slot for slot in self.present if modseqs[slot] > known])
        found = BitMap()
        for moved in moves:
            if moved.kind == "flags":
                own = self._own.get(moved.modseq)
                found |= moved.slots if own is None else moved.slots - own
        return found

    def _tell_expunged(self, write: Write, enabled: Enabled, slots: BitMap) -> None:
        if not slots:
            return
        if enabled.qresync:
            write(replies.vanished(SequenceSet.of(self.columns.uids_of(slots)).ranges))
        else:
            write(b"".join([replies.expunge(number - gone) for gone, number in enumerate(self.numbers_of(slots))]))
        self.present -= slots
        self.recent &= self.present
        self.saved &= self.present

    async def rebase(self, write: Write, enabled: Enabled) -> None:
        """Take up the mailbox as it was read anew: what is not there any more is told as expunged."""
        state = self.account.state
        mailbox = state.mailboxes.get(self.mailbox.id)
        if mailbox is None:
            self.gone = True
            return
        new = await self.account.columns(mailbox)
        old = self.columns
        alive = new.slots_of(old.uids_of(self.present))
        kept = new.uids_of(alive)
        self._tell_expunged(write, enabled, BitMap([slot for slot in self.present if old.uids[slot] not in kept]))
        recent, saved = old.uids_of(self.recent), old.uids_of(self.saved)
        highest = old.uids[-1] if len(old) else 0
        old.views -= 1
        new.views += 1
        self.mailbox, self.columns = mailbox, new
        self.present = alive
        self.recent, self.saved = new.slots_of(recent), new.slots_of(saved)
        self.end = len(new.slots_between(1, highest)) if highest else 0
        self._texts.clear()
        self._flags_seen = -1

    def vanished(self, modseq: int, among: Sequence[Range]) -> tuple[Range, ...]:
        """Of the UIDs in *among* those that left the mailbox after *modseq*, perhaps with some that left before
        (RFC 7162 section 3.2.10: when it has been forgotten, all that are not there)."""
        columns = self.columns
        wanted = BitMap()
        for low, high in among:
            high = min(high, self.mailbox.uid_next - 1)
            if low <= high:
                wanted.add_range(low, high + 1)
        found = columns.vanished_since(modseq)
        gone = wanted & found if found is not None else wanted - columns.uids_of(self.present)
        return SequenceSet.of(gone).ranges
