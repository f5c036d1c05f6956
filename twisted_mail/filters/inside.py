"""What is found inside archives, and what looking for it may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["BOMB_BYTES", "BOMB_RATIO", "DEEPEST", "HEAD", "Budget", "Inside", "Look"]

DEEPEST: Final = 3
"""Archives in each other; mail has no honest reason for more. (A packed tar archive is one.)"""
BOMB_BYTES: Final = 1 << 30
BOMB_RATIO: Final = 100
HEAD: Final = 1024
"""Octets of a member that are looked at."""


@dataclass(slots=True)
class Budget:
    """What may be spent on one message."""

    members: int = 10_000
    heads: int = 256
    """Members of which the first octets are looked at."""
    inflated_bytes: int = 4 * 1024 * 1024
    counted_bytes: int = 16 * 1024 * 1024
    """Octets that packed files are unpacked to, kept or not."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Something found in an archive."""

    kind: str
    """``member``, ``encrypted``, ``bomb``, or ``opaque``: it cannot be looked into."""
    name: str
    """The member's path."""
    head: bytes = b""
    """Its first octets, as far as they were looked at."""


Look = Callable[[bytes, int, Budget, int], Iterator[Inside]]
"""Looks into an archive inside an archive (`archives.walk`)."""
