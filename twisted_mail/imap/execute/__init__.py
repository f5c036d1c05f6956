"""Carrying out commands: one module per family, each with `EXECUTE`, and what it adds to CAPABILITY.

What belongs to the base protocol has its syntax in `commands`; an extension by itself stands in `extensions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Final

from twisted_mail.imap.execute import any as any_state
from twisted_mail.imap.execute import append, auth, fetch, listing, mailbox, message, search, select
from twisted_mail.imap.execute.types import Execute, Stream
from twisted_mail.imap.extensions import EXTENSIONS
from twisted_mail.imap.syntax import Command, State

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["EXECUTE", "FAMILIES", "STREAMED", "capabilities"]

FAMILIES: Final[tuple[ModuleType, ...]] = (
    any_state,
    auth,
    mailbox,
    select,
    listing,
    message,
    append,
    search,
    fetch,
    *EXTENSIONS,
)


def _merge(name: str) -> Mapping[type[Command], object]:
    table: dict[type[Command], object] = {}
    for family in FAMILIES:
        for command, function in getattr(family, name, {}).items():
            if command in table:
                raise ValueError(f"two ways to carry out {command.__name__}")
            table[command] = function
    return table


EXECUTE: Final[Mapping[type[Command], Execute]] = _merge("EXECUTE")  # type: ignore[assignment]  # see `types`
STREAMED: Final[Mapping[type[Command], Stream]] = _merge("STREAMED")  # type: ignore[assignment]
"""Commands whose last literal is not kept in memory."""

ALWAYS: Final = ("IMAP4rev1", "IMAP4rev2", "LITERAL+", "ID", "ENABLE", "SASL-IR")


def capabilities(session: Session) -> list[str]:
    """The capabilities in the session's state: what may be done before login and after, as far as it is on offer."""
    names = list(ALWAYS)
    if session.state is State.NOT_AUTHENTICATED:
        return names + auth.offers(session)
    for family in FAMILIES:
        offered = getattr(family, "CAPABILITIES", ())
        names += offered(session) if callable(offered) else offered
    return names
