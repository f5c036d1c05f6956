"""SEARCH keys that the columns decide, as sets of slots; and what they leave open (RFC 9051 section 6.4.4).

A key tree becomes two sets: the messages that certainly match, and those that may. Keys over text decide nothing here;
so what lies between the two sets, and only that, has to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyroaring import BitMap

from twisted_mail.account.state import DAY_SECONDS
from twisted_mail.imap.search_keys import (
    All,
    And,
    BodyKey,
    DateKey,
    EmailIdKey,
    FlagKey,
    HeaderKey,
    ModSeqKey,
    Not,
    OlderKey,
    Or,
    SaveDateSupported,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
    ThreadIdKey,
    UidKey,
    YoungerKey,
)
from twisted_mail.imap.selected import RECENT, Selected

__all__ = ["ColumnSearch"]

_EPOCH: Final = 719_163
"""`date.toordinal` of 1970-01-01."""


@dataclass(slots=True)
class ColumnSearch:
    """One search in one view, at one moment. The universe is the messages that have numbers."""

    view: Selected
    now: int
    """Seconds since 1970."""
    known: dict[int, BitMap] = field(default_factory=dict)
    """Results of leaves, by the identity of their key."""

    def bounds(self, key: SearchKey) -> tuple[BitMap, BitMap]:
        """(certainly, perhaps): the first lies within the second."""
        match key:
            case And(keys):
                certain = perhaps = self.view.present
                for each in keys:
                    low, high = self.bounds(each)
                    certain, perhaps = certain & low, perhaps & high
                    if not perhaps:
                        break
                return certain, perhaps
            case Or(left, right):
                first, second = self.bounds(left), self.bounds(right)
                return first[0] | second[0], first[1] | second[1]
            case Not(inner):
                certain, perhaps = self.bounds(inner)
                return self.view.present - perhaps, self.view.present - certain
            case HeaderKey() | BodyKey() | TextKey():
                return BitMap(), self.view.present
        found = self.leaf(key)
        return found, found

    def leaf(self, key: SearchKey) -> BitMap:
        """The messages that match a key over columns."""
        found = self.known.get(id(key))
        if found is None:
            found = self.known[id(key)] = self._leaf(key) & self.view.present
        return found

    def _leaf(self, key: SearchKey) -> BitMap:
        view, columns = self.view, self.view.columns
        match key:
            case All() | SaveDateSupported():
                return view.present
            case SequenceKey(numbers):
                return view.resolve(numbers, uid=False, strict=False)
            case UidKey(uids):
                return view.resolve(uids, uid=True)
            case FlagKey(flag, present):
                having = view.recent if flag == RECENT else columns.with_flag(flag)
                return having if present else view.present - having
            case SizeKey(relation, size):
                sizes = columns.sizes
                if relation == "larger":
                    return BitMap([slot for slot in view.present if sizes[slot] > size])
                return BitMap([slot for slot in view.present if sizes[slot] < size])
            case DateKey():
                return self._dates(key)
            case OlderKey(seconds):
                received, limit = columns.received, self.now - seconds
                return BitMap([slot for slot in view.present if received[slot] <= limit])
            case YoungerKey(seconds):
                received, limit = columns.received, self.now - seconds
                return BitMap([slot for slot in view.present if received[slot] >= limit])
            case ModSeqKey(modseq):
                # One number for the whole message: of a single flag none is kept (RFC 7162 section 3.1.5).
                modseqs = columns.modseqs
                return BitMap([slot for slot in view.present if modseqs[slot] >= modseq])
            case EmailIdKey(text):
                return self._email_id(text)
            case ThreadIdKey():
                return BitMap()
        raise TypeError(f"unknown search key {type(key).__name__}")

    def _dates(self, key: DateKey) -> BitMap:
        """Calendar days without time and zone (RFC 9051 section 6.4.4): INTERNALDATE's in the zone it was given in."""
        view, columns = self.view, self.view.columns
        day = key.day.toordinal() - _EPOCH
        if key.field == "sent":
            days: list[tuple[int, int]] = [(slot, columns.sent[slot]) for slot in view.present]
        elif key.field == "saved":
            days = [(slot, columns.saved[slot] // DAY_SECONDS) for slot in view.present]
        else:
            received, zones = columns.received, columns.zones
            days = [(slot, (received[slot] + zones[slot] * 60) // DAY_SECONDS) for slot in view.present]
        match key.relation:
            case "before":
                return BitMap([slot for slot, value in days if value < day])
            case "on":
                return BitMap([slot for slot, value in days if value == day])
        return BitMap([slot for slot, value in days if value >= day])

    def _email_id(self, text: str) -> BitMap:
        try:
            wanted = bytes.fromhex(text[1:]) if text[:1] == "M" else b""
        except ValueError:
            wanted = b""
        found = BitMap()
        if len(wanted) != 16:
            return found
        ids = self.view.columns.ids
        at = ids.find(wanted)
        while at >= 0:
            if at % 16 == 0:
                found.add(at // 16)
            at = ids.find(wanted, at + 1)
        return found
