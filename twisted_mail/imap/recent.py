r"""``\Recent``: the first session on this node to be told of a message sees it as recent (RFC 3501 section 2.3.2).

Kept in memory, for as long as the process lives: IMAP4rev2 has no such flag any more (RFC 9051 appendix E), and nothing
is worth a write here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pyroaring import BitMap

from twisted_mail.account.columns import Columns
from twisted_mail.values import AccountId, MailboxId

__all__ = ["Recents"]

MOST: Final = 100_000
"""Mailboxes that are remembered; of others what came since the process started counts as recent again."""

Key = tuple[AccountId, MailboxId]


class Recents:
    """Shared by all sessions of a node."""

    def __init__(self, started: float) -> None:
        """*started*: seconds since 1970; what was saved before is recent to nobody here."""
        self._started = int(started)
        self._seen: OrderedDict[Key, int] = OrderedDict()

    def look(self, key: Key, columns: Columns, after: int = 0) -> BitMap:
        """The live slots from *after* on that no session was told of."""
        slots: list[int] = []
        seen = self._seen.get(key)
        for slot in range(len(columns.uids) - 1, after - 1, -1):
            # Both ascend: what came before this one has been seen, or is old, too.
            if (columns.saved[slot] < self._started) if seen is None else (columns.uids[slot] <= seen):
                break
            slots.append(slot)
        return BitMap(slots) & columns.live

    def claim(self, key: Key, columns: Columns, after: int = 0) -> BitMap:
        """`look`, and from now on no other session gets these."""
        found = self.look(key, columns, after)
        if len(columns.uids):
            self._seen[key] = columns.uids[-1]
            self._seen.move_to_end(key)
            if len(self._seen) > MOST:
                self._seen.popitem(last=False)
        return found

    def count(self, key: Key, messages: int, uid_next: int, columns: Columns | None) -> int:
        """STATUS RECENT, without loading anything: exact where *columns* are at hand, else from the numbers alone."""
        if columns is not None:
            return len(self.look(key, columns))
        seen = self._seen.get(key)
        return 0 if seen is None else max(0, min(messages, uid_next - 1 - seen))
