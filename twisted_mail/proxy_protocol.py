"""The PROXY protocol, versions 1 and 2: a proxy says, before anything else, for whom it has connected.

Octets in, an `Origin` out; no socket, no clock (HAProxy's ``doc/proxy-protocol.txt``, sections 2.1 and 2.2). Who may say so is
decided elsewhere: whoever is believed here may claim to be anybody.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

__all__ = ["BadHeader", "Origin", "ProxiedAddress", "ProxyHeader", "crc32c"]

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = b"PROXY "
_V1_BYTES: Final = 107
"""The longest line of version 1, with its end."""
_V2_BYTES: Final = 16_384
"""More behind the length of version 2 is no proxy's."""


class BadHeader(Exception):
    """What came is no such header. The connection ends: neither end knows who the other is."""


@dataclass(frozen=True, slots=True)
class Origin:
    """For whom a connection was made."""

    address: str = ""
    """IP address as text; empty: the proxy itself (a probe of its own), or it does not know."""
    port: int = 0
    secure: bool = False
    """The client speaks TLS with the proxy."""
    tls_description: str = ""
    """``TLS1.3 with cipher TLS_AES_256_GCM_SHA384``, as far as the proxy says it."""


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class ProxiedAddress:
    """Where a connection comes from, by the word of a proxy."""

    type: str
    """``TCP``, as of Twisted's own addresses."""
    host: str
    port: int
    secure: bool = False
    tls_description: str = ""


class ProxyHeader:
    """Reads one header, however it is cut into pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.rest = b""
        """What came behind the header."""

    def feed(self, data: bytes) -> Origin | None:
        """Take octets; None: the header is not whole yet. Raises: BadHeader, as soon as it cannot be one."""
        self._buffer += data
        buffer = self._buffer
        if buffer.startswith(_V1):
            return self._version_1()
        if buffer.startswith(SIGNATURE):
            return self._version_2()
        if _V1.startswith(buffer) or SIGNATURE.startswith(buffer):
            return None
        raise BadHeader("there is no PROXY header")

    def _version_1(self) -> Origin | None:
        end = self._buffer.find(b"\r\n", 0, _V1_BYTES)
        if end < 0:
            if len(self._buffer) >= _V1_BYTES:
                raise BadHeader("the line does not end")
            return None
        line, self.rest = bytes(self._buffer[len(_V1) : end]), bytes(self._buffer[end + 2 :])
        family, _, addresses = line.partition(b" ")
        if family == b"UNKNOWN":
            return Origin()
        found = re.fullmatch(rb"([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (\d{1,5}) (\d{1,5})", addresses)
        if family not in (b"TCP4", b"TCP6") or found is None:
            raise BadHeader("the line is malformed")
        kind = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
        try:
            source, _ = (kind(each.decode()) for each in found.group(1, 2))
        except ValueError:
            raise BadHeader("an address is malformed") from None
        ports = [_port(each) for each in found.group(3, 4)]
        return Origin(_text(source), ports[0])

    def _version_2(self) -> Origin | None:
        if len(self._buffer) < 16:
            return None
        version_command, family, length = struct.unpack_from("!BBH", self._buffer, 12)
        if version_command >> 4 != 2 or version_command & 15 > 1:
            raise BadHeader(f"version and command {version_command:#04x}")
        if length > _V2_BYTES:
            raise BadHeader(f"a header of {length} octets")
        if len(self._buffer) < 16 + length:
            return None
        header, self.rest = bytes(self._buffer[: 16 + length]), bytes(self._buffer[16 + length :])
        if version_command & 15 == 0:  # LOCAL: the addresses, if any, mean nothing
            return Origin()
        return _origin(family, header)


def _port(text: bytes) -> int:
    port = int(text)
    if port > 65_535 or text != b"%d" % port:
        raise BadHeader("a port is malformed")
    return port


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


_ADDRESSES: Final = {1: 12, 2: 36, 3: 216}
"""Octets of both addresses by family: IPv4, IPv6, UNIX."""


def _origin(family: int, header: bytes) -> Origin:
    address, port = "", 0
    size = 0
    if family != 0:
        kind, transport = family >> 4, family & 15
        size = _ADDRESSES.get(kind, 0)
        if not size or transport != 1:
            raise BadHeader(f"family and transport {family:#04x}")
        if len(header) < 16 + size:
            raise BadHeader("the addresses are cut off")
        if kind == 1:
            address, port = _text(ipaddress.IPv4Address(header[16:20])), struct.unpack_from("!H", header, 24)[0]
        elif kind == 2:
            address, port = _text(ipaddress.IPv6Address(header[16:32])), struct.unpack_from("!H", header, 48)[0]
    # else, and for UNIX sockets of the proxy's machine: as if the proxy itself spoke. A client without an address would be
    # taken for one on this machine, which may do more than others.
    secure, description = False, ""
    for kind, at, value in _extensions(header, 16 + size):
        if kind == 0x03:
            _check(header, at, value)
        elif kind == 0x20:
            secure, description = _tls(value)
    return Origin(address, port, secure, description)


def _extensions(octets: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, place of the value, value (section 2.2.1)."""
    while at < len(octets):
        if at + 3 > len(octets):
            raise BadHeader("an extension is cut off")
        kind, length = struct.unpack_from("!BH", octets, at)
        at += 3
        if at + length > len(octets):
            raise BadHeader("an extension is cut off")
        yield kind, at, octets[at : at + length]
        at += length


def _check(header: bytes, at: int, value: bytes) -> None:
    """PP2_TYPE_CRC32C: of the header with zeros in its place (section 2.2.3)."""
    if len(value) != 4:
        raise BadHeader("a checksum of another size")
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != struct.unpack("!I", value)[0]:
        raise BadHeader("the checksum is wrong")


def _tls(value: bytes) -> tuple[bool, str]:
    """PP2_TYPE_SSL (section 2.2.5): whether the client speaks TLS, and what is said of it."""
    if len(value) < 5:
        raise BadHeader("an extension is cut off")
    if not value[0] & 1:
        return False, ""
    said = {kind: each.decode("ascii", "replace") for kind, _, each in _extensions(value, 5)}
    version, cipher = said.get(0x21, ""), said.get(0x23, "")
    if not re.fullmatch(r"(TLS|SSL)v[0-9.]{1,5}", version):
        return True, ""
    version = version.replace("TLSv", "TLS")
    return True, f"{version} with cipher {cipher}" if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cipher) else version


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
        table.append(octet)
    return tuple(table)


def crc32c(octets: bytes) -> int:
    """Castagnoli's checksum (RFC 9260 appendix A)."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = crc >> 8 ^ table[(crc ^ octet) & 255]
    return crc ^ 0xFFFFFFFF
