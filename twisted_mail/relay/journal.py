"""What happened to messages on their way out, kept for those who ask: `mailctl queue trace`.

A step is a record in the space of its Message-ID, so a whole way is one read. What cannot be written down is lost from the
trace, never from the mail. Nobody has to wait for it: while some steps are being written others gather, and go together next.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from typing import Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.queueing.limits import some_at_a_time
from twisted_mail.storage.interfaces import PutsMany, Records, StorageError

__all__ = ["Journal", "Step"]

KEEP_SECONDS: Final = 14 * 86_400.0
MOST_STEPS: Final = 5000
"""Of one message that are read."""
MOST_WAITING: Final = 10_000
"""Steps that wait to be written; a store that does not answer must not fill the memory."""
TOGETHER: Final = 200
"""Steps written at a time."""


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
_Row = tuple[str, str, bytes, float | None]
"""Space, key, value, seconds to keep it."""


def space_of(message_id: str) -> str:
    """Where the steps of a message are."""
    return f"trace/{blake2b(message_id.encode(), digest_size=16).hexdigest()}"


class Journal:
    """Writes steps down, and reads them."""

    _log = Logger()

    def __init__(self, records: Records, node: str = "") -> None:
        self._records = records
        self._many = records if isinstance(records, PutsMany) else None
        self._node = node
        self._waiting: list[_Row] = []
        self._writing = False
        self._idle: list[Deferred[None]] = []
        """Who waits until everything is written."""

    async def note(self, message_id: str, step: Step) -> None:
        """Keep *step*, and wait until it is kept; a failure is logged only."""
        self.soon(message_id, step)
        await self.written()

    def soon(self, message_id: str, step: Step) -> None:
        """Keep *step*, without waiting for it."""
        if not message_id:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._log.warn("a step of {id} is not written down: too many wait", id=step.id)
            return
        step = msgspec.structs.replace(step, node=self._node)
        key = f"{step.at:017.6f}/{step.id}/{next(_numbers):x}"
        self._waiting.append((space_of(message_id), key, _encoder.encode(step), KEEP_SECONDS))
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write()).addErrback(
                lambda failure: self._log.failure("writing down steps failed", failure)
            )

    async def written(self) -> None:
        """Until nothing waits to be written."""
        if self._writing:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    async def _write(self) -> None:
        try:
            while self._waiting:
                rows, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                await self._put(rows)
        finally:
            self._writing = False
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)

    async def _put(self, rows: Sequence[_Row]) -> None:
        if self._many is None:
            return await some_at_a_time([self._put_one(row) for row in rows])
        try:
            await self._many.put_many(rows)
        except (StorageError, ValueError) as error:
            self._log.warn("{n} steps are not written down: {why}", n=len(rows), why=error)
        return None

    async def _put_one(self, row: _Row) -> None:
        try:
            await self._records.put(*row)
        except (StorageError, ValueError) as error:
            self._log.warn("a step is not written down: {why}", why=error)

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
