"""How an item of the queue is written, and the subjects that say where it stands.

A subject is ``<prefix>.<use>.<state>.<shard>.<domain>.<sender>.<id>``, with hashes of the domain and the sender: the state
is in the subject, and there is no second index. ``due`` is seen by the shard's consumer; ``wait`` is a message schedule
that becomes ``due`` at its time; ``held`` is a schedule that never comes, so that the servers can let go of it in the
step that writes what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, Self

from msgspec import MsgspecError, Struct, msgpack

from twisted_mail.storage.interfaces import USES, Corrupt, QueueItem
from twisted_mail.storage.nats.jetstream import rfc3339
from twisted_mail.values import BlobRef, DeliveryId

__all__ = ["DUE", "HELD", "WAIT", "Entry", "Place", "expecting", "hashed", "in_place_of", "scheduled"]

DUE: Final = "due"
WAIT: Final = "wait"
HELD: Final = "held"
VERSION: Final = 1
NEVER: Final = 7_258_118_400.0
"""The year 2200."""


def hashed(text: str) -> str:
    """A subject token for *text*."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands. `tail` is what its subjects have in common."""

    prefix: str
    use: str
    state: str
    tail: str

    @classmethod
    def of(cls, prefix: str, item: QueueItem, state: str, shards: int) -> Self:
        """The shard of an item that leaves is its domain's, so that one worker has all to a destination; others' are spread."""
        domain = hashed(item.domain)
        key = domain if item.use != "inbound" else item.id.octets.hex()[-12:]
        shard = int(key, 16) % shards
        return cls(prefix, item.use, state, f"{shard:02d}.{domain}.{hashed(item.sender)}.{item.id}")

    @classmethod
    def parse(cls, subject: str) -> Self:
        """Raises: ValueError."""
        prefix, use, state, tail = subject.split(".", 3)
        place = cls(prefix, use, state, tail)
        place.id  # noqa: B018  # looked at, so that it cannot fail later
        return place

    @property
    def subject(self) -> str:
        return f"{self.prefix}.{self.use}.{self.state}.{self.tail}"

    @property
    def any(self) -> str:
        """Matches the item wherever it stands."""
        return f"{self.prefix}.{self.use}.*.{self.tail}"

    @property
    def id(self) -> DeliveryId:
        return DeliveryId.parse(self.tail.rpartition(".")[2])

    def moved(self, state: str) -> Self:
        return replace(self, state=state)


class _Written(Struct, array_like=True, frozen=True):
    version: int
    id: bytes
    use: str
    envelope: bytes
    hash: str | None
    size: int
    generation: int
    domain: str
    sender: str
    attempts: int
    last_reply: str
    created: float
    due: float
    mark: bytes


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(_Written)


@dataclass(frozen=True, slots=True)
class Entry:
    """An item, when it is due, and the mark of the `put` that brought it."""

    item: QueueItem
    due: float
    """Seconds since 1970 by the servers' clock."""
    mark: bytes

    def encode(self) -> bytes:
        item, body = self.item, self.item.body
        hash, size, generation = (None, 0, 0) if body is None else (body.hash, body.size, body.generation)
        written = _Written(
            version=VERSION,
            id=item.id.octets,
            use=item.use,
            envelope=item.envelope,
            hash=hash,
            size=size,
            generation=generation,
            domain=item.domain,
            sender=item.sender,
            attempts=item.attempts,
            last_reply=item.last_reply,
            created=item.created,
            due=self.due,
            mark=self.mark,
        )
        return _encoder.encode(written)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: Corrupt."""
        try:
            read = _decoder.decode(data)
            if read.version != VERSION or read.use not in USES:
                raise ValueError(f"version {read.version}")
            body = None if read.hash is None else BlobRef(read.hash, read.size, read.generation)
            rest = (read.domain, read.sender, read.attempts, read.last_reply, read.created)
            item = QueueItem(DeliveryId(read.id), read.use, read.envelope, body, *rest)
        except (MsgspecError, ValueError) as error:
            raise Corrupt(f"an item of the queue cannot be read: {error}") from error
        return cls(item, read.due, read.mark)

    def with_item(self, due: float | None = None, **changes: object) -> Self:
        """The same with other values of the item's."""
        item = replace(self.item, **changes)  # type: ignore[arg-type]  # names are the item's
        return replace(self, item=item, due=self.due if due is None else due)


# --- headers


def scheduled(place: Place, at: float) -> Mapping[str, str]:
    """Of a message at *place* that becomes due at *at*."""
    return {"Nats-Schedule": f"@at {rfc3339(at)}", "Nats-Schedule-Target": place.moved(DUE).subject}


def expecting(sequence: int, subject: str) -> Mapping[str, str]:
    """Take it only if the newest message that matches *subject* is *sequence* (0: there is none)."""
    return {
        "Nats-Expected-Last-Subject-Sequence": str(sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": subject,
    }


def in_place_of(schedule: Place) -> Mapping[str, str]:
    """Remove the schedule at *schedule* in the same step."""
    return {"Nats-Scheduler": schedule.subject, "Nats-Schedule-Next": "purge"}
