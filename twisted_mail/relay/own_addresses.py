"""Which addresses lead back to this server: mail routed to one of them would go round in a circle (RFC 5321 section 6.3)."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

__all__ = ["OwnAddresses"]

_REMEMBERED: Final = 10_000


class OwnAddresses:
    """Called with an address, it says whether it is one of ours; `Router`'s *is_own*."""

    def __init__(self, listening: Iterable[str], also: Iterable[str] = ()) -> None:
        """*listening*: the addresses at which mail is taken; ``0.0.0.0`` and ``::`` stand for all of the machine's. *also*:
        addresses and networks that are led here from outside. Raises ValueError for what is no address."""
        addresses = {ip_address(text) for text in listening}
        self._exactly = {address for address in addresses if not address.is_unspecified}
        unspecified = {address.version for address in addresses if address.is_unspecified}
        self._everywhere = {4, 6} if 6 in unspecified else unspecified
        self._networks = tuple(ip_network(text) for text in also)
        self._known: dict[str, bool] = {}

    def __call__(self, text: str) -> bool:
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()  # the machine may have got other addresses, too
            known = self._known[text] = self._is_own(text)
        return known

    def _is_own(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if address in self._exactly or any(
            address in network for network in self._networks if network.version == address.version
        ):
            return True
        return address.version in self._everywhere and _belongs_to_the_machine(text)


def _belongs_to_the_machine(address: str) -> bool:
    """A socket can only be bound to what the machine has; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
