"""How much memory a state takes, about: so that the states a node keeps are bounded in octets, not in number."""

from __future__ import annotations

import sys
from typing import Final

from twisted_mail.account.columns import Columns
from twisted_mail.account.state import AccountState

__all__ = ["octets_of_state"]

ACCOUNT_OCTETS: Final = 4096
"""An open account without mailboxes: itself, its queue, its state."""
MAILBOX_OCTETS: Final = 1024
"""A mailbox without columns, with its name twice."""
CHANGE_OCTETS: Final = 512
"""A change that waits for columns, of one message."""
DELIVERY_OCTETS: Final = 200
"""An id of a delivery, with where it stands."""
_ARRAYS: Final = tuple(name for name in Columns.__slots__ if not name.startswith("_"))


def octets_of_state(state: AccountState) -> int:
    """An estimate that is right to a third or so. Takes time by the number of mailboxes, not of messages."""
    octets = ACCOUNT_OCTETS + DELIVERY_OCTETS * len(state.delivered)
    for mailbox in state.mailboxes.values():
        octets += MAILBOX_OCTETS + CHANGE_OCTETS * len(mailbox.backlog)
        if mailbox.columns is not None:
            octets += _octets_of_columns(mailbox.columns)
    return octets


def _octets_of_columns(columns: Columns) -> int:
    # arrays and bytearrays know what they hold; a bitmap of slots takes at most a bit for each
    octets = sum(sys.getsizeof(getattr(columns, name)) for name in _ARRAYS)
    return octets + (1 + len(columns.flags)) * (len(columns) // 8 + 64) + 200 * len(columns.journal)
