"""The three flavours of one protocol, and the bounds that an operator sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LMTP", "MX", "SUBMISSION", "Limits", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What tells SMTP, submission and LMTP apart."""

    name: str
    """``smtp``, ``submission`` or ``lmtp``: the service in `Peer`, in logs and throttles."""
    banner: str
    """The protocol's name in the greeting."""
    submission: bool = False
    """Login required, sender checked, header completed (RFC 6409)."""
    lmtp: bool = False
    """LHLO, and one reply per recipient after the message (RFC 2033)."""


MX: Final = Profile("smtp", "ESMTP")
SUBMISSION: Final = Profile("submission", "ESMTP", submission=True)
LMTP: Final = Profile("lmtp", "LMTP", lmtp=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one listener; 0 means no limit where it says so."""

    message_bytes: int = 52_428_800
    """The largest message (SIZE, RFC 1870), octets without dot-stuffing."""
    recipients: int = 1000
    """Accepted recipients of one message (RFC 5321 section 4.5.3.1.8: at least 100)."""
    line_bytes: int = 2048
    """The longest command with its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512 and each extension for more."""
    auth_line_bytes: int = 12_288
    """The longest line of an AUTH exchange (RFC 4954 section 4)."""
    bad_commands: int = 20
    """Commands in a row that are no commands before 421 ends the connection; 0: no limit."""
    refused_recipients: int = 100
    """Recipients refused in a row on one connection before 421 ends it (address harvesting); 0: no limit."""
    messages: int = 0
    """Transactions on one connection (MAILMAX, RFC 9422); 0: no limit."""
    strict_line_ends: bool = True
    """Any bare CR or LF in a message refuses it. Off: only those next to a dot, which no other server could read
    differently than this one."""
    header_bytes: int = 1 << 20
    """Submission: a header longer than this is passed on as it is, unread."""
    hold_seconds: int = 0
    """Submission: how far ahead a delivery may be put off (FUTURERELEASE, RFC 4865); 0: not at all, and DELIVERBY and
    MT-PRIORITY are not offered either."""
    command_seconds: float = 300.0
    """Wait for the next command (RFC 5321 section 4.5.3.2.7)."""
    data_seconds: float = 600.0
    """Wait for the next octets of a message (sections 4.5.3.2.5 and 4.5.3.2.6)."""
    work_seconds: float = 600.0
    """The longest that one batch of input may be worked on; a client waits 10 minutes for the final reply."""
    login_seconds: float = 120.0
    """Submission: how long a connection may stay without having logged in; 0: no limit."""
    connections_per_address: int = 0
    """Connections at a time from one address to one factory; 0: no limit."""
    buffer_bytes: int = 262_144
    """Input that may wait, while earlier input is worked on, before the peer is paused."""
