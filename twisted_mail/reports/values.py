"""What a delivery status says (RFC 3464), and what an abuse report says (RFC 5965)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Action", "DeliveryReport", "FeedbackReport", "NotAReport", "RecipientStatus"]


class NotAReport(ValueError):
    """The message is no report that can be read; the text says why."""


class Action(enum.Enum):
    """What happened to a recipient's copy (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    """It went to a server that does not tell what comes of it."""
    EXPANDED = "expanded"
    """It went to the members of a list."""


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """The fields of one recipient (RFC 3464 section 2.3). Times are seconds since 1970."""

    recipient: str
    """Final-Recipient, without its type."""
    action: Action
    status: str
    """An enhanced code (RFC 3463), e.g. ``5.1.1``."""
    original: str = ""
    """Original-Recipient, without its type; empty: not known."""
    remote: str = ""
    """Remote-MTA: the name of the server that answered."""
    diagnostic: str = ""
    """What it said, reply code first."""
    last_attempt: float | None = None
    retry_until: float | None = None


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A delivery status notification."""

    recipients: tuple[RecipientStatus, ...]
    reporter: str = ""
    """Reporting-MTA, without its type."""
    envelope_id: str = ""
    """Original-Envelope-Id, decoded."""
    arrival: float | None = None
    """When the message came to the reporter, seconds since 1970."""
    message_id: str = ""
    """Of the message that it is about, without angle brackets; read from what was returned of it."""
    standard: bool = True
    """False: it was made out of a form of somebody's own."""


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """A report about abuse (RFC 5965): mostly, that somebody pressed "this is spam"."""

    type: str
    """Feedback-Type, lower case: ``abuse``, ``fraud``, ``virus``, ``not-spam``, ``opt-out``, ``other``, …"""
    reporter: str = ""
    """User-Agent."""
    sender: str = ""
    """Original-Mail-From, without angle brackets."""
    recipients: tuple[str, ...] = ()
    """Original-Rcpt-To; many reporters leave it out or black it out."""
    source: str = ""
    """Source-IP."""
    incidents: int = 1
    arrival: float | None = None
    domains: tuple[str, ...] = ()
    """Reported-Domain."""
    header: bytes = b""
    """That of the message complained of, as far as it was returned."""
