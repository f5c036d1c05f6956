"""The words of a message as a learner counts them: numbers, each standing for a word of the text or of the header.

A number is the CRC-32 of the word, so nothing readable is kept of anybody's mail. Words of the header have a letter in front
that says where they stand. What servers on the way have added is left out: a message must look the same when it arrives and
when its owner moves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from twisted_mail.filters.phrases import words_of
from twisted_mail.mime import MessageParser, Part, decode_header, mailboxes_of, parse_addresses, part_text, unfold
from twisted_mail.mime.headers import split_fields

__all__ = ["TEXT_OCTETS", "Words", "words_in"]

Words = frozenset[int]
"""Each word once, however often it occurs."""

TEXT_OCTETS: Final = 65_536
"""Nothing behind these octets of a message is looked at."""
_MOST_WORDS: Final = 2_000
_MOST_PARTS: Final = 20
_SHORTEST: Final = 3
_LONGEST: Final = 24
_HOST: Final = re.compile(rb"https?://([^\s/\"'<>?#]{3,100})", re.IGNORECASE)
_ADDRESSES: Final = {b"from": b"f", b"reply-to": b"r"}
_SIMPLE: Final = frozenset({"7bit", "8bit", "binary"})


def words_in(octets: bytes, root: Part | None = None) -> Words:
    """The words of a message of which *octets* are the beginning (at least its first `TEXT_OCTETS`, or all).

    *root*: its parts, if they are known; else it is parsed. Never raises.
    """
    octets = octets[:TEXT_OCTETS]
    if root is None:
        parser = MessageParser()
        parser.feed(octets)
        root = parser.close().root
    found: set[bytes] = set()
    marked = set(_of_header(octets[: root.body]))
    for text in _texts(octets, root):
        found.update(words_of(text))
        if b"://" in text:
            marked.update([b"h:" + host.lower() for host in _HOST.findall(text)])
    numbers = {crc32(word) for word in found if _SHORTEST <= len(word) <= _LONGEST}
    numbers.update([crc32(word) for word in marked])
    # of too many a part by chance, and always the same one
    return frozenset(numbers if len(numbers) <= _MOST_WORDS else sorted(numbers)[:_MOST_WORDS])


def _texts(octets: bytes, root: Part) -> Iterator[bytes]:
    """The texts of a message, in lower case where they are not ASCII; of HTML the source too, for its links."""
    waiting, number = [root], 0
    while waiting and number < _MOST_PARTS:
        part = waiting.pop()
        if part.type == "multipart":
            waiting += reversed(part.parts)
            continue
        if part.type != "text" or part.body >= len(octets):
            continue
        number += 1
        body, charset = octets[part.body : part.end], part.param("charset")
        if part.subtype != "html" and part.encoding in _SIMPLE and body.isascii():
            yield body
            continue
        if part.subtype == "html":
            hosts = _HOST.findall(body.replace(b"=\r\n", b"") if part.encoding == "quoted-printable" else body)
            yield b" ".join(b"http://" + host for host in hosts)
        yield part_text(body, part.subtype, part.encoding, charset).lower().encode("utf-8", "replace")


def _of_header(header: bytes) -> Iterator[bytes]:
    for name, value in split_fields(header):
        name = name.lower()
        if name == b"subject":
            text = decode_header(unfold(value)[:1000]).lower().encode("utf-8", "replace")
            yield from [b"s:" + word for word in words_of(text) if len(word) <= _LONGEST]
        elif name in _ADDRESSES:
            letter = _ADDRESSES[name]
            for mailbox in mailboxes_of(parse_addresses(unfold(value)[:2000])):
                if mailbox.host:
                    host = mailbox.host.lower()
                    yield letter + b":" + mailbox.local.lower() + b"@" + host
                    yield letter + b"@" + host
                if mailbox.name:
                    name_words = words_of(mailbox.display.lower().encode("utf-8", "replace"))
                    yield from [letter + b"n:" + word for word in name_words[:10]]
        elif name in (b"x-mailer", b"user-agent"):
            yield from [b"m:" + word for word in words_of(value[:100])[:2]]
        elif name == b"list-id":
            yield b"l:" + unfold(value)[-100:].lower()
        elif name == b"content-type":
            yield b"c:" + value.partition(b";")[0].strip().lower()[:60]
