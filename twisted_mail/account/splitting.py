"""Where the octets of a message go while it comes in: text to its row and beyond that to one blob, each larger
attachment to a blob of its own, decoded where encoding it again gives the very same octets.

Whether base64 is regular (one line length, one line end, nothing but the alphabet, right padding) is only known line by
line. So each block of lines is decoded, encoded again and compared; what follows the first irregular line is stored as
it came, behind what was decoded, in the same blob. A short rest (a blank line, a footer) counts as text: two messages
that differ in it alone still share the attachment.
"""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from twisted_mail.account.manifests import Run, base64_lines
from twisted_mail.storage.interfaces import Blobs, BlobWriter, ChooseGeneration

__all__ = ["ATTACHMENT_BYTES", "INLINE_BYTES", "MAX_ATTACHMENTS", "Splitter"]

INLINE_BYTES: Final = 64 * 1024
"""A message up to this size lies whole in its row; of a larger one this much text does."""
ATTACHMENT_BYTES: Final = 16 * 1024
"""What is shorter (as sent) is not worth an object: it counts as text."""
MAX_ATTACHMENTS: Final = 200
"""Blobs of one message; attachments beyond are text, so that nobody can have objects made without end."""
_REST: Final = 4096
"""Octets behind regular base64 that are text, if nothing more follows."""
_LONGEST_LINE: Final = 1000
_BLOCK: Final = 48 * 1024
"""Octets of base64 that are looked at together, at least."""

Write = Callable[[bytes], Awaitable[None]]


class _Base64:
    """Regular base64 from the beginning of a stream: decodes it, and says where it ends."""

    def __init__(self) -> None:
        self.line = 0
        self.line_end: Literal["", "\n", "\r\n"] = ""
        self.encoded = 0
        """Octets of base64 that were taken, with their line ends."""
        self.decoded = 0
        self.ended = False
        self._pending = bytearray()

    def feed(self, data: bytes) -> bytes:
        """What is decoded of the next octets. Nothing once it has ended: see `take_rest`."""
        self._pending += data
        if self.ended or len(self._pending) < _BLOCK:
            return b""
        return self._lines(final=False)

    def close(self) -> bytes:
        """The end has come."""
        return b"" if self.ended else self._lines(final=True)

    def take_rest(self) -> bytes:
        """The octets that are not regular base64, or are behind it."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _lines(self, *, final: bool) -> bytes:
        if not self.line and not self._measure():
            self.ended = True
            return b""
        line_end = self.line_end.encode()
        wide, narrow = self.line + len(line_end), self.line // 4 * 3
        block = bytes(self._pending[: len(self._pending) // wide * wide])
        decoded = _decode(block)
        if len(decoded) == len(block) // wide * narrow and base64_lines(decoded, self.line, line_end) == block:
            self._took(len(block), decoded)
        else:
            decoded = self._until_irregular(block, wide, line_end)
        if final and not self.ended:
            decoded += self._last_line(line_end)
        return decoded

    def _measure(self) -> bool:
        """The first line says how long lines are, and how they end."""
        end = self._pending.find(b"\n", 0, _LONGEST_LINE + 2)
        if end < 0:
            return False
        self.line_end = "\r\n" if end and self._pending[end - 1] == 13 else "\n"
        self.line = end + 1 - len(self.line_end)
        return self.line > 0 and self.line % 4 == 0

    def _until_irregular(self, block: bytes, wide: int, line_end: bytes) -> bytes:
        """Of a block that is not regular throughout: the lines before the first that is not."""
        lines: list[bytes] = []
        good = 0
        for at in range(0, len(block), wide):
            decoded = _decode(block[at : at + wide])
            if len(decoded) != self.line // 4 * 3 or base64_lines(decoded, self.line, line_end) != block[at : at + wide]:
                break
            lines.append(decoded)
            good += wide
        out = b"".join(lines)
        self._took(good, out)
        return out + self._last_line(line_end)

    def _last_line(self, line_end: bytes) -> bytes:
        """A line that is shorter or padded ends the base64."""
        self.ended = True
        end = self._pending.find(b"\n", 0, self.line + 2)
        has_end = end >= 0 and self._pending[: end + 1].endswith(line_end)
        text = bytes(self._pending[: end + 1 - len(line_end)] if has_end else self._pending[: self.line + 1])
        decoded = _decode(text) if 0 < len(text) <= self.line else b""
        if not decoded or binascii.b2a_base64(decoded, newline=False) != text:
            return b""
        self._took(len(text) + (len(line_end) if has_end else 0), decoded)
        return decoded

    def _took(self, encoded: int, decoded: bytes) -> None:
        self.encoded += encoded
        self.decoded += len(decoded)
        del self._pending[:encoded]


def _decode(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        return b""


class Splitter:
    """Takes a message as a sequence of text and attachments; in the end there are runs. Keeps at most some
    `INLINE_BYTES` and a block; two blobs are open at once at most."""

    def __init__(self, blobs: Blobs, generation: ChooseGeneration | None) -> None:
        self._blobs = blobs
        self._generation = generation
        self.inline = bytearray()
        self._text: BlobWriter | None = None
        self._text_bytes = 0
        self._runs: list[Run] = []
        """Runs in ``blob`` without a hash are of the text blob, which has none before its end."""
        self._attachments = 0
        self._early = bytearray()
        """The attachment's octets while it is short."""
        self._blob: BlobWriter | None = None
        self._blob_bytes = 0
        self._raw = 0
        """Octets of the attachment stored as they came."""
        self._base64: _Base64 | None = None

    async def text(self, data: bytes) -> None:
        """The next octets, which are no attachment's. Raises StorageError."""
        room = INLINE_BYTES - len(self.inline)
        if room > 0:
            self._add("inline", len(self.inline), len(data[:room]))
            self.inline += data[:room]
            data = data[room:]
        if data:
            if self._text is None:
                self._text = self._blobs.writer()
            self._add("blob", self._text_bytes, len(data))
            self._text_bytes += len(data)
            await self._text.write(data)

    def _add(self, place: Literal["inline", "blob"], start: int, length: int) -> None:
        last = self._runs[-1] if self._runs else None
        if last is not None and last.place == place and not last.hash and last.start + last.length == start:
            self._runs[-1] = Run(place, last.start, last.length + length)
        elif length:
            self._runs.append(Run(place, start, length))

    async def attachment(self, data: bytes, encoding: str) -> None:
        """The next octets of an attachment, whose Content-Transfer-Encoding is *encoding*. Raises StorageError."""
        if self._blob is None:
            if self._attachments >= MAX_ATTACHMENTS:
                return await self.text(data)
            self._early += data
            if len(self._early) <= ATTACHMENT_BYTES:
                return None
            self._attachments += 1
            self._blob = self._blobs.writer()
            self._base64 = _Base64() if encoding == "base64" else None
            data = bytes(self._early)
            self._early.clear()
        return await self._store(data)

    async def _store(self, data: bytes) -> None:
        base64 = self._base64
        if base64 is not None and not self._raw:
            decoded = base64.feed(data)
            if decoded:
                await self._write(decoded)
            if not base64.ended or len(base64._pending) <= _REST:
                return
            data = base64.take_rest()
        self._raw += len(data)
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        assert self._blob is not None
        self._blob_bytes += len(data)
        await self._blob.write(data)

    async def end_attachment(self) -> None:
        """It was its last octet. Raises StorageError."""
        if self._blob is None:
            early = bytes(self._early)
            self._early.clear()
            return await self.text(early)
        base64, rest = self._base64, b""
        if base64 is not None and not self._raw:
            decoded = base64.close()
            if decoded:
                await self._write(decoded)
            rest = base64.take_rest()
            if not base64.encoded or len(rest) > _REST:
                self._raw += len(rest)
                await self._write(rest)
                rest = b""
        ref = await self._blob.finish(self._generation)
        named = (ref.hash, ref.size, ref.generation)
        if base64 is not None and base64.encoded:
            self._runs.append(
                Run("base64", 0, base64.encoded, *named, base64.line, base64.line_end, base64.decoded)
            )
        if self._raw:
            self._runs.append(Run("blob", self._blob_bytes - self._raw, self._raw, *named))
        self._blob, self._base64 = None, None
        self._blob_bytes = self._raw = 0
        if rest:
            await self.text(rest)
        return None

    async def finish(self) -> list[Run]:
        """All runs, in order; every blob is durable. Raises StorageError."""
        if self._text is None:
            return self._runs
        ref = await self._text.finish(self._generation)
        named = (ref.hash, ref.size, ref.generation)
        return [
            Run("blob", run.start, run.length, *named) if run.place == "blob" and not run.hash else run
            for run in self._runs
        ]

    async def abort(self) -> None:
        """Nothing stays of what is not finished."""
        for writer in (self._text, self._blob):
            if writer is not None:
                await writer.abort()
        self.inline.clear()
