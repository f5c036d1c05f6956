"""What an operator may set about IMAP sessions, as the session and the server need it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds and habits of every connection of one listener. Sizes in octets, times in seconds."""

    separator: str = "/"
    """Between levels of a mailbox name on the wire: ``/`` or ``.``."""
    message_bytes: int = 52_428_800
    """The largest message that APPEND takes (RFC 7889)."""
    line_bytes: int = 64 * 1024
    """One command without its literals (RFC 7162 section 4: at least 8192)."""
    literal_bytes: int = 256 * 1024
    """A literal that is not a message."""
    login_seconds: float = 60.0
    """How long a connection may stay without having logged in."""
    idle_seconds: float = 1800.0
    """How long a client may say nothing, in IDLE too (RFC 9051 section 5.4: at least 30 minutes)."""
    command_seconds: float = 300.0
    """How long one command may take while nothing moves."""
    bad_commands: int = 20
    """So many commands in a row that are no commands end the connection; 0: any number."""
    connections_per_address: int = 50
    """0: no limit."""
    input_bytes: int = 256 * 1024
    """So much received and not yet asked for stops reading from the peer."""
    append_messages: int = 1000
    """Messages in one APPEND (RFC 3502)."""
    compress: bool = True
    """COMPRESS=DEFLATE is offered (RFC 4978)."""
    server_id: tuple[tuple[str, str], ...] = (("name", "Twisted Mail Suite"),)
    """What ID says of this server (RFC 2971)."""

    def __post_init__(self) -> None:
        if self.separator not in ("/", "."):
            raise ValueError(f"no such separator: {self.separator!r}")
        if self.line_bytes < 8192:
            raise ValueError("a line has at least 8192 octets")
