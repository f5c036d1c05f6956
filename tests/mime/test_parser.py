"""The parser: pieces of any size, any octets, and every kind of broken message."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.generate import SHAPES, generate, generate_shape, shape_of
from tests.mime.reading import assert_sound, parse, parse_pieces, walk
from twisted_mail.mime import Limits, MessageParser, Part, decode_layout, encode_layout, match_body

MIXED = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'


def bodies(octets: bytes, root: Part) -> list[bytes]:
    """The bodies of all leaves."""
    return [octets[part.body : part.end] for part in walk(root) if not part.parts and part.message is None]


def test_the_generator_makes_the_same_message_of_the_same_number() -> None:
    assert [generate(seed) for seed in range(len(SHAPES))] == [generate(seed) for seed in range(len(SHAPES))]
    assert {shape_of(seed) for seed in range(len(SHAPES))} == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_messages_of_every_shape_are_sound(shape: str) -> None:
    for seed in range(8):
        octets = generate_shape(shape, seed)
        message = parse(octets)
        assert_sound(octets, message)
        layout = encode_layout(message.root)
        assert encode_layout(decode_layout(layout)) == layout


@given(st.integers(0, 10_000), st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 3000))
@settings(max_examples=120, deadline=None)
def test_how_octets_are_cut_changes_nothing(seed: int, sizes: list[int], rest: int) -> None:
    octets = generate(seed)

    def pieces() -> Iterator[bytes]:
        at = 0
        for size in sizes:
            yield octets[at : at + size]
            at += size
        for place in range(at, len(octets), rest if len(octets) < 50_000 else rest + 3000):
            yield octets[place : place + (rest if len(octets) < 50_000 else rest + 3000)]

    assert parse_pieces(pieces()) == parse(octets)


@pytest.mark.parametrize("shape", SHAPES)
def test_octet_by_octet_changes_nothing(shape: str) -> None:
    octets = generate_shape(shape, 5)[:6000]
    assert parse_pieces(octets[at : at + 1] for at in range(len(octets))) == parse(octets)


SCRAPS = [
    b"--b", b"--b--", b"--c", b"--c--", b"\r\n", b"\n", b"\r", b"-", b"--", b" ", b"\t", b":", b"x", b"\x00", b"\xff",
    b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: multipart/digest; boundary=c",
    b"Content-Type: message/rfc822", b"Content-Type: text/html", b"Content-Transfer-Encoding: base64", b"Subject: s",
    b"From x", b"\r\n\r\n", b"\n\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(SCRAPS), max_size=40), st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=500, deadline=None)
def test_scraps_of_mime_are_sound_however_they_are_cut(scraps: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(scraps)
    message = parse(octets)
    assert_sound(octets, message)
    places = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    assert parse_pieces(octets[a:b] for a, b in zip(places, places[1:])) == message


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_octets_make_a_message(octets: bytes) -> None:
    assert_sound(octets, parse(octets))
    assert_sound(MIXED + octets, parse(MIXED + octets))


@given(st.lists(st.sampled_from(SCRAPS), max_size=40))
@settings(max_examples=150, deadline=None)
def test_tight_limits_hold_on_any_scraps(scraps: list[bytes]) -> None:
    octets = b"".join(scraps)
    message = parse(octets, Limits(depth=2, parts=3, text_bytes=10))
    assert_sound(octets, message)
    assert len(message.search_text.partition(b"\n\x00\x00\n")[0]) <= 200


# --- delimiters


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_line_end_before_a_delimiter_is_the_delimiters(end: bytes) -> None:
    octets = MIXED + end.join([b"--b", b"", b"one", b"", b"--b", b"", b"two", b"--b--", b"epilogue"])
    message = parse(octets)
    assert bodies(octets, message.root) == [b"one" + end, b"two"]
    assert_sound(octets, message)


def test_a_bare_cr_before_a_delimiter_is_content() -> None:
    octets = MIXED + b"--b\r\n\r\none\r\r\n--b--"
    assert bodies(octets, parse(octets).root) == [b"one\r"]


@pytest.mark.parametrize(
    ("line", "divides"),
    [
        (b"--b", True),
        (b"--b \t ", True),
        (b"--b\t", True),
        (b"--bb", False),
        (b"--b x", False),
        (b" --b", False),
        (b"---b", False),
        (b"--B", False),
        (b"--b-", False),
        (b"-b", False),
        (b"--b" + b" " * 900, True),
        (b"--b" + b" " * 2000, False),
    ],
)
def test_a_delimiter_is_a_whole_line(line: bytes, divides: bool) -> None:
    octets = MIXED + b"--b\r\n\r\none\r\n" + line + b"\r\n\r\ntwo\r\n--b--\r\n"
    assert len(parse(octets).root.parts) == (2 if divides else 1)


def test_a_close_delimiter_ends_its_multipart_for_good() -> None:
    octets = MIXED + b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\nnot a part\r\n--b--\r\n"
    message = parse(octets)
    assert bodies(octets, message.root) == [b"one"]
    assert message.root.end == len(octets)


def test_a_delimiter_may_come_without_a_line_end() -> None:
    octets = MIXED + b"--b\r\n\r\none\r\n--b--"
    assert bodies(octets, parse(octets).root) == [b"one"]
    octets = MIXED + b"--b\r\n\r\none\r\n--b"
    assert bodies(octets, parse(octets).root) == [b"one", b""]


def test_an_outer_delimiter_ends_what_is_open_inside() -> None:
    octets = (
        b"Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n"
        b"--inner\r\n\r\nunfinished\r\n--outer\r\n\r\nnext\r\n--outer--\r\n"
    )
    root = parse(octets).root
    assert bodies(octets, root) == [b"unfinished", b"next"]
    assert len(root.parts) == 2


def test_a_boundary_that_begins_with_another_is_another() -> None:
    octets = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/mixed; boundary=x-y\r\n\r\n"
        b"--x-y\r\n\r\none\r\n--x-y\r\n\r\ntwo\r\n--x-y--\r\n--x\r\n\r\nthree\r\n--x--\r\n"
    )
    root = parse(octets).root
    assert bodies(octets, root) == [b"one", b"two", b"three"]
    assert [len(part.parts) for part in root.parts] == [2, 0]


def test_of_two_multiparts_with_one_boundary_the_outer_has_it() -> None:
    octets = MIXED + b"--b\r\n" + MIXED + b"--b\r\n\r\none\r\n--b--\r\n\r\n--b\r\n\r\nlate\r\n--b--\r\n"
    root = parse(octets).root
    assert len(root.parts) == 2
    assert octets[root.parts[1].body : root.parts[1].end] == b"one"


def test_a_delimiter_ends_a_header_that_has_no_blank_line() -> None:
    octets = MIXED + b"--b\r\nContent-Type: text/html\r\n--b\r\n--b\r\n\r\n--b--\r\n"
    root = parse(octets).root
    assert [part.content_type for part in root.parts] == ["text/html", "text/plain", "text/plain"]
    assert bodies(octets, root) == [b"", b"", b""]
    assert_sound(octets, parse(octets))


def test_an_embedded_message_of_which_nothing_came() -> None:
    for tail in (b"", b"\r\n", b"\r\n\r\n", b"\r\n--b--", b"\r\n\r\n--b--", b"\r\n\r\n\r\n--b--"):
        octets = MIXED + b"--b\r\nContent-Type: message/rfc822" + tail
        message = parse(octets)
        assert_sound(octets, message)
        assert message.root.parts[0].message is not None
    assert_sound(octets, parse(octets, Limits(parts=2)))


def test_boundaries_are_read_with_quotes_escapes_and_rfc_2231() -> None:
    for parameter in (b'"a b:c"', b'"a\\ b\\:c"', b'"a b:c "'):
        octets = b"Content-Type: multipart/mixed; boundary=" + parameter + b"\r\n\r\n--a b:c\r\n\r\nx\r\n--a b:c--"
        assert bodies(octets, parse(octets).root) == [b"x"]
    octets = b"Content-Type: multipart/mixed; boundary*=us-ascii''a%20b\r\n\r\n--a b\r\n\r\nx\r\n--a b--"
    assert bodies(octets, parse(octets).root) == [b"x"]


def test_many_lines_like_delimiters_are_no_delimiters() -> None:
    octets = MIXED + b"--b\r\n\r\n" + b"--\r\n--a\r\n" * 5000 + b"\r\n--b\r\n\r\nx\r\n--b--\r\n"
    message = parse(octets)
    assert bodies(octets, message.root)[1:] == [b"x"]
    assert parse_pieces(octets[at : at + 997] for at in range(0, len(octets), 997)) == message


# --- headers


def test_a_block_whose_first_line_is_no_field_is_all_body() -> None:
    octets = b"Just text, no header.\r\nSubject: not one\r\n\r\nmore"
    message = parse(octets)
    assert (message.root.body, message.header, message.subject) == (0, b"", "")
    assert match_body(message.search_text, b"subject: not one")
    octets = MIXED + b"--b\r\nno blank line\r\n--b--"
    assert bodies(octets, parse(octets).root) == [b"no blank line"]


def test_garbage_inside_a_header_does_not_end_it() -> None:
    octets = b"From: a@b\r\ngarbage\r\n\x00\xff\r\nSubject: here\r\n\r\nbody"
    message = parse(octets)
    assert message.subject == "here"
    assert octets[message.root.body :] == b"body"


def test_an_mbox_line_is_kept_and_is_no_field() -> None:
    octets = b"From mary@example.org Fri Jul  8 12:08:34 2011\r\nFrom: a@b\r\n\r\nbody"
    message = parse(octets)
    assert message.root.start == 0
    assert message.header == octets[:-4]
    assert b'((NIL NIL "a" "b"))' in message.envelope


@pytest.mark.parametrize(("octets", "body"), [(b"", 0), (b"\r\n", 2), (b"\n", 1), (b"\r\nx", 2), (b"A: b", 4), (b"A: b\r\n", 6), (b"\r", 0)])
def test_hardly_anything(octets: bytes, body: int) -> None:
    message = parse(octets)
    assert message.root.body == body
    assert_sound(octets, message)


def test_a_header_beyond_its_bound_is_cut_for_reading_only() -> None:
    octets = b"Subject: first\r\n" + b"X-Filler: x\r\n" * 1000 + b"From: a@b\r\n\r\nbody\r\n"
    message = parse(octets, Limits(header_bytes=2000))
    assert octets[message.root.body :] == b"body\r\n"
    assert message.header == octets[:2000]
    assert message.subject == "first"
    assert b'"a" "b"' not in message.envelope
    assert message.root.header_lines == 1003
    assert_sound(octets, message)


# --- bounds


def test_a_thousand_multiparts_inside_each_other() -> None:
    octets = b"".join(b'Content-Type: multipart/mixed; boundary="d%d"\r\n\r\n--d%d\r\n' % (n, n) for n in range(1000))
    octets += b"\r\ndeepest"
    message = parse(octets)
    assert_sound(octets, message)
    deepest = list(walk(message.root))[-1]
    assert deepest.content_type == "application/octet-stream"
    assert octets[deepest.body : deepest.end].endswith(b"deepest")
    assert sum(part.type == "multipart" for part in walk(message.root)) == 100
    assert decode_layout(encode_layout(message.root)).end == len(octets)


def test_a_thousand_messages_inside_each_other() -> None:
    octets = b"Content-Type: message/rfc822\r\n\r\n" * 1000 + b"deepest"
    message = parse(octets)
    assert_sound(octets, message)
    assert len(list(walk(message.root))) == 100


def test_the_last_part_within_the_bound_holds_all_the_rest() -> None:
    octets = MIXED + b"".join(b"--b\r\n\r\npart %d\r\n" % number for number in range(50)) + b"--b--\r\n"
    message = parse(octets, Limits(parts=11))
    assert_sound(octets, message)
    assert len(message.root.parts) == 11
    last = message.root.parts[-1]
    assert last.content_type == "application/octet-stream"
    assert octets[last.body : last.end].startswith(b"\r\npart 10\r\n--b\r\n\r\npart 11")
    assert last.end == len(octets)


def test_text_beyond_its_bound_is_not_searched_and_that_is_said() -> None:
    octets = MIXED + b"--b\r\n\r\n" + b"early " * 100 + b"late\r\n--b\r\n\r\nlast\r\n--b--\r\n"
    message = parse(octets, Limits(text_bytes=600))
    assert message.search_cut
    assert match_body(message.search_text, b"early")
    assert not match_body(message.search_text, b"late")
    assert not match_body(message.search_text, b"last")
    assert not parse(octets).search_cut


def test_text_that_grows_by_folding_stays_within_the_bound() -> None:
    octets = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "\ufdfa".encode() * 1000
    message = parse(octets, Limits(text_bytes=4000))
    assert message.search_cut
    assert len(message.search_text) <= 4000
    assert_sound(octets, message)


@pytest.mark.parametrize("octets", [b"x" * 10_000_000, b"Subject: " + b"x" * 10_000_000, MIXED + b"--b\r\n\r\n" + b"-" * 10_000_000])
def test_a_line_of_ten_million_octets(octets: bytes) -> None:
    message = parse(octets)
    assert_sound(octets, message)
    assert parse_pieces(octets[at : at + 65_536] for at in range(0, len(octets), 65_536)) == message


def test_limits_out_of_range_are_refused() -> None:
    for wrong in ({"depth": 0}, {"depth": 1000}, {"parts": 0}, {"header_bytes": 10}, {"text_bytes": -1}):
        with pytest.raises(ValueError, match=r"limit|depth"):
            Limits(**wrong)


def test_a_large_attachment_is_not_kept() -> None:
    line = base64.b64encode(bytes(57)) + b"\r\n"
    block = line * 800
    parser = MessageParser()
    parser.feed(MIXED + b"--b\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n")
    tracemalloc.start()
    for _ in range(400):
        parser.feed(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parser.feed(b"\r\n--b--\r\n")
    message = parser.close()
    assert message.root.parts[0].size == 400 * len(block)
    assert message.root.parts[0].body_lines == 400 * 800
    assert peak < 1_000_000


def test_a_closed_parser_stays_closed() -> None:
    parser = MessageParser()
    parser.close()
    with pytest.raises(RuntimeError):
        parser.close()
