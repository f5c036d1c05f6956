"""Packed cells."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.storage.cells import pack, unpack
from twisted_mail.storage.interfaces import Corrupt


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 40))
def test_what_was_packed_comes_back(piece: bytes, times: int) -> None:
    assert unpack(pack(piece * times)) == piece * times


def test_only_what_gains_by_it_is_packed() -> None:
    assert len(pack(b"text and " * 1000)) < 200
    assert pack(b"short " * 100) == b"\x00" + b"short " * 100
    noise = os.urandom(5000)
    assert pack(noise) == b"\x00" + noise
    assert pack(b"") == b""


def test_damage_is_noticed() -> None:
    packed = pack(b"text and " * 1000)
    for damaged in (b"\x07rest", packed[:20], b"\x01" + b"\xff" * 30):
        with pytest.raises(Corrupt):
            unpack(damaged)


def test_threads_do_not_disturb_each_other() -> None:
    cells = [bytes([65 + number % 26]) * 3000 + os.urandom(200) for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda cell: unpack(pack(cell)), cells)) == cells
