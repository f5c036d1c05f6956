"""Named octets with versions: what a store of objects offers beside its blobs, to those who keep things of their own there.

An engine that has them says so by a property ``objects`` (see `KeepsObjects`); it is an optional ability.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from twisted_mail.storage.interfaces import Leases

__all__ = ["KeepsInObjects", "KeepsObjects", "Objects", "StoredObject"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read."""

    data: bytes = field(repr=False)
    version: str
    """Another one for other octets; opaque, and only to be compared."""


class Objects(Protocol):
    """Octets under names of ASCII letters, digits, ``-``, ``_``, ``.`` and ``/``; each is read and written whole.

    What was written is seen by everybody once the call returned. Objects are of at most some MiB, and never empty.
    """

    async def get(self, name: str, unless: str | None = None) -> StoredObject | None:
        """The object; None if it still has the version *unless*. Raises: NotFound, Corrupt, Unavailable."""

    async def put(self, name: str, data: bytes) -> None:
        """Write it, whatever is there. Raises: Unavailable (perhaps it was written)."""

    async def swap(self, name: str, data: bytes, version: str | None) -> str:
        """Write it in place of *version* (None: of nothing); the new version. Of several at once one succeeds.

        Raises: Conflict (something else is there; or one of this call's own attempts was carried out and its answer was
        lost, so look), Unavailable (perhaps it was written).
        """

    async def delete(self, names: Sequence[str]) -> None:
        """Forget them; those that do not exist are no error. Raises: Unavailable (some may be left)."""

    def list(self, prefix: str) -> AsyncIterator[tuple[str, float]]:
        """Name and time of the last change (seconds since 1970) of every object whose name begins with *prefix*."""


@runtime_checkable
class KeepsObjects(Protocol):
    """An optional ability of an `Engine`."""

    @property
    def objects(self) -> Objects: ...


@runtime_checkable
class KeepsInObjects(Protocol):
    """An optional ability of an `Engine` of search shards: it can keep what it has in another engine's objects."""

    def keep_in(self, objects: Objects, leases: Leases) -> None:
        """Before the start, and before the engine's stores are asked for."""
