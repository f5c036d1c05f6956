"""Homes: an account lives in one data centre, and only nodes there append to its log.

The store's agreement reaches over one data centre only (LOCAL_SERIAL): two of them that append to one account both
believe that they have won, and one loses what it acknowledged. So the log itself says where its home is, by a setting
that its first entry writes. Moving is an entry, the last one that the old home writes: from the moment it is applied,
nodes there refuse or forward; nodes of the new home append once they have applied it, which they can only with every
entry below it. What the directory says counts only until there is a log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

from twisted_mail.account.apply import Applied
from twisted_mail.account.entries import SettingChanged
from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.intents import HOME_SETTING, TREE, Intent, Plan, Scope
from twisted_mail.account.state import AccountState
from twisted_mail.storage.interfaces import Directory
from twisted_mail.values import AccountId

__all__ = ["HOME_SETTING", "ClaimHome", "MoveHome", "NotHome", "recorded_home"]

_ALONE: Final = Scope(frozenset((TREE,)))


class NotHome(AccountUnavailable):
    """This node's data centre is not the account's home. Nothing was written."""

    def __init__(self, home: str) -> None:
        super().__init__(f"the account is at home in {home or 'no data centre'}")
        self.home = home


class MoveHome(Intent[None], frozen=True, kw_only=True, tag="move-home"):
    """The account's home is *to* from here on. Committed in the old home; nothing follows it in the same append."""

    cause: ClassVar[str] = "move-home"
    to: str

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        if state.settings.get(HOME_SETTING) == self.to:
            return Plan()
        return Plan((SettingChanged(HOME_SETTING, self.to),))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None


class ClaimHome(Intent[None], frozen=True, kw_only=True, tag="claim-home"):
    """A log that names no home yet (it was copied from a store of one data centre) has it here."""

    cause: ClassVar[str] = "claim-home"
    home: str

    def scope(self) -> Scope:
        return _ALONE

    def run(self, state: AccountState) -> Plan:
        if state.settings.get(HOME_SETTING):
            return Plan()
        return Plan((SettingChanged(HOME_SETTING, self.home),))

    def result(self, state: AccountState, plan: Plan, applied: Applied | None) -> None:
        return None


async def recorded_home(directory: Directory | None, account: AccountId, here: str) -> str:
    """Where the directory says that *account* is at home; a record that does not say gets *here*. Raises StorageError.

    A directory that can (`claim_home(account, home)`, a compare-and-set over all data centres, which returns the home
    that stands) decides between two that claim one account at the same moment.
    """
    record = await directory.account(account) if directory is not None else None
    if directory is None or record is None:
        return here
    if record.home:
        return record.home
    claim: Any = getattr(directory, "claim_home", None)  # an ability that not every directory has
    if claim is not None:
        claimed: str = await claim(account, here)
        return claimed
    await directory.set_account(replace(record, home=here))
    written = await directory.account(account)
    return written.home if written is not None else here
