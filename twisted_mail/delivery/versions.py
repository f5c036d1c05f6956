"""The message that came, or another version of it that a script has made, as octets and as a stored message."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from twisted_mail.services import Account, Accounts, MessageWriter, PreparedMessage, StoredMessage
from twisted_mail.sieve.values import Rewritten, Span
from twisted_mail.storage.interfaces import StorageError

__all__ = ["given_up", "octets_of", "store_version"]


async def octets_of(prepared: PreparedMessage, version: Rewritten | None, start: int = 0) -> AsyncIterator[bytes]:
    """The octets of *version* (None: of the message that came) from *start* on, in chunks. Raises: StorageError."""
    pieces = version.pieces if version is not None else (Span(0, prepared.size),)
    for piece in pieces:
        skipped = min(start, len(piece))
        start -= skipped
        if skipped == len(piece):
            continue
        if isinstance(piece, bytes):
            yield piece[skipped:] if skipped else piece
        else:
            async for chunk in prepared.octets(piece.start + skipped, piece.end):
                yield chunk


async def store_version(
    accounts: Accounts, account: Account, prepared: PreparedMessage, version: Rewritten | None
) -> StoredMessage:
    """A row for it. Raises: StorageError, AccountError."""
    if version is None:
        return await account.store(prepared)
    writer = accounts.writer(account.id)
    try:
        async for chunk in octets_of(prepared, version):
            await writer.write(chunk)
        return await account.store(await writer.finish())
    finally:
        await given_up(writer)


async def given_up(writer: MessageWriter) -> None:
    """Give back what *writer* has stored, unless a row has taken it over; as well as it goes."""
    with suppress(StorageError):
        await writer.abort()
