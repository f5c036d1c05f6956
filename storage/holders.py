"""Names of those who hold a blob, as every engine of `References` takes them."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_HOLDER", "check_holder"]

MAX_HOLDER: Final = 128
"""Characters."""


def check_holder(holder: str) -> None:
    """Raises: ValueError for a name that an engine need not take."""
    if not 0 < len(holder) <= MAX_HOLDER or not holder.isascii():
        raise ValueError(f"not a holder's name: {holder!r}")
