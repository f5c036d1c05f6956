"""Notices that an account's scripts have changed, so that every node looks anew at its next delivery, and not before.

They go over the bus that says that accounts have moved, under a few accounts that nobody has, to which every node that
delivers listens: a change costs one notice, a delivery nothing. A notice that is lost costs latency: what is remembered of
an account is good for a minute only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted_mail.storage.interfaces import Bus
from twisted_mail.values import AccountId, ModSeq

__all__ = ["hear_of_scripts", "tag_of", "tell_of_scripts"]

_TOPICS: Final = 16
"""Of several notices of one topic in one turn of a reactor a bus may pass on but one."""
_PREFIX: Final = b"sieve scripts\0\0"


def tag_of(account: AccountId) -> ModSeq:
    """What stands for *account* in a notice, which holds nothing but a number."""
    return ModSeq(int.from_bytes(account.octets[8:], "big") >> 1)


def _topic(number: int) -> AccountId:
    return AccountId(_PREFIX + bytes((number % _TOPICS,)))


def tell_of_scripts(bus: Bus, account: AccountId) -> None:
    """Says that its scripts have changed."""
    tag = tag_of(account)
    bus.publish(_topic(tag), tag)


def hear_of_scripts(bus: Bus, changed: Callable[[ModSeq], None]) -> Callable[[], None]:
    """Call *changed* with the tag of each account whose scripts have changed; returns the end of it."""
    ends = [bus.subscribe(_topic(number), changed) for number in range(_TOPICS)]

    def end() -> None:
        for each in ends:
            each()

    return end
