"""Replies: ``+OK`` and ``-ERR`` with the response codes of RFC 2449 section 8 and RFC 3206."""

from __future__ import annotations

from typing import Final

from twisted_mail.services import AuthenticationFailed

__all__ = ["IN_USE", "LOGIN_DELAY", "SYSTEM", "err", "login_failed", "ok"]

IN_USE: Final = "IN-USE"
LOGIN_DELAY: Final = "LOGIN-DELAY"
SYSTEM: Final = "SYS/TEMP"
"""Something here does not work at the moment; the same command may work later (RFC 3206 section 4)."""
_LONGEST: Final = 480
"""Characters of a text: with everything else a line stays below 512 octets (RFC 2449 section 4)."""


def ok(text: str = "") -> bytes:
    """A positive reply."""
    return b"+OK " + _line(text) if text else b"+OK\r\n"


def err(text: str, code: str = "") -> bytes:
    """A negative reply."""
    return b"-ERR " + _line(f"[{code}] {text}" if code else text)


def _line(text: str) -> bytes:
    return text[:_LONGEST].encode("ascii", "replace") + b"\r\n"


def login_failed(error: AuthenticationFailed) -> bytes:
    """[AUTH] where it is up to the user: name, password, a disabled account, or policy (RFC 3206 section 4); a client
    asks for a new password then. [SYS/TEMP] where waiting helps."""
    if error.temporary:
        return err(error.text, SYSTEM)
    return err(error.text, "AUTH" if error.reason in ("credentials", "privacy", "disabled") else "")
