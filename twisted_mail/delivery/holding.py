"""A message that is held while it is judged, and passed on with other fields in its header."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from twisted_mail.filters.rewriting import pairs_of, with_header
from twisted_mail.filters.values import Mail, by_name
from twisted_mail.queueing.spool import Spool

__all__ = ["HEADER_BYTES", "HeldMessage"]

HEADER_BYTES: Final = 1 << 20
"""Of a header that filters are shown, and that can be changed; what is behind it goes on as it is."""

SMALL: Final = 64 * 1024
"""Octets of a message that is passed on in one piece."""


class HeldMessage:
    """Implements `filters.values.Arrived` over a spool."""

    def __init__(self, mail: Mail, spool: Spool) -> None:
        self._mail = mail
        self._spool = spool
        self._start: bytearray | None = bytearray()
        """The beginning of the message, until its header is whole."""
        self._header = b""
        self._pairs: list[tuple[bytes, bytes]] | None = None
        self._named: dict[bytes, list[bytes]] | None = None

    async def write(self, chunk: bytes) -> None:
        """The next octets. Raises: OSError."""
        if self._start is not None:
            at = max(len(self._start) - 3, 0)
            self._start += chunk
            end = -2 if self._start.startswith(b"\r\n") else self._start.find(b"\r\n\r\n", at)
            if end != -1 or len(self._start) >= HEADER_BYTES:
                self._header = bytes(self._start[: HEADER_BYTES if end == -1 else min(end + 2, HEADER_BYTES)])
                self._start = None
        await self._spool.write(chunk)

    @property
    def mail(self) -> Mail:
        """The transaction."""
        return self._mail

    @property
    def size(self) -> int:
        """Octets."""
        return self._spool.size

    @property
    def header(self) -> bytes:
        """See `Arrived.header`."""
        return self._header if self._start is None else bytes(self._start)

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """See `Arrived.fields`."""
        if self._pairs is None:
            self._pairs = pairs_of(self.header)
        return self._pairs

    @property
    def named(self) -> Mapping[bytes, Sequence[bytes]]:
        """See `Arrived.named`."""
        if self._named is None:
            self._named = by_name(self.fields)
        return self._named

    def chunks(self) -> AsyncIterator[bytes]:
        """See `Arrived.chunks`."""
        return self._spool.chunks()

    async def octets(self, most: int) -> bytes:
        """See `Arrived.octets`."""
        taken: list[bytes] = []
        left = most
        async for chunk in self._spool.chunks():
            taken.append(chunk[:left])
            left -= len(taken[-1])
            if left <= 0:
                break
        return b"".join(taken)

    async def passed_on(self, header: bytes, body: bytes | None) -> AsyncIterator[bytes]:
        """The message with another *header* (see `header` for where it ends), and another *body* if there is one."""
        skip = len(self.header)
        if body is None and self.size <= SMALL:  # one piece is parsed and kept faster than two
            octets = b"".join([chunk async for chunk in self._spool.chunks()])
            yield octets if header is self.header else header + octets[skip:]
            return
        async for chunk in with_header(self._spool.chunks(), skip, header, body):
            yield chunk

    def close(self) -> None:
        """Nothing of it stays."""
        self._spool.close()
