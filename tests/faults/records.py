"""What is kept while clients work: every operation with its answer, everything that a session was shown.

Times are seconds of the recorder's own monotonic clock. A message is known by its *token*, a word that is in its Subject
and made once: whatever the servers do, two messages never share one on purpose.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

__all__ = [
    "Arrived",
    "Kept",
    "Moved",
    "Outcome",
    "Picture",
    "Recorder",
    "Shown",
    "Stored",
    "Vanished",
    "digest",
]


class Outcome(StrEnum):
    """How an operation ended, as its client saw it."""

    ANSWERED = "answered"
    """OK, or 250: it is done and stays done."""
    REFUSED = "refused"
    """NO, or 4xx, 5xx: it is not done and never will be."""
    UNKNOWN = "unknown"
    """The connection ended without an answer: either, and perhaps later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message that was handed over, by SMTP (to INBOX) or APPEND, for one recipient."""

    token: str
    account: str
    mailbox: str
    outcome: Outcome
    digest: str
    """Of its body, which comes back octet for octet."""
    reply: str
    began: float
    ended: float
    node: str = ""
    uid: int = 0
    """As APPENDUID said; 0: not said."""
    validity: int = 0
    attached: str = ""
    """The SHA-256 of its attachment's octets; empty: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A flag that was set or cleared."""

    token: str
    account: str
    flag: str
    on: bool
    outcome: Outcome
    reported: bool
    """Whether a FETCH came with it. OK without one: nothing was there to change any more."""
    began: float
    ended: float
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A message that was moved, or expunged (``to`` is None)."""

    token: str
    account: str
    source: str
    to: str | None
    outcome: Outcome
    reported: bool
    """Whether COPYUID, or VANISHED or EXPUNGE, came with it. OK without: it was not there."""
    began: float
    ended: float
    node: str = ""
    uid: int = 0
    """In the mailbox it went to, as COPYUID said; 0: not said."""
    validity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A session was shown a message for the first time."""

    session: str
    account: str
    mailbox: str
    validity: int
    uid: int
    token: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """A session was told that a message is gone."""

    session: str
    account: str
    mailbox: str
    validity: int
    uid: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A message as it is there at the end."""

    mailbox: str
    validity: int
    uid: int
    token: str
    flags: frozenset[str]
    digest: str


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is in an account at the end, when nothing is under way any more."""

    account: str
    messages: tuple[Kept, ...]


Record = Arrived | Stored | Moved | Shown | Vanished


def digest(body: bytes) -> str:
    """A short name for the octets of a message's body."""
    return sha256(body).hexdigest()[:16]


@dataclass(slots=True)
class Recorder:
    """Keeps records in the order in which they became known, and writes them to *file* for whoever has to look later."""

    file: Path | None = None
    clock: Callable[[], float] = time.monotonic
    arrived: list[Arrived] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    vanished: list[Vanished] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    """What a client saw that no server may do, in words."""
    notes: list[tuple[float, str]] = field(default_factory=list)
    """What was done to the servers, and which part of the test began, and when."""
    _lines: list[str] = field(default_factory=list)

    def keep(self, record: Record) -> None:
        """Keep it."""
        match record:
            case Arrived():
                self.arrived.append(record)
            case Stored():
                self.stored.append(record)
            case Moved():
                self.moved.append(record)
            case Shown():
                self.shown.append(record)
            case Vanished():
                self.vanished.append(record)
        self._lines.append(json.dumps({"kind": type(record).__name__, **asdict(record)}))
        if len(self._lines) >= 500:
            self.flush()

    def note(self, what: str) -> None:
        """Something was done to a server, or a part of the test begins."""
        self.notes.append((self.clock(), what))
        self._lines.append(json.dumps({"kind": "note", "at": self.clock(), "what": what}))
        self.flush()

    def timeline(self) -> str:
        """The notes, each with the seconds since the first one and since the one before."""
        lines, before = [], self.notes[0][0] if self.notes else 0.0
        for at, what in self.notes:
            lines.append(f"{at - self.notes[0][0]:7.1f} {at - before:+6.1f}  {what}")
            before = at
        return "\n".join(lines)

    def defect(self, what: str) -> None:
        """A client saw something that may not be."""
        self.defects.append(what)
        self._lines.append(json.dumps({"kind": "defect", "at": self.clock(), "what": what}))
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self.file is not None and self._lines:
            with self.file.open("a") as out:
                out.write("\n".join(self._lines) + "\n")
        self._lines.clear()

    def counts(self) -> dict[str, int]:
        """How many operations of each kind ended how."""
        found: dict[str, int] = {}
        for kind, records in (("arrived", self.arrived), ("stored", self.stored), ("moved", self.moved)):
            for record in records:
                name = f"{kind} {record.outcome}"
                found[name] = found.get(name, 0) + 1
        found["shown"], found["vanished"] = len(self.shown), len(self.vanished)
        return found
