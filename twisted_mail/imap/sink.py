"""What a session asks of the connection it lives on. `server` is one; tests have another."""

from __future__ import annotations

from typing import Protocol

from twisted_mail.services import Peer

__all__ = ["FLUSH_BYTES", "Sink"]

FLUSH_BYTES = 64 * 1024
"""Output is passed on in pieces of about this many octets, or when the session has to wait."""


class Sink(Protocol):
    """Where a session's output goes, and how it waits. Every awaitable may be cancelled when the connection is lost."""

    def write(self, octets: bytes) -> None:
        """Keep *octets* to be sent. They leave when there are enough of them, or when the session waits for anything."""

    async def drained(self) -> None:
        """Wait while the peer does not take what was written, and give other connections their turn.

        Called often: between commands and between pieces of a long answer."""

    async def wait(self) -> None:
        """Wait until octets came, or `wake` is called. Returns at once only if octets are there."""

    def wake(self) -> None:
        """End `wait`, if there is one."""

    async def start_tls(self) -> Peer:
        """What was written goes out in the clear, then the handshake; returns the peer as it is now (RFC 9051 section 6.2.1)."""

    def start_compression(self, received: bytes) -> None:
        """What was written goes out as it is; from here on both directions are deflated, beginning with *received*
        (RFC 4978)."""
