"""A part of a message as a script sees it, and what becomes of it where the script puts something else into its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from twisted_mail.mime import Limits, MessageParser, Part, UnknownEncoding, decode_transfer
from twisted_mail.mime.charsets import decode, decode_unlabelled
from twisted_mail.mime.texts import part_text
from twisted_mail.sieve.header import HEADER_BYTES, Header
from twisted_mail.sieve.values import Piece, Span

__all__ = ["TEXT_BYTES", "Entity", "parsed", "pieces_of", "shown"]

TEXT_BYTES: Final = 4 << 20
"""Of one part, as sent, that body tests and extracttext look at."""
_LIMITS: Final = Limits(text_bytes=0)
_NONE: Final[Mapping[int, bytes]] = {}


class Entity:
    """One part of a message (RFC 2045 section 2.4), or the message itself, which is the root of its parts."""

    __slots__ = ("_children", "_content", "_header", "_text", "edited", "headers", "own", "part", "replaced", "slot", "source")

    def __init__(
        self, octets: bytes, part: Part, header: Header | None = None, *, own: bool = False, headers: Mapping[int, bytes] = _NONE
    ) -> None:
        self.source = octets
        """Where `part` counts its octets in. The message itself would make a circle, which only the garbage collector
        takes away."""
        self.own = own
        """These octets are a script's, not of the message that came."""
        self.headers = headers
        """Of parts that begin behind what there is of the source, by where they begin."""
        self.part = part
        self.slot = (part.start, part.end)
        """Its place in the source of what holds it, whatever stands there by now."""
        self.replaced = False
        """What stands in `slot` is something else by now."""
        self.edited = False
        """Its header is not the one of its source."""
        self._header = header
        self._children: tuple[Entity, ...] | None = None
        self._text: str | None = None
        self._content: str | None = None

    @property
    def header(self) -> Header:
        """Of this part alone. The root's is the message's, with what editheader did to it."""
        if self._header is None:
            start, end = self.part.start, self.part.body
            octets = self.headers.get(start) if end > len(self.source) else None
            if octets is None:
                octets = self.source[start : min(end, start + HEADER_BYTES)]
            self._header = Header(octets)
        return self._header

    @property
    def children(self) -> tuple[Entity, ...]:
        """Of a multipart its parts, of message/rfc822 the one message that it holds (as an entity of its own)."""
        if self._children is None:
            part = self.part
            inside = (part.message,) if part.message is not None else part.parts
            self._children = tuple([Entity(self.source, child, own=self.own, headers=self.headers) for child in inside])
        return self._children

    def walk(self) -> Iterator[Entity]:
        """This entity and all below it, each before what it holds, in the order of the message."""
        stack = [self]
        while stack:
            entity = stack.pop()
            yield entity
            stack.extend(reversed(entity.children))

    @property
    def changed(self) -> bool:
        """Whether a script has changed it, or a part in it."""
        if self.replaced or self.edited:
            return True
        return any(child.changed for child in self._children or ())

    def become(self, other: Entity) -> None:
        """Put *other*, with all that it holds, into its place; whoever walks over the parts finds that."""
        self.source, self.own, self.headers, self.part = other.source, other.own, other.headers, other.part
        self._header, self.edited = other._header, other.edited
        self._children, self._text, self._content = other.children, None, None
        self.replaced = True

    @property
    def octet_count(self) -> int:
        """Of it with all that it holds, as it is by now."""
        return sum(map(len, pieces_of(self)))

    def with_header(self, header: Header) -> Entity:
        """The same, and the same parts, under another header."""
        other = Entity(self.source, self.part, header, own=self.own, headers=self.headers)
        other._children = self.children
        other.edited = True
        return other

    @property
    def octets(self) -> bytes:
        """The body as sent, at most some 4 MB."""
        part = self.part
        return self.source[part.body : min(part.end, part.body + TEXT_BYTES)]

    @property
    def text(self) -> str:
        """Of a ``text/*`` part its text, of HTML what is visible, with CRLF as in multi-line strings of a script (RFC 5228
        section 2.4.2); of other leaves the decoded octets where these are UTF-8; else empty."""
        if self._text is None:
            part = self.part
            if part.type == "text":
                text = part_text(self.octets, part.subtype, part.encoding, part.param("charset"))
                self._text = text.replace("\n", "\r\n") if "\n" in text else text
            elif part.parts or part.message is not None:
                self._text = ""
            else:
                try:
                    self._text = decode_transfer(part.encoding, self.octets).decode("utf-8")
                except ValueError:  # no encoding that is known, or no text
                    self._text = ""
        return self._text

    @property
    def content(self) -> str:
        """The body without its transfer encoding, as text (RFC 5173 section 5.2: HTML keeps its tags); of what cannot be
        decoded the octets as they are."""
        if self._content is None:
            part, octets = self.part, self.octets
            try:
                octets = decode_transfer(part.encoding, octets)
            except UnknownEncoding:
                pass
            charset = part.param("charset") if part.type == "text" else None
            self._content = decode(octets, charset) if charset else decode_unlabelled(octets)
        return self._content

    def matching(self, content_type: str) -> bool:
        """Whether *content_type* (lower case) names this part's type: ``""``, ``type`` or ``type/subtype``
        (RFC 5173 section 5.2); with other slashes it names none."""
        if not content_type:
            return True
        part = self.part
        if "/" in content_type:
            return content_type == f"{part.type}/{part.subtype}"
        return content_type == part.type


def parsed(octets: bytes) -> Part:
    """The tree of the parts of a message, or of an entity."""
    parser = MessageParser(_LIMITS)
    parser.feed(octets)
    return parser.close().root


def pieces_of(entity: Entity) -> Iterator[Piece]:
    """What *entity* consists of by now, octet for octet, with what it holds."""
    part = entity.part
    at = part.start
    if entity.edited:
        yield entity.header.octets
        at = min(part.body, at + HEADER_BYTES)
    for child in entity.children if entity.changed else ():
        if child.changed:
            yield from _of_source(entity, at, child.slot[0])
            yield from pieces_of(child)
            at = child.slot[1]
    yield from _of_source(entity, at, part.end)


def _of_source(entity: Entity, start: int, end: int) -> Iterator[Piece]:
    if start < end:
        whole = start == 0 and end == len(entity.source)
        yield Span(start, end) if not entity.own else entity.source if whole else entity.source[start:end]


def shown(pieces: Iterable[Piece], came: bytes, most: int) -> bytes:
    """The first *most* octets of *pieces*, as far as *came* has the message that came."""
    octets = b""
    for piece in pieces:
        if len(octets) >= most:
            break
        octets += piece[:most] if isinstance(piece, bytes) else came[piece.start : min(piece.end, piece.start + most)]
    return octets[:most]
