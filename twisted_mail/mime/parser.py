"""The parser: octets in, in pieces of any size; a part tree with offsets, renderings and texts out, in one pass.

Nothing of a body is kept but text, and of that at most `Limits.text_bytes`. Boundaries are looked for with one search
over each piece; lines are counted, never cut. Choices where RFCs leave some or mail breaks them:

- A line ends with LF (with or without CR before it); a bare CR is an octet like others.
- A delimiter is a whole line (RFC 2046 section 5.1.1: ``--boundary``, perhaps ``--``, transport padding), of at most
  1,000 octets. One of an enclosing multipart ends all that is open inside it; of two multiparts with the same boundary
  the outer one has it; after a close-delimiter the boundary is text.
- A header ends at its blank line, or at a delimiter. Only a block whose first line is no field has no header at all. An
  mbox "From " line is part of the header's octets, and no field.
- A multipart without a single delimiter has one empty part, so that BODYSTRUCTURE can be given.
- A message/rfc822 in base64 or quoted-printable (RFC 2046 section 5.2.1 forbids it) is a leaf.
"""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.mime.block import Block
from twisted_mail.mime.fold import fold
from twisted_mail.mime.message import ParsedMessage
from twisted_mail.mime.node import Node
from twisted_mail.mime.part import Limits, Part
from twisted_mail.mime.texts import Texts, part_text
from twisted_mail.mime.transfer import IDENTITY

__all__ = ["MessageParser"]

_LINE: Final = 1000
"""Octets of the longest delimiter line, and of a first line that is looked at."""
_SLICE: Final = 1 << 18
_BLANK: Final = re.compile(rb"\n\r?\n")
_FIELD_LINE: Final = re.compile(rb"[!-9;-~]++[ \t]*+:|[ \t]|>?From ")
_FALSE_HITS: Final = 2000
"""Lines with two hyphens that were no delimiters, after which an expression looks for the very boundaries."""


class MessageParser:
    """Feed it the octets of one message, then `close`.

    Measured (one core of a small virtual machine): a plain message of 5 kB with all renderings 145 µs; a multipart of
    50 kB with text, 8 kB of HTML and an attachment 570 µs; an attachment of 100 MB at 0.9 GB/s, below 1 MB of memory.
    Text costs more: 16 MiB of it some 0.3 s, hostile HTML several times that, at its end and in one go.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits if limits is not None else Limits()
        self._held = b""
        self._base = 0
        """Offset in the message of the buffer's first octet."""
        self._lines = 0
        """Line ends consumed so far."""
        self._texts = Texts(self._limits.text_bytes)
        self._root = Node(Part(0, 0, 0), 0)
        self._stack = [self._root]
        self._count = 1
        self._delimiters: dict[bytes, tuple[Node, bool]] = {}
        """Delimiter line to (multipart, whether it closes)."""
        self._finder: re.Pattern[bytes] | None = None
        self._false_hits = 0
        self._in_header = True
        self._fresh = True
        """Whether the region began at a line's beginning and nothing of it was consumed."""
        self._first_line_seen = False
        self._header: list[bytes] = []
        self._header_room = self._limits.header_bytes
        self._text: list[bytes] | None = None
        self._hold = 0
        self._closed = False
        self._cuts: list[tuple[int, Part | None]] = []
        self._attachment: Node | None = None
        """The attachment whose body is being read."""

    def feed(self, chunk: bytes) -> None:
        """Take the next octets."""
        if len(chunk) > _SLICE:
            view = memoryview(chunk)
            for at in range(0, len(chunk), _SLICE):
                self._run(self._held + view[at : at + _SLICE], False)
        elif chunk:
            self._run(self._held + chunk if self._held else bytes(chunk), False)

    @property
    def decided(self) -> int:
        """Offset in the message up to which it is known what every octet belongs to."""
        return self._base

    def take_cuts(self) -> list[tuple[int, Part | None]]:
        """Where bodies of attachments begin and end, as (offset, whose body, or None: from here on it is text again).

        Ascending, and none beyond `decided`; each is given once. An attachment is a leaf that is not shown as text. Of
        its `Part` only what the header says is known yet.
        """
        cuts, self._cuts = self._cuts, []
        return cuts

    def close(self) -> ParsedMessage:
        """The last octet has come. Any octets make a message; nothing raises."""
        if self._closed:
            raise RuntimeError("the parser is closed")
        self._closed = True
        self._run(self._held, True)
        self._close_above(-1, self._base)
        return ParsedMessage.of(self._root, self._base, self._texts)

    # --- the two kinds of region

    def _run(self, buffer: bytes, final: bool) -> None:
        """Consume what can be decided about; the rest is held until more comes."""
        at: int | None = 0
        while at is not None:
            at = self._read_header(buffer, at, final) if self._in_header else self._read_body(buffer, at, final)
        self._held = buffer[self._hold :]
        self._base += self._hold

    def _read_header(self, buffer: bytes, at: int, final: bool) -> int | None:
        """Read header octets from *at*. The place to go on from, or None when all is consumed up to the hold."""
        if not self._first_line_seen:
            end = buffer.find(b"\n", at, at + _LINE)
            if end < 0 and len(buffer) - at < _LINE and not final:
                self._hold = at
                return None
            self._first_line_seen = True
            line = buffer[at : end + 1] if end >= 0 else buffer[at : at + _LINE]
            if line in (b"\r\n", b"\n"):
                return self._header_done(buffer, at, end + 1)
            delimiter = line.startswith(b"--") and line.rstrip(b" \t\r\n") in self._delimiters
            if not delimiter and _FIELD_LINE.match(line) is None:
                return self._header_done(buffer, at, at)
        blank = _BLANK.search(buffer, at)
        if self._delimiters:
            stop = len(buffer) if blank is None else blank.start() + 1
            hit = self._find(buffer, at, stop, final or blank is not None)
            if hit is not None:
                self._header_done(buffer, at, hit[0])
                if self._in_header:  # an embedded message began, and is empty
                    self._header_done(buffer, hit[0], hit[0])
                return self._delimited(buffer, hit[0], hit)
        if blank is not None:
            return self._header_done(buffer, at, blank.end())
        if final:
            return self._header_done(buffer, at, len(buffer))
        self._hold = hold = self._place_to_hold(buffer, at)
        self._keep_header(buffer, at, hold)
        self._advance(buffer, at, hold)
        return None

    def _read_body(self, buffer: bytes, at: int, final: bool) -> int | None:
        """Read a leaf's body, a preamble or an epilogue from *at*; results as `_read_header`."""
        if self._delimiters:
            hit = self._find(buffer, at, len(buffer), final)
            if hit is not None:
                self._keep_text(buffer, at, hit[0])
                self._advance(buffer, at, hit[0])
                return self._delimited(buffer, hit[0], hit)
            self._hold = hold = len(buffer) if final else self._place_to_hold(buffer, at)
        else:
            self._hold = hold = len(buffer)
        self._keep_text(buffer, at, hold)
        self._advance(buffer, at, hold)
        return None

    def _advance(self, buffer: bytes, start: int, end: int) -> None:
        if end > start:
            self._lines += buffer.count(b"\n", start, end)
            self._fresh = False

    def _place_to_hold(self, buffer: bytes, at: int) -> int:
        """Up to where all is decided: a line end, and a beginning of a line that may become a delimiter, wait."""
        end = len(buffer)
        line_end = buffer.rfind(b"\n", max(at, end - _LINE - 1))
        if line_end >= 0:
            tail = buffer[line_end + 1 : line_end + 3]
            if b"--".startswith(tail) or (tail == b"\r" and line_end + 2 == end):
                return line_end - 1 if line_end > at and buffer[line_end - 1] == 13 else line_end
        elif self._fresh and end - at <= _LINE and b"--".startswith(buffer[at : at + 2]):
            return at
        return end - 1 if end > at and buffer[end - 1] == 13 else end

    # --- delimiters

    def _find(self, buffer: bytes, at: int, stop: int, final: bool) -> tuple[int, int, Node, bool] | None:
        """The first delimiter line in ``[at:stop)``: (end of the content before it, its LF, whose, closing)."""
        known = self._delimiters
        line = at if self._fresh and buffer.startswith(b"--", at) else self._next_candidate(buffer, at, stop)
        while line >= 0:
            end = buffer.find(b"\n", line, line + _LINE + 1)
            if end < 0 and len(buffer) - line <= _LINE:
                if not final:
                    return None
                end = len(buffer)
            if end >= 0 and (owner := known.get(buffer[line:end].rstrip(b" \t\r"))) is not None:
                content = line
                if content > at:
                    content -= 1
                    if content > at and buffer[content - 1] == 13:
                        content -= 1
                return content, end, *owner
            self._false_hits += 1
            line = self._next_candidate(buffer, line, stop)
        return None

    def _next_candidate(self, buffer: bytes, at: int, stop: int) -> int:
        """Where the next line with two hyphens begins behind *at*, or -1."""
        if self._false_hits < _FALSE_HITS:
            return buffer.find(b"\n--", at, stop) + 1 or -1
        if self._finder is None:
            # Text made of such lines must not cost a step of ours for each.
            names = sorted({line[2:] for line, (_, closing) in self._delimiters.items() if not closing})
            self._finder = re.compile(b"\n--(?:" + b"|".join(map(re.escape, names)) + b")")
        match = self._finder.search(buffer, at, stop)
        if match is not None:
            return match.start() + 1
        # A delimiter that the piece's end cuts is held by its beginning, and found whole next time.
        return -1

    def _delimited(self, buffer: bytes, at: int, hit: tuple[int, int, Node, bool]) -> int:
        """A delimiter line of *hit* ends what is open; *at* is where the content ended."""
        _, after, owner, closing = hit
        self._close_above(self._stack.index(owner), self._base + at)
        if closing:
            # The line end behind a close-delimiter may be that of the next delimiter of an outer multipart.
            if buffer[after - 1] == 13 and after > at:
                after -= 1
            self._advance(buffer, at, after)
            self._forget(owner)
            self._in_header = False
        else:
            after = min(after + 1, len(buffer))
            self._advance(buffer, at, after)
            self._fresh = True
            self._open(Node(Part(self._base + after, 0, 0), self._lines, owner))
        return after

    def _open(self, node: Node) -> None:
        """*node* begins: its header, or, beyond the bound, all the rest of the message as one leaf."""
        self._count += 1
        self._stack.append(node)
        self._first_line_seen = False
        self._in_header = True
        self._header = []
        self._header_room = self._limits.header_bytes
        if self._count > self._limits.parts:
            self._delimiters = {}
            self._finder = None
            self._in_header = False
            node.part.body = node.part.start
            node.make_opaque()
            self._begin_attachment(node)

    def _forget(self, node: Node) -> None:
        for key in node.delimiters:
            self._delimiters.pop(key, None)
        node.delimiters = ()
        self._finder = None

    def _close_above(self, level: int, end: int) -> None:
        """Close the innermost nodes down to *level* of the stack, which stays; *end* is an offset in the message."""
        while len(self._stack) - 1 > level:
            node = self._stack.pop()
            if self._text is not None:
                self._take_text(node)
            if node.delimiters:
                self._forget(node)
            if node is self._attachment:
                self._attachment = None
                self._cuts.append((end, None))
            node.close(end, self._lines)

    # --- what is kept

    def _keep_header(self, buffer: bytes, start: int, end: int) -> None:
        if self._header_room > 0 and end > start:
            piece = buffer[start : min(end, start + self._header_room)]
            self._header_room -= len(piece)
            self._header.append(piece)

    def _keep_text(self, buffer: bytes, start: int, end: int) -> None:
        if self._text is not None and end > start:
            room = self._texts.room
            if end - start > room:
                self._texts.cut = True
                end = start + room
            self._texts.room = room - (end - start)
            if end > start:
                self._text.append(buffer[start:end])

    def _take_text(self, node: Node) -> None:
        pieces, self._text = self._text or [], None
        part = node.part
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        aside = node.embedded or (part.disposition is not None and part.disposition[0] == "attachment")
        self._texts.add_text(
            part_text(data, part.subtype, part.encoding, part.param("charset")), part.subtype, aside
        )

    def _header_done(self, buffer: bytes, at: int, end: int) -> int:
        """The current node's header ends at *end*: what it says decides how its body is read."""
        self._keep_header(buffer, at, end)
        self._advance(buffer, at, end)
        self._fresh = True
        node = self._stack[-1]
        header = self._header[0] if len(self._header) == 1 else b"".join(self._header)
        self._header = []
        part = node.part
        part.body = self._base + end
        part.header_lines = self._lines - node.lines
        node.lines = self._lines
        block = Block(header)
        node.describe(header, block)
        if node.is_message:
            if node.embedded:
                self._texts.add_header(block.search_lines())
        elif block.fields:
            lines = block.search_lines()
            name = part.filename
            if name and not name.isascii():
                # As it is written (RFC 2231, base64) nobody would search for it.
                lines += b"filename:" + fold(name).replace(b"\n", b" ") + b"\n"
            self._texts.add_mime_header(lines)
        self._in_header = False
        self._begin_body(node)
        return end

    def _begin_body(self, node: Node) -> None:
        part = node.part
        if part.type == "multipart":
            boundary = node.boundary()
            if boundary is None:
                node.make_text()
            elif len(self._stack) > self._limits.depth:
                node.make_opaque()
            else:
                node.kind = "multipart"
                if part.encoding not in IDENTITY:
                    part.encoding = "7bit"  # RFC 2045 section 6.4 forbids any other, and nobody encodes the whole
                keys = (b"--" + boundary, b"--" + boundary + b"--")
                node.delimiters = tuple([key for key in keys if key not in self._delimiters])
                for key in node.delimiters:
                    self._delimiters[key] = (node, key is keys[1])
                self._finder = None
        elif part.type == "message" and part.subtype in ("rfc822", "global"):
            node.kind = "message"
            if part.encoding in IDENTITY and len(self._stack) < self._limits.depth:
                self._open(Node(Part(part.body, part.body, part.body), self._lines, node, message=True))
                return
        elif node.kind == "leaf" and part.type == "text":
            self._text = []
        aside = part.type != "text" or (part.disposition is not None and part.disposition[0] == "attachment")
        if node.kind != "multipart" and aside:
            self._begin_attachment(node)

    def _begin_attachment(self, node: Node) -> None:
        self._attachment = node
        self._cuts.append((node.part.body, node.part))
