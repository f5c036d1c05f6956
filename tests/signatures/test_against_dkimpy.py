"""dkimpy and we agree: each verifies what the other signs, and refuses what the other refuses."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.signatures.support import DOMAIN, ED25519, KEYS, NOW, RSA, messages, published, sign, verify
from twisted_mail.signatures import Result

R1, E1 = KEYS
RECORDS = {f"{key.selector}._domainkey.{DOMAIN}.".encode(): key.key.record().encode() for key in KEYS}


def by_smtp(message: bytes) -> bytes:
    """*message* as SMTP brings it: lines end with CRLF, the last one too. (Elsewhere dkimpy ends lines with bare LFs.)"""
    return _BARE_LF.sub(b"\r\n", message) + b"\r\n"


_BARE_LF = re.compile(rb"(?<!\r)\n")
proper = messages.map(by_smtp)


def shape(message: bytes) -> list[bytes]:
    """The names of the header's lines; a line that is folded has none, and one that is no field its whole text."""
    header = message[: message.index(b"\r\n\r\n")]
    return [b"" if line[:1] in (b" ", b"\t") else _NAME.sub(rb"\1:", line) for line in header.split(b"\r\n")]


_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:.*", re.DOTALL)


def dns(name: bytes | str, timeout: float = 5) -> bytes | None:
    return RECORDS.get(name if isinstance(name, bytes) else name.encode())


def theirs(message: bytes, *, ed25519: bool, **options: Any) -> bytes:
    """A signature by dkimpy in front."""
    key = b64encode(ED25519.dump()[-32:]) if ed25519 else RSA.pem()
    signer = dkim.DKIM(message, signature_algorithm=b"ed25519-sha256" if ed25519 else b"rsa-sha256")
    signature: bytes = signer.sign(b"e1" if ed25519 else b"r1", DOMAIN.encode(), key, **options)
    return signature + message


def agrees(message: bytes) -> bool:
    """What dkimpy says of the first signature."""
    try:
        return bool(dkim.DKIM(message).verify(dnsfunc=dns))
    except dkim.DKIMException:
        return False


@settings(max_examples=40, deadline=None)
@given(proper, st.booleans())
def test_dkimpy_verifies_what_we_sign(message: bytes, ed25519: bool) -> None:
    assert agrees(sign(message, E1 if ed25519 else R1, lifetime=None))


@settings(max_examples=40, deadline=None)
@given(
    proper,
    st.booleans(),
    st.sampled_from([b"simple", b"relaxed"]),
    st.sampled_from([b"simple", b"relaxed"]),
)
def test_we_verify_what_dkimpy_signs(message: bytes, ed25519: bool, header: bytes, body: bytes) -> None:
    signed = theirs(message, ed25519=ed25519, canonicalize=(header, body))
    (found,) = verify(signed, published(*KEYS), now=NOW + 10**9)
    assert (found.result, found.reason) == (Result.PASS, "")


@settings(max_examples=40, deadline=None)
@given(proper, st.data())
def test_both_judge_a_changed_message_alike(message: bytes, data: st.DataObject) -> None:
    signed = sign(message, E1, lifetime=None)
    at = data.draw(st.integers(signed.index(b"From:"), len(signed) - 1))
    octet = data.draw(st.sampled_from(b" a\tB"))
    changed = signed[:at] + bytes([octet]) + signed[at + 1 :]
    if changed.count(b"\r\n") != signed.count(b"\r\n") or shape(changed) != shape(signed):
        return  # a bare LF, see `by_smtp`; what is no field any more, which dkimpy refuses to read
    (found,) = verify(changed, published(*KEYS))
    assert (found.result is Result.PASS) == agrees(changed)


@pytest.mark.parametrize("ed25519", [False, True])
def test_dkimpy_refuses_what_was_changed(ed25519: bool) -> None:
    signed = sign(b"From: ann@example.org\r\n\r\nbody\r\n", E1 if ed25519 else R1)
    assert not agrees(signed + b"more\r\n")
