"""What senders are told of their mail."""

from __future__ import annotations

from typing import Protocol

from twisted_mail.relay.items import Outbound
from twisted_mail.relay.values import Verdict
from twisted_mail.services import MailRefused, Refusal
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.values import DeliveryId


class Internal(Protocol):
    async def submit(self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "") -> None: ...


class Reporting:
    def __init__(self, internal: Internal) -> None:
        self._internal = internal

    async def failed(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> None:
        raise MailRefused(Refusal.UNAVAILABLE)

    async def delayed(self, item: QueueItem, outbound: Outbound, verdict: Verdict, until: float) -> None:
        raise MailRefused(Refusal.UNAVAILABLE)

    async def delivered(self, item: QueueItem, outbound: Outbound, verdict: Verdict) -> None:
        raise MailRefused(Refusal.UNAVAILABLE)
