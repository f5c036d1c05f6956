"""One-click unsubscribe (RFC 8058): the header fields, and the signed tokens in them. Pure.

A token says who no longer wants what: sender domain, recipient, stream; a MAC keeps it from being made up. It is in the
recipient's own copy only, so each recipient of such mail needs a transaction of its own. Both fields must be signed by
DKIM (RFC 8058 section 4): they are added before that.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from twisted_mail.mime.headers import iterate_fields

__all__ = ["ONE_CLICK", "TOKEN_CHARACTERS", "Unsubscribing", "Unsubscription"]

ONE_CLICK: Final = "List-Unsubscribe=One-Click"
"""The value of List-Unsubscribe-Post, and the body of the POST (RFC 8058 section 3)."""
TOKEN_CHARACTERS: Final = 1200
"""No token of ours is longer."""
_MAC: Final = 16
_PURPOSE: Final = b"twisted-mail unsubscribe 1\x00"
_LINE: Final = 998
"""Octets of a line at most (RFC 5322 section 2.1.1)."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{24,1200}")


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """Who no longer wants what."""

    sender_domain: str
    recipient: str
    stream: str


class Unsubscribing:
    """Makes tokens and fields, and reads tokens."""

    def __init__(self, keys: Sequence[bytes], url: str, mailto: str = "") -> None:
        """*keys*: secrets of at least 16 octets; the first signs, all are believed (so one can be replaced). *url*: where
        `unsubscribe_page` is served, ``https://mail.example.org/unsubscribe``; *mailto*: an address that reads mail with a token
        in its subject; empty: none.

        Raises: ValueError.
        """
        if not keys or any(len(key) < _MAC for key in keys):
            raise ValueError("a secret of at least 16 octets is wanted for the links of one-click unsubscribe")
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment or not url.isascii():
            raise ValueError(f"{url!r} is no https URL that a token can be put behind (RFC 8058 section 3.1)")
        self._keys = tuple(keys)
        self._url = url.rstrip("/")
        self._mailto = mailto

    def token(self, who: Unsubscription) -> str:
        """Letters, digits, ``-`` and ``_``."""
        said = "\0".join((who.sender_domain, who.recipient, who.stream)).encode("utf-8", "surrogateescape")
        return base64.urlsafe_b64encode(_mac(self._keys[0], said) + said).rstrip(b"=").decode()

    def read(self, token: str) -> Unsubscription | None:
        """What *token* says; None if it was not made with one of the keys."""
        if not _TOKEN.fullmatch(token):
            return None
        try:
            octets = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (ValueError, binascii.Error):
            return None
        mac, said = octets[:_MAC], octets[_MAC:]
        if not any(hmac.compare_digest(_mac(key, said), mac) for key in self._keys):
            return None
        # a second form of the same octets (unused bits of the last character) is no token of ours
        if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() != token:
            return None
        parts = said.decode("utf-8", "surrogateescape").split("\0")
        return Unsubscription(*parts) if len(parts) == 3 else None

    def of_subject(self, subject: str) -> Unsubscription | None:
        """What mail to the address of the mailto link says, by its Subject."""
        return next((found for word in subject.split() if (found := self.read(word)) is not None), None)

    def fields(self, header: bytes, who: Unsubscription) -> bytes:
        """What to put in front of *header* (a header block): List-Unsubscribe (RFC 2369) and List-Unsubscribe-Post, ended by
        CRLF; empty where the sender has its own List-Unsubscribe, whatever it can do, or where nobody could be told from
        whom the mail was."""
        names = {field.name for field in iterate_fields(header)}
        if b"list-unsubscribe" in names or not who.sender_domain:
            return b""
        token = self.token(who)
        line = f"List-Unsubscribe: <{self._url}/{token}>"
        if len(line) >= _LINE:
            return b""  # an address so long that no line holds its link
        if self._mailto:
            line += f",\r\n <mailto:{self._mailto}?subject={token}>"
        text = line.encode() + b"\r\n"
        if b"list-unsubscribe-post" not in names:
            text += f"List-Unsubscribe-Post: {ONE_CLICK}\r\n".encode()
        return text


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + said, sha256).digest()[:_MAC]
