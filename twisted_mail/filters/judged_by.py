"""Which engines judged a message, written into its header so that they, and no others, are taught by what its owner does with it.

The field is ``X-Spam-Judged-By: rspamd spamassassin; SEAL``. The seal is a MAC under a secret of this installation over the
names and the fields that say which message it is, so that neither a sender nor who APPENDs a message can write one; and since
a peer's own are taken out on the way in, a message that was not judged here has none. Where there is none, or none that holds
(a user's script has changed From, say), nobody has judged the message.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from twisted.logger import Logger

from twisted_mail.filters.findings import Finding
from twisted_mail.mime import first_value
from twisted_mail.storage.interfaces import StorageError

__all__ = ["FIELD", "JudgedBy", "judges_in", "without_field"]

FIELD: Final = "X-Spam-Judged-By"
_NAMES: Final = (b"message-id", b"from", b"date")
"""Fields by which a message is known again."""
_MAC: Final = 15
"""Octets; twenty characters in base64."""
_MOST: Final = 4
"""Fields that are looked at."""
_SAID: Final = re.compile(rb"(?im)^X-Spam-Judged-By:[ \t]*([a-z0-9_-]+(?: [a-z0-9_-]+){0,15}); ([A-Za-z0-9_-]{20})[ \t]*\r?$")
_FIELD: Final = re.compile(rb"(?im)^X-Spam-Judged-By[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z)")
_WHITE: Final = re.compile(rb"[ \t\r\n]+")


def judges_in(findings: Iterable[Finding], engines: frozenset[str]) -> frozenset[str]:
    """Those of *engines* that have given points, even none: not who was down, or says that it does not look at such a message."""
    return frozenset(
        each.stage for each in findings if each.stage in engines and not each.down and "score" in each.verdict.facts
    )


def without_field(octets: bytes) -> bytes:
    """A message (or its beginning) without what is written here: an engine learns the words of what it was shown."""
    end = _header_end(octets)
    return _FIELD.sub(b"", octets[:end]) + octets[end:]


class JudgedBy:
    """Writes and reads the field."""

    _log = Logger()

    def __init__(self, engines: frozenset[str], secret: Callable[[], Awaitable[bytes]]) -> None:
        """*engines*: names of filters that can be taught. *secret*: the same on all nodes; may raise StorageError."""
        self.engines = engines
        self._secret = secret
        self._key = b""

    async def field(self, judges: frozenset[str], header: bytes) -> tuple[str, str] | None:
        """What stands in front of a message with that *header*; None: nobody has judged it (or the secret is out of reach, and
        then it is as if nobody had)."""
        if not judges:
            return None
        names = " ".join(sorted(judges))
        try:
            return FIELD, f"{names}; {(await self._seal(names.encode(), header)).decode()}"
        except StorageError as error:
            self._log.warn("a message does not say who judged it: {why}", why=str(error))
            return None

    async def judges_of(self, octets: bytes) -> frozenset[str]:
        """Who judged the message that begins with *octets*; empty: nobody did here. Raises: StorageError."""
        header = octets[: _header_end(octets)]
        for found in list(_SAID.finditer(header))[:_MOST]:
            if hmac.compare_digest(await self._seal(found[1], header), found[2]):
                return frozenset(found[1].decode("ascii").split(" "))
        return frozenset()

    async def _seal(self, names: bytes, header: bytes) -> bytes:
        if not self._key:
            self._key = await self._secret()
        mac = hmac.digest(self._key, b"\0".join([b"judged-by", names, *_known_by(header)]), "sha256")
        return base64.urlsafe_b64encode(mac[:_MAC])


def _known_by(header: bytes) -> Sequence[bytes]:
    return [_WHITE.sub(b"", first_value(header, name) or b"") for name in _NAMES]


def _header_end(octets: bytes) -> int:
    end = octets.find(b"\r\n\r\n")
    return len(octets) if end < 0 else end + 2
