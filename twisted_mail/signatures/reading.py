"""One pass over a message for everything that signatures need of it: its fields, and the hashes of its body.

Verifiers and signers of DKIM and ARC look at one `Reading` together, so a body is hashed once for each way to hash it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted_mail.signatures.canonical import BodyHash, Canon
from twisted_mail.signatures.fields import Fields, find_body, split_header

__all__ = ["HeaderTooLong", "NotHashed", "Reading"]

HEADER_BYTES: Final = 1 << 20


class HeaderTooLong(Exception):
    """The header has more octets than are looked at."""


class NotHashed(Exception):
    """The body has passed, and was not hashed in the way that is wanted."""


class Reading:
    """A message as it passes; `close` before anything is asked for.

    What wants a hash of the body says so in *at_body*, which is called once the header is there, before the body: so it
    can depend on what the header says.
    """

    def __init__(
        self, *at_body: Callable[[Reading], None], header_bytes: int = HEADER_BYTES, only_with: tuple[bytes, ...] = ()
    ) -> None:
        """*only_with*: words in lower case; of a header that has none of them no field is looked at, as if there were none."""
        self._at_body = at_body
        self._limit = header_bytes
        self._held: bytearray | None = bytearray()
        self._hashes: dict[tuple[Canon, int | None], BodyHash] = {}
        self._fields: Fields | None = None
        self._only_with = only_with
        self.too_long = False
        """The header is longer than the limit: nothing can be said of it."""

    @classmethod
    def of_header(cls, header: bytes, relaxed: bytes, *at_body: Callable[[Reading], None]) -> Reading:
        """A message whose body passed before: its header (with or without the blank line), and the SHA-256 of its
        relaxed body. Closed."""
        made = cls()
        made._held = None
        made._hashes[(Canon.RELAXED, None)] = BodyHash.known(Canon.RELAXED, relaxed)
        made._fields = Fields(split_header(header))
        for ask in at_body:
            ask(made)
        return made

    @property
    def fields(self) -> Fields:
        """Raises: HeaderTooLong, RuntimeError before the header is there."""
        if self._fields is None:
            if self.too_long:
                raise HeaderTooLong("the header is too long")
            raise RuntimeError("the header is not there yet")
        return self._fields

    def want(self, canon: Canon, length: int | None = None) -> BodyHash:
        """The hash that the body will have. To be called by *at_body* only. Raises: NotHashed."""
        key = (canon, length)
        if (found := self._hashes.get(key)) is None:
            if self._held is None:
                raise NotHashed("the body has passed")
            found = self._hashes[key] = BodyHash(canon, length)
        return found

    @property
    def ways(self) -> int:
        """How many hashes are made."""
        return len(self._hashes)

    def feed(self, chunk: bytes) -> None:
        """The next octets of the message."""
        if self._held is None:
            for each in self._hashes.values():
                each.update(chunk)
            return
        searched = len(self._held)
        self._held += chunk
        body = find_body(self._held, False, searched)
        if body is not None:
            self._begin_body(body)
        elif len(self._held) > self._limit:
            self._give_up()

    def close(self) -> None:
        """The message has ended."""
        if self._held is not None:
            body = find_body(self._held, True)
            self._begin_body(len(self._held) if body is None else body)

    def _begin_body(self, at: int) -> None:
        assert self._held is not None
        if at > self._limit:
            self._give_up()
            return
        header = bytes(self._held[:at])
        looked_at = not self._only_with or _has_one(header.lower(), self._only_with)
        self._fields = Fields(split_header(header) if looked_at else ())
        for ask in self._at_body:
            ask(self)
        rest, self._held = bytes(self._held[at:]), None
        for each in self._hashes.values():
            each.update(rest)

    def _give_up(self) -> None:
        self.too_long = True
        self._held = None


def _has_one(octets: bytes, words: tuple[bytes, ...]) -> bool:
    return any(word in octets for word in words)
