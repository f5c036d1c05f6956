"""Transfer encodings undone (RFC 2045 section 6)."""

from __future__ import annotations

import base64
import binascii
import quopri

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.mime import TransferDecoder, UnknownEncoding, decode_transfer
from twisted_mail.mime.transfer import KNOWN


def in_pieces(encoding: str, data: bytes, cuts: list[int]) -> bytes:
    decoder = TransferDecoder(encoding)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(decoder.feed(data[a:b]) for a, b in zip(places, places[1:])) + decoder.close()


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "binary"])
def test_identity_encodings_change_nothing(encoding: str) -> None:
    data = b"a=\r\n\x00\xff\rb"
    assert decode_transfer(encoding, data) == data


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"SGVsbG8=", b"Hello"),
        (b"SGVs\r\nbG8=\r\n", b"Hello"),
        (b"S!G*V s\tbG8", b"Hello"),  # RFC 2045 section 6.8: other characters are ignored; the padding is missing
        (b"SGVsbG8", b"Hello"),
        (b"SGVsbG8=SGVsbG8=", b"HelloHello"),  # two texts, one behind the other
        (b"SGVsbG8====", b"Hello"),
        (b"SGVsb", b"Hel"),  # truncated: the octets that are whole
        (b"S", b""),
        (b"====", b""),
        (b"\xff\xfe\x00", b""),
        (b"", b""),
    ],
)
def test_base64_with_whatever_is_in_it(encoded: bytes, decoded: bytes) -> None:
    assert decode_transfer("base64", encoded) == decoded


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"Now's the time =\r\nfor all folk to come=\r\n to the aid of their country.",
         b"Now's the time for all folk to come to the aid of their country."),  # RFC 2045 section 6.7
        (b"=C3=A4=c3=a4", "ää".encode()),
        (b"trailing \t \r\nx", b"trailing\r\nx"),  # rule 3
        (b"soft= \t\r\nbreak", b"softbreak"),
        (b"lf=\nonly", b"lfonly"),
        (b"a=ZZ=4", b"a=ZZ=4"),
        (b"cut =", b"cut "),
        (b"bare=\rcr\nx", b"bare=\rcr\nx"),
        (b"\xe4 raw", b"\xe4 raw"),
    ],
)  # fmt: skip
def test_quoted_printable_with_whatever_is_in_it(encoded: bytes, decoded: bytes) -> None:
    assert decode_transfer("quoted-printable", encoded) == decoded


def test_uuencoded_bodies() -> None:
    data = bytes(range(256)) * 3
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    encoded = b"a word before\r\nbegin 644 x.bin\r\n" + lines.replace(b"\n", b"\r\n") + b"`\r\nend\r\nafter"
    assert decode_transfer("x-uuencode", encoded) == data


@pytest.mark.parametrize("encoding", ["x-strange", "", "base-64", "BASE64"])
def test_an_unknown_encoding_is_said_to_be_unknown(encoding: str) -> None:
    with pytest.raises(UnknownEncoding):
        decode_transfer(encoding, b"x")
    with pytest.raises(UnknownEncoding):
        TransferDecoder(encoding)


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=6))
@settings(max_examples=80, deadline=None)
def test_what_is_encoded_comes_back_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert in_pieces("base64", base64.encodebytes(data), cuts) == data
    assert in_pieces("quoted-printable", quopri.encodestring(data, quotetabs=True), cuts) == data


@given(
    st.lists(st.sampled_from([b"=", b"\r", b"\n", b"\r\n", b" ", b"\t", b"A", b"4", b"M##", b"\xff", b"begin \n", b"end\n"]), max_size=40),
    st.lists(st.integers(0, 1000), max_size=6),
    st.sampled_from(sorted(KNOWN)),
)
@settings(max_examples=200, deadline=None)
def test_garbage_gives_the_same_octets_however_it_is_cut(pieces: list[bytes], cuts: list[int], encoding: str) -> None:
    data = b"".join(pieces)
    assert in_pieces(encoding, data, cuts) == decode_transfer(encoding, data)


@pytest.mark.parametrize("line", [b"x" * 300_000 + b"=41", b"=" * 300_000, b"A" * 500_001, b" " * 200_000 + b"x"])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_line_without_end_is_decoded_in_pieces_too(encoding: str, line: bytes) -> None:
    decoder = TransferDecoder(encoding)
    pieces = b"".join(decoder.feed(line[at : at + 10_007]) for at in range(0, len(line), 10_007)) + decoder.close()
    assert pieces == decode_transfer(encoding, line)
