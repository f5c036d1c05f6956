"""What EHLO lists, what is asked of it at MAIL, and what the Received field calls the protocol that it leads to."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted_mail.services import Authentication, Peer
from twisted_mail.smtp.commands import Mail
from twisted_mail.smtp.profiles import Limits, Profile
from twisted_mail.smtp.replies import Reply
from twisted_mail.smtp.xclient import offered as xclient

__all__ = ["extensions", "hold_until", "protocol_keyword", "unmet"]


def extensions(
    profile: Profile,
    limits: Limits,
    peer: Peer,
    *,
    tls_available: bool,
    authentication: Authentication | None,
    now: float,
    trusted: bool = False,
) -> list[str]:
    """The lines of EHLO behind the host name, in a fixed order.

    STARTTLS is not offered twice (RFC 3207 section 4.2), AUTH only with mechanisms that *peer* may use now; without
    *authentication* there is none. XCLIENT is for servers of ours in front.
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
    if trusted:
        offered.append(xclient(authentication))
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


def unmet(mail: Mail, profile: Profile, limits: Limits, peer: Peer, now: float) -> Reply | None:
    """What MAIL asks of extensions that this connection does not have, or that cannot be met."""
    if mail.requiretls and (not peer.secure or profile.lmtp):
        return Reply(530, "5.7.4", "REQUIRETLS needs TLS")  # RFC 8689 section 4.2.1
    most = limits.hold_seconds if profile.submission else 0
    asked = (mail.hold_for, mail.hold_until, mail.deliver_by, mail.priority)
    if not most and any(each is not None for each in asked):
        return Reply(555, "5.5.4", "Not offered here")
    until = hold_until(mail, now)
    if until is not None and until > now + most:
        return Reply(501, "5.5.4", f"It can be held for {most} seconds at most")  # RFC 4865 section 4
    return None


def hold_until(mail: Mail, now: float) -> float | None:
    """When the message may be delivered (RFC 4865), seconds since 1970; None: at once."""
    return mail.hold_until if mail.hold_for is None else now + mail.hold_for


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
