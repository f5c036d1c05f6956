"""The maildrop of one session: INBOX as it was at login (RFC 1939 section 4), and what is marked as deleted.

All listings come from the account's columns; no message is looked at. A size is what is stored, which for a message
with CRLF line ends (everything that SMTP and LMTP take, unless told otherwise) is exactly what RETR sends, without its
dot-stuffing. A message that came by other ways with bare LFs is sent with CRLF for each, so it is larger on the wire.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, Self

from pyroaring import BitMap

from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import Expunge
from twisted_mail.account.state import Columns, Mailbox
from twisted_mail.services import Account, Reading
from twisted_mail.values import MessageKey

__all__ = ["Maildrop"]

_WINDOW: Final = 500
"""Messages that one `Reading` is for; how many of them are read at once is its own affair."""
_BATCH: Final = 2000
"""Lines of a listing that are rendered at a time."""


class Maildrop:
    """Messages are numbered from 1 to `total`; numbers never change in a session."""

    def __init__(self, account: Account, mailbox: Mailbox, columns: Columns) -> None:
        self.account = account
        self._mailbox = mailbox
        self._uid_validity = mailbox.uid_validity
        self._columns = columns
        columns.views += 1  # slots keep their places as long as this looks at them
        self._slots = array("I", columns.live)
        self._deleted: set[int] = set()
        sizes = columns.sizes
        self._octets_of_all = self.octets = sum([sizes[slot] for slot in self._slots])
        """Octets of the messages that are not marked."""
        self._open = True
        self._window = range(0)
        self._reading = account.reading(())

    @classmethod
    async def open(cls, account: Account) -> Self:
        """The newest state of the INBOX of *account*. Raises: AccountError."""
        await account.refresh()
        mailbox = account.state.inbox
        return cls(account, mailbox, await account.columns(mailbox))

    def close(self) -> None:
        """Look no more."""
        if self._open:
            self._open = False
            self._columns.views -= 1

    @property
    def total(self) -> int:
        """Messages, the marked ones included: the highest number."""
        return len(self._slots)

    @property
    def count(self) -> int:
        """Messages that are not marked."""
        return len(self._slots) - len(self._deleted)

    def has(self, number: int) -> bool:
        """Whether *number* is that of a message that is not marked."""
        return 1 <= number <= len(self._slots) and number not in self._deleted

    def size(self, number: int) -> int:
        """Octets."""
        return self._columns.sizes[self._slots[number - 1]]

    def key(self, number: int) -> MessageKey:
        """Where the octets are."""
        return self._columns.key(self._slots[number - 1])

    def source(self, number: int) -> Reading:
        """Where RETR reads: clients take one message after the other, so the next ones are read ahead."""
        if number not in self._window:
            self._window = range(number, min(number + _WINDOW, self.total + 1))
            self._reading = self.account.reading([self.key(each) for each in self._window])
        return self._reading

    def unique_id(self, number: int) -> str:
        """UIDVALIDITY and UID of the message: the same in every session and after every restart, never given twice
        (RFC 1939 section 7: at most 70 printable characters). Not the message's own id: copies share that."""
        return f"{self._uid_validity}.{self._columns.uids[self._slots[number - 1]]}"

    # --- listings

    def sizes(self) -> Iterator[bytes]:
        """The lines of LIST, some thousand at a time."""
        sizes = self._columns.sizes
        for low, batch, kept in self._batches():
            lines = [f"{n} {sizes[slot]}" for n, slot in enumerate(batch, low) if kept or n not in self._deleted]
            yield "\r\n".join([*lines, ""]).encode()

    def unique_ids(self) -> Iterator[bytes]:
        """The lines of UIDL, some thousand at a time."""
        uids, validity = self._columns.uids, self._uid_validity
        for low, batch, kept in self._batches():
            lines = [
                f"{n} {validity}.{uids[slot]}" for n, slot in enumerate(batch, low) if kept or n not in self._deleted
            ]
            yield "\r\n".join([*lines, ""]).encode()

    def _batches(self) -> Iterator[tuple[int, array[int], bool]]:
        """(number of the first, slots, whether none of all is marked)."""
        for low in range(0, len(self._slots), _BATCH):
            yield low + 1, self._slots[low : low + _BATCH], not self._deleted

    # --- deleting

    def mark(self, number: int) -> None:
        """DELE."""
        self._deleted.add(number)
        self.octets -= self.size(number)

    def unmark_all(self) -> None:
        """RSET."""
        self._deleted.clear()
        self.octets = self._octets_of_all

    @property
    def intact(self) -> bool:
        """Whether the mailbox still is the one that was opened (a restore from a backup makes it another)."""
        now = self.account.state.mailboxes.get(self._mailbox.id)
        return now is not None and now.uid_validity == self._uid_validity

    def removal(self) -> Expunge | None:
        """The intent that removes what is marked, all or nothing; None if nothing is."""
        if not self._deleted:
            return None
        uids = BitMap([self._columns.uids[self._slots[number - 1]] for number in self._deleted])
        return Expunge(mailbox=self._mailbox.id, uids=pack_uids(uids), only_deleted=False)
