"""Opening accounts: one state per account on this node, shared by whoever has it open, evicted when nobody has."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.account.checkpointing import CheckpointedAccount
from twisted_mail.account.committer import OpenAccount
from twisted_mail.account.entries import Entry
from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.following import FollowedAccount
from twisted_mail.account.footprint import octets_of_state
from twisted_mail.account.forwarding import Forwarding
from twisted_mail.account.homes import HOME_SETTING, ClaimHome, recorded_home
from twisted_mail.account.intents import Intent
from twisted_mail.account.messages import MessageStore, Writer
from twisted_mail.account.state import INBOX, AccountState
from twisted_mail.account.tree import Initialise, NewMailbox
from twisted_mail.services import Account, Exclusive
from twisted_mail.storage.interfaces import (
    AccountLog,
    AppendsRows,
    Blobs,
    Bus,
    DegradedReads,
    Directory,
    Leases,
    Members,
    Messages,
    References,
    StorageError,
)
from twisted_mail.values import AccountId, MailboxId, ModSeq

__all__ = ["DEFAULT_MAILBOXES", "AccountService", "AccountSettings", "Notice"]

Notice = Callable[[AccountId, AccountState, Intent[Any], Entry], None]
"""Account, its state, the intent and its entry. Must not wait, nor change anything."""
REMEMBERED = 100_000
"""Accounts of which is remembered how far they were shown; some 150 octets each."""
DEFAULT_MAILBOXES = (
    NewMailbox(name="INBOX"),
    NewMailbox(name="Drafts", special_use=("\\Drafts",)),
    NewMailbox(name="Sent", special_use=("\\Sent",)),
    NewMailbox(name="Junk", special_use=("\\Junk",)),
    NewMailbox(name="Trash", special_use=("\\Trash",)),
    NewMailbox(name="Archive", special_use=("\\Archive",)),
)


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What an operator may set about accounts."""

    default_mailboxes: tuple[NewMailbox, ...] = DEFAULT_MAILBOXES
    idle_accounts: int = 10_000
    """States that stay in memory although nobody has them open."""
    cache_bytes: int = 256 * 1024 * 1024
    """Octets that these take at most, about."""
    checkpoint_entries: int = 256
    """A checkpoint is made after so many entries, or after `checkpoint_bytes` of them."""
    checkpoint_bytes: int = 512 * 1024
    retention_seconds: float = 7 * 86_400.0
    """How far back the log reaches, for looking at yesterday and for undelete."""
    poll_seconds: float = 5.0
    """The heads of watched accounts are looked at this often, whatever the bus says."""
    commit_seconds: float = 30.0
    """After so long a `commit` whose outcome is not settled ends in OutcomeUnknown."""
    propose_seconds: float = 5.0
    """After so long one that was not even proposed is refused, if the store takes no changes of the account."""
    lock_seconds: float = 60.0
    """POP3's exclusive session outlives a dead node by at most this."""


class AccountService:
    """Implements `services.Accounts` over the stores of a back end."""

    _log = Logger()

    def __init__(
        self,
        *,
        log: AccountLog,
        messages: Messages,
        blobs: Blobs,
        leases: Leases,
        bus: Bus,
        clock: Any,
        references: References | None = None,
        settings: AccountSettings | None = None,
        wall: Callable[[], float] = time.time,
        members: Members | None = None,
        node: str = "",
        datacenter: str = "",
        directory: Directory | None = None,
    ) -> None:
        # members, node: to whom intents are forwarded, and who this is among them (None: to nobody).
        # datacenter: where this node is; empty: there is only one, and no rule about homes.
        # directory: what says where accounts that have no log yet are at home.
        # clock provides IReactorTime; Any, since zope interfaces are no types to mypy's callers without its plugin
        self.settings = settings or AccountSettings()
        self.clock = clock
        self.wall = wall
        self.store = MessageStore(messages, blobs, references)
        self.log = log
        able: Any = log
        self.appends_rows: AppendsRows | None = able if getattr(log, "messages", None) is messages else None
        """The log, where it writes rows into the same store together with entries."""
        self.degraded: DegradedReads | None = able if hasattr(log, "read_stale") else None
        """The log, where it can be read without a quorum."""
        self.max_append_bytes = _limit(log, "max_append_bytes")
        """What the log takes in one append (`BoundedAppends`); None: it does not say."""
        self.max_entry_bytes = _limit(log, "max_entry_bytes") or self.max_append_bytes
        """The same for an append of one entry."""
        self.bus = bus
        self.datacenter = datacenter
        self.forwarding = None if members is None else Forwarding(self, members, node, datacenter)
        self._directory = directory
        self._leases = leases
        self.notice: Notice | None = None
        """Told of each entry that this node has committed, once the state has applied it."""
        self._open: dict[AccountId, OpenAccount] = {}
        self._users: dict[AccountId, int] = {}
        self._idle: OrderedDict[AccountId, int] = OrderedDict()
        """Those that nobody has open, the longest idle first, with what they take, octets."""
        self._idle_bytes = 0
        self._shown: OrderedDict[AccountId, ModSeq] = OrderedDict()
        self._opening: dict[AccountId, list[Deferred[None]]] = {}
        self._poll = LoopingCall(self._poll_heads)
        self._poll.clock = clock
        self._watched: set[FollowedAccount] = set()
        self._to_sweep: dict[CheckpointedAccount, None] = {}
        self._sweeping: Deferred[None] | None = None

    # --- services.Accounts

    async def open(self, account: AccountId) -> OpenAccount:
        """The account, with its INBOX and default mailboxes. Raises AccountUnavailable."""
        self._users[account] = self._users.get(account, 0) + 1
        try:
            while account in self._opening:
                waiting: Deferred[None] = Deferred()
                self._opening[account].append(waiting)
                await waiting
            opened = self._open.get(account)
            if opened is None:
                opened = await self._load(account)
            self._no_longer_idle(account)
            return opened
        except BaseException:
            self._leave(account)
            raise

    async def _load(self, account: AccountId) -> OpenAccount:
        self._opening[account] = []
        try:
            opened = OpenAccount(self, account)
            await opened.load()
            if self.datacenter and not opened.home:
                opened.recorded(await recorded_home(self._directory, account, self.datacenter))
            if INBOX not in opened.state.by_name:
                wanted = self.settings.default_mailboxes
                ids = tuple(MailboxId.new() for _ in wanted)
                await opened.commit(
                    Initialise(mailboxes=wanted, ids=ids, uid_validity=int(self.wall()), home=self.datacenter)
                )
                if INBOX not in opened.state.by_name:
                    raise AccountUnavailable("the account has not arrived in this data centre yet")
            elif self.datacenter and not opened.state.settings.get(HOME_SETTING) and opened.elsewhere() is None:
                await opened.commit(ClaimHome(home=self.datacenter))
            self._open[account] = opened  # only now: nobody gets an account without INBOX
        except StorageError as error:
            raise AccountUnavailable("the account cannot be read") from error
        finally:
            for waiting in self._opening.pop(account):
                waiting.callback(None)
        return opened

    def release(self, account: Account) -> None:
        """The opener is done with it."""
        self._leave(account.id)

    def _leave(self, account: AccountId) -> None:
        users = self._users.get(account, 0) - 1
        if users > 0:
            self._users[account] = users
            return
        self._users.pop(account, None)
        if account in self._open:
            self._open[account].forget_unwritten()
            self._no_longer_idle(account)
            self._idle[account] = octets_of_state(self._open[account].state)
            self._idle_bytes += self._idle[account]
        self._evict()

    def _evict(self) -> None:
        if not self._too_many_idle():
            return
        for account in list(self._idle):
            if not self._too_many_idle():
                return
            if self._open[account].busy:
                continue
            self._no_longer_idle(account)
            self._close(account)

    def _too_many_idle(self) -> bool:
        return len(self._idle) > self.settings.idle_accounts or self._idle_bytes > self.settings.cache_bytes

    def _no_longer_idle(self, account: AccountId) -> None:
        self._idle_bytes -= self._idle.pop(account, 0)

    def _close(self, account: AccountId) -> None:
        closed = self._open.pop(account)
        closed.close()
        self._shown[account] = closed.state.modseq
        self._shown.move_to_end(account)
        while len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)

    def shown(self, account: AccountId) -> ModSeq:
        """How far this node had *account* when it had it last, as far as it remembers: nobody may be shown less."""
        return self._shown.get(account, ModSeq(0))

    def writer(self, account: AccountId | None = None) -> Writer:
        """A place for the octets of a message that is coming in, for *account* (first) if that is known."""
        return self.store.writer(account)

    async def lock(self, account: AccountId, purpose: str) -> Exclusive | None:
        """Take the account for *purpose* alone, over all nodes; None if another has it."""
        name, ttl = f"{purpose}:{account}", self.settings.lock_seconds
        number = await self._leases.acquire(name, ttl)
        return None if number is None else _Lock(self._leases, self.clock, name, number, ttl)

    async def serve(self, account: AccountId, request: bytes) -> bytes:
        """Carry out here what another node forwarded (`Members.join`); whatever comes of it is in the answer."""
        if self.forwarding is None:
            raise RuntimeError("this node takes no part in forwarding")
        return await self.forwarding.serve(account, request)

    # --- watching

    def watched(self, account: FollowedAccount) -> None:
        """Somebody watches *account* from now on: its head is polled as the floor under the bus."""
        self._watched.add(account)
        if not self._poll.running:
            self._poll.start(self.settings.poll_seconds, now=False)

    def unwatched(self, account: FollowedAccount) -> None:
        """Nobody watches it any more."""
        self._watched.discard(account)
        if not self._watched and self._poll.running:
            self._poll.stop()

    def _poll_heads(self) -> None:
        for account in list(self._watched):
            account.refresh_soon()

    # --- sweeping

    def sweep_soon(self, account: CheckpointedAccount) -> None:
        """*account* has rows to be swept; one account after the other is."""
        self._to_sweep[account] = None
        if self._sweeping is None:
            ended: Deferred[None] = Deferred()
            self._sweeping = ended
            Deferred.fromCoroutine(self._sweep()).addErrback(
                lambda failure: self._log.failure("sweeping accounts failed", failure)
            ).chainDeferred(ended)

    async def _sweep(self) -> None:
        try:
            while self._to_sweep:
                account = next(iter(self._to_sweep))
                del self._to_sweep[account]
                try:
                    await account.sweep()
                except StorageError as error:
                    self._log.warn("account {id}: its rows are swept another time: {why}", id=account.id, why=error)
        finally:
            self._sweeping = None

    async def stop(self) -> None:
        """Wait for what is in flight."""
        if self._poll.running:
            self._poll.stop()
        self._to_sweep.clear()
        for account in list(self._open.values()):
            await account.quiet()
            account.close()
        if self._sweeping is not None:
            await self._sweeping  # which ends with the rows that it is just removing
        self._open.clear()
        self._idle.clear()
        self._idle_bytes = 0

    def forget(self, account: AccountId) -> None:
        """Drop the state kept in memory, if nobody has it open (the account was erased, or is to be read anew)."""
        if account not in self._users and account in self._open:
            self._no_longer_idle(account)
            self._close(account)


def _limit(log: AccountLog, name: str) -> int | None:
    """What the log says of itself, if it does."""
    limit = getattr(log, name, None)
    return limit if isinstance(limit, int) else None


class _Lock:
    """A lease that renews itself until it is released or lost (by this node's monotonic clock, with a margin)."""

    def __init__(self, leases: Leases, clock: Any, name: str, number: int, ttl: float) -> None:
        self._leases, self._clock, self._name, self._number, self._ttl = leases, clock, name, number, ttl
        self._expires = clock.seconds() + ttl * 0.9
        self._loop = LoopingCall(self._renew)
        self._loop.clock = clock
        self._loop.start(ttl / 3, now=False).addErrback(self._failed)

    def _renew(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renew_once())

    async def _renew_once(self) -> None:
        asked = self._clock.seconds()
        try:
            held = await self._leases.renew(self._name, self._number, self._ttl)
        except StorageError:
            return
        if held:
            self._expires = asked + self._ttl * 0.9
        else:
            self._expires = 0.0
            if self._loop.running:
                self._loop.stop()

    def _failed(self, failure: Failure) -> None:
        AccountService._log.failure("renewing a lease failed", failure)

    def still_held(self) -> bool:
        """Asked before what it protects is written."""
        return bool(self._clock.seconds() < self._expires)

    async def release(self) -> None:
        """Give it back; a store that does not answer lets it run out."""
        if self._loop.running:
            self._loop.stop()
        self._expires = 0.0
        try:
            await self._leases.release(self._name, self._number)
        except StorageError:
            AccountService._log.warn("lease {name} could not be released", name=self._name)
