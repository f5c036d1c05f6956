"""What a daemon answers, read from its `Wire` up to a bound: a daemon that has gone mad must not fill the memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.wires import Wire

__all__ = ["Answers", "clean", "first", "send_all"]


class Answers:
    """Everything raises FilterDown: for an answer without end, or none."""

    def __init__(self, wire: Wire, seconds: float, most_bytes: int = 65_536) -> None:
        self._wire = wire
        self._seconds = seconds
        self._left = most_bytes
        self._received = b""

    async def line(self) -> bytes:
        """The next line, without its end."""
        return (await self.until(b"\n")).removesuffix(b"\r")

    async def until(self, delimiter: bytes) -> bytes:
        """What comes before *delimiter*, which is consumed."""
        while (at := self._received.find(delimiter)) < 0:
            await self._more()
        found, self._received = self._received[:at], self._received[at + len(delimiter) :]
        return found

    async def octets(self, count: int) -> bytes:
        """Exactly so many."""
        if count > self._left + len(self._received):
            raise FilterDown(f"it announces an answer of {count} octets")
        while len(self._received) < count:
            await self._more()
        found, self._received = self._received[:count], self._received[count:]
        return found

    async def rest(self) -> bytes:
        """All until it hangs up."""
        while self._wire.waiting or not self._wire.ended:
            try:
                await self._more()
            except FilterDown:
                if self._left < 0 or not self._wire.ended:
                    raise
        return self._received

    async def _more(self) -> None:
        data = await self._wire.receive(self._seconds)
        self._left -= len(data)
        if self._left < 0:
            raise FilterDown("its answer has no end")
        self._received += data


async def first(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The first *most_bytes* of *chunks*, which are closed then."""
    try:
        async for chunk in chunks:
            if len(chunk) >= most_bytes:
                yield chunk[:most_bytes]
                return
            most_bytes -= len(chunk)
            yield chunk
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


async def send_all(wire: Wire, octets: AsyncGenerator[bytes, None], seconds: float) -> None:
    """Send *octets*, until the daemon answers before it has them all (which is not for praise). Raises FilterDown."""
    async with aclosing(octets):
        async for chunk in octets:
            if wire.waiting:
                return
            try:
                await wire.send(chunk, seconds)
            except FilterDown:
                if not wire.waiting:
                    raise
                return


def clean(text: str, most: int = 200) -> str:
    """What a daemon said, fit for a line of SMTP or of a log: printable ASCII, one space at a time, not too long."""
    text = "".join(char if " " <= char <= "~" else "?" if char > "~" else " " for char in text)
    return " ".join(text.split())[:most]
