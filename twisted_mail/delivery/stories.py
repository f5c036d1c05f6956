"""What became of mail that came in, kept for those who ask: `mailctl trace`.

A chapter is a record in the space of its Message-ID, so that a whole story is one read; each address that had a part in it
has a list of its own, newest last. What cannot be written down is lost from the story, never from the mail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from typing import Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.queueing.limits import begun
from twisted_mail.storage.interfaces import Records, StorageError

__all__ = ["KEEP_SECONDS", "Chapter", "Mention", "Stories", "message_id_of"]

KEEP_SECONDS: Final = 14 * 86_400.0
MOST_WAITING: Final = 2000
"""Records that are being written; with more of them chapters are dropped, and counted."""
MOST_ADDRESSES: Final = 20
"""Of one chapter that have it in their lists."""
MOST_READ: Final = 2000
LINES_BYTES: Final = 16 * 1024


class Chapter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a message, or to somebody who wanted to send one."""

    at: float
    """Seconds since 1970."""
    what: str
    """``accepted``, ``refused``, ``delivered``, ``sorted``, ``quarantined``, …"""
    id: str = ""
    """The session's name for the message (as in its Received field), or the delivery's id."""
    message_id: str = ""
    client: str = ""
    helo: str = ""
    sender: str = ""
    ours: bool = False
    """The sender has logged in."""
    recipients: tuple[str, ...] = ()
    result: str = ""
    """In words: where it went, or what the peer was told."""
    score: float = 0.0
    lines: tuple[str, ...] = ()
    """What each filter or script said, a sentence each."""
    node: str = ""


class Mention(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """In an address's list."""

    at: float
    what: str
    message_id: str = ""
    chapter: Chapter | None = None
    """Where there is no message by whose id it could be found: the chapter itself."""


_chapters = msgspec.msgpack.Decoder(Chapter)
_mentions = msgspec.msgpack.Decoder(Mention)
_encoder = msgspec.msgpack.Encoder()
_numbers = count()
_message_id = re.compile(rb"<([^<>\s]+)>")


def message_id_of(value: bytes) -> str:
    """The id in a Message-ID field, without angle brackets; empty if there is none. At most 250 octets count."""
    match = _message_id.search(value)
    text = match[1] if match else value.strip()
    return text[:250].decode("utf-8", "replace")


def _space(kind: str, name: str) -> str:
    return f"{kind}/{blake2b(name.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def _short(lines: Sequence[str]) -> tuple[str, ...]:
    kept: list[str] = []
    left = LINES_BYTES
    for line in lines:
        left -= len(line) + 2
        if left < 0:
            return (*kept, "…")
        kept.append(line)
    return tuple(kept)


class Stories:
    """Writes chapters down without anybody waiting, and reads them."""

    _log = Logger()

    def __init__(self, records: Records, node: str = "") -> None:
        self._records = records
        self._node = node
        self._waiting: set[Deferred[None]] = set()
        self.dropped = 0
        """Chapters that were not written down, since too many were waiting."""

    def tell(self, chapter: Chapter) -> None:
        """Keep *chapter*; a failure is logged only."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        chapter = msgspec.structs.replace(chapter, node=self._node, lines=_short(chapter.lines))
        writing = begun(self._write(chapter))
        if writing is not None:
            self._waiting.add(writing)
            writing.addCallback(lambda _: self._waiting.discard(writing))

    async def written(self) -> None:
        """When what was told so far is there."""
        while self._waiting:
            await next(iter(self._waiting))

    async def _write(self, chapter: Chapter) -> None:
        key = f"{chapter.at:017.6f}/{self._node[:64]}/{next(_numbers):x}"
        mention = Mention(at=chapter.at, what=chapter.what, message_id=chapter.message_id)
        try:
            if chapter.message_id:
                await self._records.put(
                    _space("story", chapter.message_id), key, _encoder.encode(chapter), KEEP_SECONDS
                )
            else:
                mention = msgspec.structs.replace(mention, chapter=chapter)
            packed = _encoder.encode(mention)
            # a stranger whose mail was taken is found by those it was for: each list costs a write
            sender = "" if chapter.client and chapter.what == "accepted" and not chapter.ours else chapter.sender
            for address in dict.fromkeys((*chapter.recipients[:MOST_ADDRESSES], sender)):
                if address:
                    await self._records.put(_space("mentions", address.lower()), key, packed, KEEP_SECONDS)
        except (StorageError, ValueError) as error:
            self._log.warn("a chapter of {id} is not written down: {why}", id=chapter.message_id, why=error)

    async def story(self, message_id: str) -> Sequence[Chapter]:
        """All chapters of a message, oldest first. Raises: StorageError."""
        found = []
        for value in await self._values(_space("story", message_id)):
            try:
                found.append(_chapters.decode(value))
            except msgspec.MsgspecError:
                continue
        return found

    async def mentions(self, address: str) -> Sequence[Mention]:
        """Where *address* had a part as sender or recipient, oldest first. Raises: StorageError."""
        found = []
        for value in await self._values(_space("mentions", address.lower())):
            try:
                found.append(_mentions.decode(value))
            except msgspec.MsgspecError:
                continue
        return found

    async def _values(self, space: str) -> list[bytes]:
        values: list[bytes] = []
        after = ""
        while len(values) < MOST_READ:
            page = await self._records.list(space, after, 500)
            if not page:
                break
            values += [record.value for record in page]
            after = page[-1].key
        return values
