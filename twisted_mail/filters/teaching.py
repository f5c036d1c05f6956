"""Teaching the engines that judge mail: what a user moves into Junk, and out of it, they learn from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Protocol

from twisted_mail.filters.answers import clean
from twisted_mail.filters.rspamd import ask_rspamd, place_of_url
from twisted_mail.filters.spamassassin import ask_spamd
from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.wires import Dial, Place

__all__ = ["LESSON_BYTES", "RspamdTeacher", "SpamAssassinTeacher", "Teacher"]

LESSON_BYTES: Final = 524_288
"""Of a message, what is taught at most: its beginning."""


class Teacher(Protocol):
    """How one engine is taught. To teach a message again changes nothing; the last word about it counts."""

    async def learn(self, octets: bytes, *, spam: bool, user: str) -> bool:
        """*octets* is spam, or is not, says *user* (empty: somebody). False: it was known already. Raises: FilterDown."""


async def _once(octets: bytes) -> AsyncGenerator[bytes, None]:
    yield octets


class SpamAssassinTeacher:
    """By TELL; spamd must run with ``--allow-tell``. What was learned the other way is forgotten by it."""

    def __init__(self, place: Place, dial: Dial, *, per_user: bool = True, seconds: float = 60.0) -> None:
        self._place, self._dial, self._per_user, self._seconds = place, dial, per_user, seconds

    async def learn(self, octets: bytes, *, spam: bool, user: str) -> bool:
        fields = {
            "User": user if self._per_user else "",
            "Message-class": "spam" if spam else "ham",
            "Set": "local",
        }
        octets = octets[:LESSON_BYTES]
        answer = await ask_spamd(
            self._dial, self._place, b"TELL", fields, len(octets), _once(octets), seconds=self._seconds
        )
        return b"local" in answer.fields.get(b"didset", b"")


class RspamdTeacher:
    """By the controller's ``/learnspam`` and ``/learnham``."""

    def __init__(self, url: str, dial: Dial, *, password: str = "", seconds: float = 30.0) -> None:
        """*url* is the controller's, ``http://127.0.0.1:11334``. Raises ValueError (the URL)."""
        self._place, self._path = place_of_url(url, 11_334)
        self._dial, self._password, self._seconds = dial, password, seconds

    async def learn(self, octets: bytes, *, spam: bool, user: str) -> bool:
        octets = octets[:LESSON_BYTES]
        path = f"{self._path}/{'learnspam' if spam else 'learnham'}"
        fields = [("Password", self._password)] if self._password else []
        if user and user.isascii() and user.isprintable():
            fields.append(("Deliver-To", user))
        status, said = await ask_rspamd(
            self._dial, self._place, path, fields, len(octets), _once(octets), seconds=self._seconds
        )
        error = clean(str(said.get("error", "")))
        if status == 200 and said.get("success") is True:
            return True
        if status == 208 or "already learned" in error or "ignore" in error or status == 204:
            return False
        raise FilterDown(f"rspamd does not learn: {status} {error}")
