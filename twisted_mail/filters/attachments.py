"""Dangerous attachments by rule: programs and scripts, by name or by their first octets, inside archives too (`archives`).

A message is read while it comes, in one pass; of attachments at most 4 MiB together are kept until their end (archives need
it), of larger ones the last 128 KiB. What is seen is what MIME calls an attachment, names of all parts, and what is
uuencoded in text. Not seen: the insides of rar, 7z and disc images, macros of old Office files (``.doc``, ``.xls``), and
winmail.dat.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from twisted_mail.filters.answers import clean
from twisted_mail.filters.archives import Budget, walk
from twisted_mail.filters.values import Action, Answer, Arrived, Mail, Verdict
from twisted_mail.mime import Limits, MessageParser, Part, TransferDecoder, UnknownEncoding

__all__ = ["FORBIDDEN", "MACROS", "AttachmentRules", "Attachments", "extensions_of"]

FORBIDDEN: Final = frozenset(
    (
        # What Gmail refuses (support.google.com/mail/answer/6590), …
        "ade adp apk appx appxbundle bat cab chm cmd com cpl diagcab diagcfg diagpkg dll dmg ex ex_ exe hta img ins iso isp"
        " jar jnlp js jse lib lnk mde mjs msc msi msix msixbundle msp mst nsh pif ps1 scr sct shb sys vb vbe vbs vhd vxd wsc wsf"
        " wsh xll"
        # … of what Outlook blocks what runs or installs something ("Blocked attachments in Outlook", support.microsoft.com), …
        " appcontent-ms appref-ms application gadget hlp hpj inf mcf msh msh1 msh2 ps1xml ps2 ps2xml psc1 psc2 psd1 psdm1 pyz pyzw"
        " reg scf settingcontent-ms shs theme vbp vhdx website ws xbap xnk"
        # … and what carries either.
        " library-ms one onepkg searchconnector-ms search-ms slk udl wsb"
    ).split()
)
"""Extensions of files that do something when they are opened, lower case."""
MACROS: Final = frozenset("docm dotm xlsm xltm xlam xlsb pptm potm ppam ppsm sldm".split())
"""Office documents with macros; such a document is also known by what is in it."""

_KEPT: Final = 4 * 1024 * 1024
_TAIL: Final = 128 * 1024
_HEAD: Final = 33 * 1024
"""The name of an ISO 9660 image stands at 32,769 (ECMA-119 section 8.1)."""
_UUENCODED: Final = re.compile(rb"(?:^|\n)begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,255})")
_SHOWN: Final = 5
_PACKED: Final = frozenset(("gz", "bz2", "xz", "zst", "lzma", "z", "br", "lz", "lz4", "7z", "rar", "zip"))
_HEADER: Final = Limits().header_bytes
_SMALL: Final = 65_536
_ENOUGH: Final = 100
"""Findings, after which nothing more is looked for."""
_SIGNS: Final = (b"name", b"disposition", b"application/", b"base64", b"message/", b"uue")


def _everything() -> frozenset[str]:
    return FORBIDDEN | MACROS


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentRules:
    """What an operator says about attachments."""

    forbidden: frozenset[str] = field(default_factory=_everything)
    """Extensions, in lower case and without the dot."""
    action: Action = Action.REJECT
    """What becomes of mail with one of these, or with a program under another name."""
    encrypted: Action = Action.MARK
    """Of archives with a password, whose members have harmless names."""
    bombs: Action = Action.REJECT
    """Of archives that are made to exhaust who unpacks them, and messages of too many parts."""
    parts: int = 10_000


class Attachments:
    """A `Stage` that reads along. Its own work is all it waits for; it is never down."""

    name = "attachments"
    needs: frozenset[str] = frozenset()
    outbound = True

    def __init__(self, rules: AttachmentRules | None = None) -> None:
        self.rules = rules or AttachmentRules()

    def read(self, mail: Mail) -> _Reader:
        return _Reader(self.rules)


@dataclass(frozen=True, slots=True)
class _Finding:
    action: Action
    why: str
    name: str


class _File:
    """One attachment while it is read."""

    def __init__(self, part: Part, room: int) -> None:
        self.part = part
        self._room = room
        self._kept: list[bytes] = []
        self.size = 0
        self.kept_bytes = 0
        self._head = b""
        try:
            self._decoder: TransferDecoder | None = TransferDecoder(part.encoding)
        except UnknownEncoding:
            self._decoder = None

    def feed(self, octets: bytes) -> None:
        self._take(octets if self._decoder is None else self._decoder.feed(octets))

    def _take(self, octets: bytes) -> None:
        if not octets:
            return
        if len(self._head) < _HEAD:
            self._head += octets[: _HEAD - len(self._head)]
        self.size += len(octets)
        self._kept.append(octets)
        self.kept_bytes += len(octets)
        if self.kept_bytes > max(self._room, 2 * _TAIL):
            # Only its end from here on; cut now and then, not at every piece.
            self._room = 0
            tail = b"".join(self._kept)[-_TAIL:]
            self._kept, self.kept_bytes = [tail], len(tail)

    def close(self) -> tuple[bytes, bytes]:
        """(its beginning, its end or all of it)."""
        if self._decoder is not None:
            self._take(self._decoder.close())
        return self._head, b"".join(self._kept)


class _Reader:
    """One message."""

    def __init__(self, rules: AttachmentRules) -> None:
        self._rules = rules
        self._parser: MessageParser | None = None
        self._early: list[bytes] | None = []
        """All so far: small messages without any sign of an attachment are never parsed."""
        self._size = 0
        self._pending = b""
        self._at = 0
        """Offset in the message of the first pending octet."""
        self._file: _File | None = None
        self._room = _KEPT
        self._budget = Budget()
        self._found: list[_Finding] = []
        self._last = b""
        """The end of the last piece of text."""

    async def write(self, chunk: bytes) -> None:
        if self._early is None:
            self._read(chunk)
        else:
            self._early.append(chunk)
            self._size += len(chunk)
            if self._size > _SMALL:
                self._begin(b"".join(self._early))

    async def finish(self, message: Arrived) -> Verdict:
        if self._early is not None:
            octets = b"".join(self._early)
            if _is_harmless(octets, self._rules.parts):
                self._text(octets)
                return self._verdict()
            self._begin(octets)
        parser = self._parser
        if parser is not None and len(self._found) < _ENOUGH:
            parsed = parser.close()
            self._advance(parser)
            self._close()
            self._tree(parsed.root)
        return self._verdict()

    async def abort(self) -> None:
        self._parser = self._early = self._file = None
        self._pending = b""

    # --- reading

    def _begin(self, octets: bytes) -> None:
        self._early = None
        self._parser = MessageParser(Limits(text_bytes=0, parts=self._rules.parts))
        self._read(octets)

    def _read(self, chunk: bytes) -> None:
        if self._parser is not None and len(self._found) < _ENOUGH:
            self._parser.feed(chunk)
            self._pending += chunk
            self._advance(self._parser)

    def _tree(self, root: Part) -> None:
        count = 0
        for part in _parts(root):
            count += 1
            if part.body - part.start > _HEADER:
                self._add(self._rules.bombs, "a header that nobody reads to its end", "")
            if part.filename:
                self._name(part.filename)
        if count >= self._rules.parts:
            self._add(self._rules.bombs, f"the message has {count} parts or more", "")

    def _advance(self, parser: MessageParser) -> None:
        """Hand out what is decided of the pending octets."""
        for offset, part in parser.take_cuts():
            self._hand_out(offset)
            self._close()
            if part is not None:
                self._file = _File(part, self._room)
        self._hand_out(parser.decided)

    def _hand_out(self, end: int) -> None:
        piece = self._pending[: end - self._at]
        self._pending = self._pending[len(piece) :]
        self._at += len(piece)
        if self._file is None:
            self._text(piece)
        else:
            self._file.feed(piece)

    def _text(self, piece: bytes) -> None:
        """Programs may stand in text, uuencoded."""
        piece = self._last + piece
        if b"begin" in piece:
            for found in _UUENCODED.finditer(piece):
                self._name(found[1].decode("utf-8", "replace"))
        self._last = piece[-300:] if b"\n" not in piece[-300:] else piece[piece.rfind(b"\n", -300) :]

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        head, octets = file.close()
        name = file.part.filename or file.part.content_type
        if file.size == len(octets):
            self._room = max(0, self._room - len(octets))
        self._content(head, name)
        for inside in walk(octets, file.size, self._budget, head=head):
            path = f"{name} → {inside.name}"
            match inside.kind:
                case "member":
                    self._name(inside.name, path)
                    self._content(inside.head, path)
                case "encrypted":
                    self._add(self._rules.encrypted, "an archive with a password", path)
                case "bomb":
                    self._add(self._rules.bombs, "an archive that cannot be unpacked safely", path)

    # --- judging

    def _name(self, name: str, path: str = "") -> None:
        extensions = extensions_of(name)
        if extensions & self._rules.forbidden:
            self._add(self._rules.action, f"a .{min(extensions & self._rules.forbidden)} file", path or name)
        elif "docm" in self._rules.forbidden and name.lower().endswith("vbaproject.bin"):
            self._add(self._rules.action, "a document with macros", path or name)

    def _content(self, head: bytes, path: str) -> None:
        kind = _kind_of(head)
        if kind and kind[1] in self._rules.forbidden:
            self._add(self._rules.action, kind[0], path)

    def _add(self, action: Action, why: str, name: str) -> None:
        finding = _Finding(action, why, clean(name, 100))
        if len(self._found) < _ENOUGH and finding not in self._found:
            self._found.append(finding)

    def _verdict(self) -> Verdict:
        if not self._found:
            return Verdict()
        worst = max(self._found, key=lambda each: each.action)
        answer = None
        if worst.action is Action.REJECT:
            answer = Answer(
                550, "5.7.1", clean(f"Attachments of this kind are not accepted here: {worst.why} ({worst.name})")
            )
        elif worst.action is Action.DEFER:
            answer = Answer(451, "4.7.1", "Attachments of this kind are not accepted now")
        shown = [f"{each.why} ({each.name})" if each.name else each.why for each in self._found[:_SHOWN]]
        return Verdict(
            action=worst.action,
            answer=answer,
            reason=f"dangerous attachments: {', '.join(shown)}"
            if worst.action > Action.MARK
            else f"attached: {', '.join(shown)}",
            facts={"attachment": worst.name, "why": worst.why},
        )


def _is_harmless(octets: bytes, most_parts: int) -> bool:
    """Whether a small message shows no sign of an attachment: no name, nothing encoded, nothing that is an application's."""
    text = octets.lower()
    return not any(sign in text for sign in _SIGNS) and text.count(b"\n--") < most_parts - 2


def _parts(root: Part) -> Iterator[Part]:
    """All parts, whatever their depth."""
    left = [root]
    while left:
        part = left.pop()
        yield part
        left += part.parts
        if part.message is not None:
            left.append(part.message)


def extensions_of(name: str) -> frozenset[str]:
    """What comes after the last dot of a file's name, as those that open files see it: white space and dots at the end do
    not count, nor do characters that turn the direction of writing, nor what follows a colon (a stream's name in NTFS). Of
    ``a.exe.gz`` it is ``gz`` and ``exe``."""
    text = unicodedata.normalize("NFKC", name[-512:])
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc"))
    text = re.split(r"[\\/]", text)[-1].lower()
    found = set()
    for each in {text, text.partition(":")[0], text.partition("?")[0]}:
        stem, dot, extension = each.strip(" .\"'").rpartition(".")
        if dot and (stem or extension):
            found.add(extension.strip())
            if extension.strip() in _PACKED:
                found |= extensions_of(stem)
    return frozenset(found)


def _kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first octets, and the extension that stands for it, if it is something that runs."""
    if head.startswith(b"MZ") and len(head) >= 64:
        at = int.from_bytes(head[60:64], "little")
        if head[at : at + 2] in (b"PE", b"NE", b"LE", b"LX") or b"\0" in head[2:64]:
            return "a program for Windows", "exe"
    for magic, why, extension in (
        (b"\x7fELF", "a program", "exe"),
        (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0", "a shortcut", "lnk"),
        (b"ITSF\x03\0\0\0", "a compiled help file", "chm"),
        (b"\xcf\xfa\xed\xfe", "a program for macOS", "exe"),
        (b"\xce\xfa\xed\xfe", "a program for macOS", "exe"),
        (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "a OneNote section", "one"),
    ):
        if head.startswith(magic):
            return why, extension
    if head[32_769:32_774] == b"CD001":
        return "a disc image", "iso"
    return None
