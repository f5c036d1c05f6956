"""Reading objects: block by block, each a ranged request that is read whole, so no connection waits for a slow reader."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from twisted_mail.storage.interfaces import Corrupt, NotFound, Unavailable
from twisted_mail.storage.s3.calls import OCTETS_PER_SECOND, Calls
from twisted_mail.storage.s3.faults import Fault, PreconditionFailed, RangeRefused, told, translate
from twisted_mail.storage.s3.sealing import (
    FRAME,
    HEADER,
    SEALED_FRAME,
    Keyring,
    KeyUnknown,
    frames,
    sealed_size,
    unseal,
)
from twisted_mail.storage.s3.threads import Task
from twisted_mail.values import BlobRef

__all__ = ["BLOCK", "Piece", "Reader", "get"]

CHUNK: Final = 65_536
"""What a reader of a blob gets at a time."""
BLOCK: Final = 16 * FRAME
"""What is asked for at a time; the next block is fetched while this one is read."""
CIPHERS: Final = 256
"""How many objects' keys are remembered, so that a range costs one request."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of an object's octets."""

    data: bytes
    etag: str
    total: int
    """How long the object is."""


def get(client: Any, bucket: str, name: str, first: int, stop: int, seconds: float, etag: str | None = None) -> Piece:
    """The octets ``[first:stop)``, or as many of them as came before the answer broke off or *seconds* had passed.

    Raises: the driver's errors; `Fault` when nothing came.
    """
    limit = time.monotonic() + seconds
    more = {} if etag is None else {"IfMatch": etag}
    answer = client.get_object(Bucket=bucket, Key=name, Range=f"bytes={first}-{stop - 1}", **more)
    etag = told(answer, "ETag")
    span, _, whole = told(answer, "ContentRange").removeprefix("bytes ").partition("/")
    if not span.startswith(f"{first}-") or not whole.isdecimal():
        answer["Body"].close()
        raise Fault(f"the object store answers with another range than {first}-{stop - 1}", certain=True)
    total = int(whole)
    wanted = min(stop, total) - first
    # below the driver's stream, whose read() waits until all is there: a body that drips would hold the thread
    stream = answer["Body"]._raw_stream
    data = bytearray()
    fault: Exception | None = None
    try:
        while len(data) < wanted:
            part = stream.read1(min(CHUNK, wanted - len(data)))
            if not part:
                fault = Fault("the object store's answer breaks off", certain=True)
                break
            data += part
            if time.monotonic() > limit:
                fault = Fault("the object store's answer does not end", certain=True)
                break
        else:
            stream.read()  # the end of the body, which gives the connection back
    except Exception as error:  # urllib3's, which the driver translates only in its own reading
        translated = translate(error)
        fault = translated if isinstance(translated, Fault) else Fault(f"{error}"[:300], certain=True)
    finally:
        if len(data) < wanted or fault is not None:
            answer["Body"].close()
    if fault is not None and not data:
        raise fault
    return Piece(bytes(data), etag, total)


@dataclass(frozen=True, slots=True)
class _Block:
    """The octets of ``[start:stop)`` of a content of *size* octets, as they are or in whole frames."""

    octets: bytes
    start: int
    stop: int
    size: int
    cipher: AESGCM | None

    def chunks(self) -> Iterator[bytes]:
        """Raises: Corrupt."""
        view = memoryview(self.octets)
        if self.cipher is None:
            for at in range(0, len(view), CHUNK):
                yield bytes(view[at : at + CHUNK])
            return
        number, last = self.start // FRAME, frames(self.size) - 1
        for at in range(0, len(view), SEALED_FRAME):
            begin = number * FRAME
            content = unseal(self.cipher, number, view[at : at + SEALED_FRAME], number == last)
            yield content[max(0, self.start - begin) : self.stop - begin]
            number += 1


class Reader:
    """Reads the objects of one bucket, be they encrypted or not."""

    def __init__(self, calls: Calls, keyring: Keyring | None) -> None:
        self._calls = calls
        self._bucket = calls.settings.bucket
        self._keyring = keyring
        self._ciphers: OrderedDict[tuple[str, str], AESGCM] = OrderedDict()

    async def size(self, name: str) -> int:
        """How long the object is. Raises: NotFound, Unavailable."""
        wanted = {"Bucket": self._bucket, "Key": name}
        return int(await self._calls.run(lambda client: told(client.head_object(**wanted), "ContentLength")))

    async def encrypted(self, ref: BlobRef, name: str) -> bool:
        """Raises: NotFound, Corrupt (the object has not the length of that content), Unavailable."""
        try:
            # asked again before it is called corrupt: the number may have been cut on its way
            for _ in range(2):
                total = await self.size(name)
                if total in (ref.size, sealed_size(ref.size)):
                    return total != ref.size
        except NotFound:
            raise NotFound(f"no blob {ref.hash}") from None
        raise Corrupt(f"the object of blob {ref.hash} has {total} octets, which are not those of {ref.size}")

    async def read(self, ref: BlobRef, name: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """The content ``[start:stop)`` in chunks. The last chunk of a whole content comes when its hash is right."""
        if start >= stop:
            await self.encrypted(ref, name)
            return
        whole = sha256() if start == 0 and stop == ref.size else None
        held = b""
        block = await self._block(ref, name, start, min(stop, (start // BLOCK + 1) * BLOCK))
        while True:
            following = None
            if block.stop < stop:
                following = Task(self._block(ref, name, block.stop, min(stop, block.stop + BLOCK)))
            for chunk in block.chunks():
                if whole is None:
                    yield chunk
                    continue
                whole.update(chunk)
                if held:
                    yield held
                held = chunk
            if following is None:
                break
            block = await following.result()
        if whole is not None:
            if whole.hexdigest() != ref.hash:
                raise Corrupt(f"the content of blob {ref.hash} has another hash")
            yield held

    async def _block(self, ref: BlobRef, name: str, start: int, stop: int) -> _Block:
        """Raises: NotFound, Corrupt, Unavailable."""
        encrypted = self._keyring is not None
        until = self._calls.deadline(stop - start)
        try:
            while True:
                first, end = start, stop
                if encrypted:
                    # the header lies before the first frame, and is wanted with it
                    first = 0 if start < FRAME else HEADER + start // FRAME * SEALED_FRAME
                    end = min(HEADER + frames(stop) * SEALED_FRAME, sealed_size(ref.size))
                try:
                    piece = await self._span(name, first, end, until)
                    if piece.total == (sealed_size(ref.size) if encrypted else ref.size):
                        cipher = await self._cipher(name, piece, first, until) if encrypted else None
                        octets = piece.data[HEADER:] if encrypted and first == 0 else piece.data
                        return _Block(octets, start, stop, ref.size, cipher)
                except (RangeRefused, PreconditionFailed):
                    pass  # another object than was thought, or it got a new header between two requests
                encrypted = await self.encrypted(ref, name)
                if self._calls.reactor.seconds() >= until:
                    raise Unavailable("the object store's answers do not fit together")
        except NotFound:
            raise NotFound(f"no blob {ref.hash}") from None

    async def _cipher(self, name: str, piece: Piece, first: int, until: float) -> AESGCM:
        """Raises: PreconditionFailed (the object was replaced meanwhile), Corrupt, Unavailable."""
        if self._keyring is None:
            raise Unavailable("an object is encrypted, and this server has no key: the option encryption is off")
        known = self._ciphers.get((name, piece.etag))
        if known is not None:
            self._ciphers.move_to_end((name, piece.etag))
            return known
        header = piece.data[:HEADER]
        if first > 0:
            header = (await self._span(name, 0, HEADER, until, piece.etag)).data
        try:
            cipher = self._keyring.open_header(header)
        except KeyUnknown as error:
            raise Unavailable(str(error)) from error
        self._ciphers[name, piece.etag] = cipher
        if len(self._ciphers) > CIPHERS:
            self._ciphers.popitem(last=False)
        return cipher

    async def raw(self, name: str, first: int, stop: int, etag: str | None = None) -> Piece:
        """The object's octets as they lie there. Raises: NotFound, PreconditionFailed (not *etag*), Unavailable."""
        return await self._span(name, first, stop, self._calls.deadline(stop - first), etag)

    async def _span(self, name: str, first: int, stop: int, until: float, etag: str | None = None) -> Piece:
        """The octets ``[first:stop)`` of one version of the object; where an answer breaks off the rest is asked for."""
        have: Piece | None = None
        for attempt in range(1_000_000):
            at = first + (len(have.data) if have else 0)
            seconds = self._calls.settings.timeout_seconds + (stop - at) / OCTETS_PER_SECOND

            def work(client: Any, at: int = at, seconds: float = seconds) -> Piece:
                return get(client, self._bucket, name, at, stop, seconds, etag)

            piece = await self._calls.run(work, until=until)
            if have is not None and (have.etag, have.total) == (piece.etag, piece.total):
                piece = Piece(have.data + piece.data, piece.etag, piece.total)
            elif at > first:
                have = None  # another version: begin anew
                continue
            have = piece
            if len(have.data) == min(stop, have.total) - first:
                return have
            if self._calls.reactor.seconds() >= until:
                break
            await self._calls.pause(min(attempt, 4))
        raise Unavailable("the object store's answers break off again and again")
