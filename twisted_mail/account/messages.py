"""Messages: taken in as a stream, parsed in the same pass, kept as a row of rendered columns and, where large, a blob.

The manifest says how the octets are put together again: runs of the header cell, of the inline cell, of blobs. What
protocols ask for in bulk (common header fields, ENVELOPE, BODYSTRUCTURE, preview, folded text) is rendered here, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

import msgspec

from twisted_mail.mime import MessageParser, ParsedMessage, common_header, encode_layout
from twisted_mail.services import StoredMessage
from twisted_mail.storage.interfaces import Blobs, BlobWriter, Corrupt, MessageRow, Messages, NotFound
from twisted_mail.values import AccountId, BlobRef, MessageId, MessageKey

__all__ = ["INLINE_BYTES", "OCTET_COLUMNS", "Facts", "MessageStore", "Prepared", "Writer", "decode_facts", "runs_of"]

INLINE_BYTES: Final = 64 * 1024
"""A message up to this size lies whole in its row; of a larger one the first octets do, and the rest is a blob."""
OCTET_COLUMNS: Final = ("header", "inline", "manifest")
"""The columns from which the octets are put together."""
READ_AHEAD: Final = 32
"""Messages whose rows (each at most some 64 KiB, compressed in the store) are read at once."""
_CHUNK: Final = 64 * 1024


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What later rooms (threads, lists) need of a message, decoded."""

    message_id: str = ""
    references: tuple[str, ...] = ()
    in_reply_to: tuple[str, ...] = ()
    subject: str = ""
    base_subject: str = ""
    sender: str = ""


_encoder = msgspec.msgpack.Encoder()
_facts_decoder = msgspec.msgpack.Decoder(Facts)


def decode_facts(cell: bytes) -> Facts:
    """The ``facts`` cell. Empty octets are empty facts."""
    return _facts_decoder.decode(cell) if cell else Facts()


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A run of a message's octets: where they lie, from which offset, how many."""

    place: Literal["header", "inline", "blob"]
    start: int
    length: int
    hash: str = ""
    size: int = 0


_manifest_decoder = msgspec.msgpack.Decoder(tuple[Run, ...])


def runs_of(manifest: bytes) -> tuple[Run, ...]:
    """The ``manifest`` cell. Raises Corrupt."""
    try:
        return _manifest_decoder.decode(manifest)
    except msgspec.MsgspecError as error:
        raise Corrupt("malformed message manifest") from error


class Prepared:
    """Implements `services.PreparedMessage`: cells ready to be put into any account."""

    __slots__ = ("cells", "sent_days", "size")

    def __init__(self, cells: dict[str, bytes], size: int, sent_days: int | None) -> None:
        self.cells = cells
        self.size = size
        self.sent_days = sent_days


class Writer:
    """Implements `services.MessageWriter`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._parser = MessageParser()
        self._inline = bytearray()
        self._blob: BlobWriter | None = None
        self._size = 0

    async def write(self, chunk: bytes) -> None:
        """Take the next octets. Raises StorageError."""
        self._parser.feed(chunk)
        self._size += len(chunk)
        room = INLINE_BYTES - len(self._inline)
        if room:
            self._inline += chunk[:room]
        if len(chunk) > room:
            if self._blob is None:
                self._blob = self._blobs.writer()
            await self._blob.write(chunk[room:] if room else chunk)

    async def finish(self) -> Prepared:
        """The last octet has come: the blob is durable, the columns are rendered. Raises StorageError."""
        parsed = self._parser.close()
        ref = await self._blob.finish() if self._blob is not None else None
        return Prepared(_cells(parsed, bytes(self._inline), ref), self._size, parsed.sent_days)

    async def abort(self) -> None:
        """Nothing stays."""
        if self._blob is not None:
            await self._blob.abort()
        self._inline.clear()


def _cells(parsed: ParsedMessage, inline: bytes, ref: BlobRef | None) -> dict[str, bytes]:
    header = parsed.header
    runs: list[Run] = []
    rest = inline
    if header and inline.startswith(header):
        runs.append(Run("header", 0, len(header)))
        rest = inline[len(header) :]
    if rest:
        runs.append(Run("inline", 0, len(rest)))
    if ref is not None:
        runs.append(Run("blob", 0, ref.size, ref.hash, ref.size))
    facts = Facts(
        parsed.message_id or "",
        tuple(parsed.references),
        tuple(parsed.in_reply_to),
        parsed.subject,
        parsed.base_subject,
        parsed.sender,
    )
    return {
        "header": header,
        "common_header": common_header(header),
        "envelope": parsed.envelope,
        "structure": parsed.bodystructure,
        "body": parsed.body,
        "preview": parsed.preview.encode(),
        "search_header": parsed.search_header,
        "search_text": parsed.search_text,
        "layout": encode_layout(parsed.root),
        "manifest": _encoder.encode(tuple(runs)),
        "inline": rest,
        "facts": _encoder.encode(facts),
    }


class ReadAhead:
    """Implements `services.Reading`: rows of the next `READ_AHEAD` messages are read at once."""

    def __init__(self, store: MessageStore, account: AccountId, keys: Sequence[MessageKey]) -> None:
        self._store = store
        self._account = account
        self._keys = keys
        self._places = {key: place for place, key in enumerate(keys)}
        self._cells: dict[MessageKey, tuple[bytes, ...]] = {}

    async def octets(self, key: MessageKey, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` of one message. Raises NotFound, Corrupt, Unavailable."""
        if key not in self._cells:
            place = self._places[key]
            window = self._keys[place : place + READ_AHEAD]
            self._cells.clear()
            coming = iter(window)
            async for batch in self._store.rows(self._account, window, OCTET_COLUMNS):
                for cells in batch:
                    ahead = next(coming)
                    if cells is not None:
                        self._cells[ahead] = cells
        found = self._cells.get(key)
        if found is None:
            raise NotFound("the message's row is gone")
        async for chunk in self._store.assemble(found, start, end):
            yield chunk


class MessageStore:
    """Message rows and blobs together."""

    def __init__(self, messages: Messages, blobs: Blobs) -> None:
        self._messages = messages
        self._blobs = blobs

    def writer(self) -> Writer:
        """A place for one message that is coming in."""
        return Writer(self._blobs)

    def row(self, bucket: int, message: Prepared, today: int) -> tuple[MessageRow, StoredMessage]:
        """The row under a fresh id. *today* (days since 1970) stands in for a missing Date field."""
        key = MessageKey(bucket, MessageId.new())
        days = today if message.sent_days is None else message.sent_days
        return MessageRow(key, message.cells), StoredMessage(key, message.size, days)

    async def put(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        """Write rows. Raises StorageError."""
        await self._messages.put(account, rows)

    def rows(
        self, account: AccountId, keys: Sequence[MessageKey], columns: Sequence[str]
    ) -> AsyncIterator[Sequence[tuple[bytes, ...] | None]]:
        """See `services.Account.rows`."""
        return self._messages.get_many(account, keys, columns)

    async def octets(
        self, account: AccountId, key: MessageKey, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` of one message. Raises NotFound, Corrupt, Unavailable."""
        async for batch in self._messages.get_many(account, (key,), OCTET_COLUMNS):
            for cells in batch:
                if cells is None:
                    raise NotFound("the message's row is gone")
                async for chunk in self.assemble(cells, start, end):
                    yield chunk

    async def assemble(self, cells: Sequence[bytes], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` from the cells of `OCTET_COLUMNS`, in chunks of at most 64 KiB."""
        header, inline, manifest = cells
        at = 0
        for run in runs_of(manifest):
            low = max(start - at, 0)
            high = run.length if end is None else min(run.length, end - at)
            at += run.length
            if low >= high:
                continue
            if run.place == "blob":
                ref = BlobRef(run.hash, run.size)
                async for chunk in self._blobs.open(ref, run.start + low, run.start + high):
                    yield chunk
            else:
                cell = header if run.place == "header" else inline
                for place in range(run.start + low, run.start + high, _CHUNK):
                    yield cell[place : min(place + _CHUNK, run.start + high)]
