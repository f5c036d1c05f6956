"""What an operator sets about ManageSieve."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds and habits of one listener; 0 means no limit where it says so."""

    idle_seconds: float = 1800.0
    """How long somebody who has logged in may be silent. (The RFC names no least time; clients keep the connection while
    a user edits.)"""
    login_seconds: float = 120.0
    """How long a connection may stay without having logged in; 0: as long as `idle_seconds`."""
    command_seconds: float = 60.0
    """How long a command may take, from when it is whole; then it is given up, and the client may try later."""
    bad_commands: int = 20
    """Commands in a row that are no commands before the connection is ended; 0: no limit."""
    failed_logins: int = 5
    """Failed logins on one connection before it is ended; 0: no limit."""
    connections_per_address: int = 0
    """Connections at a time from one address to one factory; 0: no limit."""
    line_bytes: int = 8192
    """The longest command with its line ends, literals not counted: quoted strings have up to 1024 octets (section 4)."""
    auth_bytes: int = 12_288
    """The longest string of a SASL exchange."""
    short_bytes: int = 8192
    """Octets of a literal that is no script."""
    discard_bytes: int = 16 << 20
    """A literal that is too long is thrown away as it comes, up to this; beyond, the connection is ended."""
    buffer_bytes: int = 65_536
    """Input that may wait, while a command is carried out, before the peer is paused."""
