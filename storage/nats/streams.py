"""The streams of the queue and the consumers of their shards; where an item stands, and how it is moved."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from os import urandom
from typing import Any, Final

from twisted_mail.storage.interfaces import USES, StorageError
from twisted_mail.storage.nats.items import DUE, HELD, NEVER, Place, expecting, scheduled
from twisted_mail.storage.nats.jetstream import NO_STREAM, WRONG_SEQUENCE, JetStream, JetStreamError, Written
from twisted_mail.storage.nats.link import ended
from twisted_mail.values import DeliveryId

__all__ = ["QueueStreams", "consumer"]

MENDING_SECONDS: Final = 5.0
"""Between two looks whether all consumers are there."""
CLOCK_SECONDS: Final = 30.0
"""Between two looks at the servers' clock."""
KNOWN_SECONDS: Final = 5.0
"""After which all servers know of a new stream."""
KNOWN_TRIES: Final = 50
REMEMBERED: Final = 10_000
"""Items whose subjects are remembered."""
LISTED_AT_ONCE: Final = 50_000
"""Items of a stream, up to which one answer may have to do with all of them."""
COUNTED_SECONDS: Final = 10.0
"""How long that is believed."""
LOOKS: Final = 8
"""At subjects, at the same time."""


def consumer(shard: int) -> str:
    """The name of a shard's consumer."""
    return f"shard-{shard:02d}"


class QueueStreams:
    """One work-queue stream for each use, with a consumer for each shard. All of it within asyncio."""

    def __init__(self, jetstream: JetStream) -> None:
        self.js = jetstream
        self.link = jetstream.link
        self.prefix = self.link.settings.prefix
        self.shards = self.link.settings.shards
        """Once started: as many as the streams were made with."""
        self.made_due = float("-inf")
        """When this process last made an item due, by asyncio's clock."""
        self._mended = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._places: OrderedDict[DeliveryId, Place] = OrderedDict()
        """Of items that were leased or listed lately."""
        self._many: dict[str, tuple[bool, float]] = {}
        """Of each use: whether it had more than `LISTED_AT_ONCE`, and when it was counted."""

    def name(self, use: str) -> str:
        """The stream of *use*. Raises: ValueError."""
        if use not in USES:
            raise ValueError(f"no such use of the queue: {use!r}")
        return f"{self.prefix}-{use}"

    async def start(self) -> None:
        """Make what is missing. Raises: StorageError."""
        for use in USES:
            metadata = await self.js.make_stream(
                self.name(use),
                {
                    "description": f"{use} mail",
                    "subjects": [f"{self.prefix}.{use}.*.*.*.*.*"],
                    "retention": "workqueue",
                    "max_msgs_per_subject": 1,
                    "discard": "old",
                    "allow_direct": True,
                    "allow_rollup_hdrs": True,
                    "allow_msg_schedules": True,
                    "duplicate_window": int(self.link.settings.duplicates * 1e9),
                },
                {"shards": str(self.link.settings.shards)},
            )
            self.shards = _shards(metadata)
            await self._make_consumers(use)
        self._looking = self.link.spawn(self._look_at_the_clock())

    async def stop(self) -> None:
        looking, self._looking = self._looking, None
        await ended(looking)

    async def _look_at_the_clock(self) -> None:
        """The time at which an item is due is the servers', whatever this machine thinks of it."""
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            with suppress(StorageError):
                await self.js.info(self.name(USES[0]))

    async def _make_consumers(self, use: str) -> None:
        stream = self.name(use)
        there: set[str] = set()
        while True:
            page = await self._once_known(f"CONSUMER.NAMES.{stream}", {"offset": len(there)})
            there |= set(page.get("consumers") or ())
            if not page.get("consumers") or len(there) >= page["total"]:
                break
        missing = [shard for shard in range(self.shards) if consumer(shard) not in there]
        await asyncio.gather(*(self._make_consumer(use, stream, shard) for shard in missing))

    async def _make_consumer(self, use: str, stream: str, shard: int) -> None:
        subject = f"{self.prefix}.{use}.{DUE}.{shard:02d}.>"
        config = {
            "name": consumer(shard),
            "durable_name": consumer(shard),
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": int(self.link.settings.ack_wait * 1e9),
            "deliver_policy": "all",
            "max_deliver": -1,
            "max_ack_pending": 10_000,
            "num_replicas": 0,
        }
        what = f"CONSUMER.CREATE.{stream}.{consumer(shard)}.{subject}"
        try:
            await self._once_known(what, {"stream_name": stream, "config": config})
        except JetStreamError as error:
            raise StorageError(f"NATS: consumer {shard} of {stream} cannot be made: {error}") from error

    async def _once_known(self, what: str, body: object) -> dict[str, Any]:
        """A call of the API about a stream that was made a moment ago: of the servers of a cluster some hear of it later.

        Raises: JetStreamError, StorageError."""
        for _ in range(KNOWN_TRIES):
            try:
                return await self.js.api(what, body)
            except JetStreamError as error:
                if error.number != NO_STREAM:
                    raise
                await asyncio.sleep(KNOWN_SECONDS / KNOWN_TRIES)
        return await self.js.api(what, body)

    async def mend(self, use: str) -> None:
        """Consumers were missing (somebody removed them, or they have no leader just now)."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._mended >= MENDING_SECONDS:
            self._mended = loop.time()
            await self._make_consumers(use)

    # --- where an item stands

    def remember(self, place: Place) -> None:
        """It was leased or listed here, and may be asked for by its id soon."""
        self._places[place.id] = place
        if len(self._places) > REMEMBERED:
            self._places.popitem(last=False)

    async def find(self, id: DeliveryId) -> list[Place]:
        """Where an item stands: once, or twice for a moment. Costs a look at all subjects unless it was seen here lately."""
        known = self._places.get(id)
        if known is not None:
            there = await self.js.subjects(self.name(known.use), known.any)
            if there:
                return [Place.parse(subject) for subject in there]
        parts = await asyncio.gather(*(self.parts(use) for use in USES))
        looks = [(use, part) for use, some in zip(USES, parts, strict=True) for part in some]
        for at in range(0, len(looks), LOOKS):
            found = await asyncio.gather(
                *(
                    self.js.subjects(self.name(use), f"{self.prefix}.{use}.*.{part}.*.*.{id}")
                    for use, part in looks[at : at + LOOKS]
                )
            )
            if any(found):
                return [Place.parse(subject) for subjects in found for subject in subjects]
        return []

    async def parts(self, use: str) -> list[str]:
        """What to write for the shard when all items are looked at: where they are many, each shard is asked for by itself.

        A server that has to look through a million subjects for one answer gives it too late, and does nothing else
        meanwhile."""
        now = asyncio.get_running_loop().time()
        many, counted = self._many.get(use, (False, float("-inf")))
        if now - counted > COUNTED_SECONDS:
            many = (await self.js.info(self.name(use)))["state"]["messages"] > LISTED_AT_ONCE
            self._many[use] = many, now
        if not many:
            return ["*"]
        return [f"{shard:02d}" for shard in range(self.shards)]

    # --- moving it

    async def move(self, old: Place, new: Place, data: bytes, sequence: int, at: float = NEVER) -> bool:
        """From ``due`` to a schedule, if *sequence* is still the due one. Within the loss of this process: both, for a while."""
        headers = {**expecting(sequence, old.subject), **scheduled(new, NEVER if new.state == HELD else at)}
        if await self.write_if(new, data, headers) is None:
            return False
        await self.js.delete(self.name(old.use), sequence)
        return True

    async def write_if(self, place: Place, data: bytes, headers: dict[str, str]) -> Written | None:
        """None when the condition in *headers* does not hold. Raises: Refused, Unavailable."""
        id = urandom(12).hex()
        try:
            return await self.js.write(place.subject, data, headers, id)
        except JetStreamError as error:
            if error.number not in WRONG_SEQUENCE:
                raise
            if error.tries > 1:
                # an earlier try of ours may have done it, and its answer was lost
                last = await self.js.last(self.name(place.use), place.subject)
                if last is not None and last.headers.get("Nats-Msg-Id") == id:
                    return Written(last.sequence, False, error.tries)
            return None


def _shards(metadata: Mapping[str, str]) -> int:
    """Raises: StorageError."""
    text = metadata.get("shards", "")
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise StorageError(
            "NATS: the queue's stream was not made by this suite: it does not say how many shards it has"
        )
    return int(text)
