"""mbox files in the dialect mboxrd: messages after ``From `` lines, with every ``>*From `` in them quoted once more.

Flags are in ``Status`` (R: seen), ``X-Status`` (A, F, D, T) and ``X-Keywords``, which belong to the file and not to the
message: of each the last one in the header is taken off on reading. Dates of ``From `` lines are in UTC, unless they
name a zone. A file cannot say that a message lacks a line end at its end, so it gets one.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted_mail.admin.line_ends import to_crlf, to_lf

__all__ = ["MboxMessage", "NotMbox", "mboxes", "messages", "read_from_line", "write"]

_LINE: Final = 64 * 1024
_MAX_HEADER: Final = 1 << 20
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FROM: Final = re.compile(
    rb"From (?P<sender>.*?)\s*(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?\s+(?P<month>[A-Z][a-z]{2})\s+(?P<day>\d{1,2})\s+"
    rb"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?"
    rb"(?:\s+(?P<zone1>[+-]\d{4}|[A-Z]{1,5}))?\s+(?P<year>\d{4})(?:\s+(?P<zone2>[+-]\d{4}))?(?:\s.*)?\r?\n?$"
)
_QUOTED: Final = re.compile(rb">+From ")
_UNDECIDED: Final = re.compile(rb">*(?:F(?:r(?:o(?:m)?)?)?)?$")
_TO_QUOTE: Final = re.compile(rb">*From ")
_OURS: Final = {
    b"status": re.compile(rb"(?i)status:[ \t]*([ROND]*)[ \t]*\r?\n?$"),
    b"x-status": re.compile(rb"(?i)x-status:[ \t]*([AFDTRU]*)[ \t]*\r?\n?$"),
    b"x-keywords": re.compile(rb"(?i)x-keywords:([^\r\n]*)\r?\n?$"),
}
_LETTERS: Final = {b"A": "\\Answered", b"F": "\\Flagged", b"D": "\\Deleted", b"T": "\\Draft"}


class NotMbox(ValueError):
    """The file does not begin with a ``From `` line."""


def read_from_line(line: bytes) -> int | None:
    """The date of a ``From `` line, seconds since 1970; None if it is not one."""
    found = _FROM.match(line)
    if found is None:
        return None
    month = found["month"].decode("ascii").lower()
    if month not in _MONTHS:
        return None
    numbers = (int(found["year"]), _MONTHS.index(month) + 1, int(found["day"]), int(found["hour"]), int(found["minute"]))
    seconds = timegm((*numbers, int(found["second"] or 0), 0, 0, 0))
    zone = found["zone1"] or found["zone2"] or b""
    if zone[:1] in (b"+", b"-"):
        minutes = int(zone[1:3]) * 60 + int(zone[3:5])
        seconds -= 60 * (minutes if zone[:1] == b"+" else -minutes)
    return max(0, seconds)


@dataclass(frozen=True, slots=True)
class MboxMessage:
    """A message in a file: its octets lie at ``[start:stop)``."""

    path: Path
    start: int
    stop: int
    received: int
    end: int
    """Octets of the file from the ``From `` line to the next one's."""

    @property
    def name(self) -> str:
        return f"{self.path} at {self.start}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What Status, X-Status and X-Keywords say. Raises OSError."""
        flags: list[str] = []
        header, own = self._header()
        for line in (header[number] for number in sorted(own)):
            if found := _OURS[b"status"].match(line):
                flags += ["\\Seen"] if b"R" in found[1].upper() else []
            elif found := _OURS[b"x-status"].match(line):
                flags += [flag for letter, flag in _LETTERS.items() if letter in found[1].upper()]
            elif found := _OURS[b"x-keywords"].match(line):
                flags += found[1].decode("utf-8", "replace").split()
        return tuple(dict.fromkeys(flags))

    def octets(self) -> Iterator[bytes]:
        """The message itself: unquoted, without the file's own header fields, with CRLF. Raises OSError."""
        return to_crlf(self._content())

    def _content(self) -> Iterator[bytes]:
        header, own = self._header()
        at = self.start + sum(len(line) for line in header)
        for number, line in enumerate(header):
            if number not in own:
                yield line[1:] if _QUOTED.match(line) else line
        at_line_start = True
        for line in self._lines(at):
            yield line[1:] if at_line_start and _QUOTED.match(line) else line
            at_line_start = line.endswith(b"\n")

    def _lines(self, at: int) -> Iterator[bytes]:
        """The lines as they are in the file, pieces of longer ones, from offset *at*."""
        with self.path.open("rb") as file:
            file.seek(at)
            while at < self.stop and (line := file.readline(min(_LINE, self.stop - at))):
                at += len(line)
                yield line

    def _header(self) -> tuple[list[bytes], set[int]]:
        """The lines before the first empty one, and which of them are the file's own."""
        header: list[bytes] = []
        size = 0
        for line in self._lines(self.start):
            if line in (b"\n", b"\r\n") or size > _MAX_HEADER:
                break
            header.append(line)
            size += len(line)
        own: set[int] = set()
        for pattern in _OURS.values():
            places = [number for number, line in enumerate(header) if pattern.match(line)]
            own.update(places[-1:])
        return header, own


def messages(path: Path) -> Iterator[MboxMessage]:
    """The messages of one file, in order. Raises OSError, NotMbox."""
    with path.open("rb") as file:
        at = 0
        begun: tuple[int, int, int] | None = None  # offsets of the From_ line and behind it, date
        blank_before = True
        blank = 0
        at_line_start = True
        while line := file.readline(_LINE):
            received = None
            if at_line_start and blank_before and line.startswith(b"From "):
                received = read_from_line(line)
                if received is None and begun is None:
                    received = int(path.stat().st_mtime)
            if received is not None:
                if begun is not None:
                    yield MboxMessage(path, begun[1], max(begun[1], at - blank), begun[2], at - begun[0])
                begun = (at, at + len(line), received)
                blank_before, blank = False, 0
            elif begun is None:
                if line.strip():
                    raise NotMbox(f"{path} is not an mbox file: it does not begin with a From line")
            else:
                blank_before = at_line_start and line in (b"\n", b"\r\n")
                blank = len(line) if blank_before else 0
            at += len(line)
            at_line_start = line.endswith(b"\n")
        if begun is not None:
            yield MboxMessage(path, begun[1], max(begun[1], at - blank), begun[2], at - begun[0])


def mboxes(root: Path) -> list[tuple[str, Path]]:
    """Mailbox names and files below the folder *root*: ``A/B.mbox`` is ``A/B``. Raises OSError."""
    from twisted_mail.admin import folder_names

    found = []
    for path in sorted(root.rglob("*.mbox")):
        if path.is_file():
            levels = path.relative_to(root).with_suffix("").parts
            found.append(("/".join(folder_names.decode(level).replace("/", "_") for level in levels), path))
    return found


def write(
    put: Callable[[bytes], object], octets: Iterable[bytes], received: int, flags: tuple[str, ...], sender: str
) -> None:
    """Write one message: its ``From `` line, the message quoted, with the fields for its flags, and an empty line."""
    address = sender if sender and not re.search(r"[\s\x00-\x1f\x7f]", sender) else "MAILER-DAEMON"
    put(b"From %s %s\n" % (address.encode(), time.asctime(time.gmtime(received)).encode("ascii")))
    last = b""
    for chunk in _quoted(_with_status(to_lf(octets), flags)):
        put(chunk)
        last = chunk
    put(b"\n" if last.endswith(b"\n") or not last else b"\n\n")


def _with_status(chunks: Iterable[bytes], flags: tuple[str, ...]) -> Iterator[bytes]:
    """Puts the file's own fields at the end of the header."""
    held = b""
    source = iter(chunks)
    place = -1
    for chunk in source:
        held += chunk
        place = 0 if held.startswith(b"\n") else held.find(b"\n\n") + 1
        if place > 0 or held.startswith(b"\n") or len(held) > _MAX_HEADER:
            break
    else:
        if held and not held.startswith(b"\n") and place <= 0:
            held += b"" if held.endswith(b"\n") else b"\n"
            place = len(held)
    place = max(place, 0)
    header = held[:place]
    yield header + _status(flags, header) + held[place:]
    yield from source


def _status(flags: tuple[str, ...], header: bytes) -> bytes:
    keywords = [flag for flag in flags if not flag.startswith("\\")]
    letters = b"".join(letter for letter, flag in _LETTERS.items() if flag in flags)
    fields = b"Status: %s\n" % (b"RO" if "\\Seen" in flags else b"O")
    present = [line.partition(b":")[0].strip().lower() for line in header.split(b"\n")]
    # an empty field of ours protects the message's own from being taken for it
    if letters or b"x-status" in present:
        fields += b"X-Status: %s\n" % letters
    if keywords or b"x-keywords" in present:
        fields += b"X-Keywords: %s\n" % " ".join(keywords).encode()
    return fields


def _quoted(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """``>`` before each line that is ``From `` behind any number of ``>``."""
    held, at_line_start = b"", True
    for chunk in chunks:
        *whole, rest = (held + chunk).split(b"\n")
        out: list[bytes] = []
        for line in whole:
            if at_line_start and _TO_QUOTE.match(line):
                out.append(b">")
            out += (line, b"\n")
            at_line_start = True
        held = b""
        if at_line_start and _UNDECIDED.match(rest):
            held = rest
        elif rest:
            if at_line_start and _TO_QUOTE.match(rest):
                out.append(b">")
            out.append(rest)
            at_line_start = False
        if out:
            yield b"".join(out)
    if held:
        yield held
