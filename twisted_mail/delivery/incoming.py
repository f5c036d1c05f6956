"""One message on its way into mailboxes: trace fields in front, stored once, committed to each account."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_mail.account.errors import AccountError, NoSuchMailbox, OutcomeUnknown, OverQuota
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.state import AccountState, Mailbox, normal_mailbox_name
from twisted_mail.delivery.outbound import OutboundMessage
from twisted_mail.delivery.trace import HopCount, separator
from twisted_mail.services import Accounts, MailRefused, Outcome, PreparedMessage, Recipient, Refusal
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.values import AccountId, DeliveryId

__all__ = ["CONCURRENT", "IncomingMail", "Target"]

CONCURRENT: Final = 32
"""Accounts into which one message is put at the same time."""

_log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Recipient):
    """A recipient with what the directory said of it."""

    quotas: tuple[int | None, ...] = ()
    """Of each of its accounts, octets."""
    remote: tuple[str, ...] = ()
    """Addresses of other domains that it stands for; queued."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A mailbox of an account, where one copy goes however many recipients lead there."""

    account: AccountId
    detail: str


class IncomingMail:
    """Implements `services.Incoming`.

    Rules. Each recipient has a DeliveryId of its own, minted when the last octet has come. A recipient with several
    accounts has the message only if all of them have it. What fails for one recipient touches no other. An account
    that two recipients lead to gets one copy, under the id of the first.
    """

    def __init__(
        self,
        accounts: Accounts,
        recipients: Sequence[Recipient],
        *,
        return_path: bytes,
        received: bytes,
        hops: int,
        detail_mailboxes: bool,
        outbound: OutboundMessage | None,
        wall: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._recipients = recipients
        self._front: bytes = return_path + received
        self._outbound_front = received
        self._held: bytes | None = b""
        """The start of the message, until it is known whether it is a header."""
        self._hops = hops
        self._detail_mailboxes = detail_mailboxes
        self._outbound = outbound
        self._wall = wall
        self._local = any(recipient.accounts for recipient in recipients)
        self._writer = accounts.writer()
        self._count = HopCount()

    async def write(self, chunk: bytes) -> None:
        """Raises MailRefused: a loop, or the store does not answer."""
        self._count.feed(chunk)
        if self._count.count >= self._hops:
            raise MailRefused(Refusal.LOOP)
        if self._held is None:
            await self._pass_on(chunk)
        else:
            await self._begin(self._held + chunk, ended=False)

    async def _begin(self, start: bytes, *, ended: bool) -> None:
        between = separator(start, ended=ended)
        if between is None:
            self._held = start
            return
        self._held = None
        self._front += between
        self._outbound_front += between
        await self._pass_on(start)

    async def _pass_on(self, chunk: bytes) -> None:
        try:
            if self._local:
                front, self._front = self._front, b""
                await self._writer.write(front + chunk if front else chunk)
            if self._outbound is not None:
                front, self._outbound_front = self._outbound_front, b""
                await self._outbound.write(front + chunk if front else chunk)
        except (StorageError, AccountError) as error:
            raise MailRefused(Refusal.UNAVAILABLE) from error

    async def abort(self) -> None:
        """Nothing of it stays."""
        await self._writer.abort()
        if self._outbound is not None:
            await self._outbound.abort()

    async def finish(self) -> Sequence[Outcome]:
        """See `services.Incoming.finish`."""
        if self._held is not None:
            await self._begin(self._held, ended=True)  # an empty message has trace fields all the same
        prepared: PreparedMessage | None = None
        if self._local:
            try:
                prepared = await self._writer.finish()
            except (StorageError, AccountError) as error:
                await self.abort()
                raise MailRefused(Refusal.UNAVAILABLE) from error
        ids = [DeliveryId.new() for _ in self._recipients]
        places = self._places(ids)
        failures: dict[_Place, MailRefused] = {}
        if prepared is not None:
            failures = await self._deliver_all(prepared, places)
        queue_failure = await self._queue(ids)
        outcomes = []
        for recipient, own in zip(self._recipients, ids, strict=True):
            delivery, refused = own, None
            for account in recipient.accounts:
                place = self._place(account, recipient)
                delivery = places[place][0]
                refused = refused or failures.get(place)
            if queue_failure is not None and isinstance(recipient, Target) and recipient.remote:
                refused = refused or queue_failure
            outcomes.append(
                Outcome(recipient, refused=refused) if refused is not None else Outcome(recipient, delivery)
            )
        return outcomes

    # --- into accounts

    def _place(self, account: AccountId, recipient: Recipient) -> _Place:
        return _Place(account, recipient.detail if self._detail_mailboxes else "")

    def _places(self, ids: Sequence[DeliveryId]) -> dict[_Place, tuple[DeliveryId, int | None]]:
        """Where copies go, each with the id it is delivered under, and the account's quota."""
        places: dict[_Place, tuple[DeliveryId, int | None]] = {}
        for recipient, delivery in zip(self._recipients, ids, strict=True):
            quotas: tuple[int | None, ...] = recipient.quotas if isinstance(recipient, Target) else ()
            for at, account in enumerate(recipient.accounts):
                quota = quotas[at] if at < len(quotas) else None
                places.setdefault(self._place(account, recipient), (delivery, quota))
        return places

    async def _deliver_all(
        self, prepared: PreparedMessage, places: dict[_Place, tuple[DeliveryId, int | None]]
    ) -> dict[_Place, MailRefused]:
        """Put it everywhere, some accounts at a time; what failed."""
        failures: dict[_Place, MailRefused] = {}
        received = int(self._wall())
        zone = time.localtime(received).tm_gmtoff // 60

        async def deliver(place: _Place) -> None:
            delivery, quota = places[place]
            failure = await self._deliver(prepared, place, delivery, quota, received, zone)
            if failure is not None:
                failures[place] = failure

        await _some_at_a_time([deliver(place) for place in places])
        return failures

    async def _deliver(
        self,
        prepared: PreparedMessage,
        place: _Place,
        delivery: DeliveryId,
        quota: int | None,
        received: int,
        zone: int,
    ) -> MailRefused | None:
        """One copy. Blobs, then the row, then the entry: a crash in between leaves nothing that can be seen."""
        try:
            account = await self._accounts.open(place.account)
            try:
                stored = await account.store(prepared)
                message = new_message(stored, received, zone)
                mailbox = _mailbox(account.state, place.detail)
                while True:
                    intent = AddMessages(
                        mailbox=mailbox.id, messages=(message,), delivery=delivery.octets, quota_bytes=quota
                    )
                    try:
                        await account.commit(intent)
                        return None
                    except NoSuchMailbox:
                        if mailbox.id == account.state.inbox.id:
                            raise
                        # The mailbox of that name was deleted just now. The row went with the intent that was refused.
                        mailbox = account.state.inbox
                        message = new_message(await account.store(prepared), received, zone)
            finally:
                self._accounts.release(account)
        except CancelledError:
            raise
        except OverQuota:
            return MailRefused(Refusal.MAILBOX_FULL)
        except OutcomeUnknown as error:
            # It may still come to stand, so it must not be called a failure for good: the peer comes back, and has
            # perhaps delivered twice. With a queue for inbound mail it would wait there, under the same id.
            _log.warn("delivery {id}: the outcome is not known: {error}", id=delivery, error=error)
            return MailRefused(Refusal.UNAVAILABLE)
        except (AccountError, StorageError) as error:
            _log.warn("delivery {id} to {account}: {error!r}", id=delivery, account=place.account, error=error)
            return MailRefused(Refusal.UNAVAILABLE)
        except Exception:
            _log.failure("delivery {id} to {account} failed", id=delivery, account=place.account)
            return MailRefused(Refusal.UNAVAILABLE)

    # --- into the queue

    async def _queue(self, ids: Sequence[DeliveryId]) -> MailRefused | None:
        if self._outbound is None:
            return None
        targets = [
            (delivery, address, recipient)
            for recipient, delivery in zip(self._recipients, ids, strict=True)
            if isinstance(recipient, Target)
            for address in recipient.remote
        ]
        try:
            await self._outbound.finish(targets)
        except MailRefused as error:
            return error
        except CancelledError:
            raise
        except Exception:
            _log.failure("queueing a message failed")
            return MailRefused(Refusal.UNAVAILABLE)
        return None


def _mailbox(state: AccountState, detail: str) -> Mailbox:
    """The mailbox that is called like the sub-address, if there is one; else INBOX."""
    named = state.by_name.get(normal_mailbox_name(detail)) if detail else None
    return named if named is not None else state.inbox


async def _some_at_a_time(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all of *work*, at most CONCURRENT at once; if it is interrupted, what runs is cancelled."""
    if len(work) == 1:
        return await work[0]
    waiting = list(reversed(work))

    async def one_after_the_other() -> None:
        while waiting:
            await waiting.pop()

    running = [Deferred.fromCoroutine(one_after_the_other()) for _ in range(min(CONCURRENT, len(work)))]
    try:
        for each in running:
            await each
    except BaseException:
        for coroutine in waiting:
            coroutine.close()
        waiting.clear()
        for each in running:
            each.addErrback(lambda failure: None)
            each.cancel()
        raise
    return None
