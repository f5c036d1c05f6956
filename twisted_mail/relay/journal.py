"""What happened to messages on their way out, kept for those who ask: `mailctl queue trace`.

A step is a record in the space of its Message-ID, so a whole way is one read. What cannot be written down is lost from the
trace, never from the mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from typing import Final

import msgspec
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Records, StorageError

__all__ = ["Journal", "Step"]

KEEP_SECONDS: Final = 14 * 86_400.0
MOST_STEPS: Final = 5000
"""Of one message that are read."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to one row of the queue."""

    at: float
    """Seconds since 1970."""
    what: str
    """``queued``, ``delivered``, ``deferred``, ``warned``, ``bounced``, ``expired``, ``held``."""
    id: str
    """The delivery's."""
    address: str
    sender: str = ""
    attempt: int = 0
    reply: str = ""
    host: str = ""
    source: str = ""
    """The local address, and the pool that it is of."""
    tls: str = ""
    stage: str = ""
    stream: str = ""
    node: str = ""
    next: float = 0.0
    """When it will be tried again, seconds since 1970."""
    login: str = ""
    """Of what was queued: the account that submitted it, by a login or by its network."""
    client: str = ""
    """Of what was queued: the address that it came from."""
    told: str = ""
    """Of what was given up: whether its sender was told, or why not."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Step)
_numbers = count()


def space_of(message_id: str) -> str:
    """Where the steps of a message are."""
    return f"trace/{blake2b(message_id.encode(), digest_size=16).hexdigest()}"


class Journal:
    """Writes steps down, and reads them."""

    _log = Logger()

    def __init__(self, records: Records, node: str = "") -> None:
        self._records = records
        self._node = node

    async def note(self, message_id: str, step: Step) -> None:
        """Keep *step*; a failure is logged only."""
        if not message_id:
            return
        step = msgspec.structs.replace(step, node=self._node)
        key = f"{step.at:017.6f}/{step.id}/{next(_numbers):x}"
        try:
            await self._records.put(space_of(message_id), key, _encoder.encode(step), KEEP_SECONDS)
        except (StorageError, ValueError) as error:
            self._log.warn("a step of {id} is not written down: {why}", id=step.id, why=error)

    async def steps(self, message_id: str) -> Sequence[Step]:
        """The way of a message, oldest first. Raises: StorageError."""
        found: list[Step] = []
        after = ""
        while len(found) < MOST_STEPS:
            page = await self._records.list(space_of(message_id), after, 500)
            if not page:
                break
            for record in page:
                try:
                    found.append(_decoder.decode(record.value))
                except msgspec.MsgspecError:
                    continue
            after = page[-1].key
        return found
