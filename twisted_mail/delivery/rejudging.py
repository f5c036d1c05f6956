"""A message that waits in the queue, asked about again: what came is told apart from what we have put in front of it, and what
filters make of it now is done.

They are shown the message as it came, as the filters were that have answered then.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.trace import return_path_field
from twisted_mail.filters.rewriting import pairs_of, rewritten, with_header
from twisted_mail.filters.values import Changes

__all__ = ["FrontCut", "Rejudged", "front_with"]

FRONT_BYTES: Final = 256 * 1024
"""Within which our own trace fields end."""
_received: Final = re.compile(rb"(?:^|\n)received:[^\n]*\n(?:[ \t][^\n]*\n)*(?![ \t])", re.IGNORECASE)


class FrontCut:
    """Parts what we have put in front of a message (Return-Path, what filters found, and Received, which is the last of it) from
    the message as it came."""

    def __init__(self) -> None:
        self._start: bytearray | None = bytearray()
        self.front = b""
        """Empty where there is none of ours."""

    def feed(self, chunk: bytes) -> bytes:
        """The next octets of what is stored; those of the message in them."""
        if self._start is None:
            return chunk
        self._start += chunk
        start = bytes(self._start)
        if start[:12].lower() == b"return-path:"[: len(start)]:
            found = _received.search(start)
            # what may follow a line that ends here is not known yet
            if (found is None or found.end() == len(start)) and len(start) < FRONT_BYTES:
                return b""
            self.front = start[: found.end()] if found is not None else b""
        self._start = None
        return start[len(self.front) :]

    def end(self) -> bytes:
        """There is no more: what was kept back."""
        if self._start is None:
            return b""
        start, self._start = bytes(self._start), None
        found = _received.search(start) if start[:12].lower() == b"return-path:" else None
        self.front = start[: found.end()] if found is not None else b""
        return start[len(self.front) :]


def front_with(front: bytes, sender: str | None, fields: Sequence[tuple[str, str]], instead: frozenset[str]) -> bytes:
    """*front* with *fields* behind Return-Path, which names *sender* (None: as it does); the first of each that is named in
    *instead* (lower case) is taken out."""
    if not front:
        return front
    names = [name.decode("ascii").lower() for name, _ in pairs_of(front)]
    removed = [names.index(each) for each in sorted(instead) if each in names]
    front = rewritten(front, removed, [Changes(inserted=tuple((1, name, value) for name, value in fields))])
    if sender is not None:
        front = return_path_field(sender) + front[front.index(b"\n") + 1 :]
    return front


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """What has become of a message."""

    judgement: Judgement
    sender: str | None = None
    """Another reverse-path; None: it stays."""
    skip: int = 0
    """Octets of the stored message that `header` takes the place of."""
    header: bytes = b""
    body: bytes | None = None

    def octets(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stored message *chunks*, as it is now."""
        if not self.skip and self.body is None:
            return chunks
        return with_header(chunks, self.skip, self.header, self.body)
