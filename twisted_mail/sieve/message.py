"""The message as a script sees it: built from octets, everything looked at only when it is asked for, and once.

`Message` has the header and the tree of its parts; both it and `Entity` (one part) have a `Header`. Nothing here raises,
whatever the octets: what is no header has no fields, what lies beyond the bounds of `twisted_mail.mime` is seen coarsely.
A message does not change: editheader makes another one (`Message.edited`), which shares what stayed the same; only a
script that replaces parts does so in place, in a copy of its own (`Message.apart`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted_mail.mime import Part, iterate_fields
from twisted_mail.mime.charsets import decode_unlabelled
from twisted_mail.sieve.editing import edit_header
from twisted_mail.sieve.entity import TEXT_BYTES, Entity, parsed, pieces_of, shown
from twisted_mail.sieve.header import HEADER_BYTES, Address, Header
from twisted_mail.sieve.values import Edit, Piece, Rewritten, Span

__all__ = ["Address", "Entity", "Header", "Message"]

_ALL_TEXT_BYTES: Final = 16 << 20
"""Of all parts that one body test looks at."""
_BLANK: Final = re.compile(rb"\n\r?\n")
_FIELD_LINE: Final = re.compile(rb"[!-9;-~]++[ \t]*+:|[ \t]|>?From ")


class Message:
    """A message, whole, or its header alone (body and parts are then empty).

    *size* is what the size test sees, where it is not the number of octets; *root* the parts as `MessageParser` found
    them in these very octets, where that was done before: reading them costs most of what is done here; *headers* those of
    parts that lie behind the octets, by where they begin in the message.
    """

    __slots__ = (
        "_bodies",
        "_came",
        "_edited",
        "_entity",
        "_header",
        "_headers",
        "_replaced",
        "_rewritten",
        "_root",
        "memo",
        "octets",
        "own",
        "size",
    )

    def __init__(
        self,
        octets: bytes,
        size: int | None = None,
        root: Part | None = None,
        headers: Mapping[int, bytes] | None = None,
    ) -> None:
        self.octets = octets
        self._headers = headers or {}
        self.size = len(octets) if size is None else size
        self._root = root
        self._header: Header | None = None
        self._entity: Entity | None = None
        self._bodies: dict[tuple[str, ...] | str, tuple[str, ...]] = {}
        self.memo: dict[Any, Any] = {}
        """For whoever runs a script: what was made of this message and is good as long as it does not change."""
        self._came = octets
        """Of the message that came, as much as is known; `octets` may be a script's own."""
        self.own = False
        """The frame of the message is a script's."""
        self._edited = False
        """Its header is not as it came."""
        self._replaced = False
        """Nor are its parts."""
        self._rewritten: Rewritten | None = None

    @property
    def header(self) -> Header:
        """The message's own header, at most 1 MiB of it."""
        if self._header is None:
            self._header = Header(self.octets[: self._header_bytes])
        return self._header

    @property
    def _header_bytes(self) -> int:
        end = self._root.body if self._root is not None else _header_end(self.octets)
        return min(end, HEADER_BYTES)

    @property
    def has_body(self) -> bool:
        """Whether a blank line stands behind the header; RFC 5173 section 4: without one no body test is true."""
        octets = self.octets
        start = self._root.body if self._root is not None else _header_end(octets)
        return start < len(octets) or octets.endswith((b"\n\n", b"\n\r\n")) or octets in (b"\n", b"\r\n")

    @property
    def entity(self) -> Entity:
        """The root of the parts."""
        if self._entity is None:
            root = self._root
            if root is None:
                self._root = root = parsed(self.octets)
            self._entity = Entity(self.octets, root, self.header, own=self.own, headers=self._headers)
            self._entity.edited = self._edited
        return self._entity

    def values(self, name: str) -> tuple[str, ...]:
        """Of the message's own header; see `Header.values`."""
        return self.header.values(name)

    def folded(self, name: str) -> tuple[str, ...]:
        """See `Header.folded`."""
        return self.header.folded(name)

    def addresses(self, name: str) -> tuple[tuple[Address, ...], ...]:
        """See `Header.addresses`."""
        return self.header.addresses(name)

    # --- what a script makes of it

    def apart(self) -> Message:
        """The same message with parts of its own, which a script may replace."""
        other = Message(self.octets, self.size, self._root, self._headers)
        other._header, other._came, other.own, other._edited = self._header, self._came, self.own, self._edited
        return other

    def edited(self, edit: Edit) -> Message:
        """The message after *edit* (RFC 5293); itself where that changes nothing."""
        octets, cut = self.header.octets, b""
        if len(octets) >= HEADER_BYTES:
            # The last field that is known may go on.
            start = max((field.start for field in iterate_fields(octets)), default=0)
            octets, cut = octets[:start], octets[start:]
        return self.with_header(edit_header(octets, (edit,)) + cut)

    def with_header(self, octets: bytes) -> Message:
        """The message with the header *octets*; its parts stay the same ones."""
        if octets == self.header.octets:
            return self
        other = Message(self.octets, self.size + len(octets) - len(self.header.octets), self._root, self._headers)
        other._came, other.own, other._bodies, other._replaced = self._came, self.own, self._bodies, self._replaced
        other._header = Header(octets)
        other._edited = octets != self.octets[: self._header_bytes]
        if self._entity is not None:
            other._entity = self._entity.with_header(other._header)
            other._entity.edited = other._edited
        return other

    def made(self, octets: bytes) -> Message:
        """Another message, all of *octets*, but for what is put into it of this one (`put`)."""
        other = Message(octets)
        other._came, other.own = self._came, True
        return other

    def put(self, place: Entity, other: Entity) -> None:
        """Put *other* into the place of one of its parts (RFC 5703 section 5), for whoever has a hold of its parts too."""
        self.size -= place.octet_count
        place.become(other)
        self.size += place.octet_count
        self._bodies, self._rewritten, self._replaced = {}, None, True

    def rewritten(self) -> Rewritten | None:
        """What is to be stored or sent instead of the message that came; None: that itself."""
        if self._rewritten is None and (self._replaced or self._edited or self.own):
            pieces: tuple[Piece, ...]
            if self._entity is not None:
                pieces = tuple(pieces_of(self._entity))
            else:
                # Without looking at its parts: of the message there may be no more than the header.
                rest = self._header_bytes
                end = rest + self.size - len(self.header.octets)
                pieces = (self.header.octets, self.octets[rest:] if self.own else Span(rest, end))
            self._rewritten = Rewritten(tuple([piece for piece in pieces if len(piece)]))
        return self._rewritten

    # --- what the body test looks at (RFC 5173)

    def body_raw(self) -> str:
        """``:raw``: everything behind the header, undecoded (octets that are not UTF-8 as by windows-1252)."""
        found = self._bodies.get("raw")
        if found is None:
            if self._replaced:
                octets = shown(pieces_of(self.entity), self._came, HEADER_BYTES + _ALL_TEXT_BYTES)
                octets = octets[len(self.header.octets) :][:_ALL_TEXT_BYTES]
            else:
                start = self._root.body if self._root is not None else _header_end(self.octets)
                octets = self.octets[start : start + _ALL_TEXT_BYTES]
            found = self._bodies["raw"] = (decode_unlabelled(octets),)
        return found[0]

    def body_text(self) -> str:
        """``:text``: the text of all ``text/*`` parts, of HTML what is visible."""
        found = self._bodies.get("text")
        if found is None:
            room = _ALL_TEXT_BYTES
            texts = []
            for entity in self.entity.walk():
                if entity.part.type == "text" and room > 0:
                    room -= entity.part.size
                    texts.append(entity.text)
            found = self._bodies["text"] = ("\r\n".join(texts),)
        return found[0]

    def body_content(self, types: Sequence[str]) -> tuple[str, ...]:
        """``:content``: of each part whose type is one of *types* (lower case) the decoded body; of a multipart prologue
        and epilogue, of a message/rfc822 the header of the message inside."""
        key = tuple(types)
        found = self._bodies.get(key)
        if found is None:
            room = _ALL_TEXT_BYTES
            texts: list[str] = []
            for entity in self.entity.walk():
                if room <= 0 or not any(entity.matching(wanted) for wanted in key):
                    continue
                part = entity.part
                if part.parts:
                    pieces = _around(entity.source, part)
                    texts += pieces
                    room -= sum(map(len, pieces))
                elif part.message is not None:
                    header = entity.children[0].header.octets
                    room -= len(header)
                    texts.append(decode_unlabelled(header))
                else:
                    room -= part.size
                    texts.append(entity.content)
            found = self._bodies[key] = tuple(texts)
        return found


def _header_end(octets: bytes) -> int:
    """Where the body begins, as `MessageParser` sees it: a first line that is no field means that there is no header."""
    if octets.startswith((b"\r\n", b"\n")):
        return octets.index(b"\n") + 1
    if _FIELD_LINE.match(octets) is None:
        return 0
    blank = _BLANK.search(octets)
    return len(octets) if blank is None else blank.end()


def _around(octets: bytes, part: Part) -> list[str]:
    """Prologue and epilogue of a multipart, without the delimiter lines."""
    first, last = part.parts[0], part.parts[-1]
    prologue = octets[part.body : min(first.start, part.body + TEXT_BYTES)]
    line = prologue.rfind(b"\n--") if b"\n--" in prologue else 0 if prologue.startswith(b"--") else len(prologue)
    epilogue = octets[last.end : min(part.end, last.end + TEXT_BYTES)]
    # The close-delimiter's line; nothing where the multipart was cut off.
    end = epilogue.find(b"\n", epilogue.find(b"--"))
    behind = epilogue[end + 1 :] if b"--" in epilogue and end >= 0 else b""
    return [decode_unlabelled(prologue[:line].removesuffix(b"\r")), decode_unlabelled(behind)]
