"""What a client has enabled, by ENABLE or by using it (RFC 5161, RFC 7162 section 3.1, RFC 6855, RFC 9051 section 6.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_mail.imap.syntax import Modes

__all__ = ["Enabled"]


@dataclass(slots=True)
class Enabled:
    """Of one session; changes as the session goes on."""

    condstore: bool = False
    qresync: bool = False
    utf8: bool = False
    """UTF8=ACCEPT."""
    rev2: bool = False
    """IMAP4rev2."""

    @property
    def utf8_names(self) -> bool:
        """Mailbox names are UTF-8 (RFC 6855 section 3, RFC 9051 section 5.1)."""
        return self.utf8 or self.rev2

    @property
    def uids(self) -> bool:
        """Unsolicited FETCH responses carry the UID (RFC 7162 section 3.2.4, RFC 9051 section 7.5.2)."""
        return self.qresync or self.rev2

    def modes(self) -> Modes:
        """What bears on the reading of commands."""
        return Modes(utf8=self.utf8_names, charset_forbidden=self.utf8)
