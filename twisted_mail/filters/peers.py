"""Who a peer is: its address, the network it stands in, the domain of a mailbox; and keys that every cache takes."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache

from twisted_mail.filters.values import Client

__all__ = ["IP", "domain_of", "hashed_key", "ip_of", "is_ours", "is_public", "mailbox_of", "network_of"]

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def ip_of(text: str) -> IP | None:
    """An IP address without a zone, IPv4 even where it came mapped into IPv6 (``::ffff:192.0.2.1``); None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def network_of(text: str, v4: int = 24, v6: int = 64) -> str:
    """The network of *v4* or *v6* bits that an address stands in: large senders try again from a neighbour, and a host
    of IPv6 has a /64 at its disposal. What is no address is its own network."""
    ip = ip_of(text)
    if ip is None:
        return text
    bits = v4 if ip.version == 4 else v6
    return str(ipaddress.ip_network((ip, bits), strict=False))


def is_public(text: str) -> bool:
    """Whether lists of others can know anything of that address: it is not loopback, private, link-local, …"""
    ip = ip_of(text)
    return ip is not None and not (
        ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved
    )


def is_ours(client: Client) -> bool:
    """Whether manners are not asked of this peer: it has logged in, or came where one must (and where programs say what
    they like at HELO), or stands in a network that is trusted."""
    return client.trusted or client.identity is not None or client.service != "smtp"


def mailbox_of(address: str) -> str:
    """*address* as senders and recipients are counted: in lower case, without a sub-address or a last dot."""
    local, at, domain = address.rpartition("@")
    if not at:
        return address.lower()
    return f"{(local.partition('+')[0] or local).lower()}@{domain.rstrip('.').lower()}"


def domain_of(address: str) -> str:
    """The domain of a mailbox, in lower case and without a last dot; empty where there is none."""
    return address.rpartition("@")[2].rstrip(".").lower() if "@" in address else ""


def hashed_key(kind: str, *parts: str) -> str:
    """A key of fixed length, whatever a peer put into its parts; *kind* stays readable."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"{kind}/{hashlib.blake2b(joined, digest_size=16).hexdigest()}"
