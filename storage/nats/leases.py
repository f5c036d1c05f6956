"""What this process has leased: who holds what until when, and the signs of life to the servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from msgspec import MsgspecError, msgpack
from nats.aio.msg import Msg

from twisted_mail.storage.nats.items import Entry, Place
from twisted_mail.storage.nats.link import Link, ended
from twisted_mail.storage.nats.pulls import Delivery, Pulls
from twisted_mail.values import DeliveryId

__all__ = ["Held", "Lease", "LeaseTable"]

ANSWERS_SECONDS: Final = 0.05
"""How long the other processes have to say what they have leased; it is for the eyes of operators."""
TOLD_AT_ONCE: Final = 5_000
REMEMBERED: Final = 10_000
"""Leases that ran out and that nobody asked for again; beyond that the oldest is forgotten."""


@dataclass(slots=True, eq=False)
class Lease:
    """An item that a holder of this process works on."""

    place: Place
    delivery: Delivery
    entry: Entry
    token: str
    expires: float
    """By this process's clock."""
    alive_until: float
    """By asyncio's clock: until then the servers give it to nobody else."""
    unsure: bool = False
    """Whether its acknowledgement was tried, and the outcome is not known."""


@dataclass(frozen=True, slots=True)
class Held:
    """What others may know of a lease."""

    attempts: int
    expires: float
    """By this process's clock."""


class LeaseTable:
    """The leases of this process, by token and by item. An item has at most one holder here: the newest."""

    def __init__(self, link: Link, pulls: Pulls, clock: Callable[[], float]) -> None:
        self._link = link
        self._prefix = link.settings.prefix
        self._pulls = pulls
        self._clock = clock
        self._by_token: dict[str, Lease] = {}
        self._by_id: dict[DeliveryId, Lease] = {}
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._beating = self._link.spawn(self._beat())

    async def stop(self) -> None:
        """Give back what is still leased."""
        beating, self._beating = self._beating, None
        await ended(beating)
        for lease in list(self._by_token.values()):
            self.drop(lease)
            await self._pulls.give_back(lease.delivery)

    def grant(self, place: Place, delivery: Delivery, entry: Entry, seconds: float) -> Lease:
        old = self._by_id.get(place.id)
        if old is not None:
            self.drop(old)
        alive_until = asyncio.get_running_loop().time() + self._link.settings.ack_wait
        lease = Lease(place, delivery, entry, uuid4().hex, self._clock() + seconds, alive_until)
        self._by_token[lease.token] = self._by_id[place.id] = lease
        return lease

    def of(self, token: str) -> Lease | None:
        """Run out or not: it is its holder's until somebody else has the item."""
        return self._by_token.get(token)

    def held(self) -> Mapping[DeliveryId, Held]:
        """What is leased here and has not run out."""
        now = self._clock()
        return {
            id: Held(lease.entry.item.attempts, lease.expires)
            for id, lease in self._by_id.items()
            if lease.expires > now
        }

    # --- what others have

    async def start_answering(self) -> None:
        """Tell who asks what is leased here; what has been revoked anywhere is leased here no more. Within asyncio."""
        await self._link.subscribe(f"{self._prefix}.leased", self._asked)
        await self._link.subscribe(f"{self._prefix}.revoked", self._revoked)

    async def _asked(self, message: Msg) -> None:
        now, held = self._clock(), list(self.held().items())
        for at in range(0, len(held), TOLD_AT_ONCE):
            told = [(id.octets, held.attempts, held.expires - now) for id, held in held[at : at + TOLD_AT_ONCE]]
            await self._link.publish(message.reply, msgpack.encode(told))

    async def everywhere(self) -> Mapping[DeliveryId, Held]:
        """What is leased by any process, as far as they answer in time."""
        found: dict[DeliveryId, Held] = {}
        inbox, now = f"_INBOX.{uuid4().hex}", self._clock()

        async def received(message: Msg) -> None:
            with suppress(MsgspecError, ValueError):
                for octets, attempts, seconds in msgpack.decode(message.data, type=list[tuple[bytes, int, float]]):
                    found[DeliveryId(octets)] = Held(attempts, now + seconds)

        end = await self._link.subscribe(inbox, received)
        try:
            if await self._link.publish(f"{self._prefix}.leased", b"", reply=inbox):
                await asyncio.sleep(ANSWERS_SECONDS)
        finally:
            await end()
        return {**found, **self.held()}

    async def tell_revoked(self, id: DeliveryId) -> None:
        """Whoever has a lease of it should know soon; that it finds out at the end is certain."""
        self.revoke(id)
        await self._link.publish(f"{self._prefix}.revoked", id.octets)

    async def _revoked(self, message: Msg) -> None:
        if len(message.data) == 16:
            self.revoke(DeliveryId(message.data))

    # --- leases of this process

    def extend(self, lease: Lease, seconds: float, told: float) -> bool:
        """The servers were told at *told* by asyncio's clock. False: it was lost meanwhile."""
        if self._by_token.get(lease.token) is not lease:
            return False
        lease.expires = self._clock() + seconds
        lease.alive_until = told + self._link.settings.ack_wait
        return True

    def run_out(self, use: str, limit: int) -> list[Lease]:
        """At most *limit* leases that ran out and that the servers still count as this process's, oldest first."""
        now, loop_now = self._clock(), asyncio.get_running_loop().time()
        margin = self._link.settings.ack_wait / 10
        found = [
            lease
            for lease in self._by_token.values()
            if lease.expires <= now and lease.place.use == use and loop_now < lease.alive_until - margin
        ]
        found.sort(key=lambda lease: lease.entry.due)
        return found[:limit]

    def drop(self, lease: Lease) -> None:
        self._by_token.pop(lease.token, None)
        if self._by_id.get(lease.place.id) is lease:
            del self._by_id[lease.place.id]

    def revoke(self, id: DeliveryId) -> None:
        lease = self._by_id.get(id)
        if lease is not None:
            self.drop(lease)

    async def _beat(self) -> None:
        """Signs of life for every lease that has not run out."""
        loop, wait = asyncio.get_running_loop(), self._link.settings.ack_wait
        while True:
            await asyncio.sleep(wait / 4)
            now = self._clock()
            for number, lease in enumerate(list(self._by_token.values())):
                if lease.expires > now and await self._pulls.progress(lease.delivery):
                    lease.alive_until = loop.time() + wait
                if number % 100 == 99:
                    await asyncio.sleep(0)
            self._forget()

    def _forget(self) -> None:
        for lease in list(self._by_token.values())[: max(0, len(self._by_token) - REMEMBERED)]:
            if lease.expires <= self._clock():
                self.drop(lease)
