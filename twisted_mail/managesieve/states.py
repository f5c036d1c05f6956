"""Which command is valid when (RFC 5804 sections 2 and 4)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

__all__ = ["VALID", "State"]


class State(enum.Enum):
    """What is said to a command that comes in the wrong one."""

    NON_AUTHENTICATED = "log in first"
    AUTHENTICATED = "you have logged in already"


_BEFORE: Final = frozenset({State.NON_AUTHENTICATED})
_AFTER: Final = frozenset({State.AUTHENTICATED})
_ANY: Final = _BEFORE | _AFTER

VALID: Final[Mapping[str, frozenset[State]]] = {
    # command-any
    "CAPABILITY": _ANY,
    "LOGOUT": _ANY,
    "NOOP": _ANY,
    # command-nonauth
    "AUTHENTICATE": _BEFORE,
    "STARTTLS": _BEFORE,
    # command-auth
    "HAVESPACE": _AFTER,
    "PUTSCRIPT": _AFTER,
    "LISTSCRIPTS": _AFTER,
    "SETACTIVE": _AFTER,
    "GETSCRIPT": _AFTER,
    "DELETESCRIPT": _AFTER,
    "RENAMESCRIPT": _AFTER,
    "CHECKSCRIPT": _AFTER,
    "UNAUTHENTICATE": _AFTER,
}
