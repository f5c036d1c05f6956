"""ClamAV: a message is streamed to clamd (INSTREAM, clamd(8)) while it comes, so that the answer is there soon after its end.

A connection that breaks on the way costs nothing yet: the whole message is shown once more when it is here, from where it
is kept. Mail of our own users is looked at too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.answers import Answers, clean, first
from twisted_mail.filters.values import Action, Answer, Arrived, FilterDown, Mail, Verdict
from twisted_mail.filters.wires import Dial, Place, Wire

__all__ = ["DEFAULT_PORT", "FIELDS", "ClamAV", "VirusCheck"]

DEFAULT_PORT: Final = 3310
FIELDS: Final = ("X-Virus-Status", "X-Virus-Scanned", "X-Virus-Report")
"""Fields that say what a scanner found: a peer's own are forged."""

_PIECE: Final = 65_536
"""Octets that are gathered before they are sent."""
_FOUND: Final = re.compile(rb"[^:\x00]{1,256}: (?:(.{1,1024}) FOUND|OK)")
_NOT_LOOKED_INTO: Final = re.compile(r"Heuristics\.(?:Encrypted|Limits\.Exceeded)\b")
"""What clamd calls archives with a password, and what is beyond its limits (AlertEncrypted, AlertExceedsMax)."""


@dataclass(frozen=True, slots=True)
class VirusCheck:
    """Noted at the `Mail`: what Sieve's ``virustest`` says (RFC 5235 section 2.3)."""

    grade: int
    """1: nothing was found; 4: it could not be looked into; 5: a virus."""
    name: str = ""
    """As the scanner calls it."""


class ClamAV:
    """A `Stage` that reads along."""

    name = "clamav"
    needs: frozenset[str] = frozenset()
    outbound = True

    def __init__(
        self,
        place: Place,
        dial: Dial,
        *,
        infected: Action = Action.REJECT,
        unscannable: Action = Action.MARK,
        most_bytes: int = 26_214_400,
        seconds: float = 30.0,
    ) -> None:
        """*infected*: REJECT or QUARANTINE. *unscannable*: what becomes of mail that clamd cannot look into: with a
        password, beyond its limits, or longer than *most_bytes* (at most clamd's StreamMaxLength; the beginning is looked
        at). *seconds*: for each wait. Raises ValueError."""
        if infected not in (Action.REJECT, Action.QUARANTINE):
            raise ValueError("infected mail is refused or kept away from everybody: REJECT or QUARANTINE")
        self._place = place
        self._dial = dial
        self._infected = infected
        self._unscannable = unscannable
        self._most = most_bytes
        self._seconds = seconds

    def read(self, mail: Mail) -> _Reader:
        """Connects when there is something to send."""
        return _Reader(self, mail)

    async def scan(self, octets: AsyncGenerator[bytes, None], *, cut: bool = False) -> Verdict:
        """What clamd says of *octets*; *cut*: they are only a beginning. Raises FilterDown."""
        stream = _Stream(self._dial, self._place, self._seconds, self._most)
        try:
            async for chunk in octets:
                await stream.write(chunk)
            said = await stream.finish()
        finally:
            stream.close()
            await octets.aclose()
        return self.verdict(said, cut=cut)

    def verdict(self, said: bytes, *, cut: bool) -> Verdict:
        """*said*: clamd's answer. Raises FilterDown: it is an error of clamd's own, or nonsense."""
        if said.startswith(b"INSTREAM size limit exceeded"):
            return self._not_looked_into("is too large for ClamAV")
        found = _FOUND.fullmatch(said)
        if found is None:
            raise FilterDown(f"clamd says {clean(said.decode('latin-1')) or 'nothing'}")
        if found[1] is None:
            if cut:
                return self._not_looked_into(f"is too large for ClamAV: its first {self._most // 1024} KiB are clean")
            return Verdict(reason="ClamAV finds no virus", fields=(("X-Virus-Status", "Clean"),))
        name = clean(found[1].decode("utf-8", "replace"), 100)
        if _NOT_LOOKED_INTO.match(name):
            return self._not_looked_into(f"holds what ClamAV cannot look into ({name})")
        return Verdict(
            action=self._infected,
            reason=f"ClamAV finds the virus {name}",
            answer=Answer(550, "5.7.1", f"This message carries a virus ({name})"),
            facts={"virus": name},
        )

    def _not_looked_into(self, why: str) -> Verdict:
        answer = None
        if self._unscannable is Action.REJECT:
            answer = Answer(550, "5.7.1", "This message cannot be checked for viruses")
        return Verdict(
            action=self._unscannable,
            reason=f"the message {why}",
            answer=answer,
            fields=(("X-Virus-Status", "Not scanned"),),
            facts={"unscannable": why},
        )


class _Stream:
    """One INSTREAM. Whatever goes wrong is FilterDown."""

    def __init__(self, dial: Dial, place: Place, seconds: float, most_bytes: int) -> None:
        self._dial, self._place, self._seconds = dial, place, seconds
        self._left = most_bytes
        self._wire: Wire | None = None
        self._gathered: list[bytes] = []
        self._size = 0

    async def write(self, chunk: bytes) -> None:
        """The next octets; what is beyond the bound is dropped."""
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size >= _PIECE:
            await self._send()

    async def _send(self, last: bytes = b"") -> None:
        wire = self._wire
        words: list[bytes] = []
        if wire is None:
            wire = self._wire = await self._dial(self._place, self._seconds)
            words.append(b"zINSTREAM\0")
        if self._size:
            words += [self._size.to_bytes(4, "big"), *self._gathered]
            self._gathered, self._size = [], 0
        if not wire.waiting:  # else it complains already, and reads no more
            try:
                await wire.send(b"".join([*words, last]), self._seconds)
            except FilterDown:
                if not wire.waiting:
                    raise

    async def finish(self) -> bytes:
        """Clamd's answer."""
        await self._send(b"\0\0\0\0")
        assert self._wire is not None
        return (await Answers(self._wire, self._seconds, 4096).until(b"\0")).strip()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()


class _Reader:
    """One message on its way to clamd."""

    def __init__(self, clamav: ClamAV, mail: Mail) -> None:
        self._clamav = clamav
        self._mail = mail
        self._stream: _Stream | None = _Stream(clamav._dial, clamav._place, clamav._seconds, clamav._most)

    async def write(self, chunk: bytes) -> None:
        if self._stream is not None:
            try:
                await self._stream.write(chunk)
            except FilterDown:
                await self.abort()

    async def finish(self, message: Arrived) -> Verdict:
        said: bytes | None = None
        cut = message.size > self._clamav._most
        if self._stream is not None:
            try:
                said = await self._stream.finish()
            except FilterDown:
                pass
            finally:
                await self.abort()
        if said is None:
            verdict = await self._clamav.scan(first(message.chunks(), self._clamav._most), cut=cut)
        else:
            verdict = self._clamav.verdict(said, cut=cut)
        name = verdict.facts.get("virus", "")
        self._mail.note(VirusCheck(5 if name else 4 if "unscannable" in verdict.facts else 1, name))
        return verdict

    async def abort(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
