"""The types of what carries out a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted_mail.imap.replies import Condition
from twisted_mail.imap.syntax import Tagged
from twisted_mail.imap.wire_events import LiteralAnnounced

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["Execute", "Stream", "sentence"]

Execute = Callable[["Session", bytes, Any], Awaitable[Condition | None]]
"""(session, tag, command) to the tagged answer; None: it has been given. The command's own class varies, hence Any."""
Stream = Callable[["Session", Tagged, LiteralAnnounced], Awaitable[Condition | None]]
"""A command whose announced literal is next; None: the answer comes when the rest has gone past."""


def sentence(text: str) -> str:
    """*text* with a capital at its beginning: why a command is BAD, as it is sent."""
    return text[:1].upper() + text[1:]
