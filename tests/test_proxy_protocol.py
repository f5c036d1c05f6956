"""The PROXY protocol's headers: examples, every cut, and what is none (HAProxy's ``doc/proxy-protocol.txt``)."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.connections import peer_at
from twisted_mail.proxy_protocol import SIGNATURE, BadHeader, Origin, ProxiedAddress, ProxyHeader, crc32c
from twisted_mail.services import Peer


def read(*pieces: bytes) -> tuple[Origin | None, bytes]:
    header = ProxyHeader()
    for number, piece in enumerate(pieces):
        origin = header.feed(piece)
        if origin is not None:
            return origin, header.rest + b"".join(pieces[number + 1 :])
    return None, b""


def v2(
    source: str = "192.0.2.7", port: int = 4711, *, command: int = 0x21, family: int | None = None, extensions: bytes = b""
) -> bytes:
    address = ipaddress.ip_address(source)
    family = family if family is not None else {4: 0x11, 6: 0x21}[address.version]
    body = address.packed + bytes(len(address.packed)) + struct.pack("!HH", port, 25) + extensions
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(header: bytes) -> bytes:
    """*header* ends with a checksum of zeros: with the right one."""
    return header[:-4] + struct.pack("!I", crc32c(header))


TLS = tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client") + tlv(0x23, b"TLS_AES_256_GCM_SHA384"))

EXAMPLES = [
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Origin("255.255.255.255", 65535)),
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n", Origin("192.0.2.7", 56324)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 0 25\r\n", Origin("2001:db8::7", 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n", Origin("192.0.2.7", 1)),
    (b"PROXY UNKNOWN\r\n", Origin()),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Origin()),
    (v2(), Origin("192.0.2.7", 4711)),
    (v2("2001:db8::7"), Origin("2001:db8::7", 4711)),
    (v2(command=0x20), Origin()),
    (SIGNATURE + b"\x20\0\0\0", Origin()),
    (SIGNATURE + b"\x21\0\0\0", Origin()),
    (SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + b"/run/x".ljust(216, b"\0"), Origin()),
    (v2(extensions=tlv(0x04, bytes(100)) + tlv(0x02, b"mail.example.org") + tlv(0xE0, b"")), Origin("192.0.2.7", 4711)),
    (v2(extensions=TLS), Origin("192.0.2.7", 4711, True, "TLS1.3 with cipher TLS_AES_256_GCM_SHA384")),
    (v2(extensions=tlv(0x20, b"\x01\0\0\0\0")), Origin("192.0.2.7", 4711, True)),
    (v2(extensions=tlv(0x20, b"\0\0\0\0\0")), Origin("192.0.2.7", 4711)),
    (v2(extensions=tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"a (b\r\n"))), Origin("192.0.2.7", 4711, True, "TLS1.3")),
    (summed(v2(extensions=TLS + tlv(0x03, bytes(4)))), Origin("192.0.2.7", 4711, True, "TLS1.3 with cipher TLS_AES_256_GCM_SHA384")),
]


@pytest.mark.parametrize(("header", "origin"), EXAMPLES)
def test_a_header_is_read_wherever_it_is_cut(header: bytes, origin: Origin) -> None:
    whole = header + b"EHLO x\r\n"
    for cut in range(len(whole) + 1):
        assert read(whole[:cut], whole[cut:]) == (origin, b"EHLO x\r\n")
    assert read(*(bytes((octet,)) for octet in whole)) == (origin, b"EHLO x\r\n")
    for cut in range(len(header)):
        assert read(header[:cut]) == (None, b"")


BAD = [
    b"EHLO x\r\n",
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n" + bytes(100),
    b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.777 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 100,
    SIGNATURE + b"\x11\x11\0\0",
    SIGNATURE + b"\x22\x11\0\0",
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE + b"\x21\x11\0\x04abcd",
    v2(family=0x12),
    v2(family=0x41),
    v2(extensions=b"\x04"),
    v2(extensions=b"\x04\0\x05abc"),
    v2(extensions=tlv(0x03, b"abc")),
    v2(extensions=tlv(0x03, b"abcd")),
    v2(extensions=tlv(0x20, b"\x01")),
    v2(extensions=tlv(0x20, b"\x01\0\0\0\0\x21\xff\xff")),
]


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_header_is_refused(octets: bytes) -> None:
    with pytest.raises(BadHeader):
        read(octets)
    with pytest.raises(BadHeader):
        read(*(bytes((octet,)) for octet in octets))


@settings(max_examples=150)
@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x10", v2()[:28]]), st.binary(max_size=80))
def test_garbage_is_refused_or_waited_for_and_nothing_else(start: bytes, garbage: bytes) -> None:
    try:
        read(start, garbage)
    except BadHeader:
        pass


def test_the_checksum_is_that_of_its_specification() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


def test_whom_a_proxy_speaks_for_is_a_peer_as_any_other() -> None:
    address = ProxiedAddress("TCP", "192.0.2.7", 4711, True, "TLS1.3")
    assert peer_at(address, "imap") == Peer("192.0.2.7", 4711, secure=True, tls_description="TLS1.3", service="imap")
