"""Blobs, and who holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from twisted_mail.storage.interfaces.queue import QueueItem
from twisted_mail.values import BlobRef

__all__ = ["BlobWriter", "Blobs", "CarriesItems", "ChooseGeneration", "PrefersSmall", "References"]


ChooseGeneration = Callable[[BlobRef], Awaitable[int]]
"""Given the reference of generation 0, says under which generation to store (`References` knows which are condemned)."""


class BlobWriter(Protocol):
    """Takes the octets of one blob; never holds it whole."""

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self, generation: ChooseGeneration | None = None) -> BlobRef:
        """Durable and readable once this returns; content that was there already is kept once.

        *generation* is asked when the content is known and before it gets its name (None: it is 0).
        """

    async def abort(self) -> None:
        """Nothing stays. May be called at any time, also after `finish` (then it does nothing)."""


class Blobs(Protocol):
    """Content-addressed octets (SHA-256)."""

    def writer(self) -> BlobWriter: ...

    def open(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` in chunks of at most 64 KiB. Raises: NotFound, Corrupt, Unavailable."""

    async def delete(self, ref: BlobRef) -> None:
        """Forget it; no error if it is gone."""

    def iterate(self) -> AsyncIterator[BlobRef]:
        """Every blob, in no promised order."""


class PrefersSmall(Protocol):
    """An optional ability of a queue's own store for bodies: small ones are better kept there than in the blob store."""

    @property
    def small_bytes(self) -> int:
        """Up to so many octets."""


@runtime_checkable
class CarriesItems(Protocol):
    """An optional ability of a queue's own store for bodies: it lies where the queue does, so a body comes with its item, and goes
    with it, in one transaction."""

    async def put_with(self, item: QueueItem, ref: BlobRef, octets: bytes, *, delay: float = 0.0) -> bool:
        """`Queue.put`, with the body *ref* that *item* names."""

    async def ack_with(self, token: str, ref: BlobRef) -> bool:
        """`Queue.ack`; if the item was its holder's, its body *ref* goes too."""


class References(Protocol):
    """Who needs which blob, and which blobs are on their way out. Sizes play no part: a blob is its hash and generation.

    Who needs a blob first adds a reference and *then* asks whether that generation is condemned; if it is, the next one
    is taken. Who sweeps condemns a blob without references, waits past every deadline, looks for references again and
    only then deletes. Both orders are durable and linear, so one of the two always sees the other.
    """

    async def add(self, ref: BlobRef, holder: str) -> None:
        """*holder* (at most 128 ASCII characters, e.g. a message row or a queue item) needs *ref*. Again is harmless."""

    async def remove(self, refs: Sequence[BlobRef], holder: str) -> None:
        """*holder* needs them no more; each is listed among the `lost`. One that was not there is listed all the same."""

    async def holders(self, ref: BlobRef, limit: int = 1) -> Sequence[str]:
        """At most *limit* of those who need *ref*, in no promised order."""

    async def condemned(self, hash: str) -> int:
        """The lowest generation of that content that is not condemned (0 if none is)."""

    async def condemn(self, ref: BlobRef) -> None:
        """Nobody new may use this generation, nor an earlier one; for ever (at least 90 days)."""

    def lost(self, until: float) -> AsyncIterator[BlobRef]:
        """What was listed as having lost a reference up to *until* (seconds since 1970), oldest first; each once or oftener.

        Costs in proportion to what is listed."""

    async def settled(self, ref: BlobRef, until: float) -> None:
        """Take *ref* off the list, as far as it was listed up to *until*."""

    def iterate(self) -> AsyncIterator[tuple[BlobRef, str]]:
        """Every reference with its holder (audits); sizes are 0."""
