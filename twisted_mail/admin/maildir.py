"""Maildirs: where folders and messages lie, what their names say (https://cr.yp.to/proto/maildir.html, Maildir++).

Folders are read in both layouts at once: ``.A.B`` beside ``cur`` (Maildir++) and ``A/B/cur`` (nested). INBOX is the
Maildir itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from twisted_mail.account.state import INBOX, SEPARATOR
from twisted_mail.admin import folder_names
from twisted_mail.admin.line_ends import to_crlf

__all__ = ["Folder", "MaildirMessage", "flags_of", "folders", "info_of", "keywords_of", "messages", "path_of"]

SYSTEM: Final[Mapping[str, str]] = {
    "S": "\\Seen",
    "R": "\\Answered",
    "F": "\\Flagged",
    "T": "\\Deleted",
    "D": "\\Draft",
    "P": "$Forwarded",
}
KEYWORDS_FILE: Final = "dovecot-keywords"
"""Lines ``0 $Label1``: which keyword the info letter ``a`` stands for, and so on to ``z``."""
MAX_KEYWORDS: Final = 26
_PARTS: Final = ("cur", "new", "tmp")
_INFO: Final = re.compile(r"[:;!]2,([A-Za-z]*)$")
_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a Maildir."""

    mailbox: str
    """The mailbox's name, levels parted by ``/``."""
    path: Path


@dataclass(frozen=True, slots=True)
class MaildirMessage:
    """A message's file. `received` is what INTERNALDATE becomes, seconds since 1970."""

    path: Path
    received: int
    size: int
    """Octets of the file."""
    flags: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def end(self) -> int:
        """How many octets of the source are done with this one, since the one before."""
        return self.size

    def octets(self) -> Iterator[bytes]:
        """The message with CRLF. Raises OSError."""
        return to_crlf(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def folders(root: Path) -> list[Folder]:
    """The folders of the Maildir *root*, INBOX first, then by name. Raises OSError."""
    found: list[Folder] = []
    if _is_maildir(root):
        found.append(Folder(INBOX, root))
    below: list[Folder] = []
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        if not entry.is_dir() or entry.name in _PARTS:
            continue
        path = Path(entry.path)
        if entry.name.startswith("."):
            if _is_maildir(path):
                below.append(Folder(_joined(entry.name[1:].split(".")), path))
        else:
            below += _nested(path, [entry.name])
    return found + sorted(below, key=lambda each: each.mailbox)


def _nested(path: Path, levels: list[str]) -> Iterator[Folder]:
    if _is_maildir(path):
        yield Folder(_joined(levels), path)
    for entry in sorted(os.scandir(path), key=lambda each: each.name):
        if entry.is_dir(follow_symlinks=False) and entry.name not in _PARTS and not entry.name.startswith("."):
            yield from _nested(Path(entry.path), [*levels, entry.name])


def _is_maildir(path: Path) -> bool:
    return (path / "cur").is_dir()


def _joined(levels: list[str]) -> str:
    readable = (os.fsencode(level).decode("utf-8", "replace") for level in levels)
    return SEPARATOR.join(folder_names.decode(level).replace(SEPARATOR, "_") for level in readable)


def path_of(root: Path, mailbox: str, layout: str) -> Path:
    """Where the folder of *mailbox* lies; *layout* is ``maildir++`` or ``nested``."""
    if mailbox == INBOX:
        return root
    levels = mailbox.split(SEPARATOR)
    if layout == "maildir++":
        return root / ("." + ".".join(folder_names.encode(level, also=".") for level in levels))
    return root.joinpath(*(_as_folder(level) for level in levels))


def _as_folder(level: str) -> str:
    if level in _PARTS or level.startswith("."):
        return folder_names.encode_character(level[0]) + folder_names.encode(level[1:])
    return folder_names.encode(level)


def keywords_of(folder: Path) -> dict[str, str]:
    """Info letter to keyword, as the folder's own file says."""
    found: dict[str, str] = {}
    try:
        lines = (folder / KEYWORDS_FILE).read_text("utf-8", "replace").splitlines()
    except OSError:
        return found
    for line in lines:
        number, _, keyword = line.partition(" ")
        if number.isdigit() and int(number) < MAX_KEYWORDS and keyword.strip():
            found[chr(ord("a") + int(number))] = keyword.strip()
    return found


def flags_of(name: str, keywords: Mapping[str, str]) -> tuple[str, ...]:
    """The flags that a file's name says; letters that nobody has given a meaning are passed over."""
    info = _INFO.search(name)
    letters = info[1] if info else ""
    return tuple(dict.fromkeys(flag for c in letters if (flag := SYSTEM.get(c) or keywords.get(c))))


def info_of(flags: tuple[str, ...], letters: Mapping[str, str]) -> str:
    """The end of a file's name for *flags*; *letters*: keyword to info letter."""
    system = {flag: letter for letter, flag in SYSTEM.items()}
    found = {letter for flag in flags if (letter := system.get(flag) or letters.get(flag))}
    return ":2," + "".join(sorted(found))


def messages(folder: Folder) -> list[MaildirMessage]:
    """The messages of one folder, oldest first.

    A message was received at the time that its name begins with, or when its file was last written, whichever is
    earlier: a copy of a Maildir may have lost the one, an APPEND of an old message has set the other. Raises OSError.
    """
    keywords = keywords_of(folder.path)
    found: list[MaildirMessage] = []
    for part in ("cur", "new"):
        try:
            entries = list(os.scandir(folder.path / part))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_file():
                continue
            status = entry.stat()
            named = re.match(r"(\d{9,11})\.", entry.name)
            received = max(0, int(status.st_mtime))
            if named:
                received = min(received, int(named[1]))
            found.append(MaildirMessage(Path(entry.path), received, status.st_size, flags_of(entry.name, keywords)))
    return sorted(found, key=lambda each: (each.received, each.path.name))
