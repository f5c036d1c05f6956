"""What EHLO lists, and what the Received field calls the protocol that it leads to."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted_mail.services import Authentication, Peer
from twisted_mail.smtp.profiles import Limits, Profile

__all__ = ["extensions", "protocol_keyword"]


def extensions(
    profile: Profile,
    limits: Limits,
    peer: Peer,
    *,
    tls_available: bool,
    authentication: Authentication | None,
    now: float,
) -> list[str]:
    """The lines of EHLO behind the host name, in a fixed order.

    STARTTLS is not offered twice (RFC 3207 section 4.2), AUTH only with mechanisms that *peer* may use now; without
    *authentication* there is none.
    """
    offered: list[str] = []
    if tls_available and not peer.secure:
        offered.append("STARTTLS")
    mechanisms = authentication.mechanisms(peer) if authentication is not None else ()
    if mechanisms:
        offered.append(f"AUTH {' '.join(mechanisms)}")
    bounds = [f"RCPTMAX={limits.recipients}"]  # RFC 9422
    if limits.messages:
        bounds.append(f"MAILMAX={limits.messages}")
    if profile.submission and limits.hold_seconds:
        latest = datetime.fromtimestamp(now + limits.hold_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        offered += [f"FUTURERELEASE {limits.hold_seconds} {latest}", "DELIVERBY", "MT-PRIORITY"]
    if peer.secure and not profile.lmtp:
        offered.append("REQUIRETLS")  # RFC 8689 section 4.2.1: only where TLS is active
    return [
        *offered,
        "PIPELINING",
        f"SIZE {limits.message_bytes}",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "BINARYMIME",
        "DSN",
        "ENHANCEDSTATUSCODES",
        f"LIMITS {' '.join(bounds)}",
        "HELP",
    ]


def protocol_keyword(
    profile: Profile, peer: Peer, *, extended: bool, authenticated: bool, smtputf8: bool
) -> str:
    """The keyword behind ``with`` (RFC 3848, RFC 6531 section 4.3)."""
    marks = ("S" if peer.secure else "") + ("A" if authenticated else "")
    if smtputf8:
        return f"UTF8{'LMTP' if profile.lmtp else 'SMTP'}{marks}"
    if profile.lmtp:
        return f"LMTP{marks}"
    return f"ESMTP{marks}" if extended or marks else "SMTP"
