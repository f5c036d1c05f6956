"""FETCH items that are octets of the message: sections by their offsets, streamed (RFC 9051 section 6.4.5, RFC 3516).

A literal announces its size, so that is known before the first octet is read: from the columns, from the layout, and
for what BINARY decodes, by decoding it once to count.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from twisted_mail.imap.execute.fetch_cells import literal
from twisted_mail.imap.fetch_items import Attribute, Binary, BinarySize, Body, FetchItem, item_name
from twisted_mail.mime import (
    Part,
    Section,
    Span,
    TransferDecoder,
    filter_fields,
    find_part,
    locate,
)
from twisted_mail.services import Reading
from twisted_mail.values import MessageKey

__all__ = ["Piece", "is_octets", "needs_layout", "octet_item", "sets_seen"]

SMALL: Final = 256 * 1024
"""A decoded part is kept for sending if its encoded form has at most this many octets."""
IDENTITY: Final = frozenset(("7bit", "8bit", "binary"))
WHOLE: Final = (Attribute.RFC822, Attribute.RFC822_TEXT)


def is_octets(item: FetchItem) -> bool:
    """Whether *item* is read from the message's octets (HEADER has its own cell; asked before: `cell_item`)."""
    return isinstance(item, Body | Binary | BinarySize) or item in WHOLE


def needs_layout(item: FetchItem) -> bool:
    """All but the whole message."""
    return not (
        item is Attribute.RFC822 or (isinstance(item, Body) and item.section.what is None and not item.section.path)
    )


def sets_seen(item: FetchItem) -> bool:
    r"""Whether fetching *item* sets ``\Seen`` (RFC 9051 section 6.4.5)."""
    return item in WHOLE or (isinstance(item, Body | Binary) and not item.peek)


@dataclass(slots=True)
class Piece:
    """An item ready to be sent: what stands before, then *size* octets of *chunks*."""

    text: bytes
    """Name and value, or name and the announcement of a literal."""
    size: int = 0
    chunks: AsyncIterator[bytes] | None = field(default=None, repr=False)


async def octet_item(source: Reading, key: MessageKey, size: int, root: Part | None, item: FetchItem) -> Piece:
    """What *item* is of the message at *key* with *size* octets. Raises UnknownEncoding, and what the store raises."""
    name = item_name(item)
    if isinstance(item, Binary | BinarySize):
        return await _binary(source, key, size, root, item)
    section = Section()
    partial: tuple[int, int] | None = None
    if isinstance(item, Body):
        section = Section(item.section.path, item.section.what, item.section.fields)
        partial = item.partial
    elif item is Attribute.RFC822_TEXT:
        section = Section(what="TEXT")
    span: Span | None = Span(0, size) if root is None else locate(root, section)
    if span is None:
        return Piece(name + b" NIL")
    if section.what in ("HEADER.FIELDS", "HEADER.FIELDS.NOT"):
        header = await _whole(source, key, span)
        fields = filter_fields(header, section.fields, section.what == "HEADER.FIELDS.NOT")
        return Piece(name + b" " + literal(fields, partial))
    start, end = _part_of(span.end - span.start, partial)
    return _announce(name, source.octets(key, span.start + start, span.start + end), end - start, b"")


def _part_of(size: int, partial: tuple[int, int] | None) -> tuple[int, int]:
    if partial is None:
        return 0, size
    start = min(partial[0], size)
    return start, min(start + partial[1], size)


def _announce(name: bytes, chunks: AsyncIterator[bytes], size: int, mark: bytes) -> Piece:
    if size <= 0:
        return Piece(name + b' ""')
    return Piece(b"%b %b{%d}\r\n" % (name, mark, size), size, chunks)


async def _whole(source: Reading, key: MessageKey, span: Span) -> bytes:
    return b"".join([chunk async for chunk in source.octets(key, span.start, span.end)])


async def _binary(source: Reading, key: MessageKey, size: int, root: Part | None, item: Binary | BinarySize) -> Piece:
    name = item_name(item)
    part = root if root is None or not item.path else find_part(root, item.path)
    if part is None:
        return Piece(name + b" NIL") if isinstance(item, Binary) else Piece(name + b" 0")
    # Without part numbers it is the whole message, and a multipart has no encoding of its own: as they are.
    span = Span(part.body, part.end) if item.path else Span(0, size)
    identity = not item.path or bool(part.parts) or part.encoding in IDENTITY
    partial = item.partial if isinstance(item, Binary) else None
    if identity:
        if isinstance(item, BinarySize):
            return Piece(b"%b %d" % (name, span.end - span.start))
        start, end = _part_of(span.end - span.start, partial)
        return _announce(name, source.octets(key, span.start + start, span.start + end), end - start, b"~")
    if span.end - span.start <= SMALL:
        decoder = TransferDecoder(part.encoding)
        decoded = decoder.feed(await _whole(source, key, span)) + decoder.close()
        if isinstance(item, BinarySize):
            return Piece(b"%b %d" % (name, len(decoded)))
        value = literal(decoded, partial)
        return Piece(name + b" " + (b"~" if value != b'""' else b"") + value)
    total = 0
    async for chunk in _decoded(source, key, span, part.encoding):
        total += len(chunk)
    if isinstance(item, BinarySize):
        return Piece(b"%b %d" % (name, total))
    start, end = _part_of(total, partial)
    return _announce(name, _cut(_decoded(source, key, span, part.encoding), start, end), end - start, b"~")


async def _decoded(source: Reading, key: MessageKey, span: Span, encoding: str) -> AsyncIterator[bytes]:
    decoder = TransferDecoder(encoding)
    async for chunk in source.octets(key, span.start, span.end):
        decoded = decoder.feed(chunk)
        if decoded:
            yield decoded
    rest = decoder.close()
    if rest:
        yield rest


async def _cut(chunks: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    at = 0
    async for chunk in chunks:
        if at >= end:
            return
        wanted = chunk[max(start - at, 0) : end - at]
        at += len(chunk)
        if wanted:
            yield wanted
