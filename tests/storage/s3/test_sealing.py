"""Encryption of objects: what is sealed opens, and nothing else does."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.storage.s3.sealing import (
    FRAME,
    HEADER,
    SEALED_FRAME,
    Keyring,
    KeyUnknown,
    frames,
    seal,
    sealed_size,
    unseal,
)

ONE, TWO = "1a" * 32, "2B" * 32


def opened(cipher: AESGCM, sealed: bytes, size: int) -> bytes:
    """Everything, by the frames that *size* octets have."""
    view, last = memoryview(sealed), frames(size) - 1
    parts = [unseal(cipher, n, view[n * SEALED_FRAME : (n + 1) * SEALED_FRAME], n == last) for n in range(last + 1)]
    return b"".join(parts)


@given(size=st.sampled_from([0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 3 * FRAME + 7]))
def test_what_was_sealed_opens_and_has_the_size_that_was_foretold(size: int) -> None:
    keyring, content = Keyring.parse(ONE), os.urandom(size)
    header, cipher = keyring.new_header()
    sealed = b"".join(seal(cipher, 0, content, True))
    assert len(header) == HEADER
    assert len(header) + len(sealed) == sealed_size(size)
    assert len(content) < 200 or content[:200] not in sealed
    assert opened(keyring.open_header(header), sealed, size) == content


def test_a_content_may_be_sealed_in_parts() -> None:
    _, cipher = Keyring.parse(ONE).new_header()
    content = os.urandom(4 * FRAME + 5)
    parts = seal(cipher, 0, content[: 2 * FRAME], False) + seal(cipher, 2, content[2 * FRAME :], True)
    assert parts == seal(cipher, 0, content, True)


def test_frames_that_are_cut_off_moved_repeated_or_changed_do_not_open() -> None:
    _, cipher = Keyring.parse(ONE).new_header()
    content = os.urandom(3 * FRAME)
    one, two, three = seal(cipher, 0, content, True)
    assert opened(cipher, one + two + three, len(content)) == content
    changed = bytes([two[0] ^ 1]) + two[1:]
    for wrong in (two + one + three, one + one + three, one + changed + three, one + two + two):
        with pytest.raises(Corrupt):
            opened(cipher, wrong, len(content))
    with pytest.raises(Corrupt):  # cut at a frame's end, and the size forged to fit
        opened(cipher, one + two, 2 * FRAME)
    with pytest.raises(Corrupt):
        opened(cipher, one + two + three[:-1], len(content))


def test_no_two_objects_share_a_key_or_a_header() -> None:
    keyring = Keyring.parse(ONE)
    made = [keyring.new_header() for _ in range(50)]
    assert len({header[16:] for header, _ in made}) == 50
    assert len({seal(cipher, 0, b"the same content", True)[0] for _, cipher in made}) == 50


@given(at=st.integers(0, HEADER - 1), bit=st.integers(0, 7))
def test_a_header_in_which_a_bit_is_another_does_not_open(at: int, bit: int) -> None:
    keyring = Keyring.parse(ONE)
    header, _ = keyring.new_header()
    wrong = header[:at] + bytes([header[at] ^ 1 << bit]) + header[at + 1 :]
    with pytest.raises((Corrupt, KeyUnknown)):
        keyring.open_header(wrong)
    with pytest.raises(Corrupt):
        keyring.open_header(header[:-1])


def test_the_first_key_is_for_new_objects_and_all_keys_open() -> None:
    old, both, new = Keyring.parse(ONE), Keyring.parse(f"{TWO}  # newer\n{ONE}\n"), Keyring.parse(TWO)
    header, cipher = old.new_header()
    sealed = seal(cipher, 0, b"content", True)[0]
    assert unseal(both.open_header(header), 0, memoryview(sealed), True) == b"content"
    with pytest.raises(KeyUnknown, match=old.ids[0]):
        new.open_header(header)
    assert both.ids == [*new.ids, *old.ids]
    assert both.current == new.current

    rewrapped = both.rewrap(header)
    assert rewrapped is not None and len(rewrapped) == HEADER
    assert both.rewrap(rewrapped) is None
    assert unseal(new.open_header(rewrapped), 0, memoryview(sealed), True) == b"content"
    with pytest.raises(KeyUnknown):
        old.open_header(rewrapped)


@pytest.mark.parametrize("text", ["", "12", "zz" * 32, f"{ONE} 12", "# nothing but a comment", ONE + "00"])
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        Keyring.parse(text)
    assert not text or text not in str(raised.value)


def test_keys_are_not_printed() -> None:
    assert ONE not in repr(Keyring.parse(ONE))
