"""Replies: ``OK``, ``NO`` and ``BYE`` with response codes (RFC 5804 sections 1.2, 1.3 and 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from twisted_mail.services import AuthenticationFailed, ScriptFault, ScriptRefused

__all__ = ["bye", "login_failed", "no", "ok", "refused", "string"]

_QUOTABLE: Final = re.compile(rb"[^\r\n\0]{0,1024}")
_SPECIAL: Final = re.compile(rb'(["\\])')

CODES: Final[Mapping[ScriptFault, str]] = {
    ScriptFault.NO_SUCH: "NONEXISTENT",
    ScriptFault.EXISTS: "ALREADYEXISTS",
    ScriptFault.ACTIVE: "ACTIVE",
    ScriptFault.TOO_LARGE: "QUOTA/MAXSIZE",
    ScriptFault.TOO_MANY: "QUOTA/MAXSCRIPTS",
    ScriptFault.UNAVAILABLE: "TRYLATER",
}
"""The others have none."""


def string(text: str | bytes, *, literal: bool = False) -> bytes:
    """A quoted string where one can be (at most 1024 octets, no line ends), else a literal. Some clients read no quoted
    pairs: what would need one is a literal too."""
    octets = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if literal or not _QUOTABLE.fullmatch(octets) or _SPECIAL.search(octets):
        return b"{%d}\r\n%b" % (len(octets), octets)
    return b'"%b"' % octets


def _reply(word: bytes, text: str, code: str | bytes) -> bytes:
    octets = code.encode("ascii") if isinstance(code, str) else code
    return word + (b" (%b)" % octets if octets else b"") + (b" " + string(text) if text else b"") + b"\r\n"


def ok(text: str = "", code: str | bytes = b"") -> bytes:
    """A positive reply."""
    return _reply(b"OK", text, code)


def no(text: str, code: str | bytes = b"") -> bytes:
    """A negative reply."""
    return _reply(b"NO", text, code)


def bye(text: str, code: str | bytes = b"") -> bytes:
    """The connection ends behind this."""
    return _reply(b"BYE", text, code)


def refused(error: ScriptRefused) -> bytes:
    """A script's refusal."""
    return no(error.text, CODES.get(error.fault, ""))


def login_failed(error: AuthenticationFailed) -> bytes:
    """ENCRYPT-NEEDED where TLS helps, TRYLATER where waiting does. TRANSITION-NEEDED is never said: it would tell who is a
    user here (section 5)."""
    code = "TRYLATER" if error.temporary else "ENCRYPT-NEEDED" if error.reason == "privacy" else ""
    return no(error.text, code)
