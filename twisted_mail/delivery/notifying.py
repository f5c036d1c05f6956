"""Notifications by mail (RFC 5436): which messages cause none, and what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

from twisted_mail.delivery.letters import letter, text_part
from twisted_mail.sieve.mailto import Mailto
from twisted_mail.sieve.message import Header
from twisted_mail.sieve.values import Notify

__all__ = ["compose_notification", "not_notified"]

_PRIORITIES: Final = {"1": "1 (Highest)", "3": "5 (Lowest)"}
"""X-Priority by importance (RFC 5435 section 3.4)."""


def not_notified(header: Header) -> str:
    """Why a message must not cause a notification (RFC 5436 section 2.7); empty: it may."""
    for value in header.values("auto-submitted"):
        if value.partition(";")[0].strip().lower() != "no":
            return "a program sent it (Auto-Submitted)"
    return ""


def compose_notification(
    notify: Notify, mailto: Mailto, header: Header, *, author: str, owner: str, message_id: str, now: float
) -> bytes:
    """*author*: the value of From. *owner*: the address of the script's owner. *now*: seconds since 1970."""
    subjects: Sequence[str] = header.values("subject")
    subject = notify.message or mailto.subject or (subjects[0] if subjects else "") or "New mail"
    more, body = text_part(mailto.body)
    quoted = owner.replace("\\", "\\\\").replace('"', '\\"')
    return letter(
        [
            ("Auto-Submitted", f'auto-notified; owner-email="{quoted}"'),
            ("From", author),
            ("To", ", ".join(mailto.recipients)),
            ("Cc", ", ".join(mailto.copies)),
            ("Subject", subject),
            ("Date", formatdate(now)),
            ("Message-ID", f"<{message_id}>"),
            ("X-Priority", _PRIORITIES.get(notify.importance, "")),
            *((name.capitalize(), value) for name, value in mailto.fields if not name.startswith("content-")),
            *more,
        ],
        body,
    )
