"""NAMESPACE (RFC 2342, RFC 9051 section 6.3.10): one personal namespace, nobody else's.

The smallest example of an extension in one module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_mail.imap import replies
from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.replies import Condition, ok
from twisted_mail.imap.syntax import LOGGED_IN, Command, Syntax

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "COMMANDS", "EXECUTE", "Namespace"]

CAPABILITIES = ("NAMESPACE",)


@dataclass(frozen=True, slots=True)
class Namespace(Command):
    """NAMESPACE (RFC 9051 section 6.3.10, RFC 2342)."""


def parse_namespace(args: Cursor) -> Namespace:
    """``"NAMESPACE"`` (RFC 9051 section 6.3.10)."""
    args.end()
    return Namespace()


async def namespace(session: Session, tag: bytes, command: Namespace) -> Condition:
    """RFC 2342: one personal namespace."""
    session.write(replies.namespace([("", session.settings.separator)], utf8=session.enabled.utf8_names))
    return ok("NAMESPACE completed")


COMMANDS = {b"NAMESPACE": Syntax(parse_namespace, LOGGED_IN)}
EXECUTE = {Namespace: namespace}
