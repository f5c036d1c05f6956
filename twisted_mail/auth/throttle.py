"""Failed logins are counted, per address and per login; whoever has too many is refused without being looked at.

To relax it: ``auth.failures_per_minute`` raises the limit, and 0 turns it off (behind a proxy or a web mail, where
everybody comes from one address, that is the right setting unless the front end tells the real addresses).
An address from which a login succeeded within a day is not shut out when others try that login.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

from twisted_mail.storage.interfaces import Cache, StorageError

__all__ = ["Throttle", "plain_address"]

_WINDOW: Final = 60.0
_DAY: Final = 86_400.0


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address without a zone, IPv4 even where it came mapped into IPv6 (``::ffff:192.0.2.1``); None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _who(address: str) -> str:
    """Whom failures of *address* count for: an IPv6 host has a /64 at its disposal."""
    ip = plain_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip) if ip is not None else ""


def _key(kind: str, *parts: str) -> str:
    """A key that every cache takes, whatever is in a login."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"auth/{kind}/{hashlib.sha256(joined).hexdigest()[:32]}"


class Throttle:
    """Counts in the shared cache. A cache that does not answer throttles nobody: it must not keep everybody out."""

    def __init__(self, cache: Cache, failures_per_minute: int) -> None:
        self._cache = cache
        self._limit = failures_per_minute

    async def refuses(self, address: str, login: str) -> bool:
        """Whether a login is to be refused unseen. *login* is canonical."""
        if not self._limit:
            return False
        try:
            who = _who(address)
            if who and await self._cache.increment(_key("address", who), _WINDOW, 0) >= self._limit:
                return True
            if await self._cache.increment(_key("login", login), _WINDOW, 0) < self._limit:
                return False
            return not who or await self._cache.get(_key("good", who, login)) is None
        except StorageError:
            return False

    async def failed(self, address: str, login: str) -> None:
        """Count a failure."""
        if not self._limit:
            return
        try:
            who = _who(address)
            if who:
                await self._cache.increment(_key("address", who), _WINDOW)
            await self._cache.increment(_key("login", login), _WINDOW)
        except StorageError:
            return

    async def succeeded(self, address: str, login: str) -> None:
        """*login* is at home at *address*."""
        if not self._limit:
            return
        try:
            who = _who(address)
            if who and await self._cache.get(_key("good", who, login)) is None:
                await self._cache.set(_key("good", who, login), b"1", _DAY)
        except StorageError:
            return
