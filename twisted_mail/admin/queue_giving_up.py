"""``mailctl queue bounce``: mail that leaves is given up by an operator, and its senders are told as the relay tells them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.queue_items import bodies_of, body_of, envelope_of
from twisted_mail.delivery import DeliverySettings, MailIntake
from twisted_mail.delivery.incoming import Ways
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.delivery.queueing import InboundQueue
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.relay.bounces import Bounces, BounceSettings, Told
from twisted_mail.relay.intake import Outgoing
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.services import MailRefused
from twisted_mail.storage.interfaces import ItemState, QueueItem, QueueStatus
from twisted_mail.tap.relaying import leaving_of

__all__ = ["GivingUp"]

REASON = "554 5.4.7 given up by the administrator"


class GivingUp:
    """Gives up items, one after the other."""

    def __init__(self, store: Store, reason: str = "", wall: Callable[[], float] = time.time) -> None:
        """*reason*: what the sender is told instead of the last reply."""
        configuration, backend = store.configuration, store.backend
        self._queue = backend.queue
        self._bodies = bodies_of(store)
        self._reason = reason
        self._wall = wall
        self._journal = Journal(backend.records, "mailctl")
        self.told: Counter[Told] = Counter()
        """What the senders heard."""

        async def here(call: Callable[..., Any], *arguments: Any) -> Any:
            return call(*arguments)  # nothing else runs in this process

        spools = SpoolFolder(configuration.data / "spool", here)
        outgoing = Outgoing(
            backend.queue, self._bodies, spools, leaving_of(configuration).streams, self._journal, store.reactor
        )
        inbound = InboundQueue(backend.queue, self._bodies, spools, store.reactor)
        intake = MailIntake(
            backend.directory,
            Ways(accounts=store.accounts, clock=store.reactor, queue=inbound, straight=False),
            DeliverySettings(hostname=configuration.hostname, subaddress=configuration.smtp.subaddress),
            outbound=outgoing,
        )
        self._bounces = Bounces(
            InternalMail(intake, inbound, outgoing).submit,
            self._open,
            BounceSettings(hostname=configuration.hostname),
            wall=wall,
        )

    def _open(self, item: QueueItem, outbound: Outbound) -> AsyncIterator[bytes]:
        body = body_of(item)
        assert body is not None  # Bounces asks for what has a header, and so a body
        return self._bodies.open(body)

    async def give_up(self, status: QueueStatus) -> bool:
        """Tell its sender, and forget it. False: it is gone, or it is no mail that leaves.

        It is held first, so no worker has it; what fails in between leaves it held. Raises: Problem, StorageError.
        """
        item, outbound = status.item, envelope_of(status.item)
        if not isinstance(outbound, Outbound):
            return False
        if status.state is not ItemState.HELD and not await self._queue.hold(item.id):
            return False
        verdict = self._verdict(item)
        try:
            told = await self._bounces.failed(item, outbound, verdict)
        except MailRefused as error:
            text = f"{item.id} stays held, as its sender cannot be told now: {error}"
            raise Problem(Status.TEMPORARY, "not-told", text) from error
        if not await self._queue.delete(item.id):
            return False
        body = body_of(item)
        if body is not None:
            await self._bodies.forget(body, item.id)
        self.told[told] += 1
        step = Step(
            at=self._wall(),
            what="bounced",
            id=str(item.id),
            address=outbound.address,
            sender=outbound.sender,
            attempt=item.attempts,
            reply=verdict.reply,
            stream=outbound.stream,
        )
        await self._journal.note(outbound.message_id, step)
        return True

    def _verdict(self, item: QueueItem) -> Verdict:
        said = self._reason or item.last_reply
        return Verdict(Result.PERMANENT, f"{REASON}: {said}" if said else REASON, Stage.ROUTE, remote=False)
