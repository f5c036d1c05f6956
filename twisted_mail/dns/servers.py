"""Which name servers are asked: written in the configuration, or taken from resolv.conf(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

__all__ = ["RESOLV_CONF", "NameServer", "of_system", "parse_resolv_conf", "parse_server"]

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_MOST: Final = 8
"""As many servers of a file are used (the C library takes three)."""
_BRACKETS: Final = re.compile(r"\[([^\]]+)\](?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class NameServer:
    """A recursive resolver, by its address."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_server(text: str) -> NameServer:
    """``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1``, ``[2001:db8::1]:5353``. Raises ValueError."""
    text = text.strip()
    address, port = text, ""
    if brackets := _BRACKETS.fullmatch(text):
        address, port = brackets[1], brackets[2] or ""
    elif text.count(":") == 1:
        address, port = text.split(":")
        if not port:
            raise ValueError(f"{text!r}: no port after the colon")
    try:
        ip_address(address)
        number = int(port or 53)
    except ValueError as error:
        raise ValueError(f"{text!r} is not the address of a name server (192.0.2.1:53, [2001:db8::1]:53)") from error
    if not 0 < number < 65536:
        raise ValueError(f"{text!r}: there is no such port")
    return NameServer(address, number)


def parse_resolv_conf(text: str) -> tuple[NameServer, ...]:
    """The ``nameserver`` lines; what cannot be read is passed over, as the C library does."""
    found: list[NameServer] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1])
            except ValueError:
                continue
            server = NameServer(words[1])
            if server not in found:
                found.append(server)
    return tuple(found[:_MOST])


def of_system(path: Path = RESOLV_CONF) -> tuple[NameServer, ...]:
    """What the system uses; 127.0.0.1 where the file is missing or names none (resolv.conf(5))."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        text = ""
    return parse_resolv_conf(text) or (NameServer("127.0.0.1"),)
