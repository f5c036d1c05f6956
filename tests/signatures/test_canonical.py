"""Canonicalisation: the RFC's examples, a plain form of the rules, and any cut."""

from __future__ import annotations

import hashlib
import re
import time
import tracemalloc
from base64 import b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.signatures.support import bodies
from twisted_mail.signatures.canonical import BodyHash, Canon, relax_field


def plain(body: bytes, canon: Canon) -> bytes:
    """Sections 3.4.3 and 3.4.4, as they are written."""
    if canon is Canon.RELAXED:
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body or canon is Canon.SIMPLE else b""


def hashed(body: bytes, canon: Canon, length: int | None = None, cuts: tuple[int, ...] = ()) -> bytes:
    made = BodyHash(canon, length)
    places = [0, *sorted(cuts), len(body)]
    for start, end in zip(places, places[1:]):
        made.update(body[start:end])
    return made.digest()


@settings(max_examples=100, deadline=None)
@given(bodies, st.sampled_from(Canon), st.lists(st.integers(0, 100), max_size=6))
def test_a_body_is_hashed_as_the_rfc_says_however_it_is_cut(body: bytes, canon: Canon, cuts: list[int]) -> None:
    expected = hashlib.sha256(plain(body, canon)).digest()
    assert hashed(body, canon) == expected
    assert hashed(body, canon, cuts=tuple(min(cut, len(body)) for cut in cuts)) == expected


@settings(max_examples=100, deadline=None)
@given(bodies, st.sampled_from(Canon), st.integers(0, 60))
def test_a_length_counts_octets_of_the_canonical_body(body: bytes, canon: Canon, length: int) -> None:
    made = BodyHash(canon, length)
    made.update(body)
    whole = plain(body, canon)
    assert made.digest() == hashlib.sha256(whole[:length]).digest()
    assert made.size == len(whole)


def test_the_example_of_section_3_4_5() -> None:
    assert relax_field(b"A: X\r\n") == b"a:X"
    assert relax_field(b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z"
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    assert hashed(body, Canon.RELAXED) == hashlib.sha256(b" C\r\nD E\r\n").digest()
    assert hashed(body, Canon.SIMPLE) == hashlib.sha256(b" C \r\nD \t E\r\n").digest()


def test_the_hashes_of_an_empty_body_are_those_of_the_rfc() -> None:
    """Sections 3.4.3 and 3.4.4 print them."""
    assert hashed(b"", Canon.SIMPLE) == b64decode("frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=")
    assert hashed(b"", Canon.RELAXED) == b64decode("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")


@pytest.mark.parametrize("canon", Canon)
@pytest.mark.parametrize("piece", [b"\r\n" * 4096, b"\r", b"\n\r" * 4000, b" " * 8192, b" \r\n" * 3000, b"\r\n\n" * 3000])
def test_what_may_be_trailing_is_not_kept(canon: Canon, piece: bytes) -> None:
    made = BodyHash(canon)
    pieces = [piece] * 200
    tracemalloc.start()
    began = time.process_time()
    for each in pieces:
        made.update(each)
    made.digest()
    assert time.process_time() - began < 3
    assert tracemalloc.get_traced_memory()[1] < 300_000
    tracemalloc.stop()
