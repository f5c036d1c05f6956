"""One pass over a message for all that check signatures in it: DKIM and ARC hash the body once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted_mail.filters.values import Mail
from twisted_mail.signatures import Reading

__all__ = ["SharedReading"]

_FIELDS: Final = (b"dkim-signature", b"arc-")
"""Most mail that is spam, and some that is not, has neither: nothing is cut into fields then, and nothing hashed."""


class SharedReading:
    """A `Reading` at a `Mail`, fed by whoever is given the octets first.

    Each reader is given all octets of the message; what another has fed already is left out.
    """

    def __init__(self) -> None:
        self._at_body: list[Callable[[Reading], None]] = []
        self._reading: Reading | None = None
        self._fed = 0
        self._closed = False

    @classmethod
    def join(cls, mail: Mail, at_body: Callable[[Reading], None]) -> Place:
        """A place in the reading of *mail*'s message, which asks *at_body* what it wants to know of the body."""
        shared = mail.noted(cls)
        if shared is None or shared._reading is not None:
            shared = cls()
            mail.note(shared)
        shared._at_body.append(at_body)
        return Place(shared)

    def feed(self, chunk: bytes, at: int) -> None:
        """*chunk* begins at octet *at* of the message."""
        if self._reading is None:
            self._reading = Reading(*self._at_body, only_with=_FIELDS)
        new = at + len(chunk) - self._fed
        if new > 0:
            self._reading.feed(chunk[-new:] if new < len(chunk) else chunk)
            self._fed += new

    def close(self) -> Reading:
        """The message has ended."""
        if self._reading is None:
            self._reading = Reading(*self._at_body, only_with=_FIELDS)
        if not self._closed:
            self._closed = True
            self._reading.close()
        return self._reading


class Place:
    """Of one reader."""

    __slots__ = ("_at", "_shared")

    def __init__(self, shared: SharedReading) -> None:
        self._shared = shared
        self._at = 0

    def feed(self, chunk: bytes) -> None:
        """The next octets."""
        self._shared.feed(chunk, self._at)
        self._at += len(chunk)

    def close(self) -> Reading:
        """All have come."""
        return self._shared.close()
