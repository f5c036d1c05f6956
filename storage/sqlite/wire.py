"""What the processes that share a database say to each other: msgpack frames over a UNIX socket.

A frame is its length in four octets, most significant first, and an array whose first element is one of the kinds below.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from msgspec import MsgspecError, msgpack
from twisted.internet.protocol import Protocol

from twisted_mail.storage.sqlite import schema

__all__ = [
    "ANSWER",
    "COUNT",
    "FAILURE",
    "HELLO",
    "MAX_FRAME",
    "MOVED",
    "REQUEST",
    "VERSION",
    "FrameProtocol",
    "reachable",
]

VERSION: Final = (1 << 16) + schema.VERSION
"""Of these frames, and of the tables: processes of two versions of the suite must not share a database."""
HELLO: Final = 0
"""``[0, version, client]``, both ways; the client's name is 16 octets of its choice, the writer's is empty."""
REQUEST: Final = 1
"""``[1, number, operation, arguments]``, to the writer."""
ANSWER: Final = 2
"""``[2, number, result]``, from the writer."""
FAILURE: Final = 3
"""``[3, number, error's class, text]``, from the writer."""
MOVED: Final = 4
"""``[4, account, modseq]``, both ways: the notice of the bus."""
COUNT: Final = 5
"""``[5, number, key, seconds, by]``, to the writer: add to a counter of the cache; answered like a request."""

MAX_FRAME: Final = 128 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_MAX_PATH: Final = 100
"""Octets of a socket's path that every system takes (``sun_path`` has 104 or 108)."""


class FrameProtocol(Protocol):
    """Cuts the stream into frames. A frame that is none ends the connection."""

    max_frame: ClassVar[int] = MAX_FRAME
    """Octets of a frame that comes."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._encoder = msgpack.Encoder()

    def send(self, *frame: object) -> None:
        data = self._encoder.encode(frame)
        self.transport.write(_LENGTH.pack(len(data)) + data)  # type: ignore[union-attr]  # connected by now

    def dataReceived(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= 4:
            (length,) = _LENGTH.unpack_from(received, at)
            if length > self.max_frame:
                self.lost_sync(f"a frame of {length} octets")
                return
            if len(received) - at - 4 < length:
                break
            with memoryview(received) as view:
                frame = bytes(view[at + 4 : at + 4 + length])
            at += 4 + length
            try:
                # frames differ in shape, hence Any
                decoded: Any = msgpack.decode(frame)
                self.frame_received(decoded)
            except (MsgspecError, IndexError, TypeError, ValueError) as error:
                self.lost_sync(str(error))
                return
        if at:
            del received[:at]

    def frame_received(self, frame: list[Any]) -> None:
        """A whole frame has come."""
        raise NotImplementedError

    def lost_sync(self, why: str) -> None:
        """What came cannot be understood; ends the connection."""
        self._received.clear()
        self.transport.abortConnection()  # type: ignore[union-attr]  # of UNIX sockets


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for the socket at *path* that is short enough for the system, good while the context lasts."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
