"""The order of commands (RFC 5321 section 4.1.4), with those of the extensions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from twisted_mail.smtp.commands import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Vrfy,
    Xclient,
)

__all__ = ["ANYTIME", "NEXT", "State"]


class State(enum.Enum):
    """Where a session stands between two commands."""

    CONNECTED = "connected"
    """Not greeted yet."""
    GREETED = "greeted"
    """Between transactions."""
    MAIL = "mail"
    """A sender, no recipient yet."""
    RCPT = "rcpt"
    """At least one recipient."""
    BODY = "body"
    """After 354: the message comes."""
    CHUNKS = "chunks"
    """After a BDAT that was not the last."""


# A pair that is missing is answered 503. The transition happens when the command succeeds; EHLO, HELO, LHLO and RSET
# end a transaction, and so does the end of a message, for better or worse: both lead to GREETED.
NEXT: Final[Mapping[tuple[State, type[Command]], State]] = {
    (State.GREETED, Mail): State.MAIL,
    (State.MAIL, Rcpt): State.RCPT,
    (State.RCPT, Rcpt): State.RCPT,
    (State.RCPT, Data): State.BODY,
    (State.RCPT, Bdat): State.CHUNKS,  # RFC 3030 section 2: BDAT stands where DATA may
    (State.CHUNKS, Bdat): State.CHUNKS,  # and once begun, only BDAT goes on
    (State.GREETED, Auth): State.GREETED,  # RFC 4954 section 4: not during a transaction
    (State.CONNECTED, Xclient): State.CONNECTED,  # another client: it has not greeted yet
    (State.GREETED, Xclient): State.CONNECTED,
    (State.GREETED, StartTLS): State.CONNECTED,  # RFC 3207 section 4.2: what was known is forgotten
}

ANYTIME: Final[frozenset[type[Command]]] = frozenset({Ehlo, Helo, Lhlo, Noop, Rset, Quit, Help, Vrfy, Expn})
