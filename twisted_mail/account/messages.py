"""Messages: taken in as a stream, parsed in the same pass, kept as a row of rendered columns and, where large, blobs.

The manifest says how the octets are put together again (see `manifests`; what goes where: `splitting`). What
protocols ask for in bulk (common header fields, ENVELOPE, BODYSTRUCTURE, preview, folded text) is rendered here, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from twisted_mail.account.manifests import Run, assemble, encode_runs, refs_of
from twisted_mail.account.references import Claims, hold, message_holder
from twisted_mail.account.splitting import INLINE_BYTES, Splitter
from twisted_mail.mime import MessageParser, ParsedMessage, Part, common_header, encode_layout
from twisted_mail.services import StoredMessage
from twisted_mail.storage.interfaces import Blobs, Corrupt, MessageRow, Messages, NotFound, References
from twisted_mail.values import AccountId, BlobRef, MessageId, MessageKey

__all__ = ["OCTET_COLUMNS", "Facts", "MessageStore", "Prepared", "ReadAhead", "Writer", "decode_facts"]

OCTET_COLUMNS: Final = ("header", "inline", "manifest")
"""The columns from which the octets are put together."""
READ_AHEAD: Final = 32
"""Messages whose rows (each at most some 64 KiB, compressed in the store) are read at once."""


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


class Prepared:
    """Implements `services.PreparedMessage`: cells ready to be put into any account."""

    __slots__ = ("_blobs", "account", "cells", "first", "refs", "root", "sent_days", "size")

    def __init__(
        self,
        cells: dict[str, bytes],
        size: int,
        sent_days: int | None,
        refs: tuple[BlobRef, ...] = (),
        account: AccountId | None = None,
        first: MessageId | None = None,
        *,
        root: Part,
        blobs: Blobs,
    ) -> None:
        self.cells = cells
        self.size = size
        self.sent_days = sent_days
        self.refs = refs
        """The blobs that it lies in."""
        self.account = account
        self.first = first
        """The id of its first row, in `account`, which holds the blobs already; None once it was given."""
        self.root = root
        self._blobs = blobs

    @property
    def header(self) -> bytes:
        """See `services.PreparedMessage`."""
        return self.cells["header"]

    def octets(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `services.PreparedMessage`."""
        return assemble(self._blobs, tuple(self.cells[name] for name in OCTET_COLUMNS), start, end)

    def take_first(self, account: AccountId) -> MessageId | None:
        """The id that holds the blobs, if the row is to be in *account* and is the first."""
        if account != self.account:
            return None
        first, self.first = self.first, None
        return first


class Writer:
    """Implements `services.MessageWriter`. What it stores is held by the row to be in *account*, if that is known."""

    def __init__(self, blobs: Blobs, references: References | None = None, account: AccountId | None = None) -> None:
        self._blobs = blobs
        self._account = account
        self._first = None if account is None else MessageId.new()
        holder = None if account is None or self._first is None else message_holder(account, self._first)
        self._claims = Claims(references, holder)
        self._parser = MessageParser()
        self._splitter = Splitter(blobs, self._claims.generation if references is not None else None)
        self._held = bytearray()
        """Octets of which it is not decided yet where they go; a short message waits here whole."""
        self._at = 0
        """Offset in the message of the first that is held."""
        self._size = 0
        self._part: Part | None = None
        """The attachment that the first held octet belongs to."""
        self._prepared: Prepared | None = None

    async def write(self, chunk: bytes) -> None:
        """Take the next octets. Raises StorageError."""
        self._parser.feed(chunk)
        self._size += len(chunk)
        if self._size <= INLINE_BYTES:
            self._held += chunk
            return
        data = bytes(self._held) + chunk if self._held else bytes(chunk)
        await self._pass_on(data, self._parser.decided)
        self._held[:] = data[len(data) - (self._size - self._at) :]

    async def _pass_on(self, data: bytes, until: int) -> None:
        """Give the octets up to the offset *until* to where they belong; *data* are the last octets so far."""
        for cut, part in self._parser.take_cuts():
            await self._piece(data, cut)
            if self._part is not None:
                await self._splitter.end_attachment()
            self._part = part
        await self._piece(data, until)

    async def _piece(self, data: bytes, until: int) -> None:
        start = self._size - len(data)
        piece = data[self._at - start : until - start]
        self._at = until
        if piece and self._part is None:
            await self._splitter.text(piece)
        elif piece and self._part is not None:
            await self._splitter.attachment(piece, self._part.encoding)

    async def finish(self) -> Prepared:
        """The last octet has come: the blobs are durable, the columns are rendered. Raises StorageError."""
        parsed = self._parser.close()
        if self._size <= INLINE_BYTES:
            inline, runs = bytes(self._held), [Run("inline", 0, self._size)] if self._size else []
        else:
            await self._pass_on(bytes(self._held), self._size)
            if self._part is not None:
                await self._splitter.end_attachment()
            runs = await self._splitter.finish()
            inline = bytes(self._splitter.inline)
        refs = tuple(dict.fromkeys(ref for run in runs if (ref := run.ref) is not None))
        self._prepared = Prepared(
            _cells(parsed, inline, runs),
            self._size,
            parsed.sent_days,
            refs,
            self._account,
            self._first,
            root=parsed.root,
            blobs=self._blobs,
        )
        return self._prepared

    async def abort(self) -> None:
        """Nothing stays, but what must be swept. Behind `finish` too: what the first row has taken over stays its own."""
        prepared = self._prepared
        if prepared is not None and self._account is not None and prepared.take_first(self._account) is None:
            return
        await self._splitter.abort()
        self._held.clear()
        await self._claims.give_back()


def _cells(parsed: ParsedMessage, inline: bytes, runs: Sequence[Run]) -> dict[str, bytes]:
    header = parsed.header
    if header and inline.startswith(header):
        # which is text, and so lies in the first run
        runs = [Run("header", 0, len(header)), *(_without(run, len(header)) for run in runs)]
        runs = [run for run in runs if run.length]
        inline = inline[len(header) :]
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
        "manifest": encode_runs(runs),
        "inline": inline,
        "facts": _encoder.encode(facts),
    }


def _without(run: Run, octets: int) -> Run:
    """A run of the inline cell when the first *octets* of that lie elsewhere."""
    if run.place != "inline":
        return run
    start = max(run.start - octets, 0)
    return Run("inline", start, run.start + run.length - octets - start)


def _held(manifest: bytes) -> tuple[BlobRef, ...]:
    """What a row holds that is to go: as far as a damaged one says. The rest is found by who compares everything."""
    try:
        return refs_of(manifest)
    except Corrupt:
        return ()


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

    def __init__(self, messages: Messages, blobs: Blobs, references: References | None = None) -> None:
        # without references nothing may ever be swept
        self._messages = messages
        self._blobs = blobs
        self._references = references

    def writer(self, account: AccountId | None = None) -> Writer:
        """A place for one message that is coming in, for *account* first."""
        return Writer(self._blobs, self._references, account)

    async def row(
        self, account: AccountId, bucket: int, message: Prepared, today: int
    ) -> tuple[MessageRow, StoredMessage]:
        """The row to be put into *account*, which holds the message's blobs once this returns.

        *today* (days since 1970) stands in for a missing Date field. Raises StorageError.
        """
        id = message.take_first(account)
        if id is None:
            id = MessageId.new()
            if self._references is not None:
                await hold(self._references, message.refs, message_holder(account, id))
        key = MessageKey(bucket, id)
        days = today if message.sent_days is None else message.sent_days
        return MessageRow(key, message.cells), StoredMessage(key, message.size, days)

    async def remove(self, account: AccountId, keys: Sequence[MessageKey]) -> None:
        """Forget messages that nothing names any more: what they hold first, then their rows. Raises StorageError.

        Who is interrupted may begin anew: a row is there until it holds nothing, and only rows that are there are deleted.
        """
        there: list[MessageKey] = []
        at = 0
        async for batch in self._messages.get_many(account, keys, ("manifest",)):
            for cells in batch:
                if cells is not None:
                    there.append(keys[at])
                    if self._references is not None and (refs := _held(cells[0])):
                        await self._references.remove(refs, message_holder(account, keys[at].id))
                at += 1
        if there:
            await self._messages.delete_many(account, there)

    async def give_back(self, account: AccountId, rows: Sequence[MessageRow]) -> None:
        """The same for *rows* (their manifests are enough) that no entry will name, written or not. Raises StorageError."""
        for row in rows:
            if self._references is not None and (refs := _held(row.cells["manifest"])):
                await self._references.remove(refs, message_holder(account, row.key.id))
        await self._messages.delete_many(account, [row.key for row in rows])

    async def erase(self, account: AccountId) -> AsyncIterator[int]:
        """Remove all that *account* has; yields how many rows went each time. Raises StorageError."""
        async for keys in self._messages.iterate(account):
            await self.remove(account, keys)
            yield len(keys)

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

    def assemble(self, cells: Sequence[bytes], start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The octets ``[start:end)`` from the cells of `OCTET_COLUMNS`, in chunks."""
        return assemble(self._blobs, cells, start, end)
