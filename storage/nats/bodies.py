"""Bodies of queued mail while the object store is down: a bounded `Blobs` in a stream.

The servers take at most 1 MiB a message, so a blob is parts under a random token, and one message under its hash that
names the token: what is not finished is not there, and the same content is kept once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from os import urandom
from typing import Final

from msgspec import MsgspecError, Struct, msgpack
from twisted.logger import Logger

from twisted_mail.storage.interfaces import BlobWriter, ChooseGeneration, Corrupt, NotFound, Refused, StorageError
from twisted_mail.storage.nats.items import expecting
from twisted_mail.storage.nats.jetstream import FULL, WRONG_SEQUENCE, JetStream, JetStreamError
from twisted_mail.values import BlobRef

__all__ = ["QueueBodies"]

CHUNK: Final = 65_536
"""What a reader gets at a time."""
PART: Final = 4 * CHUNK
"""Octets of one message."""
LEFT_OVER_SECONDS: Final = 86_400.0
"""Age at which parts that no blob names are nobody's any more: no message takes a day to come in."""


class _Named(Struct, array_like=True, frozen=True):
    token: str
    size: int


class QueueBodies:
    """Implements `Blobs`. Holds `Settings.bodies` octets, and refuses what is beyond."""

    _log = Logger()

    def __init__(self, jetstream: JetStream) -> None:
        self._js = jetstream
        self._link = jetstream.link
        self.stream = f"{self._link.settings.prefix}-bodies"
        self._subject = f"{self._link.settings.prefix}.body"

    async def start(self) -> None:
        """Within asyncio: make the stream, and remove what crashed writes have left. Raises: StorageError."""
        await self._js.make_stream(
            self.stream,
            {
                "description": "bodies of queued mail",
                "subjects": [f"{self._subject}.>"],
                "retention": "limits",
                # here nothing may be dropped to make room; the queue's own streams cannot say so
                "discard": "new",
                "max_bytes": self._link.settings.bodies,
                "max_msgs_per_subject": 1,
                "allow_direct": True,
            },
        )
        await self._remove_left_overs()

    async def _remove_left_overs(self) -> None:
        subjects = await self._js.subjects(self.stream, f"{self._subject}.part.*.0")
        named = {named.token for named in (await self._named_all()).values()}
        for subject in subjects:
            token = subject.split(".")[-2]
            if token in named:
                continue
            first = await self._js.last(self.stream, subject)
            if first is not None and first.time < self._link.now() - LEFT_OVER_SECONDS:
                self._log.info("removing a body that an interrupted write has left")
                await self._js.purge(self.stream, f"{self._subject}.part.{token}.*")

    async def _named_all(self) -> dict[BlobRef, _Named]:
        subjects = await self._js.subjects(self.stream, f"{self._subject}.ref.*.*")
        found = {}
        for subject, stored in (await self._js.last_of_many(self.stream, subjects)).items():
            named = _decoded(stored.data)
            hash, generation = subject.split(".")[-2:]
            found[BlobRef(hash, named.size, int(generation))] = named
        return found

    # --- Blobs

    def writer(self) -> BlobWriter:
        return _Writer(self)

    async def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        named = await self._link.run(self._named(ref))
        if named is None:
            raise NotFound(f"no body {ref.hash}")
        if named.size != ref.size:
            raise Corrupt(f"the body {ref.hash} does not have its {ref.size} octets")
        at, stop = start, ref.size if end is None else min(end, ref.size)
        while at < stop:
            number, begin = divmod(at, PART)
            data = await self._link.run(self._part(named, number))
            wanted = data[begin : begin + stop - at]
            if not wanted:
                raise Corrupt(f"the body {ref.hash} ends at {at} of {ref.size} octets")
            at += len(wanted)
            for piece in range(0, len(wanted), CHUNK):
                yield wanted[piece : piece + CHUNK]

    async def delete(self, ref: BlobRef) -> None:
        await self._link.run(self._delete(ref))

    async def iterate(self) -> AsyncIterator[BlobRef]:
        for ref in await self._link.run(self._named_all()):
            yield ref

    # --- within asyncio

    def ref_subject(self, ref: BlobRef) -> str:
        return f"{self._subject}.ref.{ref.hash}.{ref.generation}"

    async def _named(self, ref: BlobRef) -> _Named | None:
        stored = await self._js.last(self.stream, self.ref_subject(ref))
        return None if stored is None else _decoded(stored.data)

    async def _part(self, named: _Named, number: int) -> bytes:
        stored = await self._js.last(self.stream, f"{self._subject}.part.{named.token}.{number}")
        if stored is None:
            raise NotFound("the body was deleted while it was read")
        return stored.data

    async def _delete(self, ref: BlobRef) -> None:
        named = await self._named(ref)
        if named is not None:
            # the name first: what has none is found and removed sooner or later
            await self._js.purge(self.stream, self.ref_subject(ref))
            await self.forget(named.token)

    async def store(self, token: str, number: int, data: bytes) -> None:
        """One part of a blob that is being written. Raises: Refused when there is no room."""
        await self._write(f"{self._subject}.part.{token}.{number}", data, {})

    async def name(self, token: str, ref: BlobRef) -> None:
        """The blob is whole; if there is one of that content, this one goes."""
        if await self._named(ref) is None:
            data = msgpack.encode(_Named(token, ref.size))
            subject = self.ref_subject(ref)
            try:
                await self._write(subject, data, dict(expecting(0, subject)))
            except JetStreamError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
                # another writer came first
            else:
                return
        await self.forget(token)

    async def forget(self, token: str) -> None:
        """Remove what was written under *token*."""
        await self._js.purge(self.stream, f"{self._subject}.part.{token}.*")

    async def _write(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        try:
            await self._js.write(subject, data, headers)
        except JetStreamError as error:
            if error.number in FULL:
                raise Refused("the queue has no room for more bodies") from error
            raise

    async def part_of_writer(self, token: str, number: int, data: bytes) -> None:
        """For the writer, in front of asyncio."""
        await self._link.run(self.store(token, number, data))

    async def name_of_writer(self, token: str, ref: BlobRef) -> None:
        await self._link.run(self.name(token, ref))

    async def forget_of_writer(self, token: str) -> None:
        try:
            await self._link.run(self.forget(token))
        except StorageError as error:
            self._log.info("parts of a body are left for later: {error}", error=error)


def _decoded(data: bytes) -> _Named:
    try:
        return msgpack.decode(data, type=_Named)
    except MsgspecError as error:
        raise Corrupt(f"the name of a body cannot be read: {error}") from error


class _Writer:
    """Implements `BlobWriter`. Holds one part."""

    def __init__(self, bodies: QueueBodies) -> None:
        self._bodies = bodies
        self._token = urandom(12).hex()
        self._hash = sha256()
        self._size = 0
        self._buffer = bytearray()
        self._parts = 0
        self._open = True

    async def write(self, chunk: bytes) -> None:
        if not self._open:
            raise ValueError("the blob is finished")
        self._hash.update(chunk)
        self._size += len(chunk)
        self._buffer += chunk
        while len(self._buffer) >= PART:
            await self._flush()

    async def _flush(self) -> None:
        data = bytes(self._buffer[:PART])
        del self._buffer[:PART]
        self._parts += 1
        await self._bodies.part_of_writer(self._token, self._parts - 1, data)

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        if not self._open:
            raise ValueError("the blob is finished")
        self._open = False
        try:
            if self._buffer:
                await self._flush()
            ref = BlobRef(self._hash.hexdigest(), self._size)
            if generation is not None:
                ref = BlobRef(ref.hash, ref.size, await generation(ref))
            await self._bodies.name_of_writer(self._token, ref)
        except BaseException:
            await self._remove()
            raise
        return ref

    async def abort(self) -> None:
        if self._open:
            self._open = False
            await self._remove()

    async def _remove(self) -> None:
        self._buffer.clear()
        if self._parts:
            await self._bodies.forget_of_writer(self._token)
