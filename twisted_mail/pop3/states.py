"""Which command is valid when (RFC 1939 sections 4 to 7; each extension says so of its own)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

__all__ = ["VALID", "State"]


class State(enum.Enum):
    """UPDATE is entered by QUIT, and left with the connection."""

    AUTHORIZATION = "log in first"
    TRANSACTION = "you have logged in already"
    UPDATE = "the session is over"


_BEFORE: Final = frozenset({State.AUTHORIZATION})
_AFTER: Final = frozenset({State.TRANSACTION})
_BOTH: Final = _BEFORE | _AFTER

VALID: Final[Mapping[str, frozenset[State]]] = {
    "USER": _BEFORE,
    "PASS": _BEFORE,
    "AUTH": _BEFORE,
    "STLS": _BEFORE,
    "UTF8": _BEFORE,
    "LANG": _BOTH,
    "CAPA": _BOTH,
    "QUIT": _BOTH,
    "NOOP": _AFTER,
    "STAT": _AFTER,
    "LIST": _AFTER,
    "UIDL": _AFTER,
    "RETR": _AFTER,
    "TOP": _AFTER,
    "DELE": _AFTER,
    "RSET": _AFTER,
}
