"""The messages of one mailbox as columns: arrays by slot, one Roaring bitmap of slots per flag.

A slot is a message's place in the arrays. Slots only grow: an expunged message leaves `live`, but its slot stays
readable until the columns are compacted, which happens when they are loaded again or when nobody views them. So a
view (an IMAP session's message numbers) is no more than a bitmap of slots, and message *n* of it is ``view[n - 1]``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pyroaring import BitMap

from twisted_mail.account.entries import AddedMessage
from twisted_mail.values import MessageId, MessageKey

__all__ = ["JOURNAL_LENGTH", "SEGMENT_UIDS", "SYSTEM_FLAGS", "Columns", "Moved", "canonical_flag"]

SEGMENT_UIDS: Final = 8192
"""A checkpoint chunk holds the messages of this many consecutive UIDs."""
JOURNAL_LENGTH: Final = 1024
VANISHED_LENGTH: Final = 50_000

SYSTEM_FLAGS: Final[dict[str, str]] = {
    flag.lower(): flag for flag in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
}


def canonical_flag(flag: str, known: Collection[str] = ()) -> str:
    """System flags in the RFC's spelling; a keyword as it is spelt in *known* already (they compare without case)."""
    lowered = flag.lower()
    if lowered in SYSTEM_FLAGS:
        return SYSTEM_FLAGS[lowered]
    if flag in known:
        return flag
    for name in known:
        if name.lower() == lowered:
            return name
    return flag


@dataclass(frozen=True, slots=True)
class Moved:
    """What one entry did to some slots of a mailbox."""

    modseq: int
    kind: Literal["added", "flags", "expunged"]
    slots: BitMap


class Columns:
    """Message columns of one mailbox. Changed only by `apply`; everybody else reads."""

    __slots__ = (
        "buckets",
        "flags",
        "generation",
        "ids",
        "journal",
        "journal_floor",
        "left",
        "left_modseqs",
        "live",
        "modseqs",
        "received",
        "saved",
        "segments",
        "sent",
        "sizes",
        "uids",
        "vanished_changed",
        "vanished_floor",
        "vanished_modseqs",
        "vanished_received",
        "vanished_uids",
        "views",
        "zones",
    )

    def __init__(self) -> None:
        self.uids: array[int] = array("I")
        """Ascending."""
        self.modseqs: array[int] = array("Q")
        self.sizes: array[int] = array("Q")
        self.received: array[int] = array("q")
        """INTERNALDATE, seconds since 1970."""
        self.zones: array[int] = array("h")
        """Minutes east of UTC."""
        self.saved: array[int] = array("q")
        """SAVEDATE, seconds since 1970 (RFC 8514)."""
        self.sent: array[int] = array("i")
        """The Date field's calendar date, days since 1970-01-01."""
        self.buckets: array[int] = array("I")
        self.ids = bytearray()
        """16 octets a slot: the MessageId, which is also EMAILID (RFC 8474)."""
        self.flags: dict[str, BitMap] = {}
        self.live = BitMap()
        self.segments: dict[int, int] = {}
        """Segment (UID // SEGMENT_UIDS) -> modseq of its last change."""
        self.vanished_uids: array[int] = array("I")
        self.vanished_modseqs: array[int] = array("Q")
        """Ascending, beside `vanished_uids`: what was expunged when (RFC 7162)."""
        self.vanished_received: array[int] = array("q")
        """Their INTERNALDATEs: with the UID, the key of a line in the derived lists."""
        self.vanished_floor = 0
        """Expunges up to this modseq may have been forgotten."""
        self.vanished_changed = 0
        self.left = bytearray()
        """What was expunged since the checkpoint before: bucket and MessageId, 20 octets each, for who sweeps rows."""
        self.left_modseqs: array[int] = array("Q")
        """Ascending, beside `left`."""
        self.journal: deque[Moved] = deque()
        """The newest changes, so that a view need not look at every slot."""
        self.journal_floor = 0
        """Changes up to this modseq are not in the journal any more."""
        self.views = 0
        """How many views hold slots of this; compaction waits for none."""
        self.generation = 0
        """Counts compactions: slots of different generations are not comparable."""

    def __len__(self) -> int:
        """Slots, the dead ones included."""
        return len(self.uids)

    # --- reading

    def slot_of(self, uid: int) -> int | None:
        """The slot of *uid* if that message is live."""
        slot = bisect_left(self.uids, uid)
        if slot < len(self.uids) and self.uids[slot] == uid and slot in self.live:
            return slot
        return None

    def slots_between(self, low: int, high: int) -> range:
        """The slots (live or not) of UIDs ``low..high``, both included."""
        return range(bisect_left(self.uids, low), bisect_right(self.uids, high))

    def slots_of(self, uids: BitMap, within: BitMap | None = None) -> BitMap:
        """The slots of *uids*, of those in *within* (default: the live ones)."""
        within = self.live if within is None else within
        if not uids or not self.uids:
            return BitMap()
        if len(uids) * 16 < len(self.uids):
            found = BitMap()
            for uid in uids:
                slot = bisect_left(self.uids, uid)
                if slot < len(self.uids) and self.uids[slot] == uid:
                    found.add(slot)
            return found & within
        column = self.uids
        return BitMap([slot for slot in within if column[slot] in uids])

    def uids_of(self, slots: BitMap) -> BitMap:
        """The UIDs of *slots*."""
        column = self.uids
        if len(slots) == len(column):
            return BitMap(column)
        return BitMap([column[slot] for slot in slots])

    def key(self, slot: int) -> MessageKey:
        """Where the message's row lies."""
        return MessageKey(self.buckets[slot], MessageId(bytes(self.ids[slot * 16 : slot * 16 + 16])))

    def message_id(self, slot: int) -> bytes:
        """The 16 octets of the MessageId."""
        return bytes(self.ids[slot * 16 : slot * 16 + 16])

    def flags_of(self, slot: int) -> list[str]:
        """The flags of one message, system flags first in the order of `SYSTEM_FLAGS`."""
        flags = self.flags
        out = [name for name in SYSTEM_FLAGS.values() if name in flags and slot in flags[name]]
        out += [name for name in flags if not name.startswith("\\") and slot in flags[name]]
        return out

    def with_flag(self, flag: str) -> BitMap:
        """The slots (live or not) that have *flag*, compared without case."""
        name = canonical_flag(flag, self.flags)
        return self.flags.get(name) or BitMap()

    def keywords(self) -> list[str]:
        """The keywords that were ever used here, in the order of first use."""
        return [name for name in self.flags if not name.startswith("\\")]

    def packed_keys(self, slots: Iterable[int]) -> bytes:
        """Bucket and MessageId of *slots*, 20 octets each."""
        ids, buckets = self.ids, self.buckets
        return b"".join([buckets[slot].to_bytes(4, "big") + ids[slot * 16 : slot * 16 + 16] for slot in slots])

    def left_since(self, modseq: int) -> bytes:
        """Bucket and MessageId, 20 octets each, of what was expunged after *modseq*, a checkpoint's."""
        return bytes(self.left[bisect_right(self.left_modseqs, modseq) * 20 :])

    def changed_since(self, modseq: int) -> BitMap:
        """The live slots whose modseq is above *modseq*."""
        if modseq >= self.journal_floor:
            found = BitMap()
            for moved in reversed(self.journal):
                if moved.modseq <= modseq:
                    break
                if moved.kind != "expunged":
                    found |= moved.slots
            return found & self.live
        column = self.modseqs
        return BitMap([slot for slot in self.live if column[slot] > modseq])

    def moves_since(self, modseq: int) -> list[Moved] | None:
        """What happened after *modseq*, oldest first; None if the journal does not reach back that far."""
        if modseq < self.journal_floor:
            return None
        found: list[Moved] = []
        for moved in reversed(self.journal):
            if moved.modseq <= modseq:
                break
            found.append(moved)
        found.reverse()
        return found

    def vanished_since(self, modseq: int) -> BitMap | None:
        """The UIDs that were expunged after *modseq*; None if that has been forgotten (RFC 7162 section 3.2.10)."""
        if modseq < self.vanished_floor:
            return None
        return BitMap(self.vanished_uids[bisect_right(self.vanished_modseqs, modseq) :])

    # --- changing: for `apply` and the checkpoint's decoder only

    def _note(self, moved: Moved) -> None:
        self.journal.append(moved)
        if len(self.journal) > JOURNAL_LENGTH:
            self.journal_floor = self.journal.popleft().modseq

    def _touch(self, slots: Iterable[int], modseq: int) -> None:
        for slot in slots:
            self.segments[self.uids[slot] // SEGMENT_UIDS] = modseq

    def add(self, first_uid: int, messages: tuple[AddedMessage, ...], modseq: int, saved: int) -> None:
        """Append *messages* with UIDs from *first_uid* on."""
        start = len(self.uids)
        for uid, message in enumerate(messages, first_uid):
            slot = len(self.uids)
            self.uids.append(uid)
            self.modseqs.append(modseq)
            self.sizes.append(message.size)
            self.received.append(message.received)
            self.zones.append(message.zone)
            self.saved.append(saved)
            self.sent.append(message.sent_days)
            self.buckets.append(message.bucket)
            self.ids += message.message
            for flag in message.flags:
                self.flags.setdefault(canonical_flag(flag, self.flags), BitMap()).add(slot)
        slots = BitMap(range(start, len(self.uids)))
        self.live |= slots
        for segment in range(first_uid // SEGMENT_UIDS, (first_uid + len(messages) - 1) // SEGMENT_UIDS + 1):
            self.segments[segment] = modseq
        self._note(Moved(modseq, "added", slots))

    def change_flag(self, flag: str, set_uids: BitMap, cleared_uids: BitMap, modseq: int) -> None:
        """Set and clear one flag by UID."""
        to_set, to_clear = self.slots_of(set_uids), self.slots_of(cleared_uids)
        flag = canonical_flag(flag, self.flags)
        bitmap = self.flags.setdefault(flag, BitMap())
        bitmap |= to_set
        bitmap -= to_clear
        self.flags[flag] = bitmap
        slots = to_set | to_clear
        for slot in slots:
            self.modseqs[slot] = modseq
        self._touch(slots, modseq)
        last = self.journal[-1] if self.journal else None
        if last is not None and last.modseq == modseq and last.kind == "flags":
            self.journal[-1] = Moved(modseq, "flags", last.slots | slots)
        else:
            self._note(Moved(modseq, "flags", slots))

    def expunge(self, uids: BitMap, modseq: int) -> BitMap:
        """Take *uids* out of `live`; returns their slots, which stay readable."""
        slots = self.slots_of(uids)
        self.live -= slots
        for slot in slots:
            self.modseqs[slot] = modseq
        self._touch(slots, modseq)
        self.vanished_uids.extend(self.uids[slot] for slot in slots)
        self.vanished_modseqs.extend([modseq] * len(slots))
        self.vanished_received.extend(self.received[slot] for slot in slots)
        self.vanished_changed = modseq
        self.left += self.packed_keys(slots)
        self.left_modseqs.extend([modseq] * len(slots))
        self._forget_vanished()
        self._note(Moved(modseq, "expunged", slots))
        return slots

    def _forget_vanished(self) -> None:
        excess = len(self.vanished_uids) - VANISHED_LENGTH
        if excess > VANISHED_LENGTH // 10:
            self.vanished_floor = self.vanished_modseqs[excess - 1]
            excess = bisect_right(self.vanished_modseqs, self.vanished_floor)
            del self.vanished_uids[:excess], self.vanished_modseqs[:excess], self.vanished_received[:excess]

    def forget_left(self, modseq: int) -> None:
        """A checkpoint of *modseq* has what was expunged up to it."""
        known = bisect_right(self.left_modseqs, modseq)
        del self.left_modseqs[:known], self.left[: known * 20]

    def compact(self) -> bool:
        """Drop dead slots, when nobody views them and they are many. Starts a new generation."""
        dead = len(self.uids) - len(self.live)
        if self.views or dead < 1024 or dead * 2 < len(self.uids):
            return False
        kept = list(self.live)
        renumber = {old: new for new, old in enumerate(kept)}
        for name in ("uids", "modseqs", "sizes", "received", "zones", "saved", "sent", "buckets"):
            column: array[int] = getattr(self, name)
            setattr(self, name, array(column.typecode, [column[slot] for slot in kept]))
        self.ids = bytearray(b"".join(self.ids[slot * 16 : slot * 16 + 16] for slot in kept))
        for flag, slots in self.flags.items():
            self.flags[flag] = BitMap([renumber[slot] for slot in slots & self.live])
        self.live = BitMap(range(len(kept)))
        self.journal_floor = max(self.journal_floor, self.journal[-1].modseq if self.journal else 0)
        self.journal.clear()
        self.generation += 1
        return True

    def iterate(self) -> Iterator[tuple[int, int]]:
        """(UID, slot) of every live message, ascending."""
        column = self.uids
        for slot in self.live:
            yield column[slot], slot
