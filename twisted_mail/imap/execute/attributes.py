"""Attributes of a mailbox in LIST responses (RFC 9051 section 7.3.1, RFC 3348, RFC 6154)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.account.state import Mailbox

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["mailbox_attributes"]


def mailbox_attributes(session: Session, mailbox: Mailbox) -> list[str]:
    """Of a mailbox that exists: whether it has children, whether it is subscribed, its special uses."""
    state = session.account.state
    attributes = ["\\HasChildren" if state.has_inferiors(mailbox.name) else "\\HasNoChildren"]
    if mailbox.name in state.subscriptions:
        attributes.append("\\Subscribed")
    return attributes + list(mailbox.special_use)
