"""Writing an account's messages to files, so that a run that was cut off can simply be done again.

A Maildir's files have names made from the message's own numbers: what is there already is not written again, only
renamed where flags have changed. An mbox file is written beside its place and then moved there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Final, Literal

from twisted_mail.account.messages import OCTET_COLUMNS
from twisted_mail.account.service import AccountService
from twisted_mail.account.state import INBOX, SEPARATOR, Mailbox
from twisted_mail.admin import folder_names, maildir, mbox
from twisted_mail.admin.line_ends import to_lf
from twisted_mail.services import Account
from twisted_mail.values import MessageKey

__all__ = ["Exporter", "Layout", "Report", "file_of"]

Layout = Literal["maildir++", "nested"]
_ROWS: Final = 100
"""Messages that are asked for at a time."""
_SPOOL: Final = 4 * 1024 * 1024
_RETURN_PATH: Final = re.compile(rb"(?im)^return-path:[ \t]*<([^<>\s]+)>")


@dataclass(slots=True)
class Report:
    """What a run did."""

    exported: int = 0
    present: int = 0
    """Messages that were there from an earlier run."""
    octets: int = 0
    mailboxes: dict[str, int] = field(default_factory=dict)
    """Messages by mailbox."""
    failed: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Line:
    """What the columns say of a message, taken down before anything is awaited."""

    key: MessageKey
    uid: int
    received: int
    size: int
    flags: tuple[str, ...]


def _lines(mailbox: Mailbox) -> list[_Line]:
    columns = mailbox.columns
    if columns is None:
        return []
    return [
        _Line(columns.key(slot), uid, columns.received[slot], columns.sizes[slot], tuple(columns.flags_of(slot)))
        for uid, slot in columns.iterate()
    ]


def file_of(root: Path, mailbox: str) -> Path:
    """The mbox file of a mailbox below *root*: ``A/B`` is ``A/B.mbox``."""
    levels = []
    for level in mailbox.split(SEPARATOR):
        name = folder_names.encode(level)
        levels.append(folder_names.encode_character(".") + name[1:] if name.startswith(".") else name)
    return root.joinpath(*levels[:-1], levels[-1] + ".mbox")


class Exporter:
    """One run from one account."""

    def __init__(
        self,
        accounts: AccountService,
        account: Account,
        *,
        advanced: Callable[[int], None] = lambda octets: None,
    ) -> None:
        """*advanced* is told how many octets of messages are done."""
        self._store = accounts.store
        self._account = account
        self._advanced = advanced
        self.report = Report()

    async def to_maildir(self, mailbox: Mailbox, root: Path, layout: Layout, *, crlf: bool = False) -> None:
        """Write *mailbox* into its folder of the Maildir *root*. *crlf*: with the octets as they are stored.

        Raises AccountError, StorageError, OSError.
        """
        await self._account.columns(mailbox)
        lines = _lines(mailbox)
        folder = maildir.path_of(root, mailbox.name, layout)
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        if layout == "maildir++" and mailbox.name != INBOX:
            (folder / "maildirfolder").touch()
        letters = _letters(folder, lines)
        there = {name.partition(":2,")[0]: name for name in os.listdir(folder / "cur")}
        self.report.mailboxes[mailbox.name] = 0
        missing: list[tuple[_Line, Path]] = []
        for line in lines:
            unique = f"{line.received}.V{mailbox.uid_validity}U{line.uid}.{line.key.id}"
            target = folder / "cur" / (unique + maildir.info_of(line.flags, letters))
            if unique not in there:
                missing.append((line, target))
                continue
            if there[unique] != target.name:
                (folder / "cur" / there[unique]).rename(target)
            self._count(mailbox, line, present=True)
        async for (line, target), cells in self._rows(missing):
            if cells is None:
                self._failed(mailbox, line)
                continue
            temporary = folder / "tmp" / target.name.partition(":2,")[0]
            with temporary.open("wb") as file:
                async for chunk in _as_lf(self._store.assemble(cells), crlf):
                    file.write(chunk)
            os.utime(temporary, (line.received, line.received))
            temporary.rename(target)
            self._count(mailbox, line)

    async def to_mbox(self, mailbox: Mailbox, path: Path) -> None:
        """Write *mailbox* into the file *path*, in place of what is there. Raises AccountError, StorageError, OSError."""
        await self._account.columns(mailbox)
        lines = _lines(mailbox)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        self.report.mailboxes[mailbox.name] = 0
        with temporary.open("wb") as file:
            async for (line, _), cells in self._rows([(line, path) for line in lines]):
                if cells is None:
                    self._failed(mailbox, line)
                    continue
                sender = _RETURN_PATH.search(cells[0])
                address = sender[1].decode("utf-8", "replace") if sender else ""
                with SpooledTemporaryFile(_SPOOL) as spool:
                    async for chunk in self._store.assemble(cells):
                        spool.write(chunk)
                    spool.seek(0)
                    chunks: Iterator[bytes] = iter(lambda: spool.read(65536), b"")  # used up at once
                    mbox.write(file.write, chunks, line.received, line.flags, address)
                self._count(mailbox, line)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    async def _rows(
        self, wanted: list[tuple[_Line, Path]]
    ) -> AsyncIterator[tuple[tuple[_Line, Path], tuple[bytes, ...] | None]]:
        for start in range(0, len(wanted), _ROWS):
            part = wanted[start : start + _ROWS]
            at = 0
            async for batch in self._account.rows([line.key for line, _ in part], OCTET_COLUMNS):
                for cells in batch:
                    yield part[at], cells
                    at += 1

    def _count(self, mailbox: Mailbox, line: _Line, *, present: bool = False) -> None:
        if present:
            self.report.present += 1
        else:
            self.report.exported += 1
            self.report.octets += line.size
        self.report.mailboxes[mailbox.name] += 1
        self._advanced(line.size)

    def _failed(self, mailbox: Mailbox, line: _Line) -> None:
        self.report.failed.append({"source": f"{mailbox.name} UID {line.uid}", "reason": "the message's row is gone"})
        self._advanced(line.size)


def _letters(folder: Path, lines: Iterable[_Line]) -> dict[str, str]:
    """Keyword to info letter: those that the folder's file has, and new ones while letters last; the file is written."""
    letters = {keyword: letter for letter, keyword in maildir.keywords_of(folder).items()}
    known = set(maildir.SYSTEM.values())
    before = len(letters)
    free = [chr(ord("a") + n) for n in range(maildir.MAX_KEYWORDS) if chr(ord("a") + n) not in letters.values()]
    for line in lines:
        for flag in line.flags:
            if flag not in known and flag not in letters and free:
                letters[flag] = free.pop(0)
    if len(letters) != before:
        text = "".join(f"{ord(letter) - ord('a')} {keyword}\n" for keyword, letter in letters.items())
        temporary = folder / (maildir.KEYWORDS_FILE + ".part")
        temporary.write_text(text, "utf-8")
        temporary.replace(folder / maildir.KEYWORDS_FILE)
    return letters


async def _as_lf(chunks: AsyncIterator[bytes], crlf: bool) -> AsyncIterator[bytes]:
    held = b""
    async for chunk in chunks:
        if crlf:
            yield chunk
            continue
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        for piece in to_lf((chunk[: len(chunk) - len(held)],)):
            yield piece
    if held:
        yield held


def free_bytes(path: Path) -> int:
    """Octets free where *path* lies, or will."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
