"""What an operator sets about POP3."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds and habits of one listener; 0 means no limit where it says so."""

    idle_seconds: float = 600.0
    """The auto-logout timer (RFC 1939 section 3: at least 10 minutes). It deletes nothing and says nothing."""
    login_seconds: float = 120.0
    """How long a connection may stay without having logged in; 0: as long as `idle_seconds`."""
    login_delay_seconds: float = 0.0
    """The least time between two logins of one user in this process (LOGIN-DELAY, RFC 2449 section 6.5); 0: none."""
    bad_commands: int = 20
    """Commands in a row that are no commands before the connection is ended; 0: no limit."""
    failed_logins: int = 5
    """Failed logins on one connection before it is ended; 0: no limit."""
    connections_per_address: int = 0
    """Connections at a time from one address to one factory; 0: no limit."""
    line_bytes: int = 2048
    """The longest command with its line end. RFC 2449 section 4 asks for 255; passwords may be longer here."""
    auth_line_bytes: int = 12_288
    """The longest line of a SASL exchange (RFC 5034 section 4, RFC 4422)."""
    buffer_bytes: int = 65_536
    """Input that may wait, while a command is carried out, before the peer is paused."""
    output_bytes: int = 65_536
    """Output that is gathered before it is written although more is to come."""
