"""Reading messages off the wire: by DATA up to the dot (RFC 5321), by BDAT in counted chunks (RFC 3030)."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.smtp.body import BARE_LINE_ENDS, Body
from twisted_mail.smtp.replies import Reply
from twisted_mail.smtp.wire import DotStuffed, Input

__all__ = ["ChunkDropped", "ChunkTaken", "MessageEnded", "Reception"]


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The last octet of the message has come."""

    body: Body


@dataclass(frozen=True, slots=True)
class ChunkTaken:
    """A chunk that is not the last has come; `body` may have been refused with it."""

    size: int
    body: Body


@dataclass(frozen=True, slots=True)
class ChunkDropped:
    """The octets of a chunk that could not be taken have come, and were thrown away."""

    refusal: Reply
    replies: int
    """How often it is to be said; 0: the command was out of order."""


@dataclass(slots=True)
class _Chunk:
    size: int
    left: int
    last: bool
    dropped: ChunkDropped | None


class Reception:
    """What is being read of a message. Whatever becomes of it, its octets are read to their end: they are no commands."""

    __slots__ = ("_chunk", "_dots", "_input", "body")

    def __init__(self, input: Input) -> None:
        self._input = input
        self._dots: DotStuffed | None = None
        self._chunk: _Chunk | None = None
        self.body: Body | None = None
        """The message of this transaction, from DATA or the first BDAT to its end."""

    @property
    def active(self) -> bool:
        """Octets of a message are what comes next."""
        return self._dots is not None or self._chunk is not None

    @property
    def starved(self) -> bool:
        """There is nothing to do before more octets come."""
        return not len(self._input) and (self._chunk is None or self._chunk.left > 0)

    def begin_data(self, *, look_for_lone_dots: bool) -> None:
        """After 354."""
        self._dots = DotStuffed(look_for_lone_dots=look_for_lone_dots)

    def begin_chunk(self, size: int, *, last: bool) -> None:
        """After a BDAT for `body`."""
        self._chunk = _Chunk(size, size, last, None)

    def drop_chunk(self, size: int, refusal: Reply, replies: int = 0) -> None:
        """After a BDAT that cannot be taken: its octets come all the same (RFC 3030 section 2)."""
        self._chunk = _Chunk(size, size, False, ChunkDropped(refusal, replies))

    async def abort(self) -> None:
        """Nothing of the message stays."""
        body, self.body = self.body, None
        if body is not None:
            await body.abort()

    async def step(self) -> MessageEnded | ChunkTaken | ChunkDropped | None:
        """Take what has come; what is complete with it, if anything is."""
        if self._dots is not None:
            return await self._data(self._dots)
        if self._chunk is not None:
            return await self._chunked(self._chunk)
        return None

    async def _data(self, dots: DotStuffed) -> MessageEnded | None:
        octets, rest = dots.feed(self._input.take(len(self._input)))
        self._input.give_back(rest)
        body = self._current()
        await body.take(octets)
        if dots.lone_dot and body.refusal is None:
            await body.refuse(BARE_LINE_ENDS)
        if not dots.ended:
            return None
        self._dots = None
        return MessageEnded(body)

    async def _chunked(self, chunk: _Chunk) -> MessageEnded | ChunkTaken | ChunkDropped | None:
        octets = self._input.take(chunk.left)
        chunk.left -= len(octets)
        if chunk.dropped is None:
            await self._current().take(octets)
        if chunk.left:
            return None
        self._chunk = None
        if chunk.dropped is not None:
            return chunk.dropped
        body = self._current()
        return MessageEnded(body) if chunk.last else ChunkTaken(chunk.size, body)

    def _current(self) -> Body:
        if self.body is None:
            raise RuntimeError("octets of a message without a message")
        return self.body
