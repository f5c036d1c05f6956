"""BODY[…] sections by their numbers (RFC 9051 section 6.4.5.1)."""

from __future__ import annotations

import pytest

from tests.mime.generate import SHAPES, generate
from tests.mime.reading import parse, walk
from twisted_mail.mime import Part, Section, decode_layout, encode_layout, filter_fields, find_part, locate
from twisted_mail.mime.sections import What


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


# The message that RFC 9051 numbers: 1 TEXT/PLAIN, 2 APPLICATION/OCTET-STREAM, 3 MESSAGE/RFC822 (3.1 TEXT/PLAIN,
# 3.2 APPLICATION/OCTET-STREAM), 4 MULTIPART/MIXED (4.1 IMAGE/GIF, 4.2 MESSAGE/RFC822 (4.2.1 TEXT/PLAIN,
# 4.2.2 MULTIPART/ALTERNATIVE (4.2.2.1 TEXT/PLAIN, 4.2.2.2 TEXT/RICHTEXT)))
MESSAGE = crlf(
    """Subject: top
Content-Type: multipart/mixed; boundary=A

preamble
--A
Content-Type: text/plain

one
--A
Content-Type: application/octet-stream

two
--A
Content-Type: message/rfc822

Subject: three
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: text/plain

three.one
--B
Content-Type: application/octet-stream

three.two
--B--
--A
Content-Type: multipart/mixed; boundary=C

--C
Content-Type: image/gif

four.one
--C
Content-Type: message/rfc822

Subject: four.two
Content-Type: multipart/mixed; boundary=D

--D
Content-Type: text/plain

four.two.one
--D
Content-Type: multipart/alternative; boundary=E

--E
Content-Type: text/plain

four.two.two.one
--E
Content-Type: text/richtext

four.two.two.two
--E--
--D--
--C--
--A--
epilogue
"""
)


def section(text: str) -> Section:
    numbers = []
    what: What | None = None
    for piece in text.split("."):
        if piece.isdigit():
            numbers.append(int(piece))
        elif piece:
            assert piece in ("HEADER", "TEXT", "MIME")
            what = piece  # type: ignore[assignment]  # mypy does not narrow to the literals
    return Section(tuple(numbers), what)


def taken(octets: bytes, root: Part, text: str) -> bytes | None:
    span = locate(root, section(text))
    return None if span is None else octets[span.start : span.end]


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("HEADER", b"Subject: top\r\nContent-Type: multipart/mixed; boundary=A\r\n\r\n"),
        ("1", b"one"),
        ("1.MIME", b"Content-Type: text/plain\r\n\r\n"),
        ("1.HEADER", None),
        ("1.TEXT", None),
        ("1.1", None),
        ("2", b"two"),
        ("2.MIME", b"Content-Type: application/octet-stream\r\n\r\n"),
        ("3.MIME", b"Content-Type: message/rfc822\r\n\r\n"),
        ("3.HEADER", b"Subject: three\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"),
        ("3.1", b"three.one"),
        ("3.1.MIME", b"Content-Type: text/plain\r\n\r\n"),
        ("3.2", b"three.two"),
        ("3.3", None),
        ("4.MIME", b"Content-Type: multipart/mixed; boundary=C\r\n\r\n"),
        ("4.HEADER", None),
        ("4.1", b"four.one"),
        ("4.1.MIME", b"Content-Type: image/gif\r\n\r\n"),
        ("4.2.HEADER", b"Subject: four.two\r\nContent-Type: multipart/mixed; boundary=D\r\n\r\n"),
        ("4.2.1", b"four.two.one"),
        ("4.2.1.MIME", b"Content-Type: text/plain\r\n\r\n"),
        ("4.2.2.1", b"four.two.two.one"),
        ("4.2.2.2", b"four.two.two.two"),
        ("4.2.2.2.MIME", b"Content-Type: text/richtext\r\n\r\n"),
        ("4.2.2.3", None),
        ("5", None),
        ("0", None),
        ("MIME", None),
    ],
)
def test_the_numbers_of_the_rfc(name: str, octets: bytes | None) -> None:
    root = parse(MESSAGE).root
    assert taken(MESSAGE, root, name) == octets
    assert taken(MESSAGE, decode_layout(encode_layout(root)), name) == octets


def test_the_whole_is_header_and_text() -> None:
    root = parse(MESSAGE).root
    assert taken(MESSAGE, root, "") == MESSAGE
    assert (taken(MESSAGE, root, "HEADER") or b"") + (taken(MESSAGE, root, "TEXT") or b"") == MESSAGE
    inner = taken(MESSAGE, root, "3")
    assert inner == (taken(MESSAGE, root, "3.HEADER") or b"") + (taken(MESSAGE, root, "3.TEXT") or b"")
    assert inner is not None and inner.startswith(b"Subject: three") and inner.endswith(b"--B--")


def test_a_message_that_is_no_multipart_has_part_one() -> None:
    octets = b"Subject: x\r\n\r\nbody\r\n"
    root = parse(octets).root
    assert taken(octets, root, "1") == taken(octets, root, "TEXT") == b"body\r\n"
    assert taken(octets, root, "1.MIME") == b"Subject: x\r\n\r\n"
    assert taken(octets, root, "2") is None
    assert taken(octets, root, "1.1") is None
    assert taken(octets, root, "1.HEADER") is None


def test_a_message_in_a_message_in_a_message() -> None:
    inner = b"Subject: c\r\n\r\nbody"
    octets = b"Subject: a\r\nContent-Type: message/rfc822\r\n\r\nSubject: b\r\nContent-Type: message/rfc822\r\n\r\n" + inner
    root = parse(octets).root
    assert taken(octets, root, "1.HEADER") == b"Subject: b\r\nContent-Type: message/rfc822\r\n\r\n"
    assert taken(octets, root, "1.1") == inner
    assert taken(octets, root, "1.1.HEADER") == b"Subject: c\r\n\r\n"
    assert taken(octets, root, "1.1.TEXT") == taken(octets, root, "1.1.1") == b"body"
    assert taken(octets, root, "1.1.1.1") is None


def test_header_fields_come_from_the_span_of_the_header() -> None:
    root = parse(MESSAGE).root
    wanted = Section((4, 2), "HEADER.FIELDS", (b"SUBJECT",))
    span = locate(root, wanted)
    assert span is not None
    assert filter_fields(MESSAGE[span.start : span.end], wanted.fields) == b"Subject: four.two\r\n\r\n"
    assert locate(root, Section((1,), "HEADER.FIELDS.NOT", (b"X",))) is None
    assert locate(root, Section((), "HEADER.FIELDS", (b"X",))) == locate(root, Section((), "HEADER"))


def test_every_part_is_found_by_its_number() -> None:
    for seed in range(len(SHAPES)):
        root = parse(generate(seed)).root
        found: list[Part] = []

        def number(message: Part, path: tuple[int, ...], root: Part = root, found: list[Part] = found) -> None:
            """Every leaf, multipart and embedded message below *message*, a message's root."""
            children = message.parts or (message,)
            for position, child in enumerate(children, 1):
                at = (*path, position)
                assert find_part(root, at) is child
                found.append(child)
                if child.message is not None:
                    number(child.message, at)
                elif child.parts and child is not message:
                    number(child, at)

        number(root, ())
        # All but the roots of messages that are multiparts: they have no number of their own.
        expected = [part for part in walk(root) if not (part.type == "multipart" and _is_message_root(root, part))]
        assert {id(part) for part in found} == {id(part) for part in expected}


def _is_message_root(root: Part, part: Part) -> bool:
    return part is root or any(other.message is part for other in walk(root))


def test_a_layout_of_another_version_or_garbage_is_refused() -> None:
    cell = encode_layout(parse(MESSAGE).root)
    for bad in (b"", b"\x02" + cell[1:], cell[:-5], b"\x01", b"\x01\xc0", cell + b"x"):
        with pytest.raises(ValueError, match="layout"):
            decode_layout(bad)
