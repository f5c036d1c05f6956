"""Ways to parse in tests, and what must hold of every message whatever its octets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from twisted_mail.mime import Limits, MessageParser, ParsedMessage, Part

__all__ = ["assert_sound", "parse", "parse_pieces", "read_values", "walk"]


def parse(octets: bytes, limits: Limits | None = None) -> ParsedMessage:
    """All octets at once."""
    return parse_pieces([octets], limits)


def parse_pieces(pieces: Iterable[bytes], limits: Limits | None = None) -> ParsedMessage:
    """The octets as they come."""
    parser = MessageParser(limits)
    for piece in pieces:
        parser.feed(piece)
    return parser.close()


def walk(part: Part) -> Iterator[Part]:
    """*part* and everything inside it."""
    yield part
    if part.message is not None:
        yield from walk(part.message)
    for child in part.parts:
        yield from walk(child)


def assert_sound(octets: bytes, message: ParsedMessage) -> None:
    """Offsets tile the message, lines are counted right, renderings can be read back and have the tree's shape."""
    root = message.root
    assert message.size == len(octets)
    assert (root.start, root.end) == (0, len(octets))
    for part in walk(root):
        assert part.start <= part.body <= part.end
        assert part.header_lines == octets.count(b"\n", part.start, part.body)
        assert part.body_lines == octets.count(b"\n", part.body, part.end)
        at = part.body
        for child in part.parts:
            assert at <= child.start and child.end <= part.end
            at = child.end
        if part.message is not None:
            assert (part.message.start, part.message.end) == (part.body, part.end)
        if part.type == "multipart":
            assert part.parts
        else:
            assert not part.parts
    assert octets.startswith(message.header)
    assert len(message.preview) <= 200
    assert message.preview == " ".join(message.preview.split()) and message.preview.isprintable()
    envelope = read_values(message.envelope)
    assert len(envelope) == 1 and isinstance(envelope[0], list) and len(envelope[0]) == 10
    _assert_structure(read_values(message.bodystructure), root, True)
    _assert_structure(read_values(message.body), root, False)
    message.search_header.decode()
    message.search_text.decode()


def _assert_structure(values: list[object], part: Part, extended: bool) -> None:
    (value,) = values
    assert isinstance(value, list)
    if part.type == "multipart":
        count = len(part.parts)
        for child, given in zip(part.parts, value[:count], strict=True):
            _assert_structure([given], child, extended)
        assert value[count] == part.subtype.encode()
        assert len(value) == count + (5 if extended else 1)
        return
    assert value[0] == part.type.encode() and value[1] == part.subtype.encode()
    assert value[5] == part.encoding.encode("utf-8", "replace").replace(b"\0", b"")
    assert value[6] == part.size
    length = 7
    if part.type == "message" and part.subtype in ("rfc822", "global"):
        assert isinstance(value[7], list) and len(value[7]) == 10
        if part.message is not None:
            _assert_structure([value[8]], part.message, extended)
        assert value[9] == part.body_lines
        length = 10
    elif part.type == "text":
        assert value[7] == part.body_lines
        length = 8
    assert len(value) == length + (4 if extended else 0)


_TOKEN = re.compile(rb'\(|\)| |NIL|\d+|"(?:[^"\\\r\n\x00\x80-\xff]|\\["\\])*"|\{(\d+)\}\r\n')


def read_values(rendered: bytes) -> list[object]:
    """Parenthesized lists, strings, numbers and NIL (RFC 9051 section 9), strictly: a test's own reader."""
    stack: list[list[object]] = [[]]
    at = 0
    while at < len(rendered):
        match = _TOKEN.match(rendered, at)
        assert match is not None, rendered[at : at + 60]
        token = match[0]
        at = match.end()
        if token == b"(":
            inner: list[object] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif token == b")":
            stack.pop()
        elif token == b"NIL":
            stack[-1].append(None)
        elif token[:1] == b'"':
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", token[1:-1]))
        elif match[1] is not None:
            size = int(match[1])
            literal = rendered[at : at + size]
            assert len(literal) == size and b"\x00" not in literal
            stack[-1].append(literal)
            at += size
        elif token != b" ":
            stack[-1].append(int(token))
    assert len(stack) == 1
    return stack[0]
