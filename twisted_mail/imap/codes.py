"""Response codes: what stands in brackets after OK, NO, BAD and BYE (RFC 9051 section 7.1, RFC 5530)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.imap import printing
from twisted_mail.imap.sequence import Range, render

__all__ = [
    "ALERT",
    "ALREADYEXISTS",
    "AUTHENTICATIONFAILED",
    "AUTHORIZATIONFAILED",
    "CANNOT",
    "CLIENTBUG",
    "CLOSED",
    "COMPRESSIONACTIVE",
    "CONTACTADMIN",
    "CORRUPTION",
    "EXPIRED",
    "EXPUNGEISSUED",
    "HASCHILDREN",
    "INUSE",
    "LIMIT",
    "NOMODSEQ",
    "NONEXISTENT",
    "NOPERM",
    "NOTSAVED",
    "OVERQUOTA",
    "PARSE",
    "PRIVACYREQUIRED",
    "READ_ONLY",
    "READ_WRITE",
    "SERVERBUG",
    "TOOBIG",
    "TRYCREATE",
    "UIDNOTSTICKY",
    "UNAVAILABLE",
    "UNKNOWN_CTE",
    "USEATTR",
    "Code",
    "append_uid",
    "bad_charset",
    "capability",
    "copy_uid",
    "highest_modseq",
    "mailbox_id",
    "modified",
    "permanent_flags",
    "uid_next",
    "uid_validity",
    "unseen",
]


@dataclass(frozen=True, slots=True)
class Code:
    """One response code: its name, and its arguments as they are printed."""

    name: str
    arguments: bytes = b""

    def __bytes__(self) -> bytes:
        """With its brackets."""
        name = self.name.encode("ascii")
        return b"[%s %s]" % (name, self.arguments) if self.arguments else b"[%s]" % name


ALERT: Final = Code("ALERT")
"""The text must be shown to the user."""
PARSE: Final = Code("PARSE")
READ_ONLY: Final = Code("READ-ONLY")
READ_WRITE: Final = Code("READ-WRITE")
TRYCREATE: Final = Code("TRYCREATE")
UIDNOTSTICKY: Final = Code("UIDNOTSTICKY")
CLOSED: Final = Code("CLOSED")
"""RFC 7162 section 3.2.11: what comes before it is about the mailbox selected before."""
NOMODSEQ: Final = Code("NOMODSEQ")
"""RFC 7162 section 3.1.2.2."""
NOTSAVED: Final = Code("NOTSAVED")
"""RFC 5182 section 2.2."""
UNKNOWN_CTE: Final = Code("UNKNOWN-CTE")
"""RFC 3516 section 4.3."""
USEATTR: Final = Code("USEATTR")
"""RFC 6154 section 3."""
COMPRESSIONACTIVE: Final = Code("COMPRESSIONACTIVE")
"""RFC 4978 section 3."""
TOOBIG: Final = Code("TOOBIG")
"""RFC 7889 section 3.1, RFC 4469 section 4.3."""
HASCHILDREN: Final = Code("HASCHILDREN")
"""RFC 9051 section 7.1."""

# RFC 5530 section 3.
UNAVAILABLE: Final = Code("UNAVAILABLE")
AUTHENTICATIONFAILED: Final = Code("AUTHENTICATIONFAILED")
AUTHORIZATIONFAILED: Final = Code("AUTHORIZATIONFAILED")
EXPIRED: Final = Code("EXPIRED")
PRIVACYREQUIRED: Final = Code("PRIVACYREQUIRED")
CONTACTADMIN: Final = Code("CONTACTADMIN")
NOPERM: Final = Code("NOPERM")
INUSE: Final = Code("INUSE")
EXPUNGEISSUED: Final = Code("EXPUNGEISSUED")
CORRUPTION: Final = Code("CORRUPTION")
SERVERBUG: Final = Code("SERVERBUG")
CLIENTBUG: Final = Code("CLIENTBUG")
CANNOT: Final = Code("CANNOT")
LIMIT: Final = Code("LIMIT")
OVERQUOTA: Final = Code("OVERQUOTA")
ALREADYEXISTS: Final = Code("ALREADYEXISTS")
NONEXISTENT: Final = Code("NONEXISTENT")


def bad_charset(charsets: Sequence[str]) -> Code:
    """``"BADCHARSET" [SP "(" charset *(SP charset) ")"]`` (RFC 9051 section 9)."""
    return Code("BADCHARSET", b"(" + b" ".join([printing.astring(name.encode("ascii")) for name in charsets]) + b")")


def capability(names: Iterable[str]) -> Code:
    """``"CAPABILITY" 1*(SP capability)`` (RFC 9051 section 7.1)."""
    return Code("CAPABILITY", " ".join(names).encode("ascii"))


def permanent_flags(flags: Iterable[str]) -> Code:
    """``"PERMANENTFLAGS" SP "(" … ")"``; ``\\*`` among *flags*: new keywords can be made (RFC 9051 section 7.1)."""
    return Code("PERMANENTFLAGS", printing.flag_list(flags))


def uid_next(uid: int) -> Code:
    """UIDNEXT (RFC 9051 section 7.1)."""
    return Code("UIDNEXT", b"%d" % uid)


def uid_validity(validity: int) -> Code:
    """UIDVALIDITY (RFC 9051 section 7.1)."""
    return Code("UIDVALIDITY", b"%d" % validity)


def unseen(number: int) -> Code:
    """UNSEEN, the first message without ``\\Seen`` (RFC 3501 section 7.1)."""
    return Code("UNSEEN", b"%d" % number)


def append_uid(validity: int, uids: Sequence[Range]) -> Code:
    """APPENDUID; a set of several with MULTIAPPEND (RFC 4315 section 3)."""
    return Code("APPENDUID", b"%d %s" % (validity, render(uids)))


def copy_uid(validity: int, source: Sequence[Range], target: Sequence[Range]) -> Code:
    """COPYUID: the n-th UID of *source* became the n-th of *target* (RFC 4315 section 3)."""
    return Code("COPYUID", b"%d %s %s" % (validity, render(source), render(target)))


def highest_modseq(modseq: int) -> Code:
    """HIGHESTMODSEQ (RFC 7162 section 3.1.2.1)."""
    return Code("HIGHESTMODSEQ", b"%d" % modseq)


def modified(numbers: Sequence[Range]) -> Code:
    """MODIFIED: what UNCHANGEDSINCE kept a STORE from (RFC 7162 section 3.1.3)."""
    return Code("MODIFIED", render(numbers))


def mailbox_id(id: str) -> Code:
    """MAILBOXID (RFC 8474 section 4.1)."""
    return Code("MAILBOXID", b"(" + id.encode("ascii") + b")")
