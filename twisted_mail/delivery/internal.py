"""Mail of the server's own: bounces, warnings, vacation answers, reports. It always takes a queue.

What causes such a message may happen twice (a worker dies between writing a bounce and acknowledging what bounced), so its
ids follow from its cause, and it is there once: an item that is in the queue is not put again, and one that was delivered
into an account is found there by its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

from twisted_mail.delivery.intake import MailIntake
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.queueing import InboundQueue, Waiting
from twisted_mail.delivery.trace import return_path_field
from twisted_mail.services import MailRefused
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.values import DeliveryId

__all__ = ["InternalMail", "OutboundDoor"]


class OutboundDoor(Protocol):
    """How mail of the server's own leaves (`relay.intake.Outgoing`)."""

    async def submit(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "", sender: str = ""
    ) -> None:
        """Raises: StorageError, MailRefused."""


class InternalMail:
    """Sends messages with the null sender to addresses of ours and of others."""

    _log = Logger()

    def __init__(
        self,
        intake: MailIntake,
        queue: InboundQueue,
        outbound: OutboundDoor | None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._outbound = outbound
        self._wall = wall

    async def submit(self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "") -> None:
        """Send *octets* (a whole message, small) to *recipient*, because of *cause*: once, however often it is called.

        *stream*: of mail that leaves, that of its cause. Mail to an address that does not exist, or that goes round in
        circles, is dropped: there is nobody to tell. Raises: StorageError, MailRefused (temporary: try again).
        """
        try:
            found = await self._intake.resolve(recipient)
        except MailRefused as error:
            if error.temporary:
                raise
            self._log.info("{action} of {id} to {to} is dropped: {why}", action=action, id=cause, to=recipient, why=error)
            return
        waiting = [
            Waiting(
                Copy(
                    delivery=cause.caused(f"{action}/{record.id}"),
                    account=record.id,
                    detail=found.detail,
                    address=recipient,
                    user=record.address,
                    shared=len(found.accounts) + len(found.remote) > 1,
                ),
                repeated=True,
            )
            for record in found.accounts
        ]
        if waiting:
            await self._enqueue(waiting, octets)
        for address in found.remote:
            if self._outbound is None:
                self._log.info("{action} of {id} to {to} is dropped: no mail leaves here", action=action, id=cause, to=address)
            else:
                await self._outbound.submit(cause, f"{action}/{address}", address, octets, stream=stream)

    async def _enqueue(self, waiting: list[Waiting], octets: bytes) -> None:
        spool = self._queue.spools.begin()
        try:
            await spool.write(return_path_field("") + octets)
            failures = await self._queue.put(spool, waiting, sender="", received=int(self._wall()))
        except OSError as error:
            raise StorageError(str(error)) from error
        finally:
            spool.close()
        for failure in failures.values():
            raise failure
