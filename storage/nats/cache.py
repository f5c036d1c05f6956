"""Small values and counters in a stream in the servers' memory, replicated where there are servers for it.

While the servers do not answer, values are lost and `get` finds nothing; counters go on in this process. A throttle so
still holds back what comes to one node, which is better than letting everything through or nothing.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from twisted.logger import Logger

from twisted_mail.storage.interfaces import StorageError, Unavailable
from twisted_mail.storage.memory.small import MAX_CACHED, MemoryCache
from twisted_mail.storage.nats.items import expecting
from twisted_mail.storage.nats.jetstream import WRONG_SEQUENCE, JetStream, JetStreamError

__all__ = ["NATSCache"]

_EXPIRES: Final = struct.Struct(">d")
_COUNTER: Final = struct.Struct(">dq")
KNOWN: Final = 10_000
"""Counters whose last state is kept here, so that the next increment needs one request instead of two."""
MENDING_SECONDS: Final = 5.0
"""Between two looks whether the stream is there."""
CONFLICTS: Final = 50
"""Other nodes' increments that may come before ours; then it is counted here only."""


@dataclass(slots=True)
class _Known:
    """A counter as it was when this process last saw it."""

    sequence: int = 0
    total: int = 0
    expires: float = 0.0


@dataclass(slots=True)
class _Adding:
    """Increments of one counter that wait while one is written; they go together."""

    waiting: list[tuple[int, float, asyncio.Future[int]]] = field(default_factory=list)


class NATSCache:
    """Implements `Cache`. Times are the servers'."""

    _log = Logger()

    def __init__(self, jetstream: JetStream, quick: JetStream, here: MemoryCache) -> None:
        self._patient = jetstream
        """For the start."""
        self._js = quick
        self._link = jetstream.link
        self._here = here
        """Counts while the servers do not answer."""
        self._stream = f"{self._link.settings.prefix}-cache"
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._adding: dict[str, _Adding] = {}
        self._mending: asyncio.Task[None] | None = None
        self._mended = float("-inf")

    async def start(self) -> None:
        """Within asyncio. Raises: StorageError."""
        await self._patient.make_stream(
            self._stream,
            {
                "description": "shared cache",
                "subjects": [f"{self._link.settings.prefix}.cache.*.*"],
                "storage": "memory",
                "retention": "limits",
                "discard": "old",
                "max_msgs_per_subject": 1,
                "max_bytes": self._link.settings.cache,
                "allow_direct": True,
                "allow_msg_ttl": True,
            },
        )

    async def get(self, key: str) -> bytes | None:
        if not self._link.up:
            return None
        try:
            return await self._link.run(self._get(key))
        except StorageError as error:
            self._failed(error)
            return None

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        if len(value) > MAX_CACHED:
            raise ValueError(f"a cached value has at most {MAX_CACHED} octets")
        if not self._link.up:
            return
        try:
            await self._link.run(self._set(key, value, ttl))
        except StorageError as error:
            self._failed(error)

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        if self._link.up:
            try:
                return await self._link.run(self._increment(key, ttl, by))
            except StorageError as error:
                self._failed(error)
        return await self._here.increment(key, ttl, by)

    def _failed(self, error: StorageError) -> None:
        """A stream in memory is gone when the only server that had it starts again: it is made anew, beside all this."""
        self._log.debug("the shared cache is out of reach: {error}", error=error)
        now = self._link.loop_time()
        if self._link.up and self._mending is None and now - self._mended > MENDING_SECONDS:
            self._mended = now
            self._mending = self._link.spawn(self._mend())

    async def _mend(self) -> None:
        try:
            await self.start()
        except StorageError as error:
            self._log.debug("the shared cache cannot be made: {error}", error=error)
        finally:
            self._mending = None

    # --- values

    def _subject(self, kind: str, key: str) -> str:
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{self._link.settings.prefix}.cache.{kind}.{digest}"

    async def _get(self, key: str) -> bytes | None:
        stored = await self._js.last(self._stream, self._subject("v", key))
        if stored is None or len(stored.data) < _EXPIRES.size:
            return None
        (expires,) = _EXPIRES.unpack_from(stored.data)
        return stored.data[_EXPIRES.size :] if expires > self._link.now() else None

    async def _set(self, key: str, value: bytes, ttl: float) -> None:
        data = _EXPIRES.pack(self._link.now() + ttl) + value
        await self._js.write(self._subject("v", key), data, _lives(ttl))

    # --- counters

    async def _increment(self, key: str, ttl: float, by: int) -> int:
        """One write of a key at a time from this process, with all that wait for it: nodes contend, callers do not."""
        subject = self._subject("n", key)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        adding = self._adding.get(subject)
        if adding is not None:
            adding.waiting.append((by, ttl, done))
            return await done
        adding = self._adding[subject] = _Adding([(by, ttl, done)])
        task = self._link.spawn(self._write_all(subject, adding))
        task.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        return await done

    async def _write_all(self, subject: str, adding: _Adding) -> None:
        try:
            while adding.waiting:
                now, adding.waiting = adding.waiting, []
                try:
                    before = await self._add(subject, sum(by for by, _, _ in now), now[0][1])
                except StorageError as error:
                    for _, _, done in now:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for by, _, done in now:
                    before += by
                    if not done.done():
                        done.set_result(before)
        finally:
            del self._adding[subject]

    async def _add(self, subject: str, by: int, ttl: float) -> int:
        """Returns what it was before. Raises: Unavailable."""
        known = self._known.pop(subject, None)
        for _ in range(CONFLICTS):
            if known is None:
                known = await self._look(subject)
            now = self._link.now()
            before, expires = (known.total, known.expires) if known.expires > now else (0, now + ttl)
            data = _COUNTER.pack(expires, before + by)
            headers = {**_lives(expires - now), **expecting(known.sequence, subject)}
            try:
                written = await self._js.write(subject, data, headers)
            except JetStreamError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
                known = None
                continue
            self._known[subject] = _Known(written.sequence, before + by, expires)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
            return before
        raise Unavailable("NATS: a counter is changed all the time")

    async def _look(self, subject: str) -> _Known:
        stored = await self._js.last(self._stream, subject)
        if stored is None:
            return _Known()
        if len(stored.data) != _COUNTER.size:
            return _Known(stored.sequence)
        expires, total = _COUNTER.unpack(stored.data)
        return _Known(stored.sequence, total, expires)


def _lives(ttl: float) -> dict[str, str]:
    """The servers count whole seconds: the rest is in the value."""
    return {"Nats-TTL": f"{max(1, math.ceil(ttl) + 1)}s"}
