"""Secrets that all nodes share, made by the first of them: kept in the store, like the keys of signatures."""

from __future__ import annotations

import os
from typing import Final

from twisted_mail.storage.interfaces import Leases, Records, Unavailable

__all__ = ["shared_secret"]

SPACE: Final = "secrets"
LEASE_SECONDS: Final = 30.0
TRIES: Final = 20


async def shared_secret(records: Records, leases: Leases, name: str) -> bytes:
    """32 octets, the same for whoever asks for *name*. Raises: StorageError."""
    for _ in range(TRIES):
        found = await records.get(SPACE, name)
        if found is not None:
            return found
        number = await leases.acquire(f"secret/{name}", LEASE_SECONDS)
        if number is None:
            continue
        try:
            if await records.get(SPACE, name) is None:
                await records.put(SPACE, name, os.urandom(32))
        finally:
            await leases.release(f"secret/{name}", number)
    raise Unavailable(f"the secret {name} is being made by another node")
