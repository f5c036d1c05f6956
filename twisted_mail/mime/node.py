"""A part while it is being read: what its header says, and its BODYSTRUCTURE once it is closed."""

from __future__ import annotations

from typing import Final, Literal

from twisted_mail.mime.block import Block
from twisted_mail.mime.parameters import parse_content_type, parse_structured, strip_comments
from twisted_mail.mime.part import Part
from twisted_mail.mime.rendering import (
    EMPTY_ENVELOPE,
    EMPTY_TEXT,
    language_list,
    nstring,
    parameter_list,
    render_envelope,
    string,
)
from twisted_mail.mime.words import decode_header

__all__ = ["Node"]

RawParams = tuple[tuple[bytes, bytes], ...]
_MOST_BOUNDARY: Final = 900
_ASCII: Final = ((b"charset", b"us-ascii"),)


class Node:
    """One part, its place in the tree, and its renderings."""

    __slots__ = (
        "block",
        "body",
        "bodystructure",
        "children",
        "delimiters",
        "description",
        "disposition",
        "embedded",
        "header",
        "is_message",
        "kind",
        "lines",
        "message",
        "parent",
        "part",
        "raw_params",
    )

    def __init__(self, part: Part, lines: int, parent: Node | None = None, message: bool = False) -> None:
        self.part = part
        self.parent = parent
        self.lines = lines
        """Line ends of the message before the header, later before the body."""
        self.is_message = message or parent is None
        """Whether this is the root of a message: the whole, or an embedded one."""
        self.embedded: bool = message or (parent is not None and parent.embedded)
        self.kind: Literal["leaf", "multipart", "message"] = "leaf"
        self.delimiters: tuple[bytes, ...] = ()
        self.children: list[Node] = []
        self.message: Node | None = None
        self.raw_params: RawParams = ()
        self.description: bytes | None = None
        self.disposition: RawParams = ()
        self.header = b""
        self.block: Block | None = None
        self.bodystructure = b""
        self.body = b""
        if self.is_message:
            part.envelope = EMPTY_ENVELOPE
        if parent is not None:
            if message:
                parent.message = self
            else:
                parent.children.append(self)

    def describe(self, header: bytes, block: Block) -> None:
        """Read the MIME fields (RFC 2045, RFC 2183, RFC 3282, RFC 2557)."""
        part, first = self.part, block.first
        if self.parent is None:
            self.header, self.block = header, block
        if self.is_message:
            part.envelope = render_envelope(first)
        raw = first.get(b"content-type")
        structured = parse_content_type(raw) if raw else None
        if structured is not None:
            part.type, _, part.subtype = structured.value.partition("/")
            part.params, self.raw_params = structured.params, structured.raw
        elif not raw and not self.is_message and self.parent is not None and self.parent.part.subtype == "digest":
            part.type, part.subtype = "message", "rfc822"
        else:
            self.make_text()
        if (raw := first.get(b"content-transfer-encoding")) is not None:
            words = strip_comments(raw).split(None, 1)
            if words:
                part.encoding = words[0].strip(b'";').decode("latin-1").lower() or "7bit"
        if (raw := first.get(b"content-id")) is not None:
            part.content_id = raw.decode("utf-8", "replace")
        if (raw := first.get(b"content-description")) is not None:
            self.description = raw
            part.description = decode_header(raw)
        if (raw := first.get(b"content-md5")) is not None:
            part.md5 = raw.decode("utf-8", "replace")
        if raw := first.get(b"content-disposition"):
            structured = parse_structured(raw)
            if structured.value:
                part.disposition = (structured.value, structured.params)
                self.disposition = structured.raw
        if raw := first.get(b"content-language"):
            tags = [tag.strip() for tag in strip_comments(raw).split(b",")]
            part.language = tuple([tag.decode("utf-8", "replace") for tag in tags if tag])
        if (raw := first.get(b"content-location")) is not None:
            part.location = b"".join(raw.split()).decode("utf-8", "replace")

    def make_text(self) -> None:
        """RFC 2045 section 5.2: what says nothing understandable of itself is plain US-ASCII text."""
        self.part.type, self.part.subtype = "text", "plain"
        self.part.params, self.raw_params = (("charset", "us-ascii"),), _ASCII

    def make_opaque(self) -> None:
        """What lies beyond a bound is octets."""
        self.part.type, self.part.subtype = "application", "octet-stream"

    def boundary(self) -> bytes | None:
        """The boundary of a multipart as it stands in delimiter lines, or None when there is no usable one."""
        for name, value in self.raw_params:
            if name in (b"boundary", b"boundary*"):
                if name.endswith(b"*"):
                    value = (self.part.param("boundary") or "").encode("utf-8", "replace")
                value = value.rstrip(b" \t\r\n")
                return value if 0 < len(value) <= _MOST_BOUNDARY and b"\n" not in value else None
        return None

    def close(self, end: int, lines: int) -> None:
        """The body ends at offset *end* of the message, *lines* line ends from its beginning."""
        part = self.part
        part.end = end
        part.body_lines = lines - self.lines
        if self.kind == "multipart":
            if not self.children:
                empty = Node(Part(end, end, end), lines, self)
                empty.make_text()
                empty.close(end, lines)
            part.parts = tuple([child.part for child in self.children])
            children, plain = self._shared_renderings()
            self.body = b"(%b %b)" % (plain, string(part.subtype.encode()))
            self.bodystructure = b"(%b %b %b %b)" % (
                children,
                string(part.subtype.encode()),
                parameter_list(self.raw_params),
                self._extension(),
            )
            return
        basic = b"(%b %b %b %b %b %b %d" % (
            string(part.type.encode()),
            string(part.subtype.encode()),
            parameter_list(self.raw_params),
            nstring(None if part.content_id is None else part.content_id.encode("utf-8", "replace")),
            nstring(self.description),
            string(part.encoding.encode("utf-8", "replace")),
            part.size,
        )
        plain = basic
        if self.kind == "message":
            inner = self.message
            if inner is not None:
                part.message = inner.part
                envelope, full, short = inner.part.envelope, inner.bodystructure, inner.body
            else:
                envelope, full, short = EMPTY_ENVELOPE, EMPTY_TEXT, EMPTY_TEXT
            plain = b"%b %b %b %d" % (basic, envelope, short, part.body_lines)
            basic = b"%b %b %b %d" % (basic, envelope, full, part.body_lines)
        elif part.type == "text":
            plain = basic = b"%b %d" % (basic, part.body_lines)
        md5 = nstring(None if part.md5 is None else part.md5.encode("utf-8", "replace"))
        self.body = plain + b")"
        self.bodystructure = b"%b %b %b)" % (basic, md5, self._extension())

    def _shared_renderings(self) -> tuple[bytes, bytes]:
        full = b"".join([child.bodystructure for child in self.children])
        short = b"".join([child.body for child in self.children])
        for child in self.children:
            child.bodystructure = child.body = b""
        return full, short

    def _extension(self) -> bytes:
        """``body-fld-dsp SP body-fld-lang SP body-fld-loc``."""
        part = self.part
        if part.disposition is None and not part.language and part.location is None:
            return b"NIL NIL NIL"
        disposition = b"NIL"
        if part.disposition is not None:
            kind = string(part.disposition[0].encode("utf-8", "replace"))
            disposition = b"(%b %b)" % (kind, parameter_list(self.disposition))
        location = nstring(None if part.location is None else part.location.encode("utf-8", "replace"))
        return b"%b %b %b" % (disposition, language_list([tag.encode() for tag in part.language]), location)
