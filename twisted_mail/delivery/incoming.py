"""One message on its way in: trace fields in front, then straight into each account, or into the queue for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.account.errors import AccountError, AccountUnavailable, OutcomeUnknown
from twisted_mail.delivery.counts import DeliveryCounts
from twisted_mail.delivery.items import Copy, zone_at
from twisted_mail.delivery.judgement import Judgement, Quarantined, with_envelope
from twisted_mail.delivery.outbound import OutboundMessage, Returns
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.queueing import InboundQueue, Waiting
from twisted_mail.delivery.sorting import Arrival
from twisted_mail.delivery.trace import HopCount, separator
from twisted_mail.queueing.limits import TooSlow, some_at_a_time, within
from twisted_mail.queueing.spool import Spool
from twisted_mail.services import Accounts, MailRefused, MessageWriter, Outcome, PreparedMessage, Recipient, Refusal
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.values import AccountId, DeliveryId

__all__ = ["IncomingMail", "Target", "Ways"]

T = TypeVar("T")

_log = Logger()

READ_BYTES: Final = 1 << 20
"""Of a message that the server reads itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How mail gets from here into accounts."""

    accounts: Accounts
    clock: IReactorTime
    queue: InboundQueue | None = None
    """Takes what the store cannot take now; None: the peer keeps that."""
    straight: bool = True
    """Try the store first. Without it everything is queued."""
    straight_seconds: float = 5.0
    """How long the store has before the queue takes over."""
    counts: DeliveryCounts = field(default_factory=DeliveryCounts)
    placer: Placer | None = None
    """Says where in an account a message goes; None: INBOX."""

    async def in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """*work*, cancelled when the store is slow and there is a queue. Raises: TooSlow, and what *work* raises."""
        if self.queue is None:
            return await work
        return await within(self.clock, self.straight_seconds, work)


class Target(Recipient, frozen=True, kw_only=True):
    """A recipient with what the directory said of it."""

    users: tuple[str, ...] = ()
    """The own addresses of its accounts."""
    remote: tuple[str, ...] = ()
    """Addresses of other domains that it stands for; queued."""
    program: bool = False
    """The server reads it itself (`Returns.take`)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A mailbox of an account, where one copy goes however many recipients lead there."""

    account: AccountId
    detail: str


class IncomingMail:
    """Implements `services.Incoming`.

    Rules. Each copy (account and sub-address) has a DeliveryId of its own, minted when the last octet has come, the
    same on both ways. A recipient with several accounts has the message only if all of them have it. What fails for one
    recipient touches no other. An account that two recipients lead to gets one copy.

    The store has `straight_seconds`. What it has not confirmed by then, or cannot take, goes into the queue under the
    same id. An entry that was proposed by then is settled in the background, and one of the two finds the other; an
    intent that was not is dropped.
    """

    def __init__(
        self,
        ways: Ways,
        recipients: Sequence[Recipient],
        *,
        sender: str,
        return_path: bytes,
        received: bytes,
        hops: int,
        detail_mailboxes: bool,
        outbound: OutboundMessage | None,
        wall: Callable[[], float],
        hold_until: float | None = None,
        returns: Returns | None = None,
        judgement: Judgement | None = None,
        each_answered: bool = False,
    ) -> None:
        """*hold_until*: seconds since 1970 before which it must not be delivered (RFC 4865). *each_answered*: the peer gets a
        reply for each recipient (LMTP), not one for all."""
        self._each_answered = each_answered
        self._placer = ways.placer or Placer(ways.accounts)
        self.judgement = judgement
        """What filters found; None: they were not asked."""
        if hold_until is not None and ways.queue is not None:
            ways = replace(ways, straight=False)
        self._ways = ways
        self._hold_until = hold_until
        self._returns = returns
        self._read: bytearray | None = (
            bytearray() if any(isinstance(each, Target) and each.program for each in recipients) else None
        )
        """What the server reads itself: the first megabyte."""
        self._recipients = recipients
        self._sender = sender
        self._front: bytes = return_path + received
        self._outbound_front = received
        self._held: bytes | None = b""
        """The start of the message, until it is known whether it is a header."""
        self._hops = hops
        self._detail_mailboxes = detail_mailboxes
        self._outbound = outbound
        self._wall = wall
        self._local = any(recipient.accounts for recipient in recipients)
        first = next((account for recipient in recipients for account in recipient.accounts), None)
        self._writer: MessageWriter | None = ways.accounts.writer(first) if self._local and ways.straight else None
        self._spool: Spool | None = ways.queue.spools.begin() if self._local and ways.queue is not None else None
        self._slow = False
        """The store has let a copy of this message wait for too long: the others do not try."""
        self._count = HopCount()

    async def write(self, chunk: bytes) -> None:
        """Raises MailRefused: a loop, or neither the store nor the queue can take it."""
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
        if self._read is not None and len(self._read) < READ_BYTES:
            self._read += chunk
        if self._local:
            front, self._front = self._front, b""
            await self._keep(front + chunk if front else chunk)
        if self._outbound is not None:
            front, self._outbound_front = self._outbound_front, b""
            try:
                await self._outbound.write(front + chunk if front else chunk)
            except (StorageError, AccountError) as error:
                raise MailRefused(Refusal.UNAVAILABLE) from error

    async def _keep(self, octets: bytes) -> None:
        """For the store and for the queue; one of them is enough."""
        if self._spool is not None:
            try:
                await self._spool.write(octets)
            except OSError as error:
                _log.error("a message cannot be kept for the queue: {why}", why=error)
                self._close_spool()
        if self._writer is not None:
            try:
                await self._ways.in_time(self._writer.write(octets))
            except (StorageError, AccountError, TooSlow) as error:
                _log.warn("the store does not take a message: {why!r}", why=error)
                await self._give_up_writing()
        if self._writer is None and self._spool is None:
            raise MailRefused(Refusal.UNAVAILABLE)

    async def _give_up_writing(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                await self._ways.in_time(writer.abort())
            except (StorageError, TooSlow) as error:
                _log.warn("what was written of a message stays behind: {why!r}", why=error)

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    async def abort(self) -> None:
        """Nothing of it stays."""
        self._close_spool()
        await self._give_up_writing()
        if self._outbound is not None:
            await self._outbound.abort()

    async def finish(self) -> Sequence[Outcome]:
        """See `services.Incoming.finish`."""
        try:
            return await self._finish()
        finally:
            self._close_spool()

    async def _finish(self) -> Sequence[Outcome]:
        if self._held is not None:
            await self._begin(self._held, ended=True)  # an empty message has trace fields all the same
        ids = [DeliveryId.new() for _ in self._recipients]
        copies = self._copies(ids)
        failures: dict[DeliveryId, MailRefused] = {}
        if copies:
            failures = await self._deliver_all(tuple(copies.values()))
            self._ways.counts.refused += len(failures)
        queue_failure = await self._queue_remote(ids)
        unread = await self._take() if self._read is not None else {}
        outcomes = []
        for recipient, own in zip(self._recipients, ids, strict=True):
            delivery, refused = own, None
            for account in recipient.accounts:
                delivery = copies[self._place(account, recipient)].delivery
                refused = refused or failures.get(delivery)
            if queue_failure is not None and isinstance(recipient, Target) and recipient.remote:
                refused = refused or queue_failure
            refused = refused or unread.get(recipient.address)
            outcomes.append(
                Outcome(recipient, refused=refused) if refused is not None else Outcome(recipient, delivery)
            )
        return outcomes

    async def _take(self) -> dict[str, MailRefused]:
        """Have the server read what is for itself; what failed, by address."""
        failures: dict[str, MailRefused] = {}
        for recipient in self._recipients:
            if isinstance(recipient, Target) and recipient.program and self._returns is not None:
                try:
                    await self._returns.take(recipient.address, self._sender, bytes(self._read or b"")[:READ_BYTES])
                except (StorageError, AccountError) as error:
                    _log.warn("mail to {address} cannot be read now: {why}", address=recipient.address, why=error)
                    failures[recipient.address] = MailRefused(Refusal.UNAVAILABLE)
        return failures

    # --- into accounts

    def _place(self, account: AccountId, recipient: Recipient) -> _Place:
        return _Place(account, recipient.detail if self._detail_mailboxes else "")

    def _copies(self, ids: Sequence[DeliveryId]) -> dict[_Place, Copy]:
        """Where copies go. The first of a recipient has the recipient's id."""
        copies: dict[_Place, Copy] = {}
        used: set[DeliveryId] = set()
        for recipient, own in zip(self._recipients, ids, strict=True):
            users: tuple[str, ...] = recipient.users if isinstance(recipient, Target) else ()
            for at, account in enumerate(recipient.accounts):
                place = self._place(account, recipient)
                if place in copies:
                    continue
                id = DeliveryId.new() if own in used else own
                used.add(id)
                copies[place] = Copy(
                    delivery=id,
                    account=account,
                    detail=place.detail,
                    address=recipient.address,
                    user=users[at] if at < len(users) else "",
                    shared=not _alone(recipient),
                    judgement=with_envelope(
                        self.judgement, orcpt=recipient.original, notify=",".join(sorted(recipient.notify))
                    ),
                )
        return copies

    async def _deliver_all(self, copies: Sequence[Copy]) -> dict[DeliveryId, MailRefused]:
        """Put it everywhere, some accounts at a time, and what that did not do into the queue; what failed."""
        failures: dict[DeliveryId, MailRefused] = {}
        waiting: list[Waiting] = []
        received = int(self._wall())
        writer = self._writer
        prepared = await self._prepare()

        async def deliver(copy: Copy) -> None:
            outcome = await self._deliver(prepared, copy, received)
            if isinstance(outcome, Waiting):
                waiting.append(outcome)
            elif outcome is not None:
                failures[copy.delivery] = outcome
            else:
                self._ways.counts.straight += 1

        try:
            await some_at_a_time([deliver(copy) for copy in copies])
        finally:
            if writer is not None and prepared is not None:
                with suppress(StorageError, TooSlow):
                    await self._ways.in_time(writer.abort())  # unless some account has taken it over
        if waiting:
            failures.update(await self._enqueue(waiting, received))
        return failures

    async def _prepare(self) -> PreparedMessage | None:
        """The message, durable but in no account yet; None if the store could not take it."""
        writer = self._writer
        if writer is None:
            return None
        try:
            prepared = await self._ways.in_time(writer.finish())
        except (StorageError, AccountError, TooSlow) as error:
            _log.warn("the store does not take a message: {why!r}", why=error)
            await self._give_up_writing()
            return None
        self._writer = None
        return prepared

    async def _deliver(
        self, prepared: PreparedMessage | None, copy: Copy, received: int
    ) -> MailRefused | Waiting | None:
        """One copy, straight. None: it is there."""
        if prepared is None or self._slow:
            return Waiting(copy, repeated=False)
        ways, id = self._ways, copy.delivery
        try:
            arrival = Arrival(sender=self._sender, received=received, zone=zone_at(received))
            work = self._placer.place(prepared, copy, arrival, repeated=False, refusable=self._refusable(copy))
            await ways.in_time(work)
            return None
        except CancelledError:
            raise
        except TooSlow:
            self._slow = True
            _log.warn("delivery {id} to {account}: the store is slow", id=id, account=copy.account)
        except MailRefused as error:
            return error
        except Quarantined:
            return Waiting(copy, repeated=False)  # where it is held
        except OutcomeUnknown as error:
            _log.warn("delivery {id}: the outcome is not known: {error}", id=id, error=error)
        except (AccountUnavailable, StorageError) as error:
            _log.warn("delivery {id} to {account}: {error!r}", id=id, account=copy.account, error=error)
        except AccountError as error:
            _log.warn("delivery {id} to {account}: {error!r}", id=id, account=copy.account, error=error)
            return MailRefused(Refusal.UNAVAILABLE)
        except Exception:
            _log.failure("delivery {id} to {account} failed", id=id, account=copy.account)
            return MailRefused(Refusal.UNAVAILABLE)
        return Waiting(copy, repeated=True)

    def _refusable(self, copy: Copy) -> bool:
        """Whether a reply to the peer can say that this copy, and nothing else, is refused."""
        if len(self._recipients) > 1 and not self._each_answered:
            return False
        leading = [each for each in self._recipients if copy.account in each.accounts]
        return len(leading) == 1 and _alone(leading[0])

    # --- into the queue

    async def _enqueue(self, waiting: Sequence[Waiting], received: int) -> dict[DeliveryId, MailRefused]:
        """What failed. Where there is no queue the peer keeps it, and its next try may double what is still unsettled."""
        if self._ways.queue is None or self._spool is None:
            return {each.copy.delivery: MailRefused(Refusal.UNAVAILABLE) for each in waiting}
        try:
            delay = 0.0 if self._hold_until is None else max(self._hold_until - self._wall(), 0.0)
            return dict(
                await self._ways.queue.put(self._spool, waiting, sender=self._sender, received=received, delay=delay)
            )
        except CancelledError:
            raise
        except Exception:
            _log.failure("queueing a message failed")
            return {each.copy.delivery: MailRefused(Refusal.UNAVAILABLE) for each in waiting}

    async def _queue_remote(self, ids: Sequence[DeliveryId]) -> MailRefused | None:
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


def _alone(recipient: Recipient) -> bool:
    """Whether the address stands for one account and nobody else."""
    return len(recipient.accounts) == 1 and not (isinstance(recipient, Target) and recipient.remote)
