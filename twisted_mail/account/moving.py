"""Moving an account's home to another data centre: the log first, then, once the new home sees it, the directory.

Each step may be taken again, so whoever was cut off between two of them starts anew. The directory comes last: a new
home that had nothing of the log yet, and read there that the account is its own, would begin another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from twisted.internet.task import deferLater

from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.forwarding import Done
from twisted_mail.account.homes import MoveHome
from twisted_mail.account.service import AccountService
from twisted_mail.storage.interfaces import Directory, StorageError
from twisted_mail.values import AccountId

__all__ = ["SEEN_SECONDS", "Moved", "move_home"]

SEEN_SECONDS: Final = 30.0
"""How long is waited for the new home to see its log whole."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a move: the log says that the account is at home in `to`."""

    before: str
    """Its home until now; the same as `to` where it had moved already."""
    to: str
    seen: bool
    """A node of the new home has the whole log and takes changes. Else the directory still names the old home."""


async def move_home(service: AccountService, directory: Directory, account: AccountId, to: str) -> Moved:
    """Move *account* to the data centre *to*.

    Raises AccountUnavailable (nothing was changed), OutcomeUnknown (do it again), StorageError (of the directory: do
    it again), NotFound.
    """
    opened = await service.open(account)
    try:
        await opened.refresh()
        before = opened.home
        if before != to:
            await opened.commit(MoveHome(to=to))
        seen = await _seen(service, account, to)
    finally:
        service.release(opened)
    record = await directory.account(account)
    if seen and record is not None and record.home != to:
        await directory.set_account(replace(record, home=to))
    return Moved(before, to, seen)


async def _seen(service: AccountService, account: AccountId, to: str) -> bool:
    """Wait until a node of *to* (this one, if it is there) takes the account for its own."""
    ends = service.clock.seconds() + SEEN_SECONDS
    wait = 0.05
    while True:
        if await _takes(service, account, to):
            return True
        if service.clock.seconds() >= ends:
            return False
        await deferLater(service.clock, wait, lambda: None)
        wait = min(wait * 2, 1.0)


async def _takes(service: AccountService, account: AccountId, to: str) -> bool:
    try:
        if service.datacenter == to:
            opened = await service.open(account)
            try:
                await opened.refresh()
                return opened.home == to
            finally:
                service.release(opened)
        if service.forwarding is None:
            return False
        return isinstance(await service.forwarding.reached(account, to), Done)
    except (AccountUnavailable, StorageError):
        return False
